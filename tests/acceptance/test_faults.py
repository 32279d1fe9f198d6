"""A whole daemon on a disk that refuses: nothing that it acknowledges is lost, and it goes on when the disk does."""

import errno
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from faultydisk import FaultyDisk, faulty_disk
from peers import DaemonProcess, free_port, wait_for, write_config
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pynetdicom import AE
from radiographs import hand

OUT_OF_RESOURCES = 0xA700
DATABASE = "pacs-agent.db"
TIMEOUT_S = 15  # of the watchdog


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of everything here."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def disk(folder: Path) -> FaultyDisk:
    """Fails when it is told to."""
    return faulty_disk(folder)


@pytest.fixture(scope="module")
def daemon(folder: Path, disk: FaultyDisk) -> Iterator[DaemonProcess]:
    """On that disk, with a folder for its PACS."""
    (folder / "pacs").mkdir()
    port = free_port()
    more = f"[model]\ntimeout_seconds = {TIMEOUT_S}\n"
    more += f'[[destination]]\nname = "pacs"\nfolder = "{folder / "pacs"}"\nretry_seconds = 1\n'
    running = DaemonProcess(write_config(folder, port, more=more), port, environment=disk.environment)
    running.start()
    yield running
    assert running.stop() == 0


def store(daemon: DaemonProcess, ds: FileDataset) -> int:
    """C-STORE; the status."""
    ae = AE(ae_title="XR1")
    ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", daemon.port, ae_title="PACS_AGENT")
    assert assoc.is_established
    status = int(assoc.send_c_store(ds).Status)
    assoc.release()
    return status


def status(daemon: DaemonProcess, ds: FileDataset) -> str | None:
    """Of its study."""
    sql = f"SELECT status FROM results WHERE study_instance_uid = '{ds.StudyInstanceUID}'"
    return next((row["status"] for row in daemon.sql(sql)), None)


def delivered(daemon: DaemonProcess, ds: FileDataset) -> None:
    """Its study comes through."""
    wait_for(lambda: status(daemon, ds) == "delivered", 90, f"delivery: {daemon.log_path.read_text()[-3000:]}")


@pytest.mark.parametrize(
    ("call", "number", "path"),
    [
        ("create", errno.EROFS, "/inbox/"),
        ("create", errno.ENOSPC, "/inbox/"),
        ("write", errno.ENOSPC, "/inbox/"),
        ("write", errno.EIO, "/inbox/"),
        ("fsync", errno.EIO, "/inbox/"),
        ("rename", errno.EIO, "/inbox/"),
        ("write", errno.ENOSPC, DATABASE),
        ("fsync", errno.EIO, DATABASE),
    ],
)
def test_receiving(daemon: DaemonProcess, disk: FaultyDisk, folder: Path, call: str, number: int, path: str) -> None:
    """A700 while it lasts, with one line in the log; success right after, and the study comes through."""
    ds = hand(seed=1)
    with disk.failing(call, number, path):
        assert store(daemon, ds) == OUT_OF_RESOURCES
    assert store(daemon, ds) == 0


@pytest.mark.parametrize(
    ("call", "number", "path"),
    [("write", errno.ENOSPC, "/outbox/"), ("fsync", errno.EIO, "/outbox/"), ("write", errno.ENOSPC, DATABASE)],
)
def test_analysis(daemon: DaemonProcess, disk: FaultyDisk, call: str, number: int, path: str) -> None:
    """It waits, says why, fails no study for it, and makes one report when it can."""
    ds = hand(seed=2)
    assert store(daemon, ds) == 0
    with disk.failing(call, number, path):
        said = daemon.log_path.stat().st_size
        waits = ("analysis waits", "a job of the schedule waits", "the database is not available")
        wait_for(lambda: any(each in daemon.log_path.read_text()[said:] for each in waits), what="the word on it")
        assert status(daemon, ds) in ("receiving", "queued")
    delivered(daemon, ds)


def test_delivery_to_a_folder_that_refuses(daemon: DaemonProcess, disk: FaultyDisk) -> None:
    """It waits, and comes there once."""
    ds = hand(seed=3)
    with disk.failing("fsync", errno.EIO, "/pacs/"):
        assert store(daemon, ds) == 0
        wait_for(lambda: status(daemon, ds) == "analysed", what="the analysis")
        wait_for(lambda: daemon.sql("SELECT 1 FROM deliveries WHERE last_error IS NOT NULL"), what="the word on it")
    delivered(daemon, ds)


def test_file_that_the_disk_does_not_give_back(daemon: DaemonProcess, disk: FaultyDisk) -> None:
    """Its study waits and says why, another passes it, and it is analysed when it can be read."""
    sick, well = hand(seed=1), hand(seed=2)
    assert store(daemon, sick) == 0
    [row] = daemon.sql(f"SELECT path FROM instance WHERE sop_instance_uid = '{sick.SOPInstanceUID}'")
    said = "SELECT 1 FROM events WHERE event = 'instances cannot be read'"
    with disk.failing("read", errno.EIO, row["path"]):
        wait_for(lambda: daemon.sql(said), what="the word on it")
        assert store(daemon, well) == 0
        delivered(daemon, well)
        assert status(daemon, sick) == "queued"
    delivered(daemon, sick)


def test_database_that_somebody_holds(daemon: DaemonProcess, folder: Path) -> None:
    """For a while nobody else may write: what is sent then is acknowledged when it can be, and comes through."""
    first, second = hand(seed=1), hand(seed=2)
    with (
        ThreadPoolExecutor(1) as senders,
        closing(sqlite3.connect(folder / "data" / DATABASE, isolation_level=None, timeout=30)) as holder,
    ):
        assert store(daemon, first) == 0
        holder.execute("BEGIN EXCLUSIVE")
        answer = senders.submit(store, daemon, second)
        assert not wait([answer], timeout=2).done
        assert status(daemon, first) == "receiving"
        holder.execute("ROLLBACK")
        assert answer.result(60) == 0
    for ds in (first, second):
        delivered(daemon, ds)


def test_analysis_process_that_hangs(daemon: DaemonProcess, folder: Path) -> None:
    """The watchdog kills it; the study is analysed by the next one."""
    ds = hand(seed=3)
    pid = int(json.loads((folder / "data" / "daemon.json").read_text())["worker_pid"])
    os.kill(pid, signal.SIGSTOP)
    assert store(daemon, ds) == 0
    delivered(daemon, ds)
    assert not psutil.pid_exists(pid)
    assert f"did not answer in {TIMEOUT_S} s" in daemon.log_path.read_text()


def test_nothing_was_lost_or_made_twice(daemon: DaemonProcess, folder: Path) -> None:
    """After all of it: no study failed, every report at the destination once, no scraps."""
    wait_for(lambda: not daemon.sql("SELECT 1 FROM results WHERE status <> 'delivered'"), 90, "every delivery")
    assert daemon.sql("SELECT 1 FROM results WHERE revision > 1") == []
    objects = {row["sop_instance_uid"] for row in daemon.sql("SELECT sop_instance_uid FROM deliveries")}
    at_pacs = sorted(str(dcmread(path).SOPInstanceUID) for path in (folder / "pacs").rglob("*.dcm"))
    assert at_pacs == sorted(objects)
    assert len(at_pacs) == len(daemon.sql("SELECT DISTINCT study_instance_uid FROM results")) >= 16
    assert len(list((folder / "data" / "outbox").iterdir())) == len(objects)
    assert list((folder / "data" / "inbox" / "tmp").iterdir()) == []
    assert "Traceback" not in daemon.log_path.read_text()
