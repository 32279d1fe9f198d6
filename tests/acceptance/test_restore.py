"""Back to a backup: nothing acknowledged is lost, and the PACS gets no report that does not name its predecessor."""

import io
from pathlib import Path

import pytest
from peers import DaemonProcess, Orthanc, wait_for
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pynetdicom import AE
from radiographs import hand

pytestmark = pytest.mark.orthanc


def store(daemon: DaemonProcess, *instances: FileDataset) -> None:
    """C-STORE; every one is acknowledged."""
    ae = AE(ae_title="XR1")
    ae.add_requested_context(instances[0].SOPClassUID, instances[0].file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", daemon.port, ae_title="PACS_AGENT")
    assert assoc.is_established
    assert [assoc.send_c_store(ds).Status for ds in instances] == [0] * len(instances)
    assoc.release()


def delivered(daemon: DaemonProcess, images: dict[str, int]) -> None:
    """Wait until each study is delivered with so many images."""
    sql = "SELECT study_instance_uid, image_count FROM results WHERE status = 'delivered'"
    wait_for(
        lambda: {row["study_instance_uid"]: row["image_count"] for row in daemon.sql(sql)} == images, 120, "delivery"
    )


def test_backup_kill_restore_start(daemon: DaemonProcess, orthanc: Orthanc, tmp_path: Path) -> None:
    """Studies before and after the backup, and a study in both: all are there again.

    What was reported after the backup is in the outbox with its finding, and is reported no second time; a report that
    replaces another names it, so that the PACS has one current report of each study.
    """
    before, both, after = hand(seed=1), hand(seed=2), hand(seed=3)
    later = hand(seed=4, StudyInstanceUID=both.StudyInstanceUID, SeriesInstanceUID=both.SeriesInstanceUID)
    store(daemon, before)
    store(daemon, both)
    delivered(daemon, {before.StudyInstanceUID: 1, both.StudyInstanceUID: 1})
    copy = tmp_path / "copy.db"
    assert daemon.run("backup", str(copy)).returncode == 0
    store(daemon, later)
    store(daemon, after)
    everything = {before.StudyInstanceUID: 1, both.StudyInstanceUID: 2, after.StudyInstanceUID: 1}
    delivered(daemon, everything)
    refused = daemon.run("restore", str(copy))
    assert refused.returncode == 1
    assert "stop it first" in refused.stderr
    unsent = hand(seed=5)
    store(daemon, unsent)
    daemon.kill_all()
    restored = daemon.run("restore", str(copy))
    assert restored.returncode == 0, restored.stderr
    assert "before-restore" in restored.stdout
    daemon.start()
    delivered(daemon, everything | {unsent.StudyInstanceUID: 1})
    received = {row["sop_instance_uid"] for row in daemon.sql("SELECT sop_instance_uid FROM image_results")}
    assert received == {ds.SOPInstanceUID for ds in (before, both, later, after, unsent)}
    reports: dict[str, dict[str, FileDataset]] = {}
    for each in orthanc.instances("SR"):
        ds = dcmread(io.BytesIO(orthanc.file(each)))
        reports.setdefault(str(ds.StudyInstanceUID), {})[str(ds.SOPInstanceUID)] = ds
    rows = daemon.sql("SELECT study_instance_uid, report_sop_instance_uid FROM results")
    current = {row["study_instance_uid"]: row["report_sop_instance_uid"] for row in rows}
    for study, of_study in reports.items():
        named = {
            str(item.ReferencedSOPInstanceUID)
            for ds in of_study.values()
            for document in ds.get("PredecessorDocumentsSequence", ())
            for series in document.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        assert of_study.keys() - named == {current[study]}
    made = {study: len(of_study) for study, of_study in reports.items()}
    assert made == {both.StudyInstanceUID: 2} | {ds.StudyInstanceUID: 1 for ds in (before, after, unsent)}
    total = len(orthanc.instances("SR"))
    daemon.stop()
    daemon.start()  # the mark is gone: nothing is made again
    delivered(daemon, everything | {unsent.StudyInstanceUID: 1})
    assert len(orthanc.instances("SR")) == total
    assert daemon.log_path.read_text().count("the database is a restored one") == 1
