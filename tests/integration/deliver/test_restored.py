"""Objects that no row names: leftovers of a kill on any day, but after a restore perhaps in the PACS."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)
from records import Record
from sqlalchemy import update

from pacs_agent.deliver.outbox import Outbox
from pacs_agent.record import analysing, delivering, restoring
from pacs_agent.record.tables import study
from pacs_agent.recovering import Recovering
from pacs_agent.settings import Destination
from pacs_agent.study.bodypart import map_body_part

PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)


@pytest.fixture
def record(data_dir: Path) -> Record:
    """A study of one image, analysed once and delivered; its image is there."""
    made = Record.open(data_dir / "pacs-agent.db")
    made.clock = lambda: made.moment
    delivering.destinations_since(made, ["pacs"])
    made.receive(1)
    made.queue()
    made.analyse(made.claim()[0], pacs=("waiting", None))
    with made.write() as connection:
        connection.exec_driver_sql("UPDATE delivery SET status = 'delivered', attempts = 1")
    return made


@pytest.fixture
def outbox(data_dir: Path, record: Record) -> Outbox:
    """An outbox with one destination."""
    return Outbox(data_dir, record, (PACS,))


@pytest.fixture
def recovering(data_dir: Path, record: Record, outbox: Outbox) -> Recovering:
    """What gives its objects rows."""
    return Recovering(data_dir, record, outbox, (PACS,), map_body_part)


CLASSES = {
    "sr": Comprehensive3DSRStorage,
    "capture": SecondaryCaptureImageStorage,
    "note": KeyObjectSelectionDocumentStorage,
}
Put = Callable[..., str]


@pytest.fixture
def put(outbox: Outbox, tmp_path: Path) -> Put:
    """Lays an object into the outbox; its path."""

    def lay(uid: str, kind: str = "sr", *, study_uid: str = "1.4", number: int = 1, names: str = "") -> str:
        ds = Dataset()
        ds.SOPClassUID = CLASSES[kind]
        ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = uid, study_uid, f"{uid}.1"
        ds.InstanceNumber = number
        if names:
            item = Dataset()
            item.ReferencedSOPInstanceUID = names
            ds.CurrentRequestedProcedureEvidenceSequence = [item]
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, uid
        ds.save_as(tmp_path / "x.dcm", enforce_file_format=True)
        return outbox.keep(uid, (tmp_path / "x.dcm").read_bytes())

    return lay


def test_any_other_day_it_is_a_leftover(outbox: Outbox, put: Put, data_dir: Path) -> None:
    """A kill between the object and its rows: its analysis is made again, the object goes."""
    path = data_dir / put("7.1", number=2)
    outbox.reconcile()
    assert not path.exists()


def test_report_and_its_heat_maps_are_one_revision_again(record: Record, recovering: Recovering, put: Put) -> None:
    """After those that are known; the study is analysed again, and its next report names both predecessors."""
    put("7.1", number=2, names="7.2")
    put("7.2", "capture", number=1)  # of the report that names it, whatever its own number
    put("7.3", number=3)
    assert recovering.adopt_all() == (3, 0)
    rows = record.select(
        "SELECT a.revision, r.object, r.sop_instance_uid, d.status, d.attempts FROM report r"
        " JOIN analysis a ON a.id = r.analysis_id JOIN delivery d ON d.report_id = r.id ORDER BY 1, 3"
    )
    assert rows == [
        (1, "sr", "9.1.1", "delivered", 1),
        (2, "sr", "7.1", "cancelled", 1),
        (2, "capture", "7.2", "cancelled", 1),
        (3, "sr", "7.3", "cancelled", 1),
    ]
    assert record.state() == ("queued", None)
    assert {row.sop_instance_uid for row in analysing.predecessors(record, 1)} == {"9.1.1", "7.1", "7.3"}
    assert analysing.offered_destinations(record, 1) == {"pacs"}  # no filter keeps the new one back
    assert record.claim()[0].revision == 4


def test_killed_in_between_it_goes_on(
    record: Record, outbox: Outbox, recovering: Recovering, put: Put, data_dir: Path
) -> None:
    """The mark stands until all is done, so that a start may do it twice; twice is once."""
    path = put("7.1", number=2)
    recovering.adopt_all()
    assert recovering.adopt_all() == (0, 0)
    outbox.reconcile()
    assert (data_dir / path).exists()
    assert record.select("SELECT COUNT(*) FROM analysis") == [(2,)]


def _withdraw(record: Record) -> None:
    with record.write() as connection:
        connection.execute(update(study).values(state="withdrawn"))


def _remove_images(record: Record) -> None:
    with record.write() as connection:
        connection.exec_driver_sql("UPDATE instance SET path = NULL")


@pytest.mark.parametrize("happened", [_withdraw, _remove_images])
def test_what_has_no_place_is_set_aside(
    record: Record, recovering: Recovering, put: Put, data_dir: Path, happened: Callable[[Record], None]
) -> None:
    """Never deleted, never in the way: of a study that was withdrawn, or whose images are gone."""
    happened(record)
    before = record.state()
    path = data_dir / put("7.1", number=2)
    assert recovering.adopt_all() == (0, 1)
    assert not path.exists()
    assert (data_dir / "set-aside" / path.name).exists()
    assert (data_dir / "set-aside").stat().st_mode & 0o777 == 0o700
    assert record.state() == before
    assert record.select("SELECT COUNT(*) FROM analysis") == [(1,)]


def test_what_is_no_object_of_a_known_study_is_set_aside(recovering: Recovering, put: Put, data_dir: Path) -> None:
    """An unknown study, a file that cannot be read, one without its UIDs."""
    put("7.1", study_uid="1.99")
    (data_dir / "outbox" / "7.2.dcm").write_bytes(b"no DICOM")
    (data_dir / "outbox" / "7.3.dcm").write_bytes(b"\0" * 128 + b"DICM")
    assert recovering.adopt_all() == (0, 3)
    assert len(list((data_dir / "set-aside").iterdir())) == 3


def test_what_was_rejected_since_is_set_aside(record: Record, recovering: Recovering, put: Put, data_dir: Path) -> None:
    """With its note: no later report names it as a predecessor."""
    put("7.1", number=2)
    put("7.2", "note", names="7.1")
    put("7.3", number=3)
    assert recovering.adopt_all() == (1, 2)
    assert sorted(path.name for path in (data_dir / "set-aside").iterdir()) == ["7.1.dcm", "7.2.dcm"]
    assert {row.sop_instance_uid for row in analysing.predecessors(record, 1)} == {"9.1.1", "7.3"}


def test_images_that_retention_removed_are_not_missing(record: Record, data_dir: Path) -> None:
    """A finished study keeps its results; of one that waits, a missing file is said by the reconciliation."""
    record.receive(2, "1.4.2")
    assert restoring.forget_removed(record, data_dir) == 1
    assert record.select("SELECT path FROM instance ORDER BY id") == [(None,), ("inbox/2",)]
    assert record.select("SELECT status FROM instance ORDER BY id") == [("analysed",), ("received",)]
