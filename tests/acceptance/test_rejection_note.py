"""Rejection notes over a real association, to a real daemon."""

import pytest
from keyobjects import REJECTED_FOR_QUALITY, key_object
from peers import DaemonProcess, free_port, wait_for, write_config
from pydicom.dataset import Dataset
from pynetdicom import AE
from radiographs import hand


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> DaemonProcess:
    """Without a destination: what is made is held."""
    port = free_port()
    running = DaemonProcess(write_config(tmp_path_factory.mktemp("agent"), port), port)
    running.start()
    yield running
    assert running.stop() == 0


def send(daemon: DaemonProcess, *instances: Dataset) -> None:
    """C-STORE, each acknowledged."""
    ae = AE(ae_title="XR1")
    for ds in instances:
        ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", daemon.port, ae_title="PACS_AGENT")
    assert assoc.is_established
    assert [assoc.send_c_store(ds).Status for ds in instances] == [0] * len(instances)
    assoc.release()


def image_status(daemon: DaemonProcess, ds: Dataset) -> tuple[str, str | None]:
    """Status and reason of one image."""
    [row] = daemon.sql(f"SELECT status, reason FROM image_results WHERE sop_instance_uid = '{ds.SOPInstanceUID}'")
    return row["status"], row["reason"]


def test_a_rejected_image_leaves_the_result(daemon: DaemonProcess) -> None:
    """Two images are analysed; one is rejected: a second revision rests on the other alone."""
    first, second = hand(seed=1), hand(seed=2)
    second.StudyInstanceUID, second.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
    send(daemon, first, second)
    sql = f"SELECT * FROM results WHERE study_instance_uid = '{first.StudyInstanceUID}' AND revision = "
    wait_for(lambda: daemon.sql(sql + "1 AND image_count = 2"), 60, "the first revision")
    send(daemon, key_object(REJECTED_FOR_QUALITY, [first]))
    [row] = wait_for(lambda: daemon.sql(sql + "2"), 60, "the second revision")
    assert (row["image_count"], row["images_analysed"], row["status"]) == (1, 1, "held")
    assert image_status(daemon, first) == ("rejected", "rejected for quality reasons (rejection note)")
    assert image_status(daemon, second)[0] == "analysed"


def test_a_note_for_a_study_not_seen_yet(daemon: DaemonProcess) -> None:
    """It is kept, and its image is rejected when it comes; a retake is analysed."""
    image, retake = hand(seed=3), hand(seed=4)
    retake.StudyInstanceUID = image.StudyInstanceUID
    send(daemon, key_object(REJECTED_FOR_QUALITY, [image]))
    send(daemon, image)
    assert image_status(daemon, image)[0] == "rejected"
    send(daemon, retake)
    sql = f"SELECT * FROM results WHERE study_instance_uid = '{image.StudyInstanceUID}' AND body_part = 'hand'"
    [row] = wait_for(lambda: daemon.sql(sql), 60, "the retake's result")
    assert (row["image_count"], row["images_analysed"]) == (1, 1)
