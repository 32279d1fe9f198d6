"""Rejection notes: what they name is out, of the analysis and of what is still to be sent."""

from pathlib import Path

import pytest
from records import Record

from pacs_agent.record import deciding
from pacs_agent.study.instance import Reference

NOTE = 90


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """An empty one."""
    return Record.open(tmp_path / "agent.db")  # type: ignore[return-value]


def note(record: Record, *numbers: int, study: str = "1.4", title: str = "113001", number: int = NOTE) -> str:
    """A rejection note of those instances comes in."""
    rejects = tuple(Reference(study, f"1.2.{each}") for each in numbers)
    return record.receive(number, study, status="ignored", rejection=title, rejects=rejects)


def analyse(record: Record, **deliveries: object) -> list[str]:
    """Every study that waits is analysed; the instances that were seen."""
    record.queue()
    claims = record.claim()
    for claim in claims:
        record.analyse(claim, **deliveries)
    return [image.facts.sop_instance_uid for claim in claims for image in claim.instances]


def images(record: Record) -> dict[str, tuple[str, str | None]]:
    """Status and reason of each instance but the note."""
    rows = record.select(
        f"SELECT sop_instance_uid, status, reason FROM image_results WHERE sop_instance_uid <> '1.2.{NOTE}'"
    )
    return {uid: (status, reason) for uid, status, reason in rows}


def test_what_is_left_is_analysed_again_without_what_was_rejected(record: Record) -> None:
    """One of two images is rejected after the report: a new revision of the other alone."""
    record.receive(1)
    record.receive(2)
    analyse(record)
    note(record, 1)
    assert record.state() == ("receiving", None)
    assert analyse(record) == ["1.2.2", f"1.2.{NOTE}"]
    assert images(record)["1.2.1"] == ("rejected", "rejected for quality reasons (rejection note)")
    assert record.select("SELECT revision FROM results") == [(2,)]
    assert ("images rejected", "1: rejected for quality reasons (rejection note)") in record.select(
        "SELECT event, detail FROM events"
    )


def test_a_study_without_images_is_withdrawn_and_its_report_not_sent(record: Record) -> None:
    """Every image is rejected: the result is taken back, what waits is cancelled."""
    record.receive(1)
    analyse(record, pacs=("waiting", None))
    note(record, 1, title="113037")
    state, reason = record.state()
    assert (state, reason) == (
        "withdrawn",
        "every image that can be analysed was rejected: rejected for patient safety reasons (rejection note)",
    )
    assert record.select("SELECT status, finding FROM results") == [("withdrawn", "normal")]
    assert record.select("SELECT status, last_error FROM deliveries") == [("cancelled", f"withdrawn: {reason}")]


def test_a_retake_opens_an_emptied_study_again(record: Record) -> None:
    """The technologist rejects the only image and sends another: that one is analysed."""
    record.receive(1)
    analyse(record)
    note(record, 1)
    record.receive(2)
    assert record.state() == ("receiving", None)
    assert "1.2.2" in analyse(record)
    assert images(record)["1.2.2"][0] == "analysed"
    assert record.state() == ("analysed", None)


def test_a_person_may_still_withdraw_an_emptied_study_for_good(record: Record) -> None:
    """After that a further image opens nothing."""
    record.receive(1)
    analyse(record)
    note(record, 1)
    assert deciding.settle(record, "1.4", "withdraw", "wrong patient")
    record.receive(2)
    assert record.state() == ("withdrawn", "wrong patient")


def test_a_note_that_comes_first_holds(record: Record) -> None:
    """Its study has not been seen yet: the image that it names is rejected as it comes, the other is analysed."""
    note(record, 1)
    record.receive(1)
    why = "rejected for quality reasons (rejection note)"
    assert images(record)["1.2.1"] == ("rejected", why)
    assert record.state() == ("withdrawn", f"every image that can be analysed was rejected: {why}")
    assert [each for each in record.select("SELECT event, sop_instance_uid, detail FROM events") if why in each[2]] == [
        ("images rejected", f"1.2.{NOTE}", f"1: {why}"),
        ("withdrawn", None, f"every image that can be analysed was rejected: {why}"),
    ]
    record.receive(2)
    assert "1.2.1" not in analyse(record)
    assert images(record)["1.2.2"][0] == "analysed"


def test_a_rejected_image_that_is_sent_again_stays_out(record: Record) -> None:
    """Also with other pixels."""
    record.receive(1)
    record.receive(2)
    note(record, 1)
    assert record.receive(1, content="other") == "revision"
    assert images(record)["1.2.1"][0] == "rejected"
    assert "1.2.1" not in analyse(record)


def test_a_note_on_a_study_elsewhere_takes_nothing_from_this_one(record: Record) -> None:
    """An instance is rejected in the study that the note names, in no other."""
    record.receive(1)
    note(record, 1, study="1.99")
    assert images(record)["1.2.1"][0] == "received"


def test_a_report_of_what_was_rejected_meanwhile_is_not_sent(record: Record) -> None:
    """The note comes while the study is analysed: recorded, never sent, and analysed again without."""
    record.receive(1)
    record.receive(2)
    record.queue()
    (claim,) = record.claim()
    note(record, 1)
    record.analyse(claim, pacs=("waiting", None))
    assert images(record)["1.2.1"][0] == "rejected"
    assert record.select("SELECT status, last_error FROM deliveries") == [
        ("cancelled", "an image was rejected while it was analysed")
    ]
    assert record.state()[0] == "receiving"
    assert analyse(record, pacs=("waiting", None))[0] == "1.2.2"
    assert record.select("SELECT status FROM deliveries WHERE status = 'waiting'") == [("waiting",)]


def test_rejecting_the_stranger_ends_the_hold(record: Record) -> None:
    """Of two patients' images in one study, the wrong one is rejected: the study goes on as the other's."""
    record.receive(1)
    record.receive(2, patient_id="PHANTOM-2")
    assert record.state()[0] == "held"
    note(record, 2, title="113038")
    assert record.state() == ("receiving", None)
    assert "1.2.2" not in analyse(record)


def test_an_emptied_study_cannot_be_analysed_again(record: Record) -> None:
    """`reanalyse` says why."""
    record.receive(1)
    analyse(record)
    note(record, 1)
    why = deciding.reanalyse(record, "1.4")
    assert why is not None
    assert why.startswith("has no image left")


def test_the_same_note_again_changes_nothing(record: Record) -> None:
    """It is a duplicate."""
    record.receive(1)
    record.receive(2)
    note(record, 1)
    analyse(record)
    assert note(record, 1) == "duplicate"
    assert record.state() == ("analysed", None)


def test_two_notes_may_name_one_image(record: Record) -> None:
    """The first one's reason stands."""
    record.receive(1)
    record.receive(2)
    note(record, 1, title="113001")
    note(record, 1, 2, title="113039", number=NOTE + 1)
    rejected = images(record)
    assert rejected["1.2.1"][1] == "rejected for quality reasons (rejection note)"
    assert rejected["1.2.2"][1] == "data retention policy expired (rejection note)"
    assert record.state()[0] == "withdrawn"
