"""Analyses that were in hand when the last run ended: whole sets are recorded, whether a kill or a lost journal."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from objects import IDENTITY, MODEL, captured, finding, radiograph, references, report
from pydicom.dataset import Dataset
from records import Record

from pacs_agent.deliver.outbox import Outbox
from pacs_agent.record import analysing, claiming, delivering, shifting
from pacs_agent.recovering import Recovering
from pacs_agent.report.content import Equipment
from pacs_agent.report.rejection import Rejected, rejection_note
from pacs_agent.report.signature import ReportIdentity, encode_part10
from pacs_agent.report.sr import SR_CLASSES, Predecessor, SrClass
from pacs_agent.settings import Destination
from pacs_agent.study.bodypart import map_body_part

PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
LIVE = (MODEL.name, MODEL.version, MODEL.bundle_hash)
FURTHER = ("further", "1", "abc")

RESULTS = "SELECT status, finding, revision, image_count, model_version, bundle_hash FROM results"
DELIVERIES = "SELECT sop_instance_uid, status, attempts FROM deliveries ORDER BY object"


@pytest.fixture
def record(data_dir: Path) -> Record:
    """A study of two images that is in the analysis, its files in the inbox."""
    made = Record.open(data_dir / "pacs-agent.db")
    made.clock = lambda: made.moment
    for number in (1, 2):
        receive(made, number)
    made.queue()
    made.tick(1)
    made.claim()
    made.tick(1)
    return made


def receive(record: Record, number: int, part: str = "WRIST", **how: Any) -> None:
    """An image of the study comes in."""
    record.receive(number, body_part_examined=part, **how)


@pytest.fixture
def start(data_dir: Path, record: Record) -> Callable[..., int]:
    """What a start does with what the last run left; how many studies it finished."""

    def mend(*destinations: Destination) -> int:
        those = destinations or (PACS,)
        with record.write() as connection:
            for part in [part for each in those for part in each.apart()]:
                connection.exec_driver_sql(
                    "INSERT OR IGNORE INTO destination (name, added_at) VALUES (?, '2000')", (part.name,)
                )
        outbox = Outbox(data_dir, record, those)
        recovering = Recovering(data_dir, record, outbox, those, map_body_part)
        found = recovering.found()
        finished = recovering.finish_claimed(found, LIVE, [FURTHER])
        assert recovering.adopt_lost(found) == 0
        outbox.reconcile()
        claiming.release_claims(record)
        return finished

    return mend


@pytest.fixture
def lay(data_dir: Path) -> Callable[..., str]:
    """Lays the objects of one analysis into the outbox; the report's UID."""

    def keep(
        *numbers: int, revision: int = 1, uid: str = "2.25.1", heat_maps: bool = True, sr_class: SrClass | None = None,
        names: str = "", model: Any = MODEL, probability: float = 0.9,
    ) -> str:  # fmt: skip
        images = [
            radiograph(n, SOPInstanceUID=f"1.2.{n}", SeriesInstanceUID="1.3", StudyInstanceUID="1.4") for n in numbers
        ]
        findings = [finding(images, *[probability] * len(images))]
        captures = captured(images, findings, MODEL)
        before = [Predecessor(SR_CLASSES["comprehensive3d"], names, "9.1", "1.4")] if names else []
        made = report(
            images, findings, model, before, sr_class or "comprehensive3d",
            ReportIdentity(uid, f"{uid}.1", revision, IDENTITY.created_at), references(captures),
        )  # fmt: skip
        for ds in [made, *(captures if heat_maps else [])]:
            _keep(data_dir, ds)
        return uid

    return keep


def _keep(data_dir: Path, ds: Dataset) -> None:
    (data_dir / "outbox").mkdir(exist_ok=True)
    (data_dir / "outbox" / f"{ds.SOPInstanceUID}.dcm").write_bytes(encode_part10(ds))


def left(data_dir: Path) -> int:
    """How many objects lie in the outbox."""
    return len(list((data_dir / "outbox").iterdir()))


Start = Callable[..., int]
Lay = Callable[..., str]


def test_whole_set_is_the_analysis(record: Record, start: Start, lay: Lay, data_dir: Path) -> None:
    """As if it had been recorded: findings, images, what further bundles are to see; and it goes as a resend."""
    uid = lay(1, 2)
    assert start() == 1
    assert record.state() == ("analysed", None)
    assert record.select("SELECT claimed_until, deaths, waiting_since FROM study") == [(None, 0, None)]
    assert record.select(RESULTS) == [("analysed", "abnormal", 1, 2, MODEL.version, MODEL.bundle_hash)]
    assert (
        record.select("SELECT status, body_part, abnormal_probability FROM instance")
        == [("analysed", "wrist", 0.9)] * 2
    )
    assert record.select(DELIVERIES)[-1] == (uid, "waiting", 1)
    assert [row[1:] for row in record.select(DELIVERIES)] == [("waiting", 1)] * 3
    assert record.select("SELECT revision, model_name, state FROM further_analysis") == [(1, "further", "waiting")]
    events = "SELECT event, COUNT(*) FROM events WHERE event IN ('analysed', 'object found without a row') GROUP BY 1"
    assert record.select(events) == [("analysed", 1), ("object found without a row", 3)]
    assert start() == 0
    assert left(data_dir) == 3
    assert record.claim() == []


def test_journal_that_ends_at_the_claim(record: Record, start: Start, lay: Lay, data_dir: Path, tmp_path: Path) -> None:
    """The report went and its rows are lost: the destination is offered the same instance, and no other."""
    record.close()
    shutil.copy(record.path, tmp_path / "claimed.db")
    uid = lay(1, 2)
    assert start() == 1
    sent = delivering.claim_due(record, "pacs", 10, 60)
    for due in sent:
        delivering.mark_delivered(record, due, "pacs", "0000")
    assert uid in {due.sop_instance_uid for due in sent}
    record.close()
    for path in data_dir.glob("pacs-agent.db*"):
        path.unlink()
    shutil.copy(tmp_path / "claimed.db", record.path)
    assert start() == 1
    again = delivering.claim_due(record, "pacs", 10, 60)
    assert {due.sop_instance_uid for due in again} == {due.sop_instance_uid for due in sent}
    assert all(due.attempts > 1 for due in again)  # 0111 is "has it"
    assert record.claim() == []


def _no_heat_map(lay: Lay) -> None:
    lay(1, 2, heat_maps=False)


def _two_of_one_class(lay: Lay) -> None:
    lay(1, 2)
    lay(1, 2, uid="2.25.2")


def _an_image_that_nobody_knows(lay: Lay) -> None:
    lay(1, 2, 3)


def _an_older_revision(lay: Lay) -> None:
    lay(1, 2, revision=7)


@pytest.mark.parametrize("write", [_no_heat_map, _two_of_one_class, _an_image_that_nobody_knows, _an_older_revision])
def test_set_that_is_not_whole_goes(
    record: Record, start: Start, lay: Lay, data_dir: Path, write: Callable[[Lay], None]
) -> None:
    """A kill while it was written: it was never sent, and its analysis is made again."""
    write(lay)
    assert start() == 0
    assert left(data_dir) == 0
    [claim] = record.claim()
    assert claim.revision == 1
    assert record.select("SELECT COUNT(*) FROM analysis") == [(0,)]


def test_every_class_that_is_wanted_must_be_there(record: Record, start: Start, lay: Lay, data_dir: Path) -> None:
    """A kill between the reports of two classes; with both it is whole, and each goes where it is wanted."""
    plain = PACS.model_copy(update={"name": "plain", "sr_class": "enhanced"})
    lay(1, 2)
    assert start(PACS, plain) == 0
    assert left(data_dir) == 0
    record.claim()
    both = lay(1, 2), lay(1, 2, uid="2.25.2", sr_class="enhanced")
    assert start(PACS, plain) == 1
    told = "SELECT sop_instance_uid, destination, status FROM deliveries WHERE object = 'sr' ORDER BY 1"
    assert record.select(told) == [(both[0], "pacs", "waiting"), (both[1], "plain", "waiting")]


@pytest.mark.parametrize("number", [3, 2])
def test_image_after_the_claim_is_another_revision(record: Record, start: Start, lay: Lay, number: int) -> None:
    """A new one, or other pixels of a known one: the report stands and goes, and the next one names it."""
    receive(record, number, content="later")
    uid = lay(1, 2)
    assert start() == 1
    assert record.state() == ("receiving", None)
    assert [due.sop_instance_uid for due in delivering.claim_due(record, "pacs", 1, 60)]
    record.queue()
    [claim] = record.claim()
    assert (claim.revision, len(claim.instances)) == (2, max(number, 2))
    assert [row.sop_instance_uid for row in analysing.predecessors(record, claim.study_id)] == [uid]


@pytest.mark.parametrize("again", [True, False])
def test_revised_before_the_claim_is_analysed_again(record: Record, start: Start, lay: Lay, again: bool) -> None:
    """Which revision the report saw nobody can tell: the earlier one may have come again while it was made."""
    claiming.release_claims(record)
    receive(record, 2, content="later")
    record.queue()
    record.claim()
    if again:
        receive(record, 2)
    lay(1, 2)
    assert start() == 1
    assert record.state() == ("receiving" if again else "queued", None)


def test_clock_that_was_set_changes_nothing(record: Record, start: Start, lay: Lay) -> None:
    """What the claim had is known by rows, not by times."""
    receive(record, 2, content="later")
    record.moment += timedelta(hours=5)
    shifting.shift_waits(record, timedelta(hours=5), lambda: lambda: None)
    lay(1, 2)
    assert start() == 1
    assert record.state() == ("receiving", None)


def test_rejected_image_that_came_again(record: Record, start: Start, lay: Lay) -> None:
    """The report rests on what was rejected: it does not go, whatever came instead."""
    with record.write() as connection:
        connection.exec_driver_sql(REJECTED)
    receive(record, 2, content="later")
    lay(1, 2)
    assert start() == 1
    assert {row[1:] for row in record.select(DELIVERIES)} == {("cancelled", 0)}
    assert record.state() == ("receiving", None)


@pytest.mark.parametrize(("revision", "state"), [(1, "withdrawn"), (2, "analysed")])
def test_note_that_nobody_knows_of_withdraws_its_study(
    record: Record, start: Start, lay: Lay, data_dir: Path, revision: int, state: str
) -> None:
    """The withdrawal was lost with the journal; not where the report is of a later revision, which was wanted."""
    if revision == 2:
        claiming.release_claims(record)
        record.analyse(*record.claim())
        receive(record, 3)
        record.queue()
        record.claim()
    uid = lay(*range(1, revision + 2), revision=revision)
    note = rejection_note(
        [Rejected(SR_CLASSES["comprehensive3d"], uid if revision == 1 else "9.1.1", "9.1")],
        radiograph(1, StudyInstanceUID="1.4"), "wrong",
        Equipment(device_uid="2.25.7", station_name="AGENT", software_version="1"),
        ReportIdentity("2.25.8", "2.25.8.1", 1, IDENTITY.created_at),
    )  # fmt: skip
    _keep(data_dir, note)
    assert start() == revision - 1
    assert record.state()[0] == state
    assert bool(delivering.claim_due(record, "pacs", 9, 60)) == (state == "analysed")


def test_silent_destination_was_offered_nothing(record: Record, start: Start, lay: Lay) -> None:
    """What is held is in nobody's PACS, and the next revision replaces nothing."""
    lay(1, 2)
    assert start(PACS.model_copy(update={"mode": "silent"})) == 1
    assert {row[1:] for row in record.select(DELIVERIES)} == {("held", 0)}
    assert analysing.predecessors(record, 1) == []


def test_study_that_cannot_be_finished_hinders_no_start(record: Record, data_dir: Path, lay: Lay) -> None:
    """Whatever it is, it is analysed again."""

    def fail(_: Any) -> Any:
        raise ZeroDivisionError

    lay(1, 2)
    outbox = Outbox(data_dir, record, (PACS,))
    recovering = Recovering(data_dir, record, outbox, (PACS,), fail)
    assert recovering.finish_claimed(recovering.found(), LIVE, []) == 0
    assert record.select("SELECT claimed_until IS NULL FROM study") == [(0,)]


def test_unread_image_after_the_claim_waits(record: Record, start: Start, lay: Lay) -> None:
    """No report names it, and none would; it is looked at all the same."""
    receive(record, 3, "CHEST")
    lay(1, 2)
    assert start() == 1
    assert record.state() == ("receiving", None)


def test_next_revision_names_what_it_replaces(record: Record, start: Start, lay: Lay) -> None:
    """An older set does not shadow what is recorded; what was never offered is superseded."""
    uid = lay(1, 2, probability=0.1)
    assert start() == 1
    receive(record, 3)
    record.queue()
    record.claim()
    lay(1, 2, uid="2.25.9", probability=0.1)  # of the first revision, which is recorded
    second = lay(1, 2, 3, revision=2, uid="2.25.2", names=uid)
    assert start() == 1
    reports = "SELECT sop_instance_uid, status FROM deliveries WHERE object = 'sr' ORDER BY 1"
    assert record.select(reports) == [(uid, "waiting"), (second, "waiting")]
    assert record.state() == ("analysed", None)


def test_model_is_the_one_that_spoke(record: Record, start: Start, lay: Lay) -> None:
    """Another bundle is live by now: of the weights' hash its beginning is known."""
    lay(1, 2, model=MODEL.__class__(**{**_fields(MODEL), "version": "0.9", "bundle_hash": "f" * 64}))
    assert start() == 1
    assert record.select(RESULTS) == [("analysed", "abnormal", 1, 2, "0.9", "f" * 12)]


def _fields(model: Any) -> dict[str, Any]:
    return {name: getattr(model, name) for name in model.__dataclass_fields__}


HELD = "UPDATE study SET state = 'held', reason = 'whose is it?'"
REJECTED = "UPDATE instance SET status = 'rejected', reason = 'quality' WHERE sop_instance_uid = '1.2.2'"


@pytest.mark.parametrize(("decided", "why"), [(HELD, "the study was held"), (REJECTED, "an image was rejected")])
def test_what_was_decided_meanwhile_holds(record: Record, start: Start, lay: Lay, decided: str, why: str) -> None:
    """As where the analysis ends after it: recorded, never sent, and nobody's predecessor."""
    with record.write() as connection:
        connection.exec_driver_sql(decided)
    lay(1, 2)
    state = record.state()
    assert start() == 1
    assert record.state() == state
    rows = record.select("SELECT status, attempts, last_error FROM deliveries")
    assert [row[:2] for row in rows] == [("cancelled", 0)] * 3
    assert all(row[2].startswith(why) for row in rows)
    assert analysing.predecessors(record, 1) == []


def test_destination_that_a_filter_keeps_it_from_is_not_offered_it(record: Record, start: Start, lay: Lay) -> None:
    """And is told of as in any analysis."""
    lay(1, 2)
    assert start(PACS.model_copy(update={"findings": ("normal",)})) == 1
    rows = record.select("SELECT status, attempts FROM deliveries")
    assert rows == [("cancelled", 0)] * 3
    assert record.select("SELECT COUNT(*) FROM events WHERE event = 'not delivered'") == [(1,)]
