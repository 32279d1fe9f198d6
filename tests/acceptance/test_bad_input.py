"""Bad input to the running daemon: each gets its reason, and the good study beside it goes on."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import DaemonProcess, free_port, wait_for, write_config
from pydicom.dataset import FileDataset
from pydicom.uid import DigitalXRayImageStorageForProcessing, JPEG2000Lossless, RLELossless
from pynetdicom import AE, AllStoragePresentationContexts
from radiographs import cr, hand

from pacs_agent.analyse.bundle import SHIPPED


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon without a destination: its objects are held."""
    port = free_port()
    running = DaemonProcess(write_config(tmp_path_factory.mktemp("agent"), port), port)
    running.start()
    yield running
    assert running.stop() == 0


def store(daemon: DaemonProcess, *instances: FileDataset) -> list[int]:
    """C-STORE each over one association; the statuses."""
    ae = AE(ae_title="XR1")
    for syntax in {ds.file_meta.TransferSyntaxUID for ds in instances}:
        for uid in {ds.SOPClassUID for ds in instances}:
            ae.add_requested_context(uid, syntax)
    assoc = ae.associate("127.0.0.1", daemon.port, ae_title="PACS_AGENT")
    assert assoc.is_established
    try:
        return [assoc.send_c_store(ds).Status for ds in instances]
    finally:
        assoc.release()


def settled(daemon: DaemonProcess, study_instance_uid: str) -> dict[str, Any]:
    """The study's `results` row once it has left the queue."""
    sql = (
        f"SELECT * FROM results WHERE study_instance_uid = '{study_instance_uid}' "
        "AND status NOT IN ('receiving', 'queued')"
    )
    return dict(wait_for(lambda: daemon.sql(sql), 60, "the study's end")[0])


def _corrupt_jpeg2000() -> FileDataset:
    ds = cr()
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    content = bytearray(ds.PixelData)
    content[40:] = b"\x55" * (len(content) - 40)
    ds.PixelData = bytes(content)
    return ds


TYPE_2 = ("PatientID", "PatientBirthDate", "AccessionNumber", "StudyID", "PatientName", "ReferringPhysicianName")

CASES: list[tuple[str, FileDataset, str, str]] = [
    ("no pixel data", cr(PixelData=None), "unsupported", "no pixel data"),
    ("no body part", cr(BodyPartExamined=None), "unsupported", "body part"),
    ("an absurd body part", cr(BodyPartExamined="'; DROP TABLE"), "unsupported", "names a body part"),
    ("a chest", cr(BodyPartExamined="CHEST"), "unsupported", "chest"),
    ("multi-frame", cr(NumberOfFrames=2, PixelData=b"\0" * 64 * 64 * 4), "unsupported", "multi-frame"),
    (
        "FOR PROCESSING",
        cr(SOPClassUID=DigitalXRayImageStorageForProcessing, Modality="DX", PresentationIntentType="FOR PROCESSING"),
        "unsupported",
        "FOR PROCESSING",
    ),
    ("a CT", cr(Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), "unsupported", "not a CR or DX image"),
    ("missing type 2 elements", cr(**dict.fromkeys(TYPE_2)), "held", "no destination"),
    ("60,000 rows and columns", cr(Rows=60_000, Columns=60_000), "held", "0 of 1 images analysed"),
    ("a corrupt JPEG 2000", _corrupt_jpeg2000(), "held", "0 of 1 images analysed"),
]


@pytest.mark.parametrize(("ds", "status", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_picture_or_header(daemon: DaemonProcess, ds: FileDataset, status: str, reason: str) -> None:
    """It is kept and acknowledged, its row says why it has no finding, and a good study sent with it is analysed."""
    good = hand(seed=7)
    assert store(daemon, ds, good) == [0, 0]
    row = settled(daemon, ds.StudyInstanceUID)
    assert row["status"] == status
    assert row["finding"] in (None, "undetermined")
    image = daemon.sql(f"SELECT * FROM image_results WHERE sop_instance_uid = '{ds.SOPInstanceUID}'")[0]
    assert reason.lower() in f"{row['reason']} {image['reason']}".lower() or status == "held"
    if reason.startswith("0 of 1"):
        assert (image["status"], row["images_analysed"]) == ("failed", 0)
        assert reason in row["reason"]
        assert image["reason"]
    assert settled(daemon, good.StudyInstanceUID)["images_analysed"] == 1


def test_one_broken_image_of_two(daemon: DaemonProcess) -> None:
    """A study read in part says so and is never `normal`."""
    good, broken = hand(seed=3), _corrupt_jpeg2000()
    broken.StudyInstanceUID = good.StudyInstanceUID
    assert store(daemon, good, broken) == [0, 0]
    row = settled(daemon, good.StudyInstanceUID)
    assert (row["image_count"], row["images_analysed"], row["finding"]) == (2, 1, "undetermined")
    assert "1 of 2 images analysed" in row["reason"]


def test_the_same_image_twice(daemon: DaemonProcess) -> None:
    """Success both times, one instance, no second revision."""
    ds = hand(seed=11)
    assert store(daemon, ds, ds) == [0, 0]
    settled(daemon, ds.StudyInstanceUID)
    assert store(daemon, ds) == [0]
    assert settled(daemon, ds.StudyInstanceUID)["revision"] == 1
    assert len(daemon.sql(f"SELECT * FROM image_results WHERE sop_instance_uid = '{ds.SOPInstanceUID}'")) == 1


def test_disagreeing_identity_is_held_until_accepted(daemon: DaemonProcess) -> None:
    """Two patients in one study: held, nothing reported; `accept` lets it through."""
    first, second = hand(seed=1), hand(seed=2, PatientID="PHANTOM-2")
    second.StudyInstanceUID = first.StudyInstanceUID
    store(daemon, first, second)
    row = settled(daemon, first.StudyInstanceUID)
    assert (row["status"], row["report_sop_instance_uid"]) == ("held", None)
    assert "patient id" in row["reason"]
    assert daemon.run("status").returncode == 1
    assert daemon.run("accept", first.StudyInstanceUID).returncode == 0
    sql = f"SELECT * FROM results WHERE study_instance_uid = '{first.StudyInstanceUID}' AND images_analysed = 2"
    wait_for(lambda: daemon.sql(sql), 60, "the analysis")


def test_every_storage_class_is_taken(daemon: DaemonProcess) -> None:
    """No context of pynetdicom's storage list is refused: a refusal makes some modalities abort."""
    for start in (0, 128):  # as many as one request can hold
        ae = AE(ae_title="XR1")
        ae.requested_contexts = AllStoragePresentationContexts[start : start + 128]
        assoc = ae.associate("127.0.0.1", daemon.port, ae_title="PACS_AGENT")
        try:
            assert assoc.is_established
            assert not assoc.rejected_contexts
        finally:
            assoc.release()


def test_compressed_stays_compressed(daemon: DaemonProcess) -> None:
    """What is sent compressed is kept as sent and analysed."""
    ds = hand(seed=5)
    ds.compress(RLELossless, generate_instance_uid=False)
    assert store(daemon, ds) == [0]
    assert settled(daemon, ds.StudyInstanceUID)["images_analysed"] == 1


def test_a_bundle_with_a_wrong_hash(tmp_path: Path) -> None:
    """Refused before the port opens, in one line."""
    bundle = tmp_path / "bundle"
    shutil.copytree(SHIPPED / "demonstration", bundle)
    with (bundle / "weights.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x01")
    running = DaemonProcess(write_config(tmp_path, free_port(), more=f'[model]\nbundle = "{bundle}"'), 0)
    refused = running.run("serve")
    assert refused.returncode == 2
    assert "hash" in refused.stderr.lower() or "sha-256" in refused.stderr.lower()
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()
