"""The composition root: a part that cannot start takes the others with it, a part that fails is never silent."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import answers_echo, wait_for
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from radiographs import hand
from spoiling import spoil_page

from pacs_agent.analyse.bundle import SHIPPED
from pacs_agent.daemon import Daemon
from pacs_agent.errors import BundleError, DatabaseDamagedError, PacsAgentError, StationError, WorkerUnavailableError
from pacs_agent.record import backup
from pacs_agent.record.reading import query
from pacs_agent.settings import Settings


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that was not started."""
    made = Daemon(Settings(agent={"data_dir": tmp_path / "data"}, listener={"port": 0}, study={"quiet_seconds": 1}))
    yield made
    if any(thread.is_alive() for thread in made._threads):
        made.stop()


def left(daemon: Daemon) -> list[str]:
    """What still runs of it."""
    mine = {thread.ident for thread in daemon._threads}
    return [thread.name for thread in threading.enumerate() if thread.ident in mine or thread.name == "listener"]


def test_failure_while_starting_leaves_nothing_running(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever raises after the threads run: they end, the port is closed, the error is told."""

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(daemon._presence, "tell", full)
    with pytest.raises(OSError, match="No space left"):
        daemon.start()
    wait_for(lambda: not left(daemon), what="the end of the threads")
    assert not answers_echo(daemon.port, "PACS_AGENT")


@pytest.mark.parametrize("error", [BundleError("the device is gone"), RuntimeError("unforeseen")])
def test_analysis_that_cannot_start_is_told(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """No daemon receives without analysing: `start` raises what the analysis process met."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(daemon._process, "start", fail)
    with pytest.raises(type(error), match=str(error)):
        daemon.start()
    assert not left(daemon)


@pytest.fixture
def comparing(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with a further bundle, whose processes are not started."""
    shutil.copytree(SHIPPED / "demonstration", tmp_path / "candidate")
    manifest = tmp_path / "candidate" / "model.json"
    manifest.write_text(manifest.read_text().replace('"name": "demonstration"', '"name": "candidate"'))
    model = {"also": [str(tmp_path / "candidate")]}
    made = Daemon(Settings(agent={"data_dir": tmp_path / "data"}, listener={"port": 0}, model=model))
    yield made
    if any(thread.is_alive() for thread in made._threads):
        made.stop()


def test_further_bundle_that_cannot_run_is_refused_at_start(comparing: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its process says of the bundle ends the start, as for the live one; nothing is left running."""

    def fail() -> None:
        raise BundleError("bundle candidate: its network cannot be built")

    monkeypatch.setattr(comparing._further_processes[0], "start", fail)
    with pytest.raises(BundleError, match="its network cannot be built"):
        comparing.start()
    assert not left(comparing)


@pytest.mark.parametrize("of", ["the live bundle", "a further bundle"])
def test_process_that_cannot_start_now_holds_no_sender_up(
    comparing: Daemon, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    """Its device is short of memory: the daemon starts and answers, says why the analysis waits, and tries again."""
    live = of == "the live bundle"
    process = comparing._process if live else comparing._further_processes[0]
    ensure = process.ensure
    is_back = threading.Event()

    def short() -> None:
        if not is_back.is_set():
            raise WorkerUnavailableError("cuda has not memory enough for the weights")
        ensure()

    monkeypatch.setattr(process, "ensure", short)
    comparing.start()
    assert answers_echo(comparing.port, "PACS_AGENT")
    assert comparing._failure is None
    station = comparing._station if live else comparing._further[0]
    wait_for(lambda: station.problem, what="the problem")
    if live:
        is_back.set()
        wait_for(lambda: process.pid and not station.problem, 60, "the end of the problem")
    comparing.stop()
    assert not left(comparing)


def test_unforeseen_error_in_a_job_of_the_schedule_stops_the_daemon(daemon: Daemon) -> None:
    """It would otherwise live on, answer success and never complete a study."""

    def fail() -> None:
        raise ZeroDivisionError

    daemon._timely("completeness", fail)
    assert daemon._stop.is_set()
    assert isinstance(daemon._failure, StationError)


def test_database_that_is_spoilt_under_a_daemon_stops_it(daemon: Daemon) -> None:
    """Its last line names the way out, as at a start."""
    page = 4096

    def read() -> None:
        with daemon._store.read() as connection:
            connection.exec_driver_sql("SELECT COUNT(*) FROM sqlite_schema").scalar()

    read()
    daemon._store.close()
    with daemon._store.path.open("r+b") as file:
        file.seek(100)  # behind the header, the schema's own page
        file.write(b"\xff" * (page - 100))
    daemon._timely("completeness", read)
    assert daemon._stop.is_set()
    assert isinstance(daemon._failure, DatabaseDamagedError)
    assert "pacs-agent rebuild" in str(daemon._failure)


def test_full_disk_in_a_job_of_the_schedule_is_waited_out(daemon: Daemon) -> None:
    """The next second may be better."""

    def full() -> None:
        raise OSError(28, "No space left on device")

    daemon._timely("completeness", full)
    assert not daemon._stop.is_set()


def test_state_file_that_cannot_be_written_holds_no_study_up(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies are declared complete all the same."""
    declared: list[bool] = []

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(daemon._presence, "tell", full)
    monkeypatch.setattr(daemon, "_declare_complete", lambda: declared.append(True))
    daemon._timely("completeness", daemon._each_second)
    assert declared
    assert not daemon._stop.is_set()


def test_two_daemons_on_one_port(daemon: Daemon, tmp_path: Path) -> None:
    """The second says which port, and nothing of it is left."""
    daemon.start()
    second = Daemon(Settings(agent={"data_dir": tmp_path / "second"}, listener={"port": daemon.port}))
    with pytest.raises(PacsAgentError, match=f"cannot listen on 127.0.0.1:{daemon.port}"):
        second.start()
    assert answers_echo(daemon.port, "PACS_AGENT")
    daemon.stop()


def test_restore_that_was_killed_is_finished_at_start(tmp_path: Path) -> None:
    """The daemon begins with the database that was to be restored, never with an empty one in an empty place."""
    settings = Settings(agent={"data_dir": tmp_path / "data"}, listener={"port": 0})
    Daemon(settings).stop()
    database = settings.database_path
    uid = query(database, "SELECT device_uid FROM installation").rows
    backup.back_up(database, tmp_path / "data" / f"{database.name}.restoring-20260131T081500Z")
    database.unlink()
    again = Daemon(settings)
    assert query(database, "SELECT device_uid FROM installation").rows == uid
    again.stop()


@pytest.mark.parametrize("of", ["instance", "commitment"])
def test_damage_that_only_a_peer_meets_stops_the_daemon(daemon: Daemon, of: str) -> None:
    """No station reads that index: senders would be refused, and words on commitment lost, for good."""
    daemon.start()
    spoil_page(daemon._store.path, f"sqlite_autoindex_{of}_1")
    ds = hand()
    ae = AE(ae_title="XR1")
    ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    ae.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    assoc = ae.associate("127.0.0.1", daemon.port, ae_title="PACS_AGENT", ext_neg=[role])
    if of == "instance":
        assert assoc.send_c_store(ds).Status == 0xA700
    else:
        result = Dataset()
        result.TransactionUID = "2.25.1"
        status, _ = assoc.send_n_event_report(result, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        assert status.Status == 0x0110
    assert daemon._stop.wait(10)
    assoc.release()
    assert isinstance(daemon._failure, DatabaseDamagedError)
