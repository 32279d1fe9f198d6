"""Changes of bytes by chance, and the DICOM messages that they are made to: of `fuzz.py` and `fuzz_socket.py`."""

import random
import struct
from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

TOKENS = (
    *(b"\0", b"\n", b"\r\n2026-01-01T00:00:00Z [info] forged", b"\x1b[2J", b"\x9b1m", b"\xff" * 4, b"\\" * 40),
    *(b"../../etc/passwd", b"'; DROP TABLE study; --", b'"><script>alert(1)</script>', b"%s%n", b"=1+1"),
    *(b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"),
    *(b"SQ\0\0\xff\xff\xff\xff", b"\xe2\x80\xae"),
    *(b"\x1b$B", b"ISO 2022 IR 87", b"9" * 300, b"-1", b"1e999", b"\xc3\x28", b"\xed\xa0\x80"),
)  # fmt: skip
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32_767, 65_535, 65_536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
CR, VERIFICATION, COMMITMENT = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.1", "1.2.840.10008.1.20.1"


def mutated(chance: random.Random, content: bytes, most: int = 6) -> bytes:
    """*content* changed in up to *most* places."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, most)):
        at, kind = chance.randrange(len(changed) + 1), chance.randrange(9)
        length = chance.choice((1, 2, 4, 8, chance.randrange(64)))
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at : at + 1] = bytes((chance.randrange(256),))
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = chance.randbytes(length)
        elif kind == 4:
            changed[at:at] = changed[at : at + length] * chance.randrange(1, 20)
        elif kind == 5:
            del changed[at:]
        elif kind == 6:
            token = chance.choice(TOKENS)
            changed[at : at + chance.choice((0, len(token)))] = token
        else:
            size, order = chance.choice((1, 2, 4)), chance.choice(("little", "big"))
            number = chance.choice(NUMBERS) & ((1 << 8 * size) - 1)
            changed[at : at + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
    return bytes(changed)


def encode(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The data set without group 0002."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    write_dataset(buffer, ds)
    return bytes(buffer.getvalue())


def command_set(sop_instance_uid: str, sop_class_uid: str = CR, field: int = 0x0001, message_id: int = 1) -> bytes:
    """The command set of a C-STORE-RQ, or of another request with a data set. PS3.7 9.3.1.1"""
    values = [(0x0002, uid(sop_class_uid)), (0x0100, word(field)), (0x0110, word(message_id)), (0x0700, word(0))]
    values += [(0x0800, word(1)), (0x1000, uid(sop_instance_uid))]
    body = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in values)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def word(number: int) -> bytes:
    return number.to_bytes(2, "little")


def pdu(kind: int, body: bytes) -> bytes:
    """PS3.8 9.3.1"""
    return struct.pack(">BBL", kind, 0, len(body)) + body


def pdv(context_id: int, control: int, content: bytes) -> bytes:
    """Control: 1 of a command, 2 the last fragment. PS3.8 9.3.5.1, E.2"""
    return struct.pack(">LBB", len(content) + 2, context_id, control) + content


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def associate_rq(
    calling: bytes, called: bytes = b"PACS_AGENT", syntaxes: Sequence[str] = (ExplicitVRLittleEndian,)
) -> bytes:
    """An A-ASSOCIATE-RQ of CR in each syntax, Verification and Storage Commitment. PS3.8 9.3.2"""
    contexts = [(CR, syntax) for syntax in syntaxes]
    contexts += [(VERIFICATION, ImplicitVRLittleEndian), (COMMITMENT, ImplicitVRLittleEndian)]
    offered = b"".join(
        item(0x20, bytes((2 * number + 1, 0, 0, 0)) + item(0x30, abstract.encode()) + item(0x40, syntax.encode()))
        for number, (abstract, syntax) in enumerate(contexts)
    )
    user = item(0x50, item(0x51, struct.pack(">L", 16_384)) + item(0x52, b"1.2.3.4") + item(0x55, b"FUZZ"))
    titles = called.ljust(16)[:16] + calling.ljust(16)[:16]
    return pdu(1, b"\0\1\0\0" + titles + b"\0" * 32 + item(0x10, b"1.2.840.10008.3.1.1.1") + offered + user)


def store(content: bytes, command: bytes, context_id: int = 1, fragment: int = 16_000) -> list[bytes]:
    """The PDUs of a C-STORE-RQ."""
    parts = [content[at : at + fragment] for at in range(0, len(content), fragment)] or [b""]
    last = len(parts) - 1
    return [pdu(4, pdv(context_id, 3, command))] + [
        pdu(4, pdv(context_id, 2 if number == last else 0, part)) for number, part in enumerate(parts)
    ]
