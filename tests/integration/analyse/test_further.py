"""Further bundles: they see what the live one saw, are recorded, and whatever they do, the live one goes on."""

import json
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peers import wait_for
from records import Record

from pacs_agent.analyse.bundle import Bundle, load_bundle
from pacs_agent.analyse.further import FurtherStation
from pacs_agent.analyse.supervisor import AnalysisProcess
from pacs_agent.errors import WorkerUnavailableError
from pacs_agent.record import analysing, deciding, retaining
from pacs_agent.record.analysing import FindingRow, InstanceResult
from pacs_agent.record.further import forget_further
from pacs_agent.record.store import Store

CANDIDATE = ("candidate", "2", "f" * 64)
ANALYSES = "SELECT role, revision, model_name, status, finding, body_part, laterality, image_count, images_analysed"

# Does as a file beside it says: dies as it starts, dies on any image, or answers .9 to each.
WORKER = """
    import json, os, sys
    from multiprocessing.connection import Connection
    from pathlib import Path
    pipe = Connection(int(sys.argv[1]))
    pipe.recv_bytes()
    behaviour = Path(__file__).with_name("behaviour").read_text()
    if behaviour == "cannot start":
        sys.exit(3)
    pipe.send_bytes(b'{"ready": true, "device": "none"}')
    while True:
        images = json.loads(pipe.recv_bytes())["images"]
        if behaviour == "dies":
            os._exit(7)
        answers = [{"key": image["key"], "abnormal_probability": .9, "member_probabilities": [], "reason": None}
                   for image in images]
        pipe.send_bytes(json.dumps({"images": answers}).encode())
"""


@pytest.fixture
def record(store: Store) -> Iterator[Record]:
    """A migrated record at a fixed moment, with an inbox."""
    (store.path.parent / "inbox").mkdir()
    made = Record(store.path)
    made.clock = lambda: made.moment
    yield made
    made.close()


@pytest.fixture
def behave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says how the analysis process of the further bundle behaves from its next start on."""
    (tmp_path / "candidate_worker.py").write_text(textwrap.dedent(WORKER))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda behaviour: (tmp_path / "behaviour").write_text(behaviour) and None


def candidate() -> Bundle:
    """A trained bundle for any study, by name and hash another than the live one."""
    bundle = load_bundle("demonstration")
    changes = {
        "name": "candidate", "version": "2", "trained": True, "requires_quality_control_subject": False,
        "weights_sha256": "f" * 64, "calibration": None,
    }  # fmt: skip
    return replace(bundle, manifest=bundle.manifest.model_copy(update=changes))


@pytest.fixture
def station(record: Record, behave: Callable[[str], None]) -> Iterator[FurtherStation]:
    """The station of a further bundle whose process answers."""
    behave("answers")
    bundle = candidate()
    process = AnalysisProcess(
        bundle, device="cpu", batch_images=8, max_pixels=1, memory_limit_mb=2048, timeout_s=30,
        module="candidate_worker",
    )  # fmt: skip
    yield FurtherStation(store=record, data_dir=record.path.parent, bundle=bundle, process=process)
    process.stop()


def live(record: Record, *numbers: int, study: str = "1.4") -> None:
    """A study of images of the right hand is received and analysed by the live bundle, its report sent nowhere."""
    for number in numbers:
        record.receive(number, study)
        (record.path.parent / "inbox" / str(number)).touch()
    record.queue()
    [claim] = record.claim()
    analysing.record_analysis(
        record, claim, model=("net", "1", "abc"),
        images=[
            InstanceResult(image.instance_id, "analysed", body_part="hand", laterality="R")
            for image in claim.instances
        ],
        findings=[FindingRow("hand", "R", "analysed", "normal", 0.1, 0.5, len(claim.instances), len(numbers), None)],
        reports=[], further=[CANDIDATE],
    )  # fmt: skip


def work(station: FurtherStation) -> bool:
    return station.work_once(threading.Event())


def further(record: Record) -> list[Any]:
    return record.select(f"{ANALYSES} FROM analyses WHERE role = 'further' ORDER BY study_instance_uid, revision")


def test_further_bundle_is_recorded_in_analyses_and_nowhere_else(record: Record, station: FurtherStation) -> None:
    """The same part, side and images; `results`, the reports and the deliveries are as if it were not there."""
    live(record, 1, 2)
    before = {view: record.select(f"SELECT * FROM {view}") for view in ("results", "deliveries", "image_results")}
    assert work(station)
    assert not work(station)
    assert further(record) == [("further", 1, "candidate", "analysed", "abnormal", "hand", "R", 2, 2)]
    assert record.select("SELECT role, finding, bundle_hash FROM analyses WHERE role = 'live'") == [
        ("live", "normal", "abc")
    ]
    assert {view: record.select(f"SELECT * FROM {view}") for view in before} == before
    assert record.select("SELECT COUNT(*) FROM report") == [(0,)]


def test_further_bundle_that_dies_gives_up_the_study_and_no_other(
    record: Record, station: FurtherStation, behave: Callable[[str], None]
) -> None:
    """Two deaths on a study and it is `failed` for this bundle; the live result stands, the next study is seen."""
    behave("dies")
    live(record, 1)
    results = record.select("SELECT * FROM results")
    assert [work(station) for _ in range(3)] == [True, True, False]
    assert further(record) == [("further", 1, "candidate", "failed", None, None, None, 0, 0)]
    assert record.select("SELECT * FROM results") == results
    assert record.select("SELECT detail FROM events WHERE event = 'further bundle failed'")[0][0].startswith(
        "revision 1, candidate 2: its analysis process died 2 times on this study: "
    )
    behave("answers")
    live(record, 2, study="1.5")
    assert work(station)
    assert further(record)[1][3:5] == ("analysed", "abnormal")


def test_further_bundle_that_cannot_start_waits(
    record: Record, station: FurtherStation, behave: Callable[[str], None]
) -> None:
    """Its work waits, costs no study anything and says why; it is done once the process starts."""
    behave("cannot start")
    live(record, 1)
    with pytest.raises(WorkerUnavailableError, match="exit status 3"):
        work(station)
    stop = threading.Event()
    thread = threading.Thread(target=station.run, args=(stop, 0.05))
    thread.start()
    try:
        wait_for(lambda: station.problem, what="the problem")
        assert "exit status 3" in (station.problem or "")
        behave("answers")
        wait_for(lambda: further(record), what="the further finding")
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def test_further_bundle_gives_way_to_the_live_one(record: Record, station: FurtherStation) -> None:
    """While a study waits for the live analysis, or a person holds that, nothing further is seen."""
    live(record, 1)
    record.receive(2, "1.5")
    record.queue()
    assert not station._is_due()
    record.claim()
    assert station._is_due()
    record.set_paused("analysis", True)
    assert not station._is_due()


def test_only_the_latest_revision_is_seen(record: Record, station: FurtherStation) -> None:
    """A revision that another has replaced, and a withdrawn study, are passed over."""
    live(record, 1)
    live(record, 2)
    assert work(station)
    assert not work(station)
    assert [row[1] for row in further(record)] == [2]
    live(record, 3, study="1.5")
    deciding.settle(record, "1.5", "withdraw", "wrong patient")
    assert not work(station)
    assert len(further(record)) == 1


def test_restart_finds_what_waits(record: Record, station: FurtherStation) -> None:
    """What waits is a row: kept for a bundle that is still configured, given up for one that is not."""
    live(record, 1)
    again = Store.open(record.path)
    assert forget_further(again, [station.model]) == 0
    again.close()
    assert work(station)
    live(record, 2, study="1.5")
    assert forget_further(record, [("other", "1", "e" * 64)]) == 1
    assert forget_further(record, []) == 0
    assert not work(station)


def test_images_that_are_gone_or_changed_are_said_to_be(record: Record, station: FurtherStation) -> None:
    """Without its files, or with other images than the live analysis saw, a study is `failed` for a further bundle."""
    live(record, 1)
    (record.path.parent / "inbox" / "1").unlink()
    live(record, 2, study="1.5")
    record.receive(2, "1.5", content="again")
    assert work(station)
    assert work(station)
    reasons = record.select("SELECT reason FROM analyses WHERE role = 'further' ORDER BY study_instance_uid")
    assert [reason.partition(":")[0] for (reason,) in reasons] == [
        "the files of its images are gone",
        "its images have changed since the live analysis",
    ]


def test_retention_takes_further_findings_along(record: Record, station: FurtherStation) -> None:
    """A study whose rows are forgotten leaves none of a further bundle behind."""
    live(record, 1)
    assert work(station)
    record.tick(86_400)
    retaining.forget_instances(record, record.now())
    assert retaining.forget_rows(record, record.now()) == 1
    assert record.select("SELECT COUNT(*) FROM further_analysis") == [(0,)]
    assert record.select("SELECT COUNT(*) FROM further_finding") == [(0,)]


def test_nothing_further_is_asked_of_a_study_without_a_part(record: Record) -> None:
    """Where the live bundle had nothing to look at, a further one has not either."""
    record.receive(1)
    record.queue()
    [claim] = record.claim()
    row = FindingRow(None, None, "unsupported", None, None, None, 0, 0, "no body part")
    analysing.record_analysis(record, claim, model=None, images=[], findings=[row], reports=[], further=[CANDIDATE])
    assert json.dumps(record.select("SELECT COUNT(*) FROM further_analysis")) == "[[0]]"


def test_stop_in_the_middle_of_a_study_costs_it_nothing(
    record: Record, station: FurtherStation, behave: Callable[[str], None]
) -> None:
    """A process that was ended by our own stop is no death: the row waits as it was for the next start."""
    behave("dies")
    live(record, 1)
    stop = threading.Event()
    stop.set()
    assert station.work_once(stop)
    assert record.select("SELECT state, deaths FROM further_analysis") == [("waiting", 0)]
