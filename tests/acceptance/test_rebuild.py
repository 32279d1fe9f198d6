"""A database that is spoilt: one line, everything kept, and a new one from inbox and outbox that nobody notices."""

import io
import shutil
from pathlib import Path

import pytest
from peers import DaemonProcess, Orthanc, answers_echo, wait_for
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pynetdicom import AE
from radiographs import hand

from pacs_agent.record.store import Store

pytestmark = pytest.mark.orthanc


def store(daemon: DaemonProcess, ds: FileDataset) -> None:
    """C-STORE; it is acknowledged."""
    ae = AE(ae_title="XR1")
    ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", daemon.port, ae_title="PACS_AGENT")
    assert assoc.send_c_store(ds).Status == 0
    assoc.release()


def results(daemon: DaemonProcess) -> dict[str, tuple[str, str | None]]:
    """Status and report of each study."""
    rows = daemon.sql("SELECT study_instance_uid, status, report_sop_instance_uid FROM results")
    return {row["study_instance_uid"]: (row["status"], row["report_sop_instance_uid"]) for row in rows}


def has(daemon: DaemonProcess, ds: FileDataset, status: str) -> str | None:
    """Wait until a study is in that state; its report."""
    uid = ds.StudyInstanceUID
    wait_for(lambda: results(daemon).get(uid, ("", None))[0] == status, 60, f"{status}: {results(daemon)}")
    return results(daemon)[uid][1]


def at_pacs(orthanc: Orthanc) -> dict[str, list[str]]:
    """The reports that the PACS has of each study."""
    found: dict[str, list[str]] = {}
    for each in orthanc.instances("SR"):
        ds = dcmread(io.BytesIO(orthanc.file(each)))
        found.setdefault(str(ds.StudyInstanceUID), []).append(str(ds.SOPInstanceUID))
    return found


def test_spoilt_database_and_lost_journal(daemon: DaemonProcess, orthanc: Orthanc) -> None:
    """What was told is told no second time, what was not told is told, what was not analysed is analysed.

    First the whole file is spoilt, and a person rebuilds it; then a journal is cut short after a kill, of which SQLite
    says nothing, and the start finds the report that no row names any more.
    """
    told, untold, unseen, last = (hand(seed=seed) for seed in range(1, 5))
    database = daemon.config.parent / "data" / "pacs-agent.db"
    record = Store.attach(database)
    store(daemon, told)
    reports = {told.StudyInstanceUID: has(daemon, told, "delivered")}
    record.set_paused("pacs", True)
    store(daemon, untold)
    reports[untold.StudyInstanceUID] = has(daemon, untold, "analysed")
    record.set_paused("analysis", True)
    store(daemon, unseen)
    findings = daemon.sql("SELECT study_instance_uid, finding FROM results WHERE finding IS NOT NULL")
    record.close()
    assert daemon.stop() == 0

    database.write_bytes(b"\x5a" * database.stat().st_size)
    said = daemon.run("serve")
    assert said.returncode == 1
    assert said.stderr.count("\n") == 1, said.stderr
    assert "`pacs-agent rebuild`" in said.stderr
    rebuilt = daemon.run("rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "inbox: 3 instances of 3 studies, 1 of them to be analysed" in rebuilt.stdout
    daemon.start()
    for ds in (told, untold, unseen):
        uid = ds.StudyInstanceUID
        assert has(daemon, ds, "delivered") == reports.setdefault(uid, results(daemon)[uid][1])
    for row in findings:
        assert row in daemon.sql("SELECT study_instance_uid, finding FROM results")

    store(daemon, last)
    reports[last.StudyInstanceUID] = has(daemon, last, "delivered")
    daemon.kill_all()
    journal = database.with_name(f"{database.name}-wal")
    assert journal.stat().st_size > 0
    journal.write_bytes(b"")
    daemon.start()
    for ds in (told, untold, unseen, last):
        assert has(daemon, ds, "delivered") == reports[ds.StudyInstanceUID]
    assert "the database has lost its last transactions" in daemon.log_path.read_text()
    assert at_pacs(orthanc) == {uid: [report] for uid, report in reports.items()}
    assert daemon.stop() == 0


def test_journal_that_ends_at_a_claim(daemon: DaemonProcess, orthanc: Orthanc, tmp_path: Path) -> None:
    """What was recorded and sent after it is lost: the report is found, and the PACS gets no second one."""
    assert daemon.stop() == 0
    ds = hand(seed=11)
    database = daemon.config.parent / "data" / "pacs-agent.db"
    daemon.launch(PACS_AGENT_CRASH_AT="studies claimed")
    wait_for(lambda: answers_echo(daemon.port, "PACS_AGENT"), 90, "the daemon's C-ECHO")
    store(daemon, ds)
    assert daemon.process is not None
    daemon.process.wait(60)
    for path in database.parent.glob(f"{database.name}*"):
        shutil.copy(path, tmp_path / path.name)
    daemon.start()
    uid = has(daemon, ds, "delivered")
    daemon.kill_all()
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()
    for path in tmp_path.glob(f"{database.name}*"):
        shutil.copy(path, database.parent)
    daemon.start()
    assert has(daemon, ds, "delivered") == uid
    assert "recorded from their reports" in daemon.log_path.read_text()
    assert at_pacs(orthanc)[ds.StudyInstanceUID] == [uid]
    assert daemon.stop() == 0
