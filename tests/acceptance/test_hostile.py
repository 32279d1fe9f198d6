"""What is made to break the daemon, sent to it: every instance has its answer, a good study beside it goes on."""

import io
import re
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from peers import DaemonProcess, accepts_tcp, free_port, wait_for, write_config
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from radiographs import cr, hand

from pacs_agent.presence import running_state

FUZZER = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
LISTENER_MB, ANALYSIS_MB = 450, 2_500  # peak memory of the two processes; each bomb would ask for gigabytes
FORGED = "2026-01-01T00:00:00Z [info] forged"
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")
EVIL = f"';DROP TABLE study;--/../../etc\n{FORGED}\x1b[2J\x1b]0;x\x07<script>alert(1)</script>"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that makes reports and captures, without a destination; its memory is judged at the end."""
    port = free_port()
    running = DaemonProcess(write_config(tmp_path_factory.mktemp("hostile"), port), port)
    running.start()
    yield running
    state = running_state(running.config.parent / "data")
    assert running.process is not None
    assert state is not None
    peaks = [peak_mb(running.process.pid), peak_mb(int(str(state["worker_pid"])))]
    assert running.stop() == 0
    assert peaks[0] < LISTENER_MB
    assert peaks[1] < ANALYSIS_MB
    log = running.log_path.read_text()
    assert not UNSAFE.search(log)
    assert not re.search(rf"^\s*{re.escape(FORGED)}", log, re.MULTILINE)
    assert "a thread ended" not in log
    assert "status=0110" not in log


def peak_mb(process_id: int) -> int:
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) >> 10


def encode(ds: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    return bytes(buffer.getvalue())


def send(daemon: DaemonProcess, encoded: bytes, ds: Dataset, syntax: str = uid.ExplicitVRLittleEndian) -> int:
    """C-STORE of bytes that no encoder would make; the status."""
    ae = AE(ae_title="EVIL")
    ae.dimse_timeout = 60
    ae.add_requested_context(ds.SOPClassUID, syntax)
    assoc = ae.associate("127.0.0.1", daemon.port, ae_title="PACS_AGENT")
    assert assoc.is_established
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    request.DataSet = io.BytesIO(encoded)
    assoc._reactor_checkpoint.clear()
    wait_for(lambda: assoc._is_paused, 10, "the reactor's rest")
    assoc.dimse.send_msg(request, assoc.accepted_contexts[0].context_id)
    _, answer = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    assoc.release()
    assert answer is not None
    return int(answer.Status)


def settled(daemon: DaemonProcess, study: str) -> dict[str, object]:
    """The study's first row of `results` once it has left the queue."""
    sql = f"SELECT * FROM results WHERE study_instance_uid = '{study}' AND status NOT IN ('receiving', 'queued')"
    return dict(wait_for(lambda: daemon.sql(sql), 90, "the study's end")[0])


def compressed(frame: bytes, syntax: str, side: int = 30_000, bits: int = 16) -> tuple[bytes, FileDataset, str]:
    """An instance whose header and codestream agree on an enormous picture."""
    ds = cr(Rows=side, Columns=side, BitsAllocated=bits, BitsStored=min(bits, 12), HighBit=min(bits, 12) - 1)
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return encode(ds), ds, syntax


def enlarged(frame: bytes, small: bytes, large: bytes) -> bytes:
    assert frame.count(small) >= 1
    return frame.replace(small, large)


def deflated(content: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


def jpeg_2000(side: int) -> tuple[bytes, FileDataset, str]:
    frame = bytes(imagecodecs.jpeg2k_encode(np.zeros((64, 64), np.uint16), codecformat="j2k", reversible=True))
    size, large = struct.pack(">I", 64), struct.pack(">I", side)
    head = enlarged(frame[:40], size, large)
    return compressed(head + frame[40:], uid.JPEG2000Lossless, side)


def jpeg_ls(side: int) -> tuple[bytes, FileDataset, str]:
    frame = bytes(imagecodecs.jpegls_encode(np.zeros((64, 64), np.uint16)))
    return compressed(
        enlarged(frame, struct.pack(">HH", 64, 64), struct.pack(">HH", side, side)), uid.JPEGLSLossless, side
    )


def rle(side: int) -> tuple[bytes, FileDataset, str]:
    segment = b"\x81\0" * 50
    return compressed(struct.pack("<16I", 2, 64, 164, *[0] * 13) + segment * 2, uid.RLELossless, side)


def deflated_pixels(side: int) -> tuple[bytes, FileDataset, str]:
    ds = cr(Rows=side, Columns=side, PixelData=bytes(2 * side * side))
    return deflated(encode(ds)), ds, uid.DeflatedExplicitVRLittleEndian


BOMBS = {
    "JPEG 2000, 30,000 × 30,000": (jpeg_2000, 30_000),
    "JPEG 2000, 9,900 × 9,900": (jpeg_2000, 9_900),  # within max_megapixels
    "JPEG-LS, 30,000 × 30,000": (jpeg_ls, 30_000),
    "JPEG-LS, 9,900 × 9,900": (jpeg_ls, 9_900),
    "RLE, 30,000 × 30,000": (rle, 30_000),
    "RLE, 9,900 × 9,900": (rle, 9_900),
    "deflated, 11,000 × 11,000": (deflated_pixels, 11_000),
}


def test_bombs_are_kept_and_not_decoded(daemon: DaemonProcess) -> None:
    """A few KB that would be gigabytes: acknowledged, no finding, and the study after them has its own."""
    studies = {}
    for name, (make, side) in BOMBS.items():
        encoded, ds, syntax = make(side)
        assert len(encoded) < 1 << 20
        assert send(daemon, encoded, ds, syntax) == 0
        studies[name] = str(ds.StudyInstanceUID)
    good = hand(seed=2)
    assert send(daemon, encode(good), good) == 0
    rows = {name: settled(daemon, study) for name, study in studies.items()}
    assert {name: (row["status"], row["images_analysed"]) for name, row in rows.items()} == dict.fromkeys(
        BOMBS, ("held", 0)
    )
    assert settled(daemon, good.StudyInstanceUID)["images_analysed"] == 1


ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
UNDEFINED = b"\xff\xff\xff\xff"
REQUEST = b"\x40\x00\x75\x02SQ\0\0"  # RequestAttributesSequence, which is read; the element before the pixels' group
DEEP = (REQUEST + UNDEFINED + ITEM + UNDEFINED) * 10_000 + (ITEM_END + SEQUENCE_END) * 10_000
MANY = b"\x40\x00\x75\x02SQ\0\0" + UNDEFINED + (ITEM + bytes(4)) * 2_000_000 + SEQUENCE_END
HEADERS = {
    "10,000 deep": DEEP,
    "2,000,000 items": MANY,
    "2,000,000 elements": b"\x41\x00\x10\x00LO\0\0" * 2_000_000,
    "4 GB said": b"\x40\x00\x00\x40UT\0\0\xfe\xff\xff\xff",
    "an item of 4 GB": REQUEST + UNDEFINED + ITEM + b"\xfe\xff\xff\xff",
}


@pytest.mark.parametrize("odd", HEADERS.values(), ids=HEADERS.keys())
def test_header_beyond_the_bounds_is_refused(daemon: DaemonProcess, odd: bytes) -> None:
    """C000, nothing is kept, and the next instance is stored."""
    ds = cr()
    encoded = encode(ds)
    at = encoded.index(b"\xe0\x7f\x10\x00OW")
    assert send(daemon, encoded[:at] + odd + encoded[at:], ds) == 0xC000
    assert daemon.sql(f"SELECT * FROM image_results WHERE sop_instance_uid = '{ds.SOPInstanceUID}'") == []
    assert send(daemon, encode(good := cr()), good) == 0


def test_header_that_only_decoders_read(daemon: DaemonProcess) -> None:
    """A sequence 3,000 deep by defined lengths, of which no fact is read: kept, no finding or one, and reported."""
    ds = hand(seed=3)
    inside = b""
    for _ in range(3_000):
        item = ITEM + struct.pack("<L", len(inside)) + inside
        inside = b"\x40\x00\x55\x05SQ\0\0" + struct.pack("<L", len(item)) + item  # AcquisitionContextSequence
    encoded = encode(ds)
    at = encoded.index(b"\xe0\x7f\x10\x00OW")
    assert send(daemon, encoded[:at] + inside + encoded[at:], ds) == 0
    assert settled(daemon, ds.StudyInstanceUID)["report_sop_instance_uid"]


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_uid_of_odd_bytes_is_refused(daemon: DaemonProcess, keyword: str) -> None:
    """C000 for what is no UID, A900 where the request has another."""
    for odd in (
        b"1.2.3/../../x",
        b"1.2.3\n4",
        b"1.2.3\x1b[2J",
        b"1.2.3\xe9",
        b"1.2.'--",
        b"1.2.3\0.4",
        b"..",
        b"1.2\\1.3",
    ):
        ds = cr(**{keyword: "1.2.3.4.5.6.7.8.9.10.11"})
        encoded = encode(ds).replace(b"1.2.3.4.5.6.7.8.9.10.11\0", odd.ljust(24, b"\0"))
        assert send(daemon, encoded, ds) in (0xC000, 0xA900), odd


def test_ae_titles_of_odd_bytes(daemon: DaemonProcess) -> None:
    """An association request with controls in its titles: accepted, rejected or aborted, and always answered."""
    for odd in (b"XR1\x1b[2J", b"XR1\nforged", b"XR1\0\0", b"\xe9\xff", b"", b"../../etc", b"'; DROP TABLE --"):
        for titles in (b"PACS_AGENT".ljust(16) + odd.ljust(16), odd.ljust(16) + b"XR1".ljust(16)):
            context = b"\x20\0" + struct.pack(">H", 46) + b"\x01\0\0\0" + b"\x30\0\0\x11" + b"1.2.840.10008.1.1"
            context += b"\x40\0\0\x11" + b"1.2.840.10008.1.2"
            body = b"\0\x01\0\0" + titles + bytes(32) + b"\x10\0\0\x15" + b"1.2.840.10008.3.1.1.1" + context
            body += b"\x50\0\0\x08\x51\0\0\x04\0\0\x40\0"
            with socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as probe:
                probe.sendall(struct.pack(">BBL", 1, 0, len(body)) + body)
                assert probe.recv(1) in (b"\x02", b"\x03", b"\x07")
    assert accepts_tcp(daemon.port)


def test_texts_of_others_are_text(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Controls, SQL, paths and elements in every text of a header: analysed, reported and shown as text."""
    keywords = (
        *("PatientName", "PatientID", "AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription"),
        *("StationName", "ProtocolName", "Manufacturer", "ManufacturerModelName", "IssuerOfPatientID"),
        *("PatientComments", "ReferringPhysicianName", "InstitutionName", "OperatorsName"),
        "PerformedProcedureStepDescription",
    )  # fmt: skip
    ds = hand(seed=5, **dict.fromkeys(keywords, "x" * len(EVIL)))
    encoded = encode(ds).replace(b"x" * len(EVIL), EVIL.encode())
    assert send(daemon, encoded, ds) == 0
    row = settled(daemon, ds.StudyInstanceUID)
    assert (row["images_analysed"], row["report_sop_instance_uid"] is not None) == (1, True)
    page = tmp_path / "site.html"
    for arguments in (
        ("results",), ("show", str(ds.StudyInstanceUID)), ("site-report", "--html", str(page)),
    ):  # fmt: skip
        told = daemon.run(*arguments)
        assert told.returncode in (0, 1), told.stderr
        for text in (told.stdout, told.stderr):
            assert not UNSAFE.search(text), arguments
            assert not re.search(rf"^\s*{re.escape(FORGED)}", text, re.MULTILINE), arguments
    assert "<script" not in page.read_text()
    names = {path.name for path in daemon.config.parent.rglob("*") if path.is_file()}
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


@pytest.mark.timeout(240)
def test_fuzzer_breaks_no_promise() -> None:
    """A short run of it, of every parser and of the port."""
    done = subprocess.run(
        [sys.executable, str(FUZZER), "--cases", "2000"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 promises broken" in done.stdout
