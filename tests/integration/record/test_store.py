"""The record: migrations, the views' promise, the queue of studies with its claims and leases, deliveries."""

import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from records import Record
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from pacs_agent.errors import DatabaseError, DatabaseNewerError
from pacs_agent.record import analysing, claiming, deciding, delivering, receiving
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import metadata
from pacs_agent.record.times import to_text

# The contract, to the letter.
RESULTS = (
    "study_instance_uid, accession_number, patient_id, study_date, calling_ae_title, body_part, laterality, status, "
    "finding, abnormal_probability, threshold, image_count, images_analysed, model_name, model_version, bundle_hash, "
    "revision, reason, station_name, manufacturer, manufacturer_model_name, received_at, analysed_at, delivered_at, "
    "report_sop_instance_uid"
)
VIEWS = {
    "results": RESULTS,
    "analyses": f"{RESULTS}, role",
    "image_results": "study_instance_uid, series_instance_uid, sop_instance_uid, body_part, body_part_source, "
    "laterality, laterality_source, view_position, status, abnormal_probability, member_probabilities, reason",
    "deliveries": "study_instance_uid, sop_instance_uid, object, destination, status, attempts, last_status, "
    "last_error, next_attempt_at, delivered_at, committed_at",
    "events": "at, study_instance_uid, sop_instance_uid, event, detail",
    "truth": "study_instance_uid, accession_number, body_part, laterality, label, file, imported_at",
}


# -- schema -----------------------------------------------------------------------------------------------------------


def test_migration_makes_exactly_the_tables(store: Store) -> None:
    """A new database has what tables.py says and nothing else."""
    with store.read() as connection:
        context = MigrationContext.configure(connection)
        differences = [each for each in compare_metadata(context, metadata) if each[0] != "remove_table"]
    assert differences == []


def test_views_have_the_columns_of_the_contract(store: Store) -> None:
    """Names and order of each of the five, `role` at the end of `analyses`, and of `truth`."""
    for name, columns in VIEWS.items():
        assert ", ".join(query(store.path, f"SELECT * FROM {name}").columns) == columns
    found = query(store.path, "SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name").rows
    assert [row[0] for row in found] == sorted(VIEWS)


def test_opening_again_keeps_what_is_there(store: Store) -> None:
    """A restart migrates nothing and loses nothing."""
    store.set_paused("analysis", True)
    again = Store.open(store.path)
    assert again.paused() == {"analysis"}
    again.set_paused("analysis", False)
    assert store.paused() == set()
    assert again.device_uid("2.25.1") == again.device_uid("2.25.2") == "2.25.1"
    again.close()


def test_newer_database_is_refused_untouched(store: Store) -> None:
    """`serve` and the other commands both say which way out there is."""
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for opening in (Store.open, Store.attach):
        with pytest.raises(DatabaseNewerError, match="9999"):
            opening(store.path)
    assert query(store.path, "SELECT COUNT(*) FROM results").rows == ((0,),)


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """One clear line, and the file is left as it is."""
    path = tmp_path / "x.db"
    path.write_bytes(b"not a database, but long enough to look" * 100)
    with pytest.raises(DatabaseError, match="not a database"):
        Store.open(path)
    assert path.read_bytes().startswith(b"not a database")


def test_nobody_else_can_read(tmp_path: Path) -> None:
    """The database and what SQLite lays beside it are 0600, whatever the umask."""
    before = os.umask(0)
    try:
        opened = Store.open(tmp_path / "x.db")
    finally:
        os.umask(before)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == dict.fromkeys(
        ("x.db", "x.db-wal", "x.db-shm"), 0o600
    )
    opened.close()


def test_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    """One clear line."""
    with pytest.raises(DatabaseError, match="No such file"):
        Store.open(tmp_path / "absent" / "x.db")


def test_attach_makes_no_database(tmp_path: Path) -> None:
    """The commands beside the daemon do not create one by mistake."""
    with pytest.raises(DatabaseError, match="there is no database"):
        Store.attach(tmp_path / "x.db")
    assert list(tmp_path.iterdir()) == []


def test_failed_transaction_leaves_nothing(store: Store) -> None:
    """All or nothing."""
    with pytest.raises(ZeroDivisionError), store.write() as connection:  # noqa: PT012
        connection.exec_driver_sql("INSERT INTO event (at, event) VALUES ('2026', 'x')")
        raise ZeroDivisionError
    assert query(store.path, "SELECT * FROM events").rows == ()


def test_commits_are_durable(store: Store) -> None:
    """WAL, and a sync at every commit."""
    with store.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_write_holds_the_lock_from_its_start(store: Store) -> None:
    """What a claim reads cannot change before it writes."""
    other = sqlite3.connect(store.path, timeout=0, isolation_level=None)
    with store.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()


# -- the queue of studies ---------------------------------------------------------------------------------------------


def test_study_walks_through(record: Record) -> None:
    """receiving, queued, analysed; the result is in the view, then nothing is left to claim."""
    record.receive(1, view_position="PA")
    assert record.select("SELECT status FROM results") == [("receiving",)]
    assert record.claim() == []
    record.queue()
    assert record.select("SELECT status FROM results") == [("queued",)]
    [claim] = record.claim()
    assert (claim.revision, claim.alone, [image.path for image in claim.instances]) == (1, False, ["inbox/1"])
    record.analyse(claim, pacs=("waiting", None))
    assert record.select("SELECT status, finding, body_part, revision FROM results") == [
        ("analysed", "normal", "hand", 1)
    ]
    assert record.select("SELECT status, body_part, view_position FROM image_results") == [("analysed", "hand", "PA")]
    record.queue()
    assert record.claim() == []


def test_claim_has_a_lease(record: Record) -> None:
    """A claimed study is nobody else's until its lease ends; given back, it is free at once."""
    record.receive(1)
    record.queue()
    [claim] = record.claim()
    record.tick(59)
    assert record.claim() == []
    record.tick(2)
    assert [each.study_id for each in record.claim()] == [claim.study_id]
    claiming.release_claims(record, [claim])
    assert len(record.claim()) == 1
    claiming.release_claims(record)
    assert len(record.claim()) == 1


def test_claims_are_oldest_first_and_bounded(record: Record) -> None:
    """At most as many as asked for."""
    for number in range(3):
        record.receive(number, f"1.4.{number}")
    record.queue()
    assert [claim.study_instance_uid for claim in record.claim(2)] == ["1.4.0", "1.4.1"]
    assert [claim.study_instance_uid for claim in record.claim(2)] == ["1.4.2"]


def test_queue_study_sees_an_instance_that_came_meanwhile(record: Record) -> None:
    """Completeness decided on old facts does not count."""
    record.receive(1)
    [waiting] = claiming.receiving_studies(record)
    record.receive(2)
    assert not claiming.queue_study(record, waiting, "quiet")
    assert record.state()[0] == "receiving"


def test_only_a_death_alone_counts(record: Record) -> None:
    """After a death in a batch each study is tried alone; twice dead alone is spent, the others go on."""
    record.receive(1, "1.4.1")
    record.receive(2, "1.4.2")
    record.queue()
    batch = record.claim()
    assert len(batch) == 2
    assert claiming.worker_died(record, batch, "signal 11") == []
    [first] = record.claim()
    assert first.alone
    assert claiming.worker_died(record, [first], "signal 11") == []
    [first] = record.claim(1)
    [spent] = claiming.worker_died(record, [first], "signal 11")
    analysing.fail_study(record, spent, "the analysis process died twice: signal 11")
    [row] = record.select("SELECT status, reason FROM results WHERE study_instance_uid = '1.4.1'")
    assert row == ("failed", "the analysis process died twice: signal 11")
    assert record.select("SELECT status FROM image_results WHERE study_instance_uid = '1.4.1'") == [("failed",)]
    [second] = record.claim()
    assert (second.study_instance_uid, second.alone) == ("1.4.2", True)
    record.analyse(second)
    assert record.state("1.4.2")[0] == "analysed"
    # `retry` gives the failed one a fresh chance, not alone.
    assert deciding.retry_failed(record) == 1
    assert [claim.alone for claim in record.claim()] == [False]


def test_lonely_studies_come_after_the_others(record: Record) -> None:
    """A suspect does not hold up, nor share a batch with, the innocent."""
    record.receive(1, "1.4.1")
    record.queue()
    claiming.worker_died(record, record.claim(), "signal 9")
    record.receive(2, "1.4.2")
    record.queue()
    assert [(claim.study_instance_uid, claim.alone) for claim in record.claim()] == [("1.4.2", False)]
    assert [(claim.study_instance_uid, claim.alone) for claim in record.claim()] == [("1.4.1", True)]


@pytest.mark.parametrize("queued_again", [False, True])
def test_late_instance_during_a_claim_keeps_the_study_open(record: Record, queued_again: bool) -> None:
    """It is not analysed with the claim, waits since its own receipt, and makes the next revision."""
    record.receive(1)
    record.queue()
    [claim] = record.claim()
    record.receive(2)
    late_at = record.now()
    if queued_again:
        record.queue()
        assert record.claim() == []  # the lease of the first claim still holds
    record.analyse(claim, pacs=("waiting", None))
    assert len(delivering.claim_due(record, "pacs", 1, 60)) == 1
    assert record.state()[0] == ("queued" if queued_again else "receiving")
    assert record.select("SELECT waiting_since FROM study") == [(late_at,)]
    record.queue()
    [claim] = record.claim()
    assert (claim.revision, len(claim.instances)) == (2, 2)
    assert [each.sop_instance_uid for each in analysing.predecessors(record, claim.study_id)] == ["9.1.1"]
    record.analyse(claim)
    assert record.state()[0] == "analysed"
    assert record.select("SELECT revision FROM results") == [(2,)]
    assert record.select("SELECT revision FROM analyses ORDER BY revision") == [(1,), (2,)]


def test_report_replaces_what_was_sent_and_what_was_held_never_goes(record: Record) -> None:
    """A new report names the latest one that a destination has or may get; a held one of before is superseded."""
    record.receive(1)
    for revision, status in ((1, "waiting"), (2, "held"), (3, "held")):
        record.queue()
        [claim] = record.claim()
        expected = [] if revision == 1 else ["9.1.1"]
        assert [each.sop_instance_uid for each in analysing.predecessors(record, claim.study_id)] == expected
        record.analyse(claim, pacs=(status, None))
        delivering.claim_due(record, "pacs", 1, 60)
        record.receive(revision + 1)
    assert record.select("SELECT sop_instance_uid, status, last_error FROM deliveries") == [
        ("9.1.1", "waiting", None),
        ("9.1.2", "cancelled", "superseded by a later revision"),
        ("9.1.3", "held", "silent mode"),
    ]


def test_reanalyse_says_why_it_cannot(record: Record) -> None:
    """Unknown, not yet analysed, held or without its instances: refused with the reason, and nothing changes."""
    assert deciding.reanalyse(record, "1.4") == "is not known"
    record.receive(1)
    assert "is receiving" in str(deciding.reanalyse(record, "1.4"))
    record.queue()
    assert "is queued" in str(deciding.reanalyse(record, "1.4"))
    [claim] = record.claim()
    record.analyse(claim)
    assert deciding.reanalyse(record, "1.4") is None
    assert record.state()[0] == "queued"
    [claim] = record.claim()
    record.analyse(claim)
    with record.write() as connection:
        connection.exec_driver_sql("UPDATE instance SET path = NULL")  # as retention does
    assert "lacks 1 of its instances" in str(deciding.reanalyse(record, "1.4"))
    assert record.state()[0] == "analysed"
    record.receive(2, patient_id="PHANTOM-2")
    assert "is held" in str(deciding.reanalyse(record, "1.4"))


def test_withdrawn_study_can_be_analysed_again(record: Record) -> None:
    """A person who took a result back may ask for a new one."""
    record.receive(1)
    record.queue()
    [claim] = record.claim()
    record.analyse(claim, pacs=("waiting", None))
    assert deciding.settle(record, "1.4", "withdraw", "wrong side")
    assert record.select("SELECT status, last_error FROM deliveries") == [("cancelled", "withdrawn: wrong side")]
    assert not deciding.settle(record, "1.4", "withdraw", "again")
    assert deciding.reanalyse(record, "1.4") is None
    [claim] = record.claim()
    record.analyse(claim)
    assert record.state() == ("analysed", None)


def test_revised_instance_during_a_claim_is_analysed_again(record: Record) -> None:
    """Other pixels under the same UID are as good as a late instance."""
    record.receive(1)
    record.queue()
    [claim] = record.claim()
    assert record.receive(1, content="b") == "revision"
    record.analyse(claim)
    assert record.state()[0] == "receiving"


@pytest.mark.parametrize("during_claim", [False, True], ids=["after the analysis", "during the claim"])
def test_earlier_revision_sent_again_is_analysed_again(record: Record, during_claim: bool) -> None:
    """A, B, A: the row of A counts again and waits, without what an earlier analysis said; the history tells."""
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0])
    record.receive(1, content="b")
    record.queue()
    [claim] = record.claim()
    if not during_claim:
        record.analyse(claim)
    assert record.receive(1) == "revision"
    if during_claim:
        record.analyse(claim)
    assert record.state()[0] == "receiving"
    assert record.select("SELECT status, body_part FROM image_results") == [("received", None)]
    record.queue()
    [image] = record.claim()[0].instances
    assert image.path == "inbox/1"
    last = record.select("SELECT detail FROM events WHERE event = 'instance revised'")[-1]
    assert last == ("revision 1 was sent again and counts again",)


def test_lost_earlier_revision_sent_again_counts(record: Record) -> None:
    """Its file is back and it is current; the one that it replaces is kept."""
    record.receive(1)
    record.receive(1, content="b")
    receiving.mark_lost(record, [1])
    assert record.receive(1) == "revision"
    assert record.select("SELECT id, is_current, path, status FROM instance ORDER BY id") == [
        (1, 1, "inbox/1", "received"),
        (2, 0, "inbox/1b", "received"),
    ]


def test_lost_instance_that_comes_again_during_the_claim_is_analysed(record: Record) -> None:
    """What the analysis says of a file that it could not find does not stand against the file that came since."""
    record.receive(1)
    record.receive(2)
    [lost] = record.select("SELECT id FROM instance WHERE sop_instance_uid = '1.2.2'")
    receiving.mark_lost(record, lost)
    record.queue()
    [claim] = record.claim()
    assert record.receive(2) == "duplicate"
    record.analyse(claim)
    assert record.select("SELECT status FROM image_results WHERE sop_instance_uid = '1.2.2'") == [("received",)]
    assert record.state()[0] == "receiving"


@pytest.mark.parametrize("change", [{"status": "ignored"}, {"study": "1.9"}])
def test_image_taken_away_during_the_claim_keeps_the_study_open(record: Record, change: dict[str, str]) -> None:
    """A finding that rests on an image which is there no more does not close its study."""
    record.receive(1)
    record.receive(2)
    record.queue()
    [claim] = record.claim()
    record.receive(2, content="b", **change)
    record.analyse(claim)
    assert record.state()[0] == "receiving"
    record.queue()
    claims = {claim.study_instance_uid: claim for claim in record.claim()}
    record.analyse(claims["1.4"])
    assert record.state()[0] == "analysed"


def test_ignored_instance_does_not_open_a_finished_study(record: Record) -> None:
    """Our own report that comes back from the PACS does not start all over again."""
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0])
    record.receive(2, status="ignored")
    assert record.state()[0] == "analysed"
    record.receive(3)
    assert record.state()[0] == "receiving"


@pytest.mark.parametrize("name", ["patient_id", "patient_birth_date", "accession_number", "issuer_of_patient_id"])
def test_disagreeing_identity_is_held_until_accepted(record: Record, name: str) -> None:
    """Held with the reason, not complete however quiet; `accept` lets these values through, and another one no more."""
    record.receive(1, **{name: "ONE"})
    record.receive(2, **{name: "TWO"})
    assert record.state() == ("held", f"instances disagree on {name.replace('_', ' ')}")
    record.queue()
    assert record.claim() == []
    assert record.select("SELECT status FROM results") == [("held",)]
    assert deciding.settle(record, "1.4", "accept", None)
    record.queue()
    [claim] = record.claim()
    assert len(claim.instances) == 2
    record.analyse(claim)
    record.receive(3, **{name: "TWO"})
    assert record.state()[0] == "receiving"
    record.receive(4, **{name: "THREE"})
    assert record.state() == ("held", f"instances disagree on {name.replace('_', ' ')}")
    assert deciding.settle(record, "1.4", "accept", None)
    record.receive(5, **{name: "THREE"})
    assert record.state()[0] == "receiving"


def test_absent_identity_says_nothing(record: Record) -> None:
    """An empty accession number beside a filled one is no disagreement, and the filled one is shown."""
    record.receive(1, accession_number="")
    record.receive(2, accession_number="A7")
    assert record.state()[0] == "receiving"
    assert record.select("SELECT accession_number FROM results") == [("A7",)]


def test_corrected_identity_lets_a_held_study_go_on(record: Record) -> None:
    """When the odd instance is sent again with the right patient there is nothing to accept."""
    record.receive(1)
    record.receive(2, patient_id="PHANTOM-9")
    assert record.state()[0] == "held"
    record.receive(2, content="corrected")
    assert record.state() == ("receiving", None)


def test_accept_wants_a_held_study(record: Record) -> None:
    """Nothing happens to another one."""
    record.receive(1)
    assert not deciding.settle(record, "1.4", "accept", None)
    assert not deciding.settle(record, "1.99", "withdraw", "x")


def test_withdrawn_study_sends_nothing_more(record: Record) -> None:
    """Waiting deliveries are cancelled and the view says withdrawn, with the reason."""
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0], pacs=("waiting", None))
    assert deciding.settle(record, "1.4", "withdraw", "wrong patient")
    assert record.select("SELECT status, reason FROM results") == [("withdrawn", "wrong patient")]
    assert record.select("SELECT status FROM deliveries") == [("cancelled",)]
    assert delivering.claim_due(record, "pacs", 10, 60) == []


def test_study_withdrawn_during_its_claim_sends_nothing(record: Record) -> None:
    """A person's word holds over an analysis that was in hand."""
    record.receive(1)
    record.queue()
    [claim] = record.claim()
    assert deciding.settle(record, "1.4", "withdraw", "wrong patient")
    record.analyse(claim, pacs=("waiting", None))
    assert record.state()[0] == "withdrawn"
    assert delivering.claim_due(record, "pacs", 10, 60) == []


# -- deliveries -------------------------------------------------------------------------------------------------------


@pytest.fixture
def reported(record: Record) -> Record:
    """A study whose report waits for `pacs` and is held for `archive`."""
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0], pacs=("waiting", None), archive=("held", None))
    return record


def test_claim_counts_the_attempt_and_has_a_lease(reported: Record) -> None:
    """Counted before it is made, so that a kill is not forgotten; not due again before the lease ends."""
    [due] = delivering.claim_due(reported, "pacs", 10, 60)
    assert (due.attempts, due.path, due.sop_instance_uid) == (1, "outbox/x", "9.1.1")
    assert reported.select("SELECT attempts FROM deliveries WHERE destination = 'pacs'") == [(1,)]
    assert not delivering.has_due(reported, "pacs")
    assert delivering.claim_due(reported, "pacs", 10, 60) == []
    reported.tick(61)
    assert delivering.has_due(reported, "pacs")
    assert [due.attempts for due in delivering.claim_due(reported, "pacs", 10, 60)] == [2]


def test_restart_makes_waiting_due_at_once(reported: Record) -> None:
    """Leases and pauses of the dead run end; what is held stays held."""
    delivering.claim_due(reported, "pacs", 10, 6000)
    delivering.wake_waiting(reported)
    assert delivering.has_due(reported, "pacs")
    assert not delivering.has_due(reported, "archive")


def test_delivered_when_every_wanted_destination_has_it(reported: Record) -> None:
    """A held copy is not wanted until it is released; from then on one of two is not yet delivered."""
    [due] = delivering.claim_due(reported, "pacs", 10, 60)
    delivering.mark_delivered(reported, due, "pacs", "0000")
    assert reported.select("SELECT status FROM results") == [("delivered",)]
    assert delivering.make_due(reported, ["held"]) == 1
    assert reported.select("SELECT status, delivered_at FROM results") == [("analysed", None)]
    [due] = delivering.claim_due(reported, "archive", 10, 60)
    delivering.mark_delivered(reported, due, "archive", "0000")
    [(status, delivered_at)] = reported.select("SELECT status, delivered_at FROM results")
    assert (status, delivered_at) == ("delivered", reported.now())


def test_parked_is_due_again_on_retry_only(reported: Record) -> None:
    """With its status and reason until then."""
    [due] = delivering.claim_due(reported, "pacs", 10, 60)
    delivering.park(reported, due, "pacs", "A700", "C-STORE answered A700")
    reported.tick(100_000)
    assert delivering.claim_due(reported, "pacs", 10, 60) == []
    found = "SELECT status, last_status, last_error FROM deliveries WHERE destination = 'pacs'"
    assert reported.select(found) == [("parked", "A700", "C-STORE answered A700")]
    assert delivering.make_due(reported, ["parked"]) == 1
    assert len(delivering.claim_due(reported, "pacs", 10, 60)) == 1


def test_make_due_since(reported: Record) -> None:
    """`release --since` leaves older objects held."""
    reported.tick(10)
    assert delivering.make_due(reported, ["held"], since=reported.now()) == 0
    assert delivering.make_due(reported, ["held"], since=to_text(reported.moment - timedelta(seconds=20))) == 1


def test_late_result_is_held_not_sent(record: Record) -> None:
    """Past `deliver_within_hours` nothing goes out by itself."""
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0], pacs=("waiting", 1))
    record.tick(3601)
    assert delivering.claim_due(record, "pacs", 10, 60) == []
    assert record.select("SELECT status, last_error FROM deliveries") == [("held", "the time for delivery has passed")]


def test_without_destination_the_object_is_held(record: Record) -> None:
    """The view says so, and why."""
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0])
    assert record.select("SELECT status, reason FROM results") == [("held", "no destination was there for it")]
    assert record.select("SELECT status, destination FROM deliveries") == [("held", None)]


def test_destination_is_known_since_it_was_first_configured(record: Record) -> None:
    """A later start does not move it."""
    first = delivering.destinations_since(record, ["pacs"])
    record.tick(5)
    assert delivering.destinations_since(record, ["pacs", "new"]) == {"pacs": first["pacs"], "new": record.now()}


# -- the driver's own connections -------------------------------------------------------------------------------------

ADD_EVENT = "INSERT INTO event (at, event, detail) VALUES ('2026', ?, ?)"


def events(store: Store) -> list[str]:
    """The history's events, in their order."""
    return [row[0] for row in query(store.path, "SELECT event FROM event ORDER BY id").rows]


def test_plain_transaction_is_whole_or_nothing(store: Store) -> None:
    """What fails on its way is undone, whoever raised, and the next one is written."""

    def fail() -> None:
        with store.write_plain() as connection:
            connection.execute(ADD_EVENT, ("undone", None))
            raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        fail()
    with store.write_plain() as connection:
        connection.execute(ADD_EVENT, ("written", None))
    assert events(store) == ["written"]
    assert store.first("SELECT event FROM event WHERE event = ?", ("undone",)) is None


def test_plain_error_is_sqlalchemys_and_tells_no_parameter(store: Store) -> None:
    """Callers know one kind of error, and its text holds nothing of a patient."""
    with pytest.raises(IntegrityError) as caught, store.write_plain() as connection:
        connection.execute(ADD_EVENT, (None, "PHANTOM-1"))
    assert "PHANTOM-1" not in f"{caught.value} {caught.value.orig}"
    with pytest.raises(OperationalError):
        store.first("SELECT * FROM nothing WHERE x = ?", ("PHANTOM-1",))


def test_database_that_is_full_refuses_and_recovers(store: Store) -> None:
    """A transaction that SQLite undid itself is not undone twice, and nothing of it stays."""
    with store.write_plain() as connection:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes it for what the file has now
    with pytest.raises(OperationalError, match="full"), store.write_plain() as connection:
        connection.executemany(ADD_EVENT, [("undone", "x" * 4000)] * 200)
    with store.write_plain() as connection:
        connection.execute(ADD_EVENT, ("written", None))
    assert events(store) == ["written"]


@pytest.mark.parametrize(
    "spoil",
    [lambda connection: connection.close(), lambda connection: connection.execute("COMMIT")],
    ids=["closed", "no transaction"],
)
def test_plain_connection_that_broke_is_replaced(store: Store, spoil: Callable[[sqlite3.Connection], None]) -> None:
    """One transaction is refused, not every one from then on."""
    with pytest.raises(DBAPIError), store.write_plain() as connection:
        spoil(connection)
    with store.write_plain() as connection:
        connection.execute(ADD_EVENT, ("written", None))
    assert events(store) == ["written"]


def test_closing_waits_for_the_transaction_in_hand(store: Store) -> None:
    """A connection that is closed under a running statement takes the process with it."""
    closing = threading.Thread(target=store.close)
    with store.write_plain() as connection:
        closing.start()
        closing.join(0.2)
        assert closing.is_alive()
        connection.execute(ADD_EVENT, ("written", None))
    closing.join(10)
    assert not closing.is_alive()
    assert events(store) == ["written"]


def test_journal_that_grew_shrinks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody reads for long nothing of it can be reused; afterwards it takes no more than its bound."""
    monkeypatch.setattr("pacs_agent.record.store.JOURNAL_BYTES", 1 << 20)
    store = Store.open(tmp_path / "pacs-agent.db")
    journal = tmp_path / "pacs-agent.db-wal"

    def write() -> None:
        with store.write() as connection:
            for _ in range(300):
                add_event(connection, store.now(), "paused", detail="x" * 4000)

    with closing(sqlite3.connect(store.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM event").fetchone()
        for _ in range(4):
            write()
        assert journal.stat().st_size > 4 << 20
        reader.execute("ROLLBACK")
    for _ in range(2):
        write()
    assert journal.stat().st_size <= 2 << 20
    store.close()
