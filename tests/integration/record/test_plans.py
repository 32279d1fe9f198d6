"""At a hospital's size: no statement that a study meets on its way reads through a table."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from records import Record
from sqlalchemy import event

from pacs_agent.record import claiming, committing, deciding, delivering, rejecting
from pacs_agent.record.committing import CommitmentRequest, CommitmentResult
from pacs_agent.record.rejecting import MadeNote

BIG = ("study", "instance", "analysis", "finding", "report", "delivery", "event")
UID = "9.1.1"


def asked(record: Record) -> CommitmentRequest:
    """What is due goes, and is to be asked for."""
    record.tick(10)
    for due in delivering.claim_due(record, "pacs", 10, 60):
        assert delivering.is_waiting(record, due)
        delivering.mark_delivered(record, due, "pacs", "0000", record.clock())
    assert committing.has_commitment_due(record, "pacs")
    request = committing.next_request(record, "pacs", record.now, 60, 50)
    assert request
    return request


def committed(record: Record) -> None:
    """From receipt to commitment, and a second revision."""
    for number in (1, 2):
        record.receive(number)
        record.queue()
        assert claiming.has_queued(record)
        [claim] = record.claim()
        record.analyse(claim, pacs=("waiting", None))
        assert delivering.has_due(record, "pacs")
        request = asked(record)
        uids = frozenset(uid for _, uid in request.objects)
        assert committing.settle_commitment(record, CommitmentResult(request.transaction_uid, uids, {}))


def not_committed(record: Record) -> None:
    """Everything else that commitment can come to; then the study is taken back."""
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0], pacs=("waiting", None))
    committing.give_back_request(record, asked(record))
    committing.refuse_request(record, asked(record), "no", lambda _: 1.0)
    assert committing.settle_commitment(
        record, CommitmentResult(asked(record).transaction_uid, frozenset(), {UID: "no"})
    )
    asked(record)
    record.tick(100)
    assert committing.expire_requests(record, "pacs") == 1
    assert committing.settle_commitment(record, CommitmentResult(asked(record).transaction_uid, frozenset([UID]), {}))
    assert deciding.settle(record, "1.4", "withdraw", "wrong patient", ["pacs"])
    wanted = rejecting.next_wanted(record, "pacs")
    assert wanted
    assert rejecting.sent_objects(record, wanted, "pacs")
    rejecting.record_note(record, wanted, "pacs", MadeNote("1.6", "9.9", "9.8", "outbox/n", "waiting"))


@pytest.mark.parametrize("life", [committed, not_committed])
def test_no_table_is_read_through(tmp_path: Path, life: Callable[[Record], None]) -> None:
    """Each statement finds its rows by a narrow index: one of `delivery` by nothing but the destination is none.

    Without statistics a small record's plan is a large one's.
    """
    path, said = tmp_path / "pacs-agent.db", set[str]()
    Record.open(path).close()
    record = Record(path)
    record.clock = lambda: record.moment
    event.listen(record._engine, "connect", lambda connection, _: connection.set_trace_callback(said.add))
    delivering.destinations_since(record, ["pacs"])
    said.clear()
    life(record)
    record.close()
    with closing(sqlite3.connect(path)) as connection:
        plans = {
            (statement, step)
            for statement in said
            if statement.split()[0] in ("SELECT", "UPDATE", "INSERT", "DELETE", "WITH")
            for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
        }
    assert len(plans) > 20
    assert [plan for plan in plans if is_wide(plan[1])] == []


def is_wide(step: str) -> bool:
    """Whether a step of a plan reads through a table, or all that ever went to a destination."""
    what, _, rest = step.partition(" ")
    table = rest.split()[0].rstrip("_0123456789") if rest else ""
    return (what == "SCAN" and table in BIG) or (table == "delivery" and step.endswith("(destination=?)"))
