"""Retention: what is finished and old goes, what is not stays."""

import pytest
from records import Record
from sqlalchemy.exc import IntegrityError

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


@pytest.mark.parametrize("status", ["waiting", "parked"])
def test_study_with_an_object_on_its_way_keeps_its_instances(record: Record, status: str) -> None:
    """It is not finished; one that only a silent destination holds is."""
    finished(record, 1, "1.4.1", "waiting")
    deliver(record, "1.4.1", status)
    record.tick(1)
    assert retaining.forget_instances(record, record.now()) == []
    deliver(record, "1.4.1", "held")
    assert retaining.forget_instances(record, record.now()) == ["inbox/1"]


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


def test_events_are_append_only(record: Record) -> None:
    """No statement changes, removes or replaces one, not even through an id that is taken."""
    record.receive(1)
    [before] = record.select("SELECT * FROM event")
    for statement in (
        "UPDATE event SET detail = 'nothing happened'",
        "DELETE FROM event",
        "INSERT OR REPLACE INTO event (id, at, event) VALUES (1, '2026', 'nothing')",
        "UPDATE OR REPLACE event SET id = 7",
    ):
        with pytest.raises(IntegrityError, match="append-only"), record.write() as connection:
            connection.exec_driver_sql(statement)
    assert record.select("SELECT * FROM event") == [before]


def test_retention_removes_events_of_its_studies_alone(record: Record) -> None:
    """With the rows of a study its history goes, says that it went, and the way is closed again."""
    finished(record, 1, "1.4.1")
    finished(record, 2, "1.4.2")
    record.tick(1)
    retaining.forget_instances(record, record.now())
    with record.write() as connection:
        connection.exec_driver_sql("UPDATE report SET path = NULL")
        connection.exec_driver_sql("UPDATE instance SET path = 'inbox/2' WHERE id = 2")
    assert retaining.forget_rows(record, record.now()) == 1
    assert record.select("SELECT DISTINCT study_instance_uid FROM event WHERE study_instance_uid IS NOT NULL") == [
        ("1.4.2",)
    ]
    assert record.select("SELECT event, detail FROM event ORDER BY id")[-1] == (
        "rows removed by retention",
        "studies: 1",
    )
    assert record.select("SELECT * FROM event_removal") == []
    with pytest.raises(IntegrityError, match="append-only"), record.write() as connection:
        connection.exec_driver_sql("DELETE FROM event WHERE study_instance_uid = '1.4.2'")


def test_who_sent_what_whence_and_when_is_told(record: Record) -> None:
    """One event a sender when the study is complete, of all that it sent; what opens no study again has its own."""
    record.receive(1)
    record.receive(2)
    record.queue()
    record.analyse(record.claim()[0])
    record.receive(3, status="ignored")
    assert record.select("SELECT event, detail FROM events WHERE event LIKE '%received'") == [
        ("first instance received", "from XR1"),
        ("received", "from XR1: 2 so far, 2026-01-05T10:00:01.000Z to 2026-01-05T10:00:02.000Z"),
        ("instance received", "from XR1"),
    ]


@pytest.mark.parametrize("state", ["receiving", "queued", "held", "failed"])
def test_study_that_is_not_finished_loses_nothing(record: Record, state: str) -> None:
    """Neither instances nor rows, however old it is."""
    finished(record, 1, "1.4.1")
    with record.write() as connection:
        connection.exec_driver_sql("UPDATE study SET state = ?", (state,))
    record.tick(1e9)
    assert retaining.forget_instances(record, record.now()) == []
    with record.write() as connection:
        connection.exec_driver_sql("UPDATE instance SET path = NULL")
        connection.exec_driver_sql("UPDATE report SET path = NULL")
    assert retaining.forget_rows(record, record.now()) == 0


def test_object_whose_commitment_is_pending_stays(record: Record) -> None:
    """It goes again where the destination does not commit to it."""
    finished(record, 1, "1.4.1", "waiting")
    deliver(record, "1.4.1")
    with record.write() as connection:
        connection.exec_driver_sql("UPDATE delivery SET commitment_due_at = '2030-01-01T00:00:00.000Z'")
    record.tick(1)
    assert retaining.forget_objects(record, record.now()) == []
    deliver(record, "1.4.1", "committed")
    with record.write() as connection:
        connection.exec_driver_sql("UPDATE delivery SET commitment_due_at = NULL")
    assert retaining.forget_objects(record, record.now()) == ["outbox/x"]


def test_study_that_a_further_bundle_waits_for_keeps_its_instances(record: Record) -> None:
    """It has not seen them yet; what it failed or has seen holds nothing."""
    finished(record, 1, "1.4.1")
    with record.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO further_analysis (study_id, revision, model_name, model_version, bundle_hash, state, deaths)"
            " VALUES (1, 1, 'net', '2', 'def', 'waiting', 0)"
        )
    record.tick(1)
    assert retaining.forget_instances(record, record.now()) == []
    with record.write() as connection:
        connection.exec_driver_sql("UPDATE instance SET path = NULL")
        connection.exec_driver_sql("UPDATE report SET path = NULL")
    assert retaining.forget_rows(record, record.now()) == 0
    with record.write() as connection:
        connection.exec_driver_sql("UPDATE instance SET path = 'inbox/1'")
        connection.exec_driver_sql("UPDATE further_analysis SET state = 'failed'")
    assert retaining.forget_instances(record, record.now()) == ["inbox/1"]


def test_study_whose_rejection_note_is_not_made_keeps_everything(record: Record) -> None:
    """The note names what a destination has; where it is made, its delivery counts as any other."""
    finished(record, 1, "1.4.1", "delivered")
    with record.write() as connection:
        connection.exec_driver_sql("UPDATE study SET state = 'withdrawn'")
        connection.exec_driver_sql(
            "INSERT INTO rejection_note (analysis_id, destination, reason) VALUES (1, 'p', 'why')"
        )
    record.tick(1)
    assert retaining.forget_instances(record, record.now()) == []
    with record.write() as connection:
        connection.exec_driver_sql("UPDATE rejection_note SET report_id = 1")
    assert retaining.forget_instances(record, record.now()) == ["inbox/1"]
