"""At a hospital's size: no statement that a study meets on its way reads through a table."""

import sqlite3
from contextlib import closing
from pathlib import Path

from records import Record
from sqlalchemy import event

from pacs_agent.record import claiming, committing, delivering

BIG = ("study", "instance", "analysis", "finding", "report", "delivery", "event")


def test_no_table_is_read_through(tmp_path: Path) -> None:
    """From receipt to commitment, a second revision included: each statement finds its rows by an index that is narrow.

    An index of `delivery` by nothing but the destination is as wide as the table.
    """
    path, said = tmp_path / "pacs-agent.db", set[str]()
    Record.open(path).close()
    record = Record(path)
    event.listen(record._engine, "connect", lambda connection, _: connection.set_trace_callback(said.add))
    delivering.destinations_since(record, ["pacs"])
    said.clear()
    for number in (1, 2):
        record.receive(number)
        record.queue()
        assert claiming.has_queued(record)
        [claim] = record.claim()
        record.analyse(claim, pacs=("waiting", None))
        assert delivering.has_due(record, "pacs")
        [due] = delivering.claim_due(record, "pacs", 20, 60)
        assert delivering.is_waiting(record, due)
        delivering.mark_delivered(record, due, "pacs", "0000", record.clock())
        assert committing.has_commitment_due(record, "pacs")
        request = committing.next_request(record, "pacs", lambda number=number: f"2.25.{number}", 60, 50)
        assert request
        uids = frozenset(uid for _, uid in request.objects)
        assert committing.settle_commitment(record, committing.CommitmentResult(request.transaction_uid, uids, {}))
        committing.expire_requests(record, "pacs")
    record.close()
    wide = []
    with closing(sqlite3.connect(path)) as connection:
        for statement in said:
            if statement.split()[0] in ("SELECT", "UPDATE", "INSERT", "DELETE", "WITH"):
                for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
                    words = step.split()
                    table = words[1].rstrip("_0123456789") if len(words) > 1 else ""
                    if (words[0] == "SCAN" and table in BIG) or (
                        table == "delivery" and step.endswith("(destination=?)")
                    ):
                        wide.append(f"{step}: {statement}")
    assert len(said) > 20
    assert wide == []
