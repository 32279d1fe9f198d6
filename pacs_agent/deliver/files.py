"""C-STORE of files as they are: for `pacs-agent send` and the demo's modality.

Paths enter; what became of each file leaves. Never changes a file, never knows the record.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pynetdicom.association import Association

from pacs_agent.deliver.association import NOT_ACCEPTED, accepts_nothing, scu, why_not_established
from pacs_agent.deliver.sender import STORED, UNREADABLE
from pacs_agent.errors import DeliveryError, PacsAgentError

_PEER = re.compile(r"^(?P<ae>[^@\\]{1,16})@(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:\[\]]+):(?P<port>\d{1,5})$")
MAX_CONTEXTS = 128  # PS3.8 9.3.2.2: odd identifiers of one byte
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A storage SCP."""

    ae_title: str
    host: str
    port: int


def parse_peer(text: str) -> Peer:
    """Read `AE@HOST:PORT`.

    Raises:
        PacsAgentError: it is not of that form.
    """
    match = _PEER.match(text)
    if not match or not 0 < int(match["port"]) < 65536:
        raise PacsAgentError(f"{text!r} is not AE@HOST:PORT")
    return Peer(match["ae"], match["host"].strip("[]"), int(match["port"]))


def send_files(paths: Sequence[Path], peer: Peer, calling_ae_title: str) -> Iterator[tuple[Path, int, str | None]]:
    """Send each file, each in its own transfer syntax; one association takes as many kinds as it can.

    Yields:
        The file, how many there are, and None or why it was not stored.

    Raises:
        PacsAgentError: a path does not exist.
        DeliveryError: the peer cannot be reached, or rejects the first association.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise PacsAgentError(f"{path}: there is no such file or folder")
        files += sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    kinds: dict[Path, tuple[str, str]] = {}
    for file in files:
        try:
            meta = dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID"]).file_meta
            kinds[file] = (str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
        except UNREADABLE:
            yield file, len(files), "not a DICOM file"
    wanted = sorted(set(kinds.values()))
    for start in range(0, len(wanted), MAX_CONTEXTS):
        some = wanted[start : start + MAX_CONTEXTS]
        try:
            assoc = _associate(peer, calling_ae_title, some)
        except DeliveryError as error:
            if not start:
                raise
            for file in (each for each, kind in kinds.items() if kind in some):
                yield file, len(files), str(error)
            continue
        otherwise = "not sent: the association has ended" if assoc.is_established else NOT_ACCEPTED
        try:
            for file in (each for each, kind in kinds.items() if kind in some):
                yield file, len(files), _send_one(assoc, file) if assoc.is_established else otherwise
        finally:
            if assoc.is_established:
                assoc.release()


def _associate(peer: Peer, calling_ae_title: str, kinds: Sequence[tuple[str, str]]) -> Association:
    """An association; one that is not established accepts none of the kinds."""
    ae = scu(calling_ae_title, TIMEOUT_S)
    for sop_class_uid, transfer_syntax_uid in kinds:
        ae.add_requested_context(sop_class_uid, transfer_syntax_uid)
    try:
        assoc = ae.associate(peer.host, peer.port, ae_title=peer.ae_title)
        why = None if assoc.is_established or accepts_nothing(assoc) else why_not_established(assoc)
    except OSError as error:  # the host's name is not known
        why = error.strerror or str(error)
    if why:
        raise DeliveryError(f"{peer.ae_title}@{peer.host}:{peer.port}: {why}")
    return assoc


def _send_one(assoc: Association, file: Path) -> str | None:
    try:
        answer = assoc.send_c_store(dcmread(file))
    except (*UNREADABLE, RuntimeError) as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    status = answer.get("Status")
    if status is None:
        assoc.abort()  # it has ended; pynetdicom may not have noticed yet
        return "the association ended without an answer"
    comment = str(answer.get("ErrorComment", ""))
    return None if status in STORED else f"status {status:04X} {comment}".strip()
