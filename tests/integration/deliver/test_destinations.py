"""What each destination gets: filters, back to the sender, a folder; and what a flaky PACS ends up with."""

import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from deliveries import CR, Delivery, Pacs
from peers import Orthanc, data_set, free_port, wait_for
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage
from pynetdicom import evt

from pacs_agent import durable
from pacs_agent.deliver.folder import FolderSender, look
from pacs_agent.errors import DeliveryError
from pacs_agent.record import deciding, delivering
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store

SC = SecondaryCaptureImageStorage


# -- filters ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def worklist(delivery: Delivery, pacs: Pacs) -> Any:
    """A PACS that gets everything, and a worklist beside it that gets abnormal hands and wrists of XR1."""
    pacs.start(CR, SC)
    return delivery.add(
        "worklist", pacs.port, findings=("abnormal",), body_parts=("hand", "wrist"), calling_ae_titles=("XR1",)
    )


def at(delivery: Delivery, name: str) -> list[tuple[str, str | None]]:
    """Status and reason of what is at a destination."""
    return [(row["status"], row["last_error"]) for row in delivery.rows() if row["destination"] == name]


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"finding": "abnormal"}, None),
        ({"finding": "abnormal", "part": "wrist"}, None),
        ({"finding": "normal"}, "not wanted: only body_parts hand, wrist; findings abnormal"),
        ({"finding": "abnormal", "part": "elbow"}, "not wanted: only body_parts hand, wrist; findings abnormal"),
        ({"finding": "abnormal", "caller": "XR2"}, "not wanted: XR2 is not among its calling_ae_titles"),
    ],
)
def test_filters(delivery: Delivery, worklist: Any, about: dict[str, str], why: str | None) -> None:
    """What passes all of them waits there; what does not never goes, and the row and the history say why."""
    delivery.put(1, **about)
    assert at(delivery, "pacs") == [("waiting", None)]
    assert at(delivery, "worklist") == [("cancelled", why) if why else ("waiting", None)]
    assert worklist.deliver_once(Event()) == (0 if why else 1)
    told = query(delivery.store.path, "SELECT detail FROM events WHERE event = 'not delivered'").rows
    assert told == (((f"revision 1: worklist: {why}",),) if why else ())
    delivery.send()
    assert query(delivery.store.path, "SELECT status, reason FROM results").rows == (("delivered", None),)


def test_filter_does_not_keep_back_what_replaces(delivery: Delivery, worklist: Any) -> None:
    """An abnormal report is at the worklist: the later one, normal, goes there too."""
    delivery.put(1, finding="abnormal")
    worklist.deliver_once(Event())
    delivery.put(1, finding="normal")
    assert worklist.deliver_once(Event()) == 1
    assert [status for status, _ in at(delivery, "worklist")] == ["delivered", "delivered"]


def test_nothing_is_wanted_anywhere(store: Store, data_dir: Path, pacs: Pacs) -> None:
    """`results` says why, and that no release helps: there is nothing to release."""
    delivery = Delivery(store, data_dir, pacs.port, findings=("abnormal",))
    delivery.put(1)
    assert query(store.path, "SELECT status, reason FROM results").rows == (
        ("analysed", "deliveries were cancelled: not wanted: only findings abnormal"),
    )
    assert delivering.make_due(store, ["held", "parked"], "2000") == 0


def test_each_gets_its_objects(delivery: Delivery, pacs: Pacs) -> None:
    """One gets all kinds, another the captures only."""
    pacs.start(CR, SC)
    delivery.add("pictures", pacs.port, objects=("capture",))
    delivery.put_study(1, {"sr": CR, "capture": SC})
    assert sorted((row["object"], row["destination"]) for row in delivery.rows()) == [
        ("capture", "pacs"), ("capture", "pictures"), ("sr", "pacs"),
    ]  # fmt: skip


# -- back to the sender -----------------------------------------------------------------------------------------------


def test_back_to_who_sent_it(delivery: Delivery, pacs: Pacs) -> None:
    """Each to its own address; a sender that is down holds up no other; one without an address gets nothing."""
    pacs.start(CR)
    table = {"XR1": f"127.0.0.1:{pacs.port}", "XR2": f"127.0.0.1:{free_port()}"}
    delivery.add("sender", 0, to_sender=table)
    first, second = delivery.senders(delivery.destinations[-1])
    uid = delivery.put(1, caller="XR1")
    delivery.put(2, caller="XR2")
    delivery.put(3, caller="XR3")
    assert (second.deliver_once(Event()), first.deliver_once(Event())) == (1, 1)
    assert pacs.received == [uid]
    assert at(delivery, "sender:XR1") == [("delivered", None)]
    assert at(delivery, "sender:XR2") == [("waiting", "cannot be reached")]
    why = "not sent: to_sender has no address of XR3"
    assert at(delivery, "sender") == [("cancelled", why)]
    told = query(delivery.store.path, "SELECT study_instance_uid, detail FROM events WHERE event = 'not delivered'")
    assert told.rows == (("1.4.3", f"revision 1: sender: {why}"),)


def test_pause_of_the_whole_table(delivery: Delivery, pacs: Pacs) -> None:
    """`pause sender` holds every part of it."""
    pacs.start(CR)
    sender = delivery.add("sender", 0, to_sender={"XR1": f"127.0.0.1:{pacs.port}"})
    delivery.put(1)
    delivery.store.set_paused("sender", True)
    stop, looked, paused = Event(), threading.Semaphore(0), delivery.store.paused

    def watched() -> set[str]:
        looked.release()
        return paused()

    delivery.store.paused = watched  # type: ignore[method-assign]
    thread = threading.Thread(target=sender.run, args=(stop, 0.02))
    thread.start()
    try:
        for _ in range(3):
            assert looked.acquire(timeout=10)
        assert pacs.received == []
        delivery.store.set_paused("sender", False)
        wait_for(lambda: at(delivery, "sender:XR1") == [("delivered", None)], 10, "the delivery")
    finally:
        stop.set()
        thread.join(10)


# -- a folder ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where files are to go."""
    made = tmp_path / "results"
    made.mkdir()
    return made


@pytest.fixture
def files(store: Store, data_dir: Path, folder: Path) -> Delivery:
    """A delivery to that folder."""
    return Delivery(store, data_dir, 0, folder=folder)


def test_folder_gets_whole_files(files: Delivery, folder: Path, data_dir: Path) -> None:
    """Part 10, byte for byte, named by the SOP Instance UID, for the folder's group to read; nothing else is left."""
    uids = files.put_study(1, {"sr": CR, "capture": SC})
    assert isinstance(files.sender, FolderSender)
    assert files.send() == 2
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{uid}.dcm" for uid in uids)
    for uid in uids:
        assert (folder / f"{uid}.dcm").read_bytes() == (data_dir / "outbox" / f"{uid}.dcm").read_bytes()
        assert (folder / f"{uid}.dcm").stat().st_mode & 0o777 == 0o640
    rows = files.rows()
    assert {(row["status"], row["last_status"], row["last_error"]) for row in rows} == {("delivered", None, None)}


def test_full_disk_waits_and_parks_nothing(files: Delivery, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file system refuses may pass: an outage of the destination, with growing pauses; then all goes."""
    files.put_study(1, {"sr": CR, "capture": SC})

    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(durable.os, "fsync", full)
        pauses = []
        for _ in range(3):
            assert files.send() == 2
            assert files.send() == 0
            rows = files.rows()
            assert {row["status"] for row in rows} == {"waiting"}
            assert {row["attempts"] for row in rows} == {0}
            assert rows[0]["last_error"] == "cannot be written: No space left on device"
            pauses.append(files.pause_s(rows[0]))
            files.tick(pauses[-1])
    assert pauses == sorted(set(pauses))
    assert list(folder.iterdir()) == []
    assert files.send() == 2
    assert {row["status"] for row in files.rows()} == {"delivered"}


def test_what_a_kill_left_half_written_goes(files: Delivery, folder: Path) -> None:
    """At the next start, whatever became of its object; no file of others does."""
    for name in (".2.25.7.tmp", ".other.tmp", "2.25.7.dcm"):
        (folder / name).write_bytes(b"half")
    stop = Event()
    stop.set()
    files.sender.run(stop)
    assert sorted(path.name for path in folder.iterdir()) == [".other.tmp", "2.25.7.dcm"]


def test_folder_that_is_not_there_is_not_made(files: Delivery, folder: Path) -> None:
    """It may be a mount that is missing: waiting, until it is there; `check` says so."""
    files.put(1)
    folder.rmdir()
    with pytest.raises(DeliveryError, match="there is no such folder"):
        look(folder)
    assert files.send() == 1
    assert not folder.exists()
    assert [row["status"] for row in files.rows()] == ["waiting"]
    folder.mkdir()
    assert str(folder) in look(folder)
    files.tick(100)
    files.send()
    assert [row["status"] for row in files.rows()] == ["delivered"]


def test_name_that_is_no_uid_is_never_a_path(files: Delivery, folder: Path, data_dir: Path) -> None:
    """Parked, and nothing is written; what stands behind it goes."""
    files.put(1)
    with files.store.write() as connection:
        connection.exec_driver_sql("UPDATE report SET sop_instance_uid = '../escaped'")
    good = files.put(2)
    files.send()
    assert [row["status"] for row in files.rows()] == ["parked", "delivered"]
    assert [path.name for path in folder.iterdir()] == [f"{good}.dcm"]
    assert not (folder.parent / "escaped.dcm").exists()


def test_lost_object_is_parked(files: Delivery, folder: Path, data_dir: Path) -> None:
    """As at a PACS: its own fault, not the folder's."""
    (data_dir / "outbox" / f"{files.put(1)}.dcm").unlink()
    files.send()
    assert [row["status"] for row in files.rows()] == ["parked"]
    assert list(folder.iterdir()) == []


def test_silent_folder_and_release(store: Store, data_dir: Path, folder: Path) -> None:
    """Held until released; a withdrawn study's objects never come."""
    files = Delivery(store, data_dir, 0, folder=folder, mode="silent")
    uid = files.put(1)
    files.put(2)
    assert files.send() == 0
    assert deciding.settle(store, "1.4.2", "withdraw", "wrong patient")
    assert delivering.make_due(store, ["held"], "2000") == 1
    assert files.send() == 1
    assert [path.name for path in folder.iterdir()] == [f"{uid}.dcm"]


# -- what a PACS takes ------------------------------------------------------------------------------------------------


def test_refused_capture_parks_alone(delivery: Delivery, pacs: Pacs) -> None:
    """A PACS that takes structured reports and no secondary captures: the report goes, its picture is parked."""
    pacs.start(Comprehensive3DSRStorage)
    report, _picture = delivery.put_study(1, {"sr": Comprehensive3DSRStorage, "capture": SC})
    delivery.send()
    assert pacs.received == [report]
    assert {row["object"]: (row["status"], row["last_error"]) for row in delivery.rows()} == {
        "sr": ("delivered", None),
        "capture": ("parked", "the destination does not accept this SOP class: Secondary Capture Image Storage"),
    }


class Proxy:
    """Between us and a PACS: connection by connection it passes on so much, then drops both ends.

    Args:
        port: of the PACS.
        cuts: for each connection in turn the bytes of ours, or None: all of ours, and no answer but the first, which
            accepts the association. None left: everything passes.
    """

    def __init__(self, port: int, cuts: list[int | None]) -> None:
        self._target = port
        self.cuts = cuts
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._server.accept()
            except OSError:
                return
            theirs = socket.create_connection(("127.0.0.1", self._target))
            cut = self.cuts.pop(0) if self.cuts else 1 << 40
            ways = ((ours, theirs, cut or 1 << 40, 1 << 40), (theirs, ours, 1 << 40, 1 << 40 if cut else 1))
            for way in ways:
                self._threads.append(threading.Thread(target=self._pass, args=way))
                self._threads[-1].start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, left: int, pieces: int) -> None:
        try:
            while left > 0 and (data := source.recv(min(left, 4096))):
                if not pieces:
                    break
                sink.sendall(data)
                left, pieces = left - len(data), pieces - 1
        except OSError:
            pass
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def stop(self) -> None:
        """Close it."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(20)


@pytest.fixture
def proxies() -> Iterator[list[Proxy]]:
    """Stopped after the test."""
    made: list[Proxy] = []
    yield made
    for each in made:
        each.stop()


@pytest.mark.orthanc
def test_ten_tries_leave_one_instance_of_each_object(
    store: Store, data_dir: Path, orthanc: Orthanc, proxies: list[Proxy]
) -> None:
    """Dropped while asking, in the middle of a C-STORE and before the answer: one of each, byte for byte the stored."""
    # Our association request has about 700 bytes, an object more than 8,000.
    cuts = [100, 1500, None, 3000, 4500, None, 6000, 8000, None, 2000]
    proxies.append(Proxy(orthanc.dicom_port, cuts))
    delivery = Delivery(store, data_dir, proxies[0].port, ae_title="ORTHANC")
    uids = delivery.put_study(1, {"sr": Comprehensive3DSRStorage, "capture": SC})
    tries = 0
    while any(row["status"] != "delivered" for row in delivery.rows()):
        assert {row["status"] for row in delivery.rows()} <= {"waiting", "delivered"}
        tries += bool(delivery.send())
        assert tries < 40
        delivery.tick(901)
    assert not proxies[0].cuts
    assert tries > 10
    found = orthanc.get("/instances?expand")
    there = {each["MainDicomTags"]["SOPInstanceUID"]: each["ID"] for each in found}
    assert len(found) == len(there) == 2
    for uid in uids:
        kept = (data_dir / "outbox" / f"{uid}.dcm").read_bytes()
        assert data_set(orthanc.file(there[uid])) == data_set(kept)


def test_ten_tries_at_a_pacs_of_many_moods(delivery: Delivery, pacs: Pacs) -> None:
    """Stored and then aborted, refused for want of space and retried, a duplicate: one instance, one content."""
    there: dict[str, set[bytes]] = {}
    moods = ["abort", 0xA700, "abort", 0xA700, "abort", "abort", 0xA700, "abort", "abort"]

    def answer(event: evt.Event) -> int | Dataset:
        uid = str(event.request.AffectedSOPInstanceUID)
        mood = moods.pop(0) if moods else 0x0111
        if mood != 0xA700:
            there.setdefault(uid, set()).add(event.encoded_dataset(include_meta=False))
        if mood == "abort":
            event.assoc.abort()
        return mood if isinstance(mood, int) else 0

    pacs.answer = answer
    pacs.start(CR)
    uid = delivery.put(1)
    for _ in range(10):
        assert delivery.send() == 1
        delivery.tick(901)
        delivering.make_due(delivery.store, ["parked"])
    [row] = delivery.rows()
    assert (row["status"], row["last_status"], row["attempts"]) == ("delivered", "0111", 10)
    assert list(there) == [uid]
    [content] = there[uid]
    assert (delivery.data_dir / "outbox" / f"{uid}.dcm").read_bytes().endswith(content)
