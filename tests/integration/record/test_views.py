"""What the views say of deliveries and revisions: for a person, so each standstill has its reason."""

import re
from pathlib import Path
from typing import Any

import pytest
from records import Record

from pacs_agent.record import analysing, deciding, delivering, reading, retaining
from pacs_agent.record.analysing import FindingRow, ReportRow
from pacs_agent.record.reading import query

DOCS = Path(__file__).parents[3] / "docs" / "sql.md"
SILENT = "held: silent mode; `pacs-agent release` sends it"
LATE = "held at pacs: the time for delivery has passed; `pacs-agent release` sends it"


def analysed(record: Record, number: int = 1, study: str = "1.4", **deliveries: Any) -> None:
    """A study with one report."""
    record.receive(number, study)
    record.queue()
    record.analyse(record.claim()[0], **deliveries)


def deliver(record: Record, name: str = "pacs", status: str = "0000") -> None:
    """All that is due there is stored, or parked."""
    for due in delivering.claim_due(record, name, 10, 60):
        if status == "0000":
            delivering.mark_delivered(record, due, name, status)
        else:
            delivering.park(record, due, name, status, f"C-STORE answered {status}")


def told(record: Record, view: str = "results") -> list[Any]:
    """Status and reason of every row, by revision."""
    return record.select(f"SELECT status, reason FROM {view} ORDER BY study_instance_uid, revision")


WAITING, HELD = ("waiting", None), ("held", None)


@pytest.mark.parametrize(
    ("deliveries", "expected"),
    [
        ({}, ("held", "no destination was there for it")),
        ({"pacs": HELD}, ("held", SILENT)),
        ({"pacs": HELD, "archive": HELD}, ("held", SILENT)),
        ({"pacs": WAITING}, ("delivered", None)),
        ({"pacs": WAITING, "silent": HELD}, ("delivered", None)),
        ({"pacs": WAITING, "archive": WAITING}, ("analysed", None)),
        ({"archive": WAITING, "silent": HELD}, ("analysed", None)),
    ],
)
def test_status_after_one_destination_got_it(
    record: Record, deliveries: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    """`delivered` when every wanted destination has it; a silent one wants nothing before `release`."""
    analysed(record, **deliveries)
    deliver(record)
    assert told(record) == [expected]


def test_late_result_says_so(record: Record) -> None:
    """Held for its time has passed is another thing than held for silence; released, its row is clean."""
    analysed(record, pacs=("waiting", 1 / 3600))
    record.tick(10)
    deliver(record)
    assert told(record) == [("held", LATE)]
    assert delivering.make_due(record, ["held"]) == 1
    assert record.select("SELECT status, last_error FROM deliveries") == [("waiting", None)]
    deliver(record)
    assert told(record) == [("delivered", None)]


def test_late_at_one_and_delivered_at_another_is_held(record: Record) -> None:
    """Every wanted destination must have it, and the late one was wanted; `release` brings it there."""
    analysed(record, pacs=("waiting", 1 / 3600), archive=WAITING, silent=HELD)
    deliver(record, "archive")
    record.tick(10)
    deliver(record)
    assert told(record) == [("held", LATE)]
    assert record.select("SELECT delivered_at FROM results") == [(None,)]
    delivering.make_due(record, ["held"])
    deliver(record)
    deliver(record, "silent")
    assert told(record) == [("delivered", None)]


@pytest.mark.parametrize("view", ["results", "analyses"])
def test_study_held_after_its_delivery_says_when_that_was(record: Record, view: str) -> None:
    """The PACS has the report of a study that a person must now judge; what did not go has no time."""
    analysed(record, 1, "1.4.1", pacs=WAITING)
    deliver(record)
    then = record.now()
    analysed(record, 2, "1.4.2", pacs=WAITING)
    record.receive(3, "1.4.1", status="ignored", accession_number="OTHER")
    record.receive(4, "1.4.2", status="ignored", accession_number="OTHER")
    assert record.select(f"SELECT status, delivered_at FROM {view} ORDER BY study_instance_uid") == [
        ("held", then), ("held", None),
    ]  # fmt: skip


def test_reason_of_the_finding_and_of_the_standstill_are_both_told(record: Record) -> None:
    """An undetermined finding that is held: neither reason hides the other."""
    record.receive(1)
    record.queue()
    [claim] = record.claim()
    rows = [
        FindingRow("hand", "R", "analysed", "undetermined", None, None, 1, 1, "the model is not trained"),
        FindingRow("wrist", None, "unsupported", None, None, None, 1, 0, "sides contradict"),
    ]
    made = [ReportRow("sr", "1.6", "9.1.1", "9.1", "outbox/x", {"pacs": ("held", None)})]
    analysing.record_analysis(record, claim, model=None, images=[], findings=rows, reports=made)
    assert record.select("SELECT body_part, status, reason FROM results ORDER BY 1") == [
        ("hand", "held", f"the model is not trained; {SILENT}"),
        ("wrist", "unsupported", "sides contradict"),
    ]


def test_the_report_is_named_not_a_capture_made_before_it(record: Record) -> None:
    """`results` names the report whatever else was made; all of it must be there for `delivered`."""
    record.receive(1)
    record.queue()
    [claim] = record.claim()
    rows = [FindingRow("hand", "R", "analysed", "abnormal", 0.9, 0.5, 1, 1, None)]
    made = [
        ReportRow(kind, "1.6", uid, "9.1", f"outbox/{uid}", {"pacs": ("waiting", None)})
        for kind, uid in (("capture", "9.1.1"), ("sr", "9.1.2"))
    ]
    analysing.record_analysis(record, claim, model=None, images=[], findings=rows, reports=made)
    query = "SELECT report_sop_instance_uid, status FROM results"
    assert record.select(query) == [("9.1.2", "analysed")]
    assert record.select("SELECT object FROM deliveries ORDER BY 1") == [("capture",), ("sr",)]
    deliver(record)
    assert record.select(query) == [("9.1.2", "delivered")]


def test_parked_says_where_and_why(record: Record) -> None:
    """One of two refused: not delivered, and the reason names it."""
    analysed(record, pacs=WAITING, archive=WAITING)
    deliver(record)
    deliver(record, "archive", "A700")
    assert told(record) == [("analysed", "parked at archive: C-STORE answered A700")]


def test_every_parked_destination_is_named(record: Record) -> None:
    """Two refused, for reasons of their own."""
    analysed(record, pacs=WAITING, archive=WAITING)
    deliver(record, "pacs", "A700")
    deliver(record, "archive", "0122")
    [(_, reason)] = told(record)
    assert "pacs: C-STORE answered A700" in reason
    assert "archive: C-STORE answered 0122" in reason


def test_held_object_says_why(record: Record) -> None:
    """A silent destination, none at all, and a withdrawal or a hold that came while the study was analysed."""
    found = "SELECT status, last_error FROM deliveries WHERE study_instance_uid = "
    analysed(record, 1, "1.4.1", silent=HELD)
    analysed(record, 2, "1.4.2")
    assert record.select(found + "'1.4.1'") == [("held", "silent mode")]
    assert record.select(found + "'1.4.2'") == [("held", "no destination was there for it")]
    record.receive(3, "1.4.3")
    record.receive(4, "1.4.4")
    record.queue()
    third, fourth = record.claim()
    deciding.settle(record, "1.4.3", "withdraw", "wrong side")
    record.receive(41, "1.4.4", patient_id="PHANTOM-9")
    for claim in (third, fourth):
        record.analyse(claim, pacs=WAITING)
    assert record.select(found + "'1.4.3'") == [("cancelled", "the study was withdrawn while it was analysed")]
    assert record.select(found + "'1.4.4'") == [("cancelled", "the study was held while it was analysed")]


def test_earlier_revision_keeps_what_became_of_it(record: Record) -> None:
    """`analyses`: while a study is open again, fails or is withdrawn, only its latest revision reads so."""
    analysed(record, pacs=WAITING)
    deliver(record)
    analysed(record, 2, silent=HELD)
    record.receive(3)
    assert told(record, "analyses") == [("delivered", None), ("receiving", None)]
    assert told(record) == [("receiving", None)]
    record.queue()
    assert told(record, "analyses") == [("delivered", None), ("queued", None)]
    analysing.fail_study(record, record.claim()[0], "no memory")
    assert told(record, "analyses") == [("delivered", None), ("failed", "no memory")]
    deciding.retry_failed(record)
    record.analyse(record.claim()[0], pacs=WAITING)
    assert told(record, "analyses")[0::2] == [("delivered", None), ("analysed", None)]
    deciding.settle(record, "1.4", "withdraw", "wrong patient")
    assert told(record, "analyses")[0::2] == [("delivered", None), ("withdrawn", "wrong patient")]
    delivered_at = record.select("SELECT delivered_at IS NOT NULL FROM analyses ORDER BY revision")
    assert delivered_at == [(1,), (0,), (0,)]


def test_cancelled_deliveries_of_an_earlier_revision(record: Record) -> None:
    """What never went and never will is not held."""
    analysed(record, pacs=HELD)
    analysed(record, 2, pacs=HELD)
    with record.write() as connection:
        connection.exec_driver_sql(
            "UPDATE delivery SET status = 'cancelled', last_error = 'superseded by a later revision' WHERE id = 1"
        )
    assert told(record, "analyses") == [
        ("analysed", "deliveries were cancelled: superseded by a later revision"),
        ("held", SILENT),
    ]


# -- a destination that is no longer configured -----------------------------------------------------------------------


def test_removed_destination_gets_nothing_more(record: Record) -> None:
    """What waits, is held or parked for it is cancelled with an event each; what it has stays its history."""
    delivering.destinations_since(record, ["pacs", "archive"])
    for number, status in enumerate(("delivered", "parked", "held", "waiting")):
        analysed(record, number, f"1.4.{number}", pacs=HELD if status == "held" else WAITING, archive=WAITING)
        if status in ("delivered", "parked"):
            deliver(record, status="0000" if status == "delivered" else "A700")
    assert delivering.forget_destinations(record, ["archive"]) == 3
    assert record.select(
        "SELECT destination, status, last_error, next_attempt_at FROM deliveries WHERE destination = 'pacs' "
        "ORDER BY study_instance_uid"
    ) == [("pacs", "delivered", None, None)] + 3 * [
        ("pacs", "cancelled", "destination pacs is no longer configured", None)
    ]
    assert record.select("SELECT study_instance_uid, detail FROM events WHERE event = 'cancelled'") == [
        (f"1.4.{number}", "destination pacs is no longer configured") for number in (1, 2, 3)
    ]
    assert record.select("SELECT COUNT(*) FROM deliveries WHERE destination = 'archive' AND status = 'waiting'") == [
        (4,)
    ]
    assert delivering.forget_destinations(record, ["archive"]) == 0


def test_destination_added_again_starts_anew(record: Record) -> None:
    """It gets what is received from then on; one that stayed keeps its time."""
    first = delivering.destinations_since(record, ["pacs", "archive"])
    delivering.forget_destinations(record, ["archive"])
    record.tick(60)
    assert delivering.destinations_since(record, ["pacs", "archive"]) == {
        "archive": first["archive"], "pacs": record.now(),
    }  # fmt: skip


def test_study_whose_deliveries_were_all_cancelled(record: Record) -> None:
    """It is analysed and goes nowhere, and says so; one that another destination has is delivered."""
    analysed(record, 1, "1.4.1", pacs=WAITING)
    analysed(record, 2, "1.4.2", pacs=WAITING, archive=WAITING)
    deliver(record, "archive")
    delivering.forget_destinations(record, ["archive"])
    assert told(record) == [
        ("analysed", "deliveries were cancelled: destination pacs is no longer configured"),
        ("delivered", None),
    ]
    delivering.forget_destinations(record, [])
    assert told(record)[1] == ("delivered", None)


# -- the page ---------------------------------------------------------------------------------------------------------


def test_what_waits_for_a_person_is_what_status_counts(record: Record) -> None:
    """docs/sql.md's query names each study and delivery for which `status` asks for a person, and no other."""
    analysed(record, 1, "1.4.1", silent=HELD)
    analysed(record, 2, "1.4.2", pacs=WAITING)
    deliver(record)
    analysed(record, 3, "1.4.3", pacs=WAITING)
    deliver(record, status="A700")
    analysed(record, 4, "1.4.4")
    analysed(record, 5, "1.4.5", pacs=WAITING)
    record.receive(51, "1.4.5", patient_id="SOMEBODY ELSE")
    record.receive(6, "1.4.6")
    record.receive(61, "1.4.6", accession_number="ANOTHER")
    record.receive(7, "1.4.7")
    record.queue()
    analysing.fail_study(record, record.claim()[0], "no memory")
    [sql] = re.findall(r"What waits for a person.*?```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    rows = record.select(sql)
    assert sorted((row[0], row[1]) for row in rows) == [
        ("1.4.3", "parked at pacs"), ("1.4.5", "held"), ("1.4.6", "held"), ("1.4.7", "failed"),
    ]  # fmt: skip
    assert all(row[2] for row in rows)
    counted = [
        row["depth"]
        for row in reading.query(record.path, reading.QUEUES).records()
        if row["status"] in ("failed", "parked") or (row["queue"], row["status"]) == ("studies", "held")
    ]
    assert sum(counted) == len(rows)


@pytest.mark.parametrize("view", ["results", "analyses", "image_results", "deliveries", "events"])
def test_one_study_is_found_by_an_index(record: Record, view: str) -> None:
    """No view reads through a table to find a study; the two big ones find a day the same way."""
    conditions = ["study_instance_uid = '1.4'"]
    if view in ("results", "analyses"):
        conditions.append("received_at >= '2026-01-05'")
    for condition in conditions:
        with record.read() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN SELECT * FROM {view} WHERE {condition}").all()
        # The rows of a compound view are read one by one, once each half has found them by its index.
        assert {row.detail for row in plan if row.detail.startswith("SCAN")} <= {f"SCAN {view}"}


def test_captures_alone_are_delivered(record: Record) -> None:
    """Where a destination wants no report, what became of the captures says what became of the result."""
    record.receive(1)
    record.queue()
    [claim] = record.claim()
    capture = ReportRow("capture", "1.7", "9.7", "9.1", "outbox/c", {"pacs": ("waiting", None)})
    analysing.record_analysis(
        record, claim, model=("net", "1", "abc"), images=[],
        findings=[FindingRow("hand", "R", "analysed", "abnormal", 0.9, 0.5, 1, 1, None)],
        reports=[capture, ReportRow("sr", "1.6", "9.6", "9.2", "outbox/s", {})],
    )  # fmt: skip
    [due] = delivering.claim_due(record, "pacs", 10, 60)
    delivering.mark_delivered(record, due, "pacs", "0000")
    assert record.select("SELECT status, reason, report_sop_instance_uid FROM results") == [("delivered", None, "9.6")]
    assert [row[0] for row in query(record.path, reading.QUEUES).rows] == []
    assert sorted(retaining.forget_objects(record, "9999")) == ["outbox/c", "outbox/s"]
