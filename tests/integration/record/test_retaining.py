"""Retention: what is finished and old goes, what is not stays."""

import pytest
from records import Record

from pacs_agent.record import analysing, retaining


def finished(record: Record, number: int, study: str, *deliveries: str) -> None:
    """A study analysed, its report in that delivery state."""
    record.receive(number, study)
    record.queue()
    [claim] = record.claim()
    record.analyse(claim, **{f"pacs{index}": (status, None) for index, status in enumerate(deliveries)})


def deliver(record: Record, study: str, status: str = "delivered") -> None:
    with record.write() as connection:
        connection.exec_driver_sql(
            "UPDATE delivery SET status = ? WHERE report_id IN (SELECT r.id FROM report r JOIN analysis a ON "
            "a.id = r.analysis_id JOIN study s ON s.id = a.study_id WHERE s.study_instance_uid = ?)",
            (status, study),
        )


def test_instances_of_finished_old_studies_only(record: Record) -> None:
    """Not those of a study that waits, failed, is held, or heard of since."""
    finished(record, 1, "1.4.1")
    finished(record, 2, "1.4.2")
    before = record.now()
    record.receive(3, "1.4.3")
    record.receive(4, "1.4.2", status="ignored")  # heard of since
    assert retaining.forget_instances(record, before) == ["inbox/1"]
    record.tick(1)
    assert retaining.forget_instances(record, record.now()) == ["inbox/2", "inbox/4"]
    assert record.select("SELECT COUNT(*) FROM instance WHERE path IS NOT NULL") == [(1,)]
    assert record.state("1.4.3")[0] == "receiving"


@pytest.mark.parametrize("status", ["waiting", "held", "parked"])
def test_object_with_somewhere_to_go_stays(record: Record, status: str) -> None:
    """Until every destination has it, or its delivery was cancelled."""
    finished(record, 1, "1.4.1", "waiting", "waiting")
    deliver(record, "1.4.1", status)
    record.tick(1)
    assert retaining.forget_objects(record, record.now()) == []
    deliver(record, "1.4.1")
    assert retaining.forget_objects(record, record.now()) == ["outbox/x"]
    assert retaining.forget_objects(record, record.now()) == []


def test_object_without_a_destination_stays(record: Record) -> None:
    """It is held: a person may still want it."""
    finished(record, 1, "1.4.1")
    record.tick(1)
    assert retaining.forget_objects(record, record.now()) == []


def test_rows_go_last_and_whole(record: Record) -> None:
    """A study's rows go only when its files have gone, and then all of them."""
    finished(record, 1, "1.4.1", "waiting")
    finished(record, 2, "1.4.2", "waiting")
    deliver(record, "1.4.1")
    record.tick(1)
    assert retaining.forget_rows(record, record.now()) == 0
    retaining.forget_instances(record, record.now())
    retaining.forget_objects(record, record.now())
    assert retaining.forget_rows(record, record.now()) == 1
    for table in ("study", "instance", "analysis", "finding", "report", "delivery"):
        assert record.select(f"SELECT COUNT(*) FROM {table}") == [(1,)], table
    assert record.select("SELECT DISTINCT study_instance_uid FROM events WHERE study_instance_uid IS NOT NULL") == [
        ("1.4.2",)
    ]


def test_failed_study_keeps_everything(record: Record) -> None:
    """It waits for a person, whose `retry` needs its instances."""
    record.receive(1)
    record.queue()
    [claim] = record.claim()
    analysing.fail_study(record, claim, "why")
    record.tick(1)
    assert retaining.forget_instances(record, record.now()) == []
