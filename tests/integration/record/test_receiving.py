"""What comes in changes what was said: revisions that take an image away, identities, files found at start."""

import threading
from datetime import timedelta

import pytest
from records import Record

from pacs_agent.record import analysing, claiming, deciding, receiving
from pacs_agent.record.analysing import FindingRow
from pacs_agent.record.store import Store
from pacs_agent.record.times import to_text


@pytest.fixture
def analysed(record: Record) -> Record:
    """A study with one analysed image."""
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0])
    return record


@pytest.mark.parametrize("status", ["unsupported", "ignored"])
def test_image_revised_to_one_not_analysed_opens_its_study(analysed: Record, status: str) -> None:
    """The finding spoke of a picture that counts no more: the study waits anew, since that moment."""
    assert analysed.receive(1, status=status, content="b") == "revision"
    assert analysed.state() == ("receiving", None)
    [waiting] = claiming.receiving_studies(analysed)
    assert waiting.waiting_since == waiting.last_received_at == analysed.now()


def test_image_moved_to_another_study_opens_the_one_it_left(analysed: Record) -> None:
    """Both wait; the one without instances is claimed, and ends as unsupported, whose it was is still said."""
    assert analysed.receive(1, study="1.9", content="b") == "revision"
    assert (analysed.state("1.4")[0], analysed.state("1.9")[0]) == ("receiving", "receiving")
    analysed.queue()
    left = next(claim for claim in analysed.claim() if claim.study_instance_uid == "1.4")
    assert left.instances == ()
    row = FindingRow(None, None, "unsupported", None, None, None, 0, 0, "no instance")
    analysing.record_analysis(analysed, left, model=None, images=[], findings=[row], reports=[])
    assert analysed.select("SELECT status, reason, patient_id FROM results WHERE study_instance_uid = '1.4'") == [
        ("unsupported", "no instance", "PHANTOM-1")
    ]


def test_image_moved_to_another_study_ends_the_hold_that_it_caused(record: Record) -> None:
    """What is left agrees: nothing to accept."""
    record.receive(1)
    record.receive(2, patient_id="PHANTOM-9")
    assert record.state()[0] == "held"
    record.receive(2, study="1.9", content="b", patient_id="PHANTOM-9")
    assert record.state("1.4") == ("receiving", None)


def test_withdrawn_study_stays_so_when_its_image_goes(analysed: Record) -> None:
    """A person's word stands."""
    assert deciding.settle(analysed, "1.4", "withdraw", "wrong patient")
    analysed.receive(1, study="1.9", content="b")
    assert analysed.state("1.4") == ("withdrawn", "wrong patient")


def test_images_of_a_withdrawn_study_wait_for_nothing_until_it_is_analysed_again(record: Record) -> None:
    """Those there, one that comes later and one that was lost and comes again; what is ignored stays so."""
    found = "SELECT status, reason FROM image_results ORDER BY sop_instance_uid"
    record.receive(1)
    record.receive(2, patient_id="PHANTOM-9")
    record.receive(3, status="ignored")
    assert deciding.settle(record, "1.4", "withdraw", "wrong patient")
    out = ("rejected", "the study was withdrawn")
    assert record.select(found) == [out, out, ("ignored", "a reason")]
    receiving.mark_lost(record, [1])
    record.receive(1)
    record.receive(4)
    assert record.select(found) == [out, out, ("ignored", "a reason"), out]
    assert record.state() == ("withdrawn", "wrong patient")
    assert deciding.reanalyse(record, "1.4") is None
    assert record.select(found) == [("received", None)] * 2 + [("ignored", "a reason"), ("received", None)]


def test_report_sent_in_another_form_opens_nothing(analysed: Record) -> None:
    """An ignored instance had no part in the finding, whatever its revision says."""
    analysed.receive(2, status="ignored")
    assert analysed.receive(2, status="ignored", content="b") == "revision"
    assert analysed.state()[0] == "analysed"


def test_second_disagreement_is_in_the_reason_of_the_hold(record: Record) -> None:
    """A person sees what would be accepted, all of it and no more; the history tells of one hold."""
    record.receive(1)
    record.receive(2, patient_id="PHANTOM-9")
    record.receive(3, accession_number="A9")
    assert record.state() == ("held", "instances disagree on patient id, accession number")
    record.receive(2, content="corrected")
    assert record.state() == ("held", "instances disagree on accession number")
    assert len(record.select("SELECT 1 FROM events WHERE event = 'held'")) == 1


def test_disagreement_that_was_corrected_and_comes_again_holds_again(record: Record) -> None:
    """What a study was held for is known only once a person accepted it."""
    record.receive(1)
    record.receive(2, patient_id="PHANTOM-9")
    record.receive(2, content="corrected")
    record.receive(3, patient_id="PHANTOM-9")
    assert record.state()[0] == "held"


def test_superseded_file_found_at_start_gets_its_path_back_and_no_more(record: Record) -> None:
    """Retention forgot it and was killed before it was removed: neither the current revision nor the study changes."""
    record.receive(1)
    record.receive(1, content="b")
    record.queue()
    record.analyse(record.claim()[0])
    with record.write() as connection:
        connection.exec_driver_sql("UPDATE instance SET path = NULL")  # as retention does
    assert record.receive(1, is_adopted=True) == "duplicate"
    assert record.select("SELECT id, is_current, path, status FROM instance ORDER BY id") == [
        (1, 0, "inbox/1", "received"),
        (2, 1, None, "analysed"),
    ]
    assert record.state()[0] == "analysed"
    assert record.select("SELECT last_received_at FROM study") == [(to_text(record.moment - timedelta(seconds=1)),)]


def test_readers_that_the_disk_holds_up_refuse_nobody(store: Store) -> None:
    """As many connections as threads: a pool's limit would be an error that is nobody's."""
    release, inside = threading.Event(), threading.Semaphore(0)

    def hold() -> None:
        with store.read():
            inside.release()
            release.wait(30)

    threads = [threading.Thread(target=hold) for _ in range(20)]
    try:
        for thread in threads:
            thread.start()
        assert all(inside.acquire(timeout=10) for _ in threads)
        assert store.paused() == set()
    finally:
        release.set()
        for thread in threads:
            thread.join()
