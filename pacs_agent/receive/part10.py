"""The Part 10 file of an instance: what stands before its data set, written and read. PS3.10 7.1

Enters: header facts, or a file. Leaves: bytes. Never touches a data set.
"""

from dataclasses import dataclass
from pathlib import Path

from pydicom.filereader import read_file_meta_info

from pacs_agent.errors import NotUnderstoodError
from pacs_agent.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_agent.study.instance import Instance, is_valid_uid

_VERSION = b"\x02\x00\x01\x00OB\0\0\x02\0\0\0\x00\x01"  # (0002,0001), the one element of a long form


def file_head(facts: Instance, calling_ae_title: str) -> bytes:
    """Preamble, prefix and group 0002, byte for byte as pydicom writes them, in a fiftieth of its time."""
    group = _VERSION + b"".join(
        _element(number, vr, value)
        for number, vr, value in (
            (0x02, b"UI", facts.sop_class_uid),
            (0x03, b"UI", facts.sop_instance_uid),
            (0x10, b"UI", facts.transfer_syntax_uid),
            (0x12, b"UI", IMPLEMENTATION_CLASS_UID),
            (0x13, b"SH", IMPLEMENTATION_VERSION_NAME),
            # Who sent it; the row is rebuilt from this if it was lost.
            (0x17, b"AE", calling_ae_title),
        )
    )
    return b"\0" * 128 + b"DICM\x02\x00\x00\x00UL\x04\x00" + len(group).to_bytes(4, "little") + group


def _element(number: int, vr: bytes, text: str) -> bytes:
    """One element of group 0002, explicit VR little endian, of even length. PS3.5 6.2, 7.1.2"""
    value = text.encode("iso8859-1", "replace")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return b"\x02\x00" + number.to_bytes(2, "little") + vr + len(value).to_bytes(2, "little") + value


@dataclass(frozen=True, slots=True)
class Part10:
    """A file of the inbox: how and by whom it was sent, and the encoded data set."""

    transfer_syntax_uid: str
    sending_ae_title: str
    encoded: memoryview


def read_part10(path: Path) -> Part10:
    """A file in the inbox.

    Raises:
        NotUnderstoodError: it is not a Part 10 file, or no longer there.
    """
    try:
        meta = read_file_meta_info(path)
        # The group length element, then as many bytes as that says.
        offset = 128 + 4 + 12 + int(meta.FileMetaInformationGroupLength)
        transfer_syntax_uid = str(meta.TransferSyntaxUID)
        if not is_valid_uid(transfer_syntax_uid):
            raise ValueError("the transfer syntax is no UID")
        return Part10(
            transfer_syntax_uid,
            str(meta.get("SendingApplicationEntityTitle") or ""),
            memoryview(path.read_bytes())[offset:],
        )
    except Exception as error:
        raise NotUnderstoodError(f"not a Part 10 file: {type(error).__name__}") from error
