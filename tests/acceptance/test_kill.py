"""SIGKILL of every process in the middle of a send: what was acknowledged is kept, and each study has one report."""

import io
import threading
from pathlib import Path

import pytest
from peers import DaemonProcess, Orthanc, free_port, wait_for, write_config
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from radiographs import cr

STUDIES, IMAGES = 20, 10

pytestmark = pytest.mark.orthanc


def send(port: int, instances: list[FileDataset], acknowledged: set[str]) -> None:
    """C-STORE what is not acknowledged yet, until the association ends."""
    ae = AE(ae_title="XR1")
    ae.add_requested_context(instances[0].SOPClassUID, instances[0].file_meta.TransferSyntaxUID)
    ae.dimse_timeout = 5  # pynetdicom waits it out even where the connection is gone
    assoc = ae.associate("127.0.0.1", port, ae_title="PACS_AGENT")
    for ds in instances:
        if ds.SOPInstanceUID in acknowledged:
            continue
        if not assoc.is_established:
            return
        try:
            answer = assoc.send_c_store(ds)
        except RuntimeError:
            return
        if answer.get("Status") == 0:
            acknowledged.add(ds.SOPInstanceUID)
    assoc.release()


def test_kill_during_a_send(tmp_path: Path, orthanc: Orthanc) -> None:
    """200 instances of 20 studies, killed three times on the way."""
    port = free_port()
    daemon = DaemonProcess(write_config(tmp_path, port, orthanc), port)
    instances: list[FileDataset] = []
    for number in range(STUDIES):
        study, series = generate_uid(), generate_uid()
        instances += [
            cr(
                seed=number * IMAGES + image,
                StudyInstanceUID=study,
                SeriesInstanceUID=series,
                AccessionNumber=f"K{number}",
            )
            for image in range(IMAGES)
        ]
    acknowledged: set[str] = set()
    for kill_after in (40, 90, 150, None):
        daemon.start()
        sender = threading.Thread(target=send, args=(port, instances, acknowledged))
        sender.start()
        if kill_after:
            wait_for(lambda bound=kill_after: len(acknowledged) >= bound, 60, f"{kill_after} acknowledgements")
            daemon.kill_all()
            promised = set(acknowledged)
        sender.join(120)
        if kill_after:
            # A status may have been on its way when the kill came; what had arrived before is what counts.
            assert promised <= acknowledged
    assert len(acknowledged) == len(instances)
    try:
        sql = "SELECT COUNT(*) AS n FROM results WHERE status = 'delivered' AND image_count = 10"
        wait_for(lambda: daemon.sql(sql)[0]["n"] == STUDIES, 120, "every study's delivery")
        rows = daemon.sql("SELECT sop_instance_uid FROM image_results")
        assert {row["sop_instance_uid"] for row in rows} == acknowledged
        on_disk = {
            str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in tmp_path.glob("data/inbox/??/*.dcm")
        }
        assert on_disk == acknowledged
        results = daemon.sql("SELECT study_instance_uid, report_sop_instance_uid, revision FROM results")
        assert len(results) == STUDIES
        reports: dict[str, list[FileDataset]] = {}
        for each in orthanc.instances("SR"):
            ds = dcmread(io.BytesIO(orthanc.file(each)))
            reports.setdefault(str(ds.StudyInstanceUID), []).append(ds)
        for row in results:
            of_study = {str(ds.SOPInstanceUID): ds for ds in reports[row["study_instance_uid"]]}
            earlier = {
                str(item.ReferencedSOPInstanceUID)
                for ds in of_study.values()
                for document in ds.get("PredecessorDocumentsSequence", ())
                for series in document.ReferencedSeriesSequence
                for item in series.ReferencedSOPSequence
            }
            # One current report; any other is named as a predecessor.
            assert of_study.keys() - earlier == {row["report_sop_instance_uid"]}
            assert len(of_study) <= row["revision"]
    finally:
        assert daemon.stop() == 0
