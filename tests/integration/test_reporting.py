"""Findings to objects: captures beside the report, and no capture that cannot be made holds the report up."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import EnhancedSRStorage

from pacs_agent.analyse.finding import Finding, ImageOutcome, ModelIdentity, decide
from pacs_agent.analyse.supervisor import CapturePicture, CaptureRequest
from pacs_agent.deliver.outbox import Outbox
from pacs_agent.errors import WorkerDiedError, WorkerUnavailableError
from pacs_agent.phantom.dataset import study
from pacs_agent.record import analysing, claiming, delivering, receiving
from pacs_agent.record.analysing import ReportRow
from pacs_agent.record.store import Store
from pacs_agent.report.content import Equipment
from pacs_agent.report.sr import SrClass
from pacs_agent.report.text import report_text
from pacs_agent.reporting import Reporting
from pacs_agent.settings import Agent, Destination, Report, Settings
from pacs_agent.study.eligibility import Eligibility
from pacs_agent.study.instance import Instance

MODEL = ModelIdentity("net", "1", "abc", True, True, False)
Render = Callable[[CaptureRequest], CapturePicture | str]


def picture(_: CaptureRequest) -> CapturePicture:
    return CapturePicture(4, 2, bytes(24))


class Bench:
    """A study of two images on disk, and all that makes its objects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: list[FileDataset] = study("wrist", seed=3, abnormal=True, views=2, longest_side=64)
        for number, ds in enumerate(self.images):
            ds.save_as(folder / f"{number}.dcm", enforce_file_format=True)
        self.store = Store.open(folder / "pacs-agent.db")
        self.requests: list[CaptureRequest] = []
        delivering.destinations_since(self.store, ["pacs", "other"])
        for number, ds in enumerate(self.images):
            facts, path = Instance.from_dataset(ds), f"{number}.dcm"
            receiving.Reception(self.store).accept(
                receiving.Receipt(facts, Eligibility("received"), path, path, 1, "XR1", self.store.now())
            )
        [waiting] = claiming.receiving_studies(self.store)
        claiming.queue_study(self.store, waiting, "quiet")
        [self.claim] = claiming.claim_studies(self.store, 1, 60)

    def finding(self, *probabilities: float) -> Finding:
        """Of both images, the second with the higher map."""
        outcomes = [
            ImageOutcome(
                str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID), "analysed", probability, attention=3.0 + number
            )
            for number, (ds, probability) in enumerate(zip(self.images, probabilities, strict=True))
        ]
        return decide("wrist", "R", outcomes, 0.5, MODEL, quality_control_subject=True)

    def make(
        self,
        finding: Finding,
        render: Render,
        *objects: str,
        sr_class: SrClass = "enhanced",
        kinds: tuple[str, ...] | None = None,
    ) -> list[ReportRow]:
        """The objects' rows, where a live destination wants *sr_class* and a silent one the fullest."""
        pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, sr_class=sr_class, objects=kinds)
        other = Destination(name="other", ae_title="OTHER", host="127.0.0.1", port=104, mode="silent", objects=kinds)
        settings = Settings(
            agent=Agent(data_dir=self.folder),
            destination=(pacs, other),
            report=Report(objects=objects or ("sr", "capture")),
        )
        outbox = Outbox(self.folder, self.store, (pacs, other))
        equipment = Equipment(device_uid="2.25.7", station_name="PACS_AGENT", software_version="0.1.0")

        def asked(request: CaptureRequest) -> CapturePicture | str:
            self.requests.append(request)
            return render(request)

        return Reporting(settings, self.store, outbox, MODEL, equipment, asked)(self.claim, [finding])

    def read(self, row: ReportRow) -> FileDataset:
        return dcmread(self.folder / row.path)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A study on disk, a record, an outbox."""
    return Bench(tmp_path)


def test_captures_go_everywhere_and_before_the_report(bench: Bench) -> None:
    """One of each image, in one series, for every destination whatever SR it wants; every report names them."""
    rows = bench.make(bench.finding(0.9, 0.8), picture)
    assert [row.object for row in rows] == ["capture", "capture", "sr", "sr"]
    assert len({row.sop_instance_uid for row in rows}) == 4
    assert len({row.series_instance_uid for row in rows}) == 3
    for row in rows[:2]:
        assert {name: status for name, (status, _) in row.deliveries.items()} == {"pacs": "waiting", "other": "held"}
    assert [request.full_scale for request in bench.requests] == [4.0, 4.0]
    assert [request.path for request in bench.requests] == [bench.folder / "0.dcm", bench.folder / "1.dcm"]
    for row in rows[2:]:
        assert report_text(bench.read(row)).count("heat map") == 2
    sources = [bench.read(row).SourceImageSequence[0].ReferencedSOPInstanceUID for row in rows[:2]]
    assert sources == [ds.SOPInstanceUID for ds in bench.images]


@pytest.mark.parametrize("error", ["it is cut short", WorkerDiedError("the analysis process was killed by signal 11")])
def test_no_capture_holds_no_report(bench: Bench, error: str | WorkerDiedError) -> None:
    """A picture that cannot be shown, or that kills the process, costs its capture; the report says why."""

    def fails_once(request: CaptureRequest) -> CapturePicture | str:
        if request.path.name == "1.dcm":
            return picture(request)
        if isinstance(error, WorkerDiedError):
            raise error
        return error

    rows = bench.make(bench.finding(0.9, 0.8), fails_once)
    assert [row.object for row in rows] == ["capture", "sr", "sr"]
    text = " ".join(report_text(bench.read(rows[-1])).split())
    assert f"No heat map: {error}" in text


def test_a_process_that_cannot_go_on_stops_the_study(bench: Bench) -> None:
    """Stopped or not to be started again: nothing is reported now, the study is analysed again."""

    def gone(_: CaptureRequest) -> str:
        raise WorkerUnavailableError

    with pytest.raises(WorkerUnavailableError):
        bench.make(bench.finding(0.9, 0.8), gone)


def test_nothing_is_shown_that_is_not_abnormal_or_not_wanted(bench: Bench) -> None:
    """A normal finding has a report only; so has any where the settings want no captures."""
    for rows in (bench.make(bench.finding(0.1, 0.2), picture), bench.make(bench.finding(0.9, 0.8), picture, "sr")):
        assert [row.object for row in rows] == ["sr", "sr"]
        assert "heat map" not in report_text(bench.read(rows[0])).lower()
    assert bench.requests == []


def test_report_replaces_by_destination(bench: Bench) -> None:
    """A destination that now wants another class is told what it replaces there; the others name none of it."""
    claim, finding = bench.claim, bench.finding(0.1, 0.2)
    sent = ReportRow("sr", EnhancedSRStorage, "9.1", "9", "old.dcm", {"pacs": ("waiting", None)})
    analysing.record_analysis(bench.store, claim, model=None, images=[], findings=[], reports=[sent])
    assert delivering.claim_due(bench.store, "pacs", 1, 60)
    bench.claim = replace(claim, revision=2)
    [enhanced, full] = bench.make(finding, picture, sr_class="comprehensive")
    assert {*enhanced.deliveries, *full.deliveries} == {"pacs", "other"}
    for row in (enhanced, full):
        named = bench.read(row).get("PredecessorDocumentsSequence", [])
        uids = [each.ReferencedSOPInstanceUID for study in named for series in study.ReferencedSeriesSequence
                for each in series.ReferencedSOPSequence]  # fmt: skip
        assert uids == (["9.1"] if "pacs" in row.deliveries else [])


def test_nothing_is_made_for_a_destination_that_came_later(bench: Bench) -> None:
    """It gets what is received from then on: no report of its class, which would go nowhere."""
    with bench.store.write() as connection:
        connection.exec_driver_sql("UPDATE destination SET added_at = '9999' WHERE name = 'other'")
    [row] = bench.make(bench.finding(0.1, 0.2), picture)
    assert list(row.deliveries) == ["pacs"]


def test_there_is_always_a_report(bench: Bench) -> None:
    """A destination that gets captures alone: the report is made, kept, and goes nowhere."""
    rows = bench.make(bench.finding(0.9, 0.8), picture, kinds=("capture",))
    assert [(row.object, list(row.deliveries)) for row in rows] == [
        ("capture", ["pacs", "other"]), ("capture", ["pacs", "other"]), ("sr", []),
    ]  # fmt: skip
