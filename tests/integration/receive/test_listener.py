"""The listener as its senders meet it: real sockets, pynetdicom and DCMTK as SCU, every bad input that arrives here."""

import copy
import shutil
import socket
import sqlite3
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from peers import answers_echo, dcmtk, wait_for
from pydicom.dataset import Dataset, FileDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode as command_bytes
from radiographs import cr

from pacs_agent.receive.listener import Listener
from pacs_agent.record.reading import query
from pacs_agent.record.receiving import Reception
from pacs_agent.record.store import Store

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, DeflatedExplicitVRLittleEndian)


def associate(port: int, *, calling: str = "XR1", called: str = "PACS_AGENT") -> Association:
    """An association that offers CR in each syntax, each in a context of its own."""
    ae = AE(ae_title=calling)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    contexts = [build_context(ComputedRadiographyImageStorage, syntax) for syntax in SYNTAXES]
    return ae.associate("127.0.0.1", port, contexts=contexts, ae_title=called)


@contextmanager
def association(port: int, **titles: str) -> Iterator[Association]:
    """An established association, released at the end."""
    assoc = associate(port, **titles)
    assert assoc.is_established
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def encode(ds: Dataset) -> bytes:
    """The data set in explicit VR little endian, as it goes over the wire."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    return bytes(buffer.getvalue())


def store_bytes(
    assoc: Association,
    encoded: bytes,
    *,
    sop_instance_uid: str,
    sop_class_uid: str = ComputedRadiographyImageStorage,
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> tuple[int, str]:
    """C-STORE of bytes that no encoder would make; status and error comment."""
    context = next(each for each in assoc.accepted_contexts if each.transfer_syntax[0] == transfer_syntax)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class_uid, sop_instance_uid
    request.DataSet = BytesIO(encoded)
    assoc._reactor_checkpoint.clear()
    while not assoc._is_paused:
        time.sleep(0.001)
    assoc.dimse.send_msg(request, context.context_id)
    _, answer = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    assert answer is not None
    return answer.Status, answer.ErrorComment or ""


def store_one(port: int, ds: FileDataset, **titles: str) -> int:
    """C-STORE of one instance; the status."""
    with association(port, **titles) as assoc:
        return int(assoc.send_c_store(ds).Status)


def is_served(port: int, calling: str) -> bool:
    """Whether this caller gets an association."""
    assoc = associate(port, calling=calling)
    if assoc.is_established:
        assoc.release()
        return True
    return False


def rows(store: Store, sql: str) -> list[tuple[Any, ...]]:
    """Rows of the record."""
    return list(query(store.path, sql).rows)


def kept_files(data_dir: Path) -> list[Path]:
    """Whatever lies in the inbox, finished or not."""
    return [path for path in (data_dir / "inbox").rglob("*") if path.is_file()]


def closes(probe: socket.socket, timeout_s: float = 15.0) -> bool:
    """Whether the listener ends the connection."""
    probe.settimeout(timeout_s)
    try:
        while probe.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def connect(port: int) -> socket.socket:
    """A bare TCP connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=10)


# -- good -------------------------------------------------------------------------------------------------------------


def test_echo_is_answered(listener: Any) -> None:
    """C-ECHO gets success."""
    assert answers_echo(listener.port, "PACS_AGENT")


def test_stored_instance_has_its_file_and_its_row(listener: Any, store: Store, data_dir: Path) -> None:
    """After success the data set lies in the inbox byte for byte, and the record knows it and its sender."""
    ds = cr()
    assert store_one(listener.port, ds) == 0
    [(path, sender, status)] = rows(store, "SELECT path, calling_ae_title, status FROM instance")
    assert (sender, status) == ("XR1", "received")
    assert (data_dir / path).read_bytes().endswith(encode(ds))
    assert kept_files(data_dir) == [data_dir / path]


@pytest.mark.dcmtk
def test_dcmtk_echoes_and_stores(listener: Any, store: Store, tmp_path: Path) -> None:
    """DCMTK's echoscu, storescu and dcmsend are served."""
    for index, name in enumerate(("storescu", "dcmsend")):
        ds = cr(seed=index)
        ds.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
        arguments = ["-aec", "PACS_AGENT", "127.0.0.1", str(listener.port), str(tmp_path / f"{name}.dcm")]
        subprocess.run([dcmtk(name), *arguments], check=True, timeout=30, capture_output=True)
        assert (ds.SOPInstanceUID,) in rows(store, "SELECT sop_instance_uid FROM instance")
    subprocess.run([dcmtk("echoscu"), "-aec", "PACS_AGENT", "127.0.0.1", str(listener.port)], check=True, timeout=30)


@pytest.mark.dcmtk
def test_real_radiographs_are_stored_as_sent(listener: Any, store: Store, samples: Path) -> None:
    """dcmsend of the real CR files: each has a row, in the transfer syntax that it was sent in."""
    files = [str(path) for path in sorted((samples / "dicom").glob("*.dcm"))]
    subprocess.run(
        [dcmtk("dcmsend"), "-aec", "PACS_AGENT", "127.0.0.1", str(listener.port), *files],
        check=True, timeout=60, capture_output=True,
    )  # fmt: skip
    found = rows(store, "SELECT transfer_syntax_uid, status FROM instance")
    assert len(found) == len(files)
    assert {syntax for syntax, _ in found} <= {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}


# -- the same again, or nearly ----------------------------------------------------------------------------------------


def test_same_instance_twice_is_kept_once(listener: Any, store: Store, data_dir: Path) -> None:
    """A resend gets success and leaves one row, one file and no further event."""
    ds = cr()
    assert [store_one(listener.port, ds) for _ in range(2)] == [0, 0]
    assert len(rows(store, "SELECT 1 FROM instance")) == 1
    assert len(kept_files(data_dir)) == 1
    assert rows(store, "SELECT event FROM events") == [("first instance received",)]


def test_other_pixels_under_the_same_uid_are_a_revision(listener: Any, store: Store, data_dir: Path) -> None:
    """Both versions are kept, the second counts, and the history says so."""
    ds = cr()
    other = copy.deepcopy(ds)
    other.PixelData = bytes(reversed(ds.PixelData))
    assert [store_one(listener.port, each) for each in (ds, other)] == [0, 0]
    assert rows(store, "SELECT revision, is_current FROM instance ORDER BY revision") == [(1, 0), (2, 1)]
    assert len(kept_files(data_dir)) == 2
    assert ("instance revised",) in rows(store, "SELECT event FROM events")
    assert len(rows(store, "SELECT 1 FROM image_results")) == 1


def test_other_identity_under_the_same_uid_is_a_revision(listener: Any, store: Store) -> None:
    """A corrected patient ID is not lost as a resend."""
    ds = cr()
    other = copy.deepcopy(ds)
    other.PatientID = "PHANTOM-2"
    assert [store_one(listener.port, each) for each in (ds, other)] == [0, 0]
    assert rows(store, "SELECT revision, is_current FROM instance ORDER BY revision") == [(1, 0), (2, 1)]


def test_reencoded_instance_is_nothing_new(listener: Any, store: Store) -> None:
    """The same picture in another transfer syntax, as a router sends it, is a resend."""
    ds = cr()
    again = copy.deepcopy(ds)
    again.compress(RLELossless, generate_instance_uid=False)
    assert [store_one(listener.port, each) for each in (ds, again)] == [0, 0]
    assert rows(store, "SELECT revision, transfer_syntax_uid FROM instance") == [(1, ExplicitVRLittleEndian)]


@pytest.mark.parametrize("resends", ["ABA", "ABAB"])
def test_earlier_revision_sent_again_counts_again(listener: Any, store: Store, data_dir: Path, resends: str) -> None:
    """Whatever was sent last is current, no content is kept twice, and the history tells of each change."""
    versions = {"A": cr()}
    versions["B"] = copy.deepcopy(versions["A"])
    versions["B"].PixelData = bytes(reversed(versions["A"].PixelData))
    assert {store_one(listener.port, versions[letter]) for letter in resends} == {0}
    [(path,)] = rows(store, "SELECT path FROM instance WHERE is_current")
    assert (data_dir / path).read_bytes().endswith(encode(versions[resends[-1]]))
    assert len(rows(store, "SELECT 1 FROM instance")) == len(kept_files(data_dir)) == 2
    details = [detail for (detail,) in rows(store, "SELECT detail FROM events WHERE event = 'instance revised'")]
    assert ["again" in detail for detail in details] == [False, *[True] * (len(resends) - 2)]


def test_reencoded_earlier_revision_counts(listener: Any, store: Store) -> None:
    """A, B, then A in another transfer syntax: it might be either's picture, so it is kept, and counts as sent last."""
    ds = cr()
    other = copy.deepcopy(ds)
    other.PixelData = bytes(reversed(ds.PixelData))
    again = copy.deepcopy(ds)
    again.compress(RLELossless, generate_instance_uid=False)
    assert [store_one(listener.port, each) for each in (ds, other, again, again)] == [0] * 4
    assert rows(store, "SELECT revision, is_current, transfer_syntax_uid FROM instance ORDER BY revision") == [
        (1, 0, ExplicitVRLittleEndian),
        (2, 0, ExplicitVRLittleEndian),
        (3, 1, RLELossless),
    ]


# -- data sets that are refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [10, -8207, -100], ids=["at the start", "in the last header element", "in the pixels"])
def test_truncated_data_set_is_refused(listener: Any, store: Store, data_dir: Path, cut: int) -> None:
    """C000, nothing kept, and the next instance of the association is stored."""
    ds = cr()
    with association(listener.port) as assoc:
        status, comment = store_bytes(assoc, encode(ds)[:cut], sop_instance_uid=ds.SOPInstanceUID)
        assert (status, bool(comment)) == (0xC000, True)
        assert kept_files(data_dir) == []
        assert assoc.send_c_store(ds).Status == 0
    assert len(rows(store, "SELECT 1 FROM instance")) == 1


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID"])
def test_data_set_that_disagrees_with_the_request_is_refused(listener: Any, data_dir: Path, keyword: str) -> None:
    """A900, nothing kept."""
    ds = cr()
    request_uid = str(ds.SOPInstanceUID)
    setattr(ds, keyword, generate_uid())
    with association(listener.port) as assoc:
        status, comment = store_bytes(assoc, encode(ds), sop_instance_uid=request_uid)
    assert status == 0xA900
    assert keyword in comment
    assert kept_files(data_dir) == []


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_uid_that_is_a_path_is_refused(listener: Any, data_dir: Path, keyword: str) -> None:
    """C000 for a UID holding `../`, and no file anywhere."""
    ds = cr()
    before = sorted(data_dir.parent.rglob("*"))
    uid = str(ds.SOPInstanceUID)
    wanted = b"../" + bytes(str(ds[keyword].value), "ascii")[3:]
    encoded = encode(ds).replace(str(ds[keyword].value).encode(), wanted)
    with association(listener.port) as assoc:
        status, _ = store_bytes(assoc, encoded, sop_instance_uid=uid)
    assert status == 0xC000
    assert sorted(data_dir.parent.rglob("*")) == before


def test_absent_study_uid_is_refused(listener: Any, data_dir: Path) -> None:
    """C000 for an instance that belongs to no study."""
    assert store_one(listener.port, cr(StudyInstanceUID=None)) == 0xC000
    assert kept_files(data_dir) == []


@pytest.mark.parametrize("cut", [None, -30], ids=["bomb", "truncated"])
def test_deflated_data_set_is_bounded(listener: Any, data_dir: Path, cut: int | None) -> None:
    """A data set that inflates beyond the bound, or that ends early, gets C000 and is not kept."""
    ds = cr(PixelData=b"\0" * ((64 << 20) if cut is None else 8192))
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = deflater.compress(encode(ds)) + deflater.flush()
    with association(listener.port) as assoc:
        status, _ = store_bytes(
            assoc, deflated[:cut], sop_instance_uid=ds.SOPInstanceUID, transfer_syntax=DeflatedExplicitVRLittleEndian
        )
    assert status == 0xC000
    assert kept_files(data_dir) == []


def test_deflated_data_set_is_stored(listener: Any, store: Store) -> None:
    """An honest deflated data set is received like any other."""
    ds = cr()
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = deflater.compress(encode(ds)) + deflater.flush()
    with association(listener.port) as assoc:
        status, _ = store_bytes(
            assoc, deflated, sop_instance_uid=ds.SOPInstanceUID, transfer_syntax=DeflatedExplicitVRLittleEndian
        )
    assert status == 0
    assert rows(store, "SELECT status FROM instance") == [("received",)]


def test_instance_beyond_the_bound_ends_the_association_only(make_listener: Callable[..., Any], data_dir: Path) -> None:
    """What is larger than `max_instance_mb` is cut off before it is all read; the listener goes on."""
    listener = make_listener(max_instance_mb=1)
    assoc = associate(listener.port)
    answer = assoc.send_c_store(cr(side=1200))
    assert "Status" not in answer
    assert kept_files(data_dir) == []
    assert store_one(listener.port, cr()) == 0


# -- resources --------------------------------------------------------------------------------------------------------


def test_disk_below_the_floor_refuses_and_recovers(
    listener: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A700 while the disk is below its floor; the same instance is stored when space returns."""
    ds = cr()
    with association(listener.port) as assoc:
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
            answer = assoc.send_c_store(ds)
            assert answer.Status == 0xA700
            assert "floor" in answer.ErrorComment
        assert assoc.send_c_store(ds).Status == 0
    assert len(rows(store, "SELECT 1 FROM instance")) == 1


def test_disk_that_refuses_the_write_is_a700(listener: Any, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC in the middle of a write: A700, and nothing half-written stays."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with association(listener.port) as assoc, monkeypatch.context() as patched:
        patched.setattr("pacs_agent.durable.os.fsync", full)
        assert assoc.send_c_store(cr()).Status == 0xA700
    assert kept_files(data_dir) == []


def test_database_locked_for_a_while_delays_and_no_more(listener: Any, store: Store) -> None:
    """Another process holds the write lock: the store waits for it and succeeds."""
    holder = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    freed: list[float] = []

    def free() -> None:
        freed.append(time.monotonic())
        holder.rollback()

    timer = threading.Timer(1.0, free)
    with association(listener.port) as assoc:
        timer.start()
        assert assoc.send_c_store(cr()).Status == 0
        answered = time.monotonic()
    timer.join()
    holder.close()
    assert answered >= freed[0]
    assert len(rows(store, "SELECT 1 FROM instance")) == 1


def test_database_locked_for_good_is_a700(listener: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the wait is over the sender is told to try again, and the resend succeeds."""
    monkeypatch.setattr("pacs_agent.record.store.BUSY_TIMEOUT_S", 0.2)
    impatient = Store(store.path)
    monkeypatch.setattr(listener._inbox, "_reception", Reception(impatient))
    ds = cr()
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert store_one(listener.port, ds) == 0xA700
    holder.rollback()
    holder.close()
    assert store_one(listener.port, ds) == 0
    impatient.close()


# -- who may call -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "titles", "reason"),
    [
        ({}, {"called": "SOMEBODY"}, 7),
        ({"allowed_calling_ae_titles": ("XR2",)}, {}, 3),
        ({"allowed_calling_ae_titles": ("XR1@10.0.0.0/8",)}, {}, 3),
    ],
    ids=["called", "calling", "address"],
)
def test_refused_titles(
    make_listener: Callable[..., Any], settings: dict[str, Any], titles: dict[str, str], reason: int
) -> None:
    """A rejection by the service user with the reason of PS3.8 9.3.4, and the next caller is served."""
    listener = make_listener(**settings)
    assoc = associate(listener.port, **titles)
    assert assoc.is_rejected
    answer = assoc.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, reason)


@pytest.mark.parametrize("allowed", ["XR1", "XR1@127.0.0.1", "XR1@127.0.0.0/8"])
def test_allowed_caller_is_served(make_listener: Callable[..., Any], allowed: str) -> None:
    """A caller on the list, from its address, stores."""
    assert store_one(make_listener(allowed_calling_ae_titles=("XR9", allowed)).port, cr()) == 0


def test_any_called_title_where_that_is_allowed(make_listener: Callable[..., Any]) -> None:
    """`require_called_ae_title = false` serves whoever calls us by another name."""
    assert store_one(make_listener(require_called_ae_title=False).port, cr(), called="SOMEBODY") == 0


def test_association_limit_rejects_one_and_serves_the_others(make_listener: Callable[..., Any]) -> None:
    """Over the limit: rejected as local-limit-exceeded (transient); those open go on; a freed place is given again."""
    listener = make_listener(max_associations=2)
    with association(listener.port) as first:
        with association(listener.port) as second:
            third = associate(listener.port)
            assert third.is_rejected
            answer = third.acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
            assert [assoc.send_c_store(cr()).Status for assoc in (first, second)] == [0, 0]
        wait_for(lambda: answers_echo(listener.port, "PACS_AGENT"), 10, "a free place")


def test_flood_of_one_caller_leaves_room_for_another(make_listener: Callable[..., Any]) -> None:
    """Twenty that ask together under one AE title get the three places of a caller; another is served beside them."""
    listener = make_listener(max_associations_per_caller=3)
    with ThreadPoolExecutor(20) as together:
        asked = list(together.map(lambda _: associate(listener.port, calling="FLOOD"), range(20)))
    try:
        assert sum(assoc.is_established for assoc in asked) == 3
        answers = [assoc.acceptor.primitive for assoc in asked if assoc.is_rejected]
        assert {(each.result, each.result_source, each.diagnostic) for each in answers} == {(2, 3, 2)}
        assert len(answers) == 17
        assert store_one(listener.port, cr()) == 0
    finally:
        for assoc in asked:
            if assoc.is_established:
                assoc.release()
    wait_for(lambda: is_served(listener.port, "FLOOD"), 10, "a free place")


# -- not an association -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
        struct.pack(">BBL", 4, 0, 2000) + b"\0" * 2000,
        struct.pack(">BBL", 1, 0, 200) + b"\xff" * 200,
    ],
    ids=["HTTP", "TLS", "P-DATA before association", "garbage A-ASSOCIATE-RQ"],
)
def test_not_dicom_on_the_port(make_listener: Callable[..., Any], said: bytes) -> None:
    """The connection is ended, and C-ECHO is answered beside and after it."""
    listener = make_listener(association_timeout_seconds=1)
    with connect(listener.port) as probe:
        probe.sendall(said)
        assert answers_echo(listener.port, "PACS_AGENT")
        assert closes(probe)
    assert answers_echo(listener.port, "PACS_AGENT")


def test_bare_connections_hold_nobody_up_and_end(make_listener: Callable[..., Any]) -> None:
    """Many silent connections: C-ECHO is answered with an association limit far below, and their threads end."""
    listener = make_listener(association_timeout_seconds=2, max_associations=2)
    before = threading.active_count()
    probes = [connect(listener.port) for _ in range(20)]
    try:
        wait_for(lambda: threading.active_count() > before + 20, 10, "the threads of the probes")
        assert answers_echo(listener.port, "PACS_AGENT")
        assert all(closes(probe) for probe in probes)
        wait_for(lambda: threading.active_count() <= before, 15, "the end of the probes' threads")
    finally:
        for probe in probes:
            probe.close()


def test_silent_connections_give_way_to_a_sender(make_listener: Callable[..., Any]) -> None:
    """Past the bound the oldest silent connection is closed, long before its timeout; a sender is served."""
    listener = make_listener(association_timeout_seconds=600, max_associations=1, max_pending_connections=3)
    probes = [connect(listener.port) for _ in range(6)]
    try:
        assert answers_echo(listener.port, "PACS_AGENT")
        assert closes(probes[0])
        with association(listener.port) as assoc:
            more = [connect(listener.port) for _ in range(6)]
            probes += more
            assert assoc.send_c_store(cr()).Status == 0  # what is established never gives way
            assert closes(more[0])
    finally:
        for probe in probes:
            probe.close()


def test_hanging_up_at_once_leaves_no_thread(make_listener: Callable[..., Any]) -> None:
    """A load balancer's probe that connects and goes leaves nothing to wait for its timeout."""
    listener = make_listener(association_timeout_seconds=600)
    before = threading.active_count()
    for _ in range(5):
        connect(listener.port).close()
    assert answers_echo(listener.port, "PACS_AGENT")  # served after them
    wait_for(lambda: threading.active_count() <= before, 10, "the end of the probes' threads")


def test_bytes_that_are_no_pdu_leave_no_thread(make_listener: Callable[..., Any]) -> None:
    """Who speaks another protocol, is aborted and goes, keeps no place until the timeout."""
    listener = make_listener(association_timeout_seconds=600)
    before = threading.active_count()
    with connect(listener.port) as probe:
        probe.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert closes(probe)
    wait_for(lambda: threading.active_count() <= before, 10, "the end of the probe's threads")


# A command set of group length and CommandField 7777H, which no message has. PS3.7 6.3.1, E.1
UNKNOWN_COMMAND = struct.pack("<HHLLHHLH", 0, 0, 4, 10, 0, 0x0100, 2, 0x7777)


# A C-STORE-RQ without Affected SOP Instance UID and without a data set. PS3.7 9.3.1.1
_ELEMENTS = (
    struct.pack("<HHL26s", 0, 0x0002, 26, b"1.2.840.10008.5.1.4.1.1.1")
    + struct.pack("<HHLH", 0, 0x0100, 2, 1)
    + struct.pack("<HHLH", 0, 0x0110, 2, 1)
    + struct.pack("<HHLH", 0, 0x0700, 2, 0)
    + struct.pack("<HHLH", 0, 0x0800, 2, 0x0101)
)
NO_INSTANCE_UID = struct.pack("<HHLL", 0, 0, 4, len(_ELEMENTS)) + _ELEMENTS


@pytest.mark.parametrize(
    "command",
    [b"", b"\xff" * 200, UNKNOWN_COMMAND, NO_INSTANCE_UID],
    ids=["empty", "garbage", "unknown command field", "no Affected SOP Instance UID"],
)
def test_message_that_cannot_be_read_is_aborted(listener: Any, monkeypatch: pytest.MonkeyPatch, command: bytes) -> None:
    """The peer gets an A-ABORT of the provider (PS3.8 9.3.8), no thread dies by an exception, the next is served."""
    died: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    assoc = associate(listener.port)
    received: list[Any] = []
    assoc.bind(evt.EVT_PDU_RECV, lambda event: received.append(event.pdu))
    context_id = assoc.accepted_contexts[0].context_id
    assoc.dul.socket.socket.sendall(
        struct.pack(">BBLLBB", 4, 0, len(command) + 6, len(command) + 2, context_id, 3) + command
    )
    wait_for(lambda: assoc.is_aborted, 10, "the abort")
    assert [(pdu.pdu_type, pdu.source) for pdu in received] == [(0x07, 2)]
    wait_for(lambda: not listener._open(), 10, "the end of the association")
    assert died == []
    assert store_one(listener.port, cr()) == 0


@pytest.mark.parametrize(
    "pdu",
    [
        struct.pack(">BBLBBBB", 7, 0, 4, 0, 0, 0x42, 0x17),
        struct.pack(">BBLL", 6, 0, 4, 0),
        struct.pack(">BBL", 2, 0, 200) + b"\0" * 200,
        struct.pack(">BBLLL", 5, 0, 4, 0, 0) + struct.pack(">BBLL", 5, 0, 4, 0),
    ],
    ids=["an A-ABORT of no known source", "an A-RELEASE-RP", "an A-ASSOCIATE-AC", "two A-RELEASE-RQ"],
)
def test_pdu_out_of_turn_ends_its_association_at_once(
    make_listener: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, pdu: bytes
) -> None:
    """No thread dies by an exception, the connection is closed, and its place is another's long before any timeout."""
    listener = make_listener(max_associations=1, idle_timeout_seconds=600, association_timeout_seconds=600)
    died: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    assoc = associate(listener.port)
    assoc.dul.socket.socket.sendall(pdu)
    wait_for(lambda: not listener._open(), 10, "the end of the association")
    assoc.abort()
    assert died == []
    assert store_one(listener.port, cr()) == 0


@pytest.mark.parametrize(
    ("number", "syntax"), [(2, b"1.2.840.10008.1.1"), (1, b"")], ids=["even", "no abstract syntax"]
)
def test_association_request_with_an_impossible_context(
    make_listener: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, number: int, syntax: bytes
) -> None:
    """PS3.8 9.3.2.2 wants odd numbers and a name: the connection is closed at once, no thread dies by an exception."""
    listener = make_listener(association_timeout_seconds=600)
    died: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    context = (
        struct.pack(">BBHBBBB", 0x20, 0, 4 + 21, 2, 0, 0, 0) + struct.pack(">BBH", 0x30, 0, 17) + b"1.2.840.10008.1.1"
    )
    body = struct.pack(">HH", 1, 0) + b"PACS_AGENT      XR1             " + b"\0" * 32 + context
    with connect(listener.port) as probe:
        probe.sendall(struct.pack(">BBL", 1, 0, len(body)) + body)
        assert closes(probe)
    wait_for(lambda: not listener._open(), 10, "the end of the connection")
    assert died == []


def test_command_set_without_end_is_aborted(listener: Any) -> None:
    """A hundred KB of fragments of a command set that never ends: aborted, and the next is served."""
    assoc = associate(listener.port)
    fragment = struct.pack(">LBB", 10_002, 1, 1) + b"\0" * 10_000
    for _ in range(10):
        assoc.dul.socket.socket.sendall(struct.pack(">BBL", 4, 0, len(fragment)) + fragment)
    wait_for(lambda: assoc.is_aborted, 10, "the abort")
    assert store_one(listener.port, cr()) == 0


# A message's fragments by their message control headers (PS3.8 E.2): C and D, fragments of command and data set; c and
# d, the last of each. Every inner list is one PDU.
FRAGMENTED = {
    "one each": [["c"], ["d"]],
    "all in one PDU": [["c", "d"]],
    "data set in three": [["c", "D"], ["D"], ["d"]],
    "command set in three": [["C"], ["C"], ["c"], ["d"]],
    "everything in one PDU": [["C", "c", "D", "d"]],
}


@pytest.mark.parametrize("pdus", FRAGMENTED.values(), ids=FRAGMENTED)
@pytest.mark.parametrize("unused_bits", [0, 0xFC])
def test_message_in_whatever_fragments(listener: Any, data_dir: Path, pdus: list[list[str]], unused_bits: int) -> None:
    """However a peer cuts its message, twice on one association, it is stored byte for byte. PS3.8 9.3.5, E.1, E.2"""
    with association(listener.port) as assoc:
        raw = assoc.dul.socket.socket
        statuses: list[int] = []
        for ds in (cr(), cr()):
            request = C_STORE()
            request.MessageID, request.Priority = 1, 2
            request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
            request.DataSet = BytesIO(encode(ds))
            message = C_STORE_RQ()
            message.primitive_to_message(request)
            left = {"c": command_bytes(message.command_set, True, True) or b"", "d": encode(ds)}
            assoc._reactor_checkpoint.clear()
            wait_for(lambda: assoc._is_paused, 10, "the reactor's rest")
            for pdu in pdus:
                body = b""
                for kind in pdu:
                    end = 30 if kind.isupper() else None
                    fragment, left[kind.lower()] = left[kind.lower()][:end], left[kind.lower()][30:]
                    header = unused_bits | {"C": 1, "c": 3, "D": 0, "d": 2}[kind]
                    body += struct.pack(">LBB", len(fragment) + 2, 1, header) + fragment
                raw.sendall(struct.pack(">BBL", 4, 0, len(body)) + body)
            _, answer = assoc.dimse.get_msg(block=True)
            assoc._reactor_checkpoint.set()
            statuses.append(answer.Status)
            assert answer.AffectedSOPInstanceUID == ds.SOPInstanceUID
            assert any(path.read_bytes().endswith(encode(ds)) for path in kept_files(data_dir))
    assert statuses == [0, 0]


@pytest.mark.parametrize("maximum", [0, 40, 150, 16384])
def test_answer_fits_the_peers_pdus(listener: Any, maximum: int) -> None:
    """No P-DATA-TF is longer than the peer wants it; 0 is any length. PS3.8 D.1"""
    ae = AE(ae_title="XR1")
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    ae.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    assoc = ae.associate("127.0.0.1", listener.port, ae_title="PACS_AGENT", max_pdu=maximum)
    received: list[int] = []
    assoc.bind(evt.EVT_PDU_RECV, lambda event: received.append(event.pdu.pdu_length))
    assert assoc.send_c_store(cr()).Status == 0
    assoc.release()
    answers = received[:-1]  # the last is the A-RELEASE-RP
    assert answers
    assert maximum == 0 or max(answers) <= maximum
    assert (len(answers) == 1) == (maximum in (0, 16384))


@pytest.mark.parametrize("maximum", [3, 6])
def test_peer_that_leaves_no_room_for_an_answer_is_aborted(
    listener: Any, monkeypatch: pytest.MonkeyPatch, maximum: int
) -> None:
    """A maximum length that holds no fragment ends its association, and no other. PS3.8 D.1"""
    died: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    ae = AE(ae_title="XR1")
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    ae.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    assoc = ae.associate("127.0.0.1", listener.port, ae_title="PACS_AGENT", max_pdu=maximum)
    assert "Status" not in assoc.send_c_store(cr())
    wait_for(lambda: not listener._open(), 10, "the end of the association")
    assert assoc.is_aborted
    assert died == []
    assert store_one(listener.port, cr()) == 0


@pytest.mark.parametrize(
    "said", [b"\x01", struct.pack(">BBL", 1, 0, 300) + b"\0" * 10], ids=["in the header", "in the body"]
)
def test_half_sent_pdu_ends_at_the_timeout(make_listener: Callable[..., Any], said: bytes) -> None:
    """A PDU that never ends holds its connection no longer than the timeout."""
    listener = make_listener(association_timeout_seconds=1)
    before = threading.active_count()
    with connect(listener.port) as probe:
        probe.sendall(said)
        assert closes(probe)
        wait_for(lambda: threading.active_count() <= before, 10, "the end of the threads")


def test_pdu_of_4_gib_is_not_believed(make_listener: Callable[..., Any]) -> None:
    """A header that claims 4 GiB ends the connection before its body is read."""
    listener = make_listener(association_timeout_seconds=60)
    with connect(listener.port) as probe:
        probe.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFFF))
        assert closes(probe, 10)
    assert answers_echo(listener.port, "PACS_AGENT")


def test_slow_sender_as_a_whole_has_a_deadline(make_listener: Callable[..., Any], data_dir: Path) -> None:
    """An instance that trickles in, every PDU of it quick, ends at the transfer's deadline."""
    listener = make_listener(transfer_timeout_seconds=1)
    assoc = associate(listener.port)
    raw = assoc.dul.socket.socket
    context_id = assoc.accepted_contexts[0].context_id
    # One P-DATA-TF of a data set's fragment that is not the last. PS3.8 9.3.5, E.2
    trickle = struct.pack(">BBLLBB", 4, 0, 8, 4, context_id, 0) + b"\0\0"

    def ended() -> bool:
        try:
            raw.sendall(trickle)
        except OSError:
            return True
        return not assoc.is_established

    wait_for(ended, 10, "the end of the slow association")
    assoc.kill()
    assert kept_files(data_dir) == []


def test_aborted_transfer_leaves_nothing(listener: Any, store: Store, data_dir: Path) -> None:
    """A sender that dies within an instance leaves no file and no row; its resend is stored."""
    ds = cr(side=512)
    assoc = associate(listener.port)
    context_id = assoc.accepted_contexts[0].context_id
    encoded = encode(ds)[:100_000]
    before = len(listener._open())
    assoc.dul.socket.socket.sendall(
        struct.pack(">BBLLBB", 4, 0, len(encoded) + 6, len(encoded) + 2, context_id, 0) + encoded
    )
    assoc.abort()
    wait_for(lambda: len(listener._open()) < before, 10, "the end of the association")
    assert kept_files(data_dir) == []
    assert rows(store, "SELECT 1 FROM study") == []
    assert store_one(listener.port, ds) == 0


# -- what else is asked of it -----------------------------------------------------------------------------------------


def test_open_association_tells_its_latest_study(listener: Any) -> None:
    """The study of the latest instance, while the association is open."""
    one, two = cr(), cr()
    assert listener.open_studies() == {}
    with association(listener.port) as assoc:
        assoc.send_c_store(one)
        assert set(listener.open_studies()) == {one.StudyInstanceUID}
        assoc.send_c_store(two)
        assert set(listener.open_studies()) == {two.StudyInstanceUID}
    wait_for(lambda: not listener.open_studies(), 10, "the end of the association")


def test_stop_closes_the_port(listener: Listener) -> None:
    """After `stop` nobody is served."""
    listener.stop(0)
    assert not answers_echo(listener.port, "PACS_AGENT")  # type: ignore[attr-defined]


@pytest.mark.parametrize("said", [b"", b"\x01\0", struct.pack(">BBL", 1, 0, 500) + b"x" * 100])
def test_stop_waits_for_no_connection_without_an_association(
    make_listener: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """Silent or half-spoken, it is hung up, and no thread of it dies by an exception."""
    died: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    listener = make_listener(association_timeout_seconds=600)
    before = threading.active_count()
    with connect(listener.port) as probe:
        probe.sendall(said)
        wait_for(lambda: listener._open() and not listener._server.newcomers, 10, "the connection")
        stopping = threading.Thread(target=listener.stop, args=(30,))
        stopping.start()
        assert closes(probe)
        stopping.join(20)
        assert not stopping.is_alive()
    wait_for(lambda: threading.active_count() < before, 10, "the end of its threads")
    assert died == []
