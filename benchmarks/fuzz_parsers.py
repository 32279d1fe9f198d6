"""Every parser that meets bytes of others, fed with changed ones in this process; decoders in one of their own.

A case is made of the seed, the parser's name and a number alone, so that `fuzz.py --only NAME --case N` repeats it.
"""

import io
import multiprocessing
import random
import resource
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
from mutate import CR, command_set, encode, mutated
from PIL import Image
from pydicom import uid
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pynetdicom.dimse_primitives import C_STORE
from radiographs import cr

from pacs_agent.analyse.codestream import read_jpeg_2000_header, read_jpeg_header, rle_segments
from pacs_agent.analyse.pixels import read_picture
from pacs_agent.errors import NotUnderstoodError, PixelsError
from pacs_agent.logs import configure
from pacs_agent.printable import printable
from pacs_agent.receive.command import read_store_request, write_store_response
from pacs_agent.receive.dataset import read_kept_header, read_received
from pacs_agent.receive.part10 import file_head, read_part10
from pacs_agent.study.bodypart import BODY_PARTS, map_body_part
from pacs_agent.study.eligibility import EligibilityRules, assess
from pacs_agent.study.instance import Instance

NATIVE = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian)
SYNTAXES = (*NATIVE, uid.DeflatedExplicitVRLittleEndian)
COMPRESSED = (uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1)
LONGEST_S = 20.0  # of one case; beyond it a parser hangs
MEMORY_BYTES = 4 << 30  # what a decoder may take, as the analysis process has a limit


@dataclass
class Tally:
    """What became of a parser's cases."""

    cases: int = 0
    refused: int = 0
    died: int = 0
    slowest_s: float = 0.0
    broken: list[str] = field(default_factory=list)


def command_sets(chance: random.Random) -> bool:
    """A request that is read has what a request must have, and its response can be written."""
    request = read_store_request(mutated(chance, command_set("1.2.3.4.5")))
    if request is None:
        return False
    response = C_STORE()
    response.MessageIDBeingRespondedTo, response.Status = request.MessageID, 0
    response.AffectedSOPClassUID, response.AffectedSOPInstanceUID = (
        request.AffectedSOPClassUID,
        request.AffectedSOPInstanceUID,
    )
    assert write_store_response(response)
    return True


def data_sets(chance: random.Random) -> bool:
    """A data set is read, or refused in one way; its UIDs are UIDs."""
    syntax = chance.choice(SYNTAXES)
    content = mutated(chance, _encoded(str(syntax), chance.randrange(3)))
    try:
        facts = read_received(memoryview(content), syntax, 1 << 22).facts
    except NotUnderstoodError:
        return False
    assert facts.study_instance_uid.replace(".", "").isdigit()
    return True


def kept_files(chance: random.Random) -> bool:
    """A spoilt file in the inbox is refused in one way."""
    syntax = chance.choice(SYNTAXES)
    content = _encoded(str(syntax), chance.randrange(3))
    head = file_head(Instance("1.2.3", CR, "1.2.4", "1.2.5", str(syntax)), "XR1")
    _WORK.write_bytes(mutated(chance, head + content))
    try:
        kept = read_part10(_WORK)
        read_kept_header(kept.encoded, kept.transfer_syntax_uid)
    except NotUnderstoodError:
        return False
    return True


def headers(chance: random.Random) -> bool:
    """Any header gives a body part, a side and a verdict, or a reason; and what is told of it is one line."""
    ds = Dataset()
    for keyword in _TEXTS:
        if chance.random() < 0.5:
            words = (chance.choice(_WORDS) for _ in range(chance.randrange(4)))
            text = mutated(chance, chance.choice((b" ", b"/", b"\\")).join(words), 3)
            ds[keyword] = _raw(keyword, text)
    facts = Instance.from_dataset(ds, "", True)
    mapping = map_body_part(facts, extended=chance.random() < 0.5)
    assert mapping.body_part in (None, *BODY_PARTS)
    assert mapping.body_part or mapping.reason
    assess(facts, EligibilityRules(min_age_years=18, max_study_age_days=7), date(2026, 1, 5))
    assert Instance.from_json(facts.to_json()) == facts
    assert len(printable(str(mapping.reason)).splitlines()) <= 1
    return mapping.body_part is not None


def codestreams(chance: random.Random) -> bool:
    """A compressed frame's header is read or refused in one way."""
    syntax = chance.choice(COMPRESSED)
    frame = mutated(chance, _frame(str(syntax)))
    try:
        if syntax == uid.RLELossless:
            rle_segments(frame, 2)
        elif syntax == uid.JPEG2000Lossless:
            read_jpeg_2000_header(frame)
        else:
            read_jpeg_header(frame)
    except PixelsError:
        return False
    return True


def pictures(chance: random.Random) -> bool:
    """A file is a picture, or there is one line that says why not; whatever the decoder thinks of it."""
    syntax = chance.choice((*NATIVE, *COMPRESSED))
    if syntax in COMPRESSED and chance.random() < 0.7:
        content = _file(str(syntax), mutated(chance, _frame(str(syntax))))
    else:
        content = mutated(chance, _file(str(syntax), None))
    _WORK.write_bytes(content)
    try:
        picture = read_picture(_WORK, max_pixels=1 << 20, longest_side=chance.choice((None, 32)))
    except PixelsError as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError("a reason of several lines") from error
        return False
    assert picture.dtype == np.uint8
    assert picture.size <= 1 << 20
    return True


PARSERS: dict[str, tuple[Callable[[random.Random], bool], float]] = {
    "command sets": (command_sets, 0.24),
    "data sets": (data_sets, 0.28),
    "kept files": (kept_files, 0.08),
    "headers": (headers, 0.12),
    "codestreams": (codestreams, 0.2),
    "pictures": (pictures, 0.08),
}
"""Each with its share of the cases."""

_WORK = Path(tempfile.gettempdir()) / "fuzz-case"
_TEXTS = (
    *("BodyPartExamined", "SeriesDescription", "StudyDescription", "ProtocolName", "ImageLaterality", "Laterality"),
    *("PatientAge", "StudyDate", "PatientBirthDate", "Modality", "ImageType", "Rows", "NumberOfFrames", "ViewPosition"),
)
_WORDS = (
    *(b"HAND", b"wrist", b"Humerus", b"R", b"left", b"li", b"b/l", b"3 views", b"Sch\x81lter", b"\xd0\xba\xd0\xb8"),
    *(b"045Y", b"20260101", b"CR", b"ORIGINAL", b"99999", b"XR", b"UP_EXM", b"2+V", b"O\x92Neil", b"(a+)+$"),
)


def _raw(keyword: str, value: bytes) -> RawDataElement:
    tag = Tag(keyword)
    return RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)


@cache
def _encoded(syntax: str, kind: int) -> bytes:
    """An instance with pixels, one with sequences, one with sequences of undefined length."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "85562004", "SCT", "Hand"
    request = Dataset()
    request.RequestedProcedureDescription, request.RequestedProcedureCodeSequence = "hand", [code]
    names = dict(
        zip(("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"), ("1.2.3", "1.2.4", "1.2.5"), strict=True)
    )
    ds = cr(side=8, AnatomicRegionSequence=[code], RequestAttributesSequence=[request], **names)
    if kind:
        del ds.PixelData
    for element in ds:
        if element.VR == "SQ":
            element.is_undefined_length = kind == 2
    content = encode(ds, uid.ExplicitVRLittleEndian if syntax not in NATIVE else syntax)
    if syntax != uid.DeflatedExplicitVRLittleEndian:
        return content
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


@cache
def _pixels() -> np.ndarray:
    return np.frombuffer(cr(side=64).PixelData, "<u2").reshape(64, 64)


@cache
def _frame(syntax: str) -> bytes:
    """One compressed frame of 64 × 64."""
    small = (_pixels() >> 4).astype(np.uint8)
    if syntax == uid.JPEGBaseline8Bit:
        out = io.BytesIO()
        Image.fromarray(small).save(out, "JPEG")
        return out.getvalue()
    if syntax == uid.JPEGLosslessSV1:
        return bytes(imagecodecs.ljpeg_encode(_pixels(), bitspersample=12))
    ds = cr(side=64)
    ds.compress(uid.UID(syntax), generate_instance_uid=False, encoding_plugin="pydicom" if "1.2.5" in syntax else "")
    return bytes(ds.PixelData)[16:]


def _file(syntax: str, frame: bytes | None) -> bytes:
    """A Part 10 file, of a compressed syntax with *frame* or the good one."""
    ds: FileDataset = cr(side=64)
    if syntax in COMPRESSED:
        if syntax == uid.JPEGBaseline8Bit:
            ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds.PixelData = encapsulate([frame or _frame(syntax)])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    head = file_head(Instance(ds.SOPInstanceUID, CR, "1.2.4", "1.2.5", syntax), "XR1")
    return head + encode(ds, syntax if syntax in NATIVE else uid.ExplicitVRLittleEndian)


def one_case(name: str, seed: int, number: int, tally: Tally) -> None:
    """Run one case and say what became of it."""
    began = time.monotonic()
    try:
        tally.refused += not PARSERS[name][0](random.Random(f"{seed}:{name}:{number}"))
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        tally.broken.append(f"{name}, case {number}: {type(error).__name__}: {printable(str(error))[:200]}")
    took = time.monotonic() - began
    tally.cases += 1
    tally.slowest_s = max(tally.slowest_s, took)
    if took > LONGEST_S:
        tally.broken.append(f"{name}, case {number}: {took:.0f} s")


def run(name: str, seed: int, count: int) -> Tally:
    """All cases of a parser."""
    configure("error", "json")
    tally = Tally()
    if name != "pictures":
        for number in range(count):
            one_case(name, seed, number, tally)
        return tally
    # A decoder that dies takes its process along, as it does in the daemon; the next case is another process'.
    for told in _apart(name, seed, count, tally):
        tally.cases += told.cases
        tally.refused += told.refused
        tally.slowest_s = max(tally.slowest_s, told.slowest_s)
        tally.broken += told.broken
    return tally


def _apart(name: str, seed: int, count: int, tally: Tally) -> Iterator[Tally]:
    context, begun = multiprocessing.get_context("spawn"), 0
    while begun < count:
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(name, seed, begun, count, theirs, list(sys.path)))
        child.start()
        theirs.close()
        with suppress(EOFError):
            while True:
                begun, told = ours.recv()
                yield told
        child.join(20)
        if begun < count:
            tally.cases += 1
            tally.died += 1
            print(f"{name}, case {begun}: the decoder's process ended with {child.exitcode}", file=sys.stderr)
            begun += 1


def _child(
    name: str, seed: int, begin: int, end: int, pipe: "multiprocessing.connection.Connection", path: list[str]
) -> None:
    sys.path[:] = path
    configure("error", "json")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    for number in range(begin, end):
        told = Tally()
        one_case(name, seed, number, told)
        pipe.send((number + 1, told))
