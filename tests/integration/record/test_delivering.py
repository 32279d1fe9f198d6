"""What a destination gets of a study that is held, or analysed again: nothing in doubt, and the current report last."""

import random
from datetime import timedelta
from typing import Any

import pytest
from records import Record
from sqlalchemy import event

from pacs_agent.record import analysing, claiming, deciding, delivering
from pacs_agent.record.analysing import FindingRow, InstanceResult
from pacs_agent.record.delivering import Due

WAITING, HELD = ("waiting", None), ("held", None)
FIRST, SECOND, THIRD = "9.1.1", "9.1.2", "9.1.3"
NO_REPORT = FindingRow(None, None, "unsupported", None, None, None, 0, 0, "chest")


def revise(record: Record, study: str = "1.4", *, pacs: tuple[str, str | None] = WAITING) -> list[str]:
    """One more image and its analysis; the reports that the new one names."""
    [(count,)] = record.select("SELECT COUNT(*) FROM instance")
    record.receive(count + 1, study)
    record.queue()
    [claim] = record.claim()
    named = [each.sop_instance_uid for each in analysing.predecessors(record, claim.study_id)]
    record.analyse(claim, named, pacs=pacs)
    return named


def take(record: Record) -> list[Due]:
    """What goes to `pacs` now."""
    return delivering.claim_due(record, "pacs", 10, 60)


def deliver(record: Record) -> list[str]:
    """All that goes to `pacs` now is stored there."""
    dues = take(record)
    for due in dues:
        delivering.mark_delivered(record, due, "pacs", "0000")
    return [due.sop_instance_uid for due in dues]


def fates(record: Record) -> list[tuple[str, str]]:
    """Each report with its delivery's status, oldest first."""
    return record.select("SELECT sop_instance_uid, status FROM deliveries ORDER BY sop_instance_uid")


# -- a held study -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["waiting", "held", "parked"])
def test_nothing_of_a_held_study_goes(record: Record, before: str) -> None:
    """Neither what waited nor what `release` or `retry` let go, until `accept`; another study's report does."""
    revise(record, pacs=HELD if before == "held" else WAITING)
    if before == "parked":
        [due] = take(record)
        delivering.park(record, due, "pacs", "A700", "full")
    record.receive(9, patient_id="SOMEBODY-ELSE")
    if before != "waiting":
        assert delivering.make_due(record, [before]) == 1
    assert not delivering.has_due(record, "pacs")
    assert take(record) == []
    revise(record, "1.5")
    assert deliver(record) == ["9.2.1"]
    assert deciding.settle(record, "1.4", "accept", None)
    assert deliver(record) == [FIRST]


def test_claimed_object_of_a_study_held_since_is_not_sent(record: Record) -> None:
    """A batch in hand asks before each object."""
    revise(record)
    [due] = take(record)
    assert delivering.is_waiting(record, due)
    record.receive(9, patient_id="SOMEBODY-ELSE")
    assert not delivering.is_waiting(record, due)


# -- a later revision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["waiting", "held", "parked", "late"])
@pytest.mark.parametrize("with_report", [True, False], ids=["report", "no report"])
def test_superseded_report_never_goes(record: Record, before: str, with_report: bool) -> None:
    """Whatever it waited for, and whether or not the later revision has a report of its own."""
    revise(record, pacs={"held": HELD, "late": ("waiting", 30 / 3600)}.get(
        before, WAITING))  # fmt: skip
    if before in ("parked", "late"):
        [due] = take(record)
        if before == "parked":
            delivering.park(record, due, "pacs", "A700", "full")
        else:
            delivering.postpone(record, due, "broken", record.clock())
            record.tick(60)
            assert take(record) == []
    if with_report:
        revise(record)
    else:
        record.receive(2)
        record.queue()
        [claim] = record.claim()
        results = [InstanceResult(image.instance_id, "unsupported", "chest") for image in claim.instances]
        analysing.record_analysis(record, claim, model=None, images=results, findings=[NO_REPORT], reports=[])
    assert fates(record)[0] == (FIRST, "cancelled")
    assert delivering.make_due(record, ["held", "parked"]) == 0
    assert deliver(record) == ([SECOND] if with_report else [])


def test_revisions_go_one_at_a_time_and_in_order(record: Record) -> None:
    """What was offered may be there, so it goes first however long it waits; other studies do not wait for it."""
    revise(record)
    [due] = take(record)
    delivering.postpone(record, due, "broken", record.clock() + timedelta(seconds=30))
    assert revise(record) == [FIRST]
    revise(record, "1.5")
    assert not {FIRST, SECOND} & set(deliver(record))
    assert not delivering.has_due(record, "pacs")
    record.tick(60)
    assert deliver(record) == [FIRST]
    assert deliver(record) == [SECOND]


@pytest.mark.parametrize("end", ["parked", "held"])
def test_earlier_revision_that_stops_lets_the_current_one_go(record: Record, end: str) -> None:
    """Refused or too late in its turn, it is out of it; a later `retry` or `release` cancels it."""
    revise(record, pacs=("waiting", 60 / 3600))
    [due] = take(record)
    revise(record)
    if end == "parked":
        delivering.park(record, due, "pacs", "A700", "full")
    record.tick(120)
    assert deliver(record) == [SECOND]
    assert fates(record) == [(FIRST, end), (SECOND, "delivered")]
    assert delivering.make_due(record, [end]) == 0
    assert fates(record) == [(FIRST, "cancelled"), (SECOND, "delivered")]
    assert take(record) == []


def test_other_destination_keeps_its_own_order(record: Record) -> None:
    """An earlier revision that waits for one destination holds up nothing at another."""
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0], pacs=WAITING, archive=WAITING)
    take(record)
    record.receive(2)
    record.queue()
    record.analyse(record.claim()[0], pacs=WAITING, archive=WAITING)
    assert [due.sop_instance_uid for due in delivering.claim_due(record, "archive", 10, 60)] == [SECOND]
    assert take(record) == []


# -- what a new report names ------------------------------------------------------------------------------------------


def test_report_that_was_never_offered_is_not_named(record: Record) -> None:
    """It will be superseded, so no sender takes it for the first time while its study is being analysed again."""
    revise(record)
    record.receive(2)
    record.queue()
    [claim] = record.claim()
    assert analysing.predecessors(record, claim.study_id) == []
    assert not delivering.has_due(record, "pacs")
    assert take(record) == []
    record.tick(10_000)  # however long the analysis takes
    assert take(record) == []
    claiming.release_claims(record)  # it could not be finished
    assert [due.sop_instance_uid for due in take(record)] == [FIRST]


def test_what_is_there_is_named_beside_what_may_be(record: Record) -> None:
    """Revision 1 is stored, 2 may be, 3 never was: the next names 1 and 2; once 4 is stored, it alone."""
    revise(record)
    assert deliver(record) == [FIRST]
    assert revise(record) == [FIRST]
    [due] = take(record)
    delivering.postpone(record, due, "broken", record.clock())
    assert revise(record) == [FIRST, SECOND]
    assert revise(record) == [FIRST, SECOND]
    assert fates(record)[2] == (THIRD, "cancelled")
    assert (deliver(record), deliver(record)) == ([SECOND], ["9.1.4"])
    assert revise(record) == ["9.1.4"]


def test_report_named_while_it_was_offered_goes_first(record: Record) -> None:
    """No association came about, and it was given back: the new report names it, so it is there before that."""
    revise(record)
    record.receive(2)
    record.queue()
    dues = take(record)
    [claim] = record.claim()
    [row] = analysing.predecessors(record, claim.study_id)
    delivering.mark_unreachable(record, "pacs", dues, "cannot be reached", record.clock())
    record.analyse(claim, [row.sop_instance_uid], pacs=WAITING)
    record.tick(100)
    assert (deliver(record), deliver(record)) == ([FIRST], [SECOND])


@pytest.mark.parametrize(
    ("answers", "is_named"), [(["A700"], False), ([None], True), (["0000"], True), ([None, "A700"], False)]
)
def test_what_was_refused_is_not_named(record: Record, answers: list[str | None], is_named: bool) -> None:
    """Nor does it open the filters: the destination has nothing that a new report would replace."""
    revise(record)
    for answer in answers:
        [due] = take(record)
        if answer is None:
            delivering.postpone(record, due, "broken", record.clock())
        elif answer == "0000":
            delivering.mark_delivered(record, due, "pacs", answer)
        else:
            delivering.park(record, due, "pacs", answer, "refused")
    assert bool(analysing.predecessors(record, 1)) is is_named
    assert analysing.offered_destinations(record, 1) == ({"pacs"} if is_named else set())


def test_time_that_ends_while_it_is_claimed(record: Record) -> None:
    """What has not been offered yet when its time ends is not sent, however early it was claimed."""
    revise(record, pacs=("waiting", 10 / 3600))
    [due] = take(record)
    assert delivering.is_waiting(record, due)
    record.tick(11)
    assert not delivering.is_waiting(record, due)
    delivering.give_back(record, [due])
    assert take(record) == []
    assert record.select("SELECT status, last_error FROM deliveries") == [("held", delivering.LATE)]


def test_what_each_destination_has_is_named(record: Record) -> None:
    """One has the first revision, the other the second: both are replaced."""
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0], pacs=WAITING, archive=HELD)
    assert deliver(record) == [FIRST]
    record.receive(2)
    record.queue()
    record.analyse(record.claim()[0], pacs=HELD, archive=WAITING)
    [due] = delivering.claim_due(record, "archive", 10, 60)
    delivering.mark_delivered(record, due, "archive", "0000")
    assert revise(record) == [FIRST, SECOND]


@pytest.mark.parametrize("seed", range(20))
def test_current_report_is_the_last_to_arrive(record: Record, seed: int) -> None:
    """Whatever happens between revisions, once all is delivered the PACS received the current one last."""
    chance = random.Random(seed)
    arrived: list[str] = []
    for _ in range(6):
        revise(record, pacs=chance.choice([WAITING, HELD]))
        for _ in range(chance.randrange(4)):
            for due in take(record):
                match chance.randrange(5):
                    case 0:
                        delivering.park(record, due, "pacs", "A700", "full")
                    case 1:
                        delivering.give_back(record, [due])
                    case 2:
                        arrived.append(due.sop_instance_uid)
                        delivering.postpone(record, due, "broken", record.clock() + timedelta(seconds=20))
                    case _:
                        arrived.append(due.sop_instance_uid)
                        delivering.mark_delivered(record, due, "pacs", "0000")
            delivering.make_due(record, chance.choice([["parked"], ["held"], ["parked", "held"]]))
            record.tick(chance.randrange(30))
    delivering.make_due(record, ["parked", "held"])
    record.tick(100)
    while dues := deliver(record):
        arrived += dues
    assert arrived == sorted(arrived)
    assert arrived[-1] == "9.1.6"


# -- at a hospital's size ---------------------------------------------------------------------------------------------


def test_order_is_found_by_the_study(record: Record) -> None:
    """None of it reads through a table, or through all that has a status at a destination, for each row in hand."""
    plans: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT delivery", "SELECT report", "UPDATE delivery")):
            found = connection.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in found)

    revise(record)
    event.listen(record._engine, "before_cursor_execute", explain)
    revise(record)
    take(record)
    assert sum("delivery_" in plan for plan in plans) >= 2
    assert [plan for plan in plans if plan.startswith("SCAN") or ("delivery_1 " in plan and "in_turn" in plan)] == []
