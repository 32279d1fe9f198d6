"""Delivery to real SCPs of every temper: stored, refused, aborted, down."""

from datetime import timedelta
from pathlib import Path
from random import Random
from threading import Event

import pytest
from deliveries import CR, Delivery, Pacs
from peers import wait_for
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import evt

from pacs_agent.deliver.association import echo
from pacs_agent.deliver.outbox import Backoff
from pacs_agent.record.reading import query


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007])
def test_stored(delivery: Delivery, pacs: Pacs, status: int) -> None:
    """Success, and each warning under which the object was stored, is delivered once and for all. PS3.4 B.2.3"""
    pacs.answer = lambda _event: status
    pacs.start(CR)
    uid = delivery.put(1)
    assert delivery.send() == 1
    [row] = delivery.rows()
    assert (row["status"], row["last_status"], row["attempts"]) == ("delivered", f"{status:04X}", 1)
    assert row["delivered_at"] == delivery.store.now()
    assert row["next_attempt_at"] is None
    delivery.tick(100_000)
    assert delivery.send() == 0
    assert pacs.received == [uid]
    assert query(delivery.store.path, "SELECT status FROM results").rows == (("delivered",),)


def test_object_arrives_as_it_was_made(delivery: Delivery, pacs: Pacs, data_dir: Path) -> None:
    """The data set at the PACS is byte for byte the stored one, in the same transfer syntax."""
    arrived: list[bytes] = []

    def keep(event: evt.Event) -> int:
        arrived.append(event.encoded_dataset(include_meta=False))
        return 0

    pacs.answer = keep
    pacs.start(CR)
    uid = delivery.put(1)
    delivery.send()
    assert (data_dir / "outbox" / f"{uid}.dcm").read_bytes().endswith(arrived[0])


def test_several_objects_share_an_association(delivery: Delivery, pacs: Pacs) -> None:
    """All that is due goes at once, in order."""
    pacs.start(CR)
    uids = [delivery.put(number) for number in range(3)]
    assert delivery.send() == 3
    assert pacs.received == uids


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC000, 0x0122, 0x0111])
def test_refused_is_parked_with_status_and_reason(delivery: Delivery, pacs: Pacs, status: int) -> None:
    """A refusal is final until a person says `retry`; what stands behind it goes on. 0111 on a first try is one."""

    def refuse(event: evt.Event) -> Dataset | int:
        if str(event.request.AffectedSOPInstanceUID) != bad:
            return 0
        answer = Dataset()
        answer.Status, answer.ErrorComment = status, "because"
        return answer

    pacs.answer = refuse
    pacs.start(CR)
    bad = delivery.put(1)
    delivery.put(2)
    delivery.send()
    first, second = delivery.rows()
    assert (first["status"], first["last_status"], first["next_attempt_at"]) == ("parked", f"{status:04X}", None)
    assert first["last_error"] == f"C-STORE answered {status:04X}: because"
    assert second["status"] == "delivered"
    delivery.tick(100_000)
    assert delivery.send() == 0


def test_duplicate_on_a_resend_is_stored(delivery: Delivery, pacs: Pacs) -> None:
    """0111 after a try whose answer never came: the PACS has it."""
    pacs.answer = lambda event: event.assoc.abort() or 0
    pacs.start(CR)
    delivery.put(1)
    delivery.send()
    assert delivery.rows()[0]["status"] == "waiting"
    pacs.answer = lambda _event: 0x0111
    delivery.tick(60)
    assert delivery.send() == 1
    [row] = delivery.rows()
    assert (row["status"], row["last_status"], row["attempts"]) == ("delivered", "0111", 2)


def test_abort_mid_association_waits_with_growing_pauses(delivery: Delivery, pacs: Pacs) -> None:
    """Nothing is parked; each pause is longer than the one before; the object goes under the same UID."""
    pacs.answer = lambda event: event.assoc.abort() or 0
    pacs.start(CR)
    uid = delivery.put(1)
    pauses = []
    for attempt in range(1, 5):
        assert delivery.send() == 1
        [row] = delivery.rows()
        assert (row["status"], row["attempts"]) == ("waiting", attempt)
        assert row["last_error"]
        pauses.append(delivery.pause_s(row))
        assert delivery.send() == 0
        delivery.tick(pauses[-1] + 1)
    assert pauses == sorted(set(pauses))
    pacs.answer = lambda _event: 0
    delivery.send()
    assert delivery.rows()[0]["status"] == "delivered"
    assert set(pacs.received) == {uid}


def test_down_is_never_parked(delivery: Delivery, pacs: Pacs) -> None:
    """A PACS that is down for a weekend: waiting, the pauses bounded, everything delivered when it is back."""
    for number in range(3):
        delivery.put(number)
    for _ in range(14):
        delivery.send()
        rows = delivery.rows()
        assert {row["status"] for row in rows} == {"waiting"}
        assert "reached" in rows[0]["last_error"]
        assert all(delivery.pause_s(row) <= delivery.destination.max_retry_seconds for row in rows)
        assert delivery.send() == 0
        delivery.tick(delivery.destination.max_retry_seconds)
    pacs.start(CR)
    assert delivery.send() == 3
    assert {row["status"] for row in delivery.rows()} == {"delivered"}


def test_new_object_does_not_knock_at_a_destination_that_is_down_twice(delivery: Delivery) -> None:
    """What waits behind a failure shares its pause."""
    for number in range(25):  # more than one association takes
        delivery.put(number)
    assert delivery.send() == 20
    assert delivery.send() == 0


def test_class_not_accepted_is_parked(delivery: Delivery, pacs: Pacs) -> None:
    """The PACS is there and does not take this SOP class; an object of another class goes."""
    pacs.start(CR)
    delivery.put(1, Comprehensive3DSRStorage)
    delivery.put(2)
    delivery.send()
    first, second = delivery.rows()
    assert (first["status"], first["last_error"]) == (
        "parked", "the destination does not accept this SOP class: Comprehensive 3D SR Storage",
    )  # fmt: skip
    assert second["status"] == "delivered"


def test_no_class_accepted_at_all_is_parked(delivery: Delivery, pacs: Pacs) -> None:
    """An association with no accepted context is a refusal, not an outage."""
    pacs.start()
    delivery.put(1)
    delivery.send()
    [row] = delivery.rows()
    assert (row["status"], row["last_error"]) == (
        "parked", "the destination does not accept this SOP class: Computed Radiography Image Storage",
    )  # fmt: skip


@pytest.mark.parametrize("content", [None, b"spoilt"])
def test_object_that_cannot_be_read_is_parked(
    delivery: Delivery, pacs: Pacs, data_dir: Path, content: bytes | None
) -> None:
    """A lost or spoilt object does not end the sender."""
    pacs.start(CR)
    path = data_dir / "outbox" / f"{delivery.put(1)}.dcm"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    delivery.put(2)
    delivery.send()
    assert [row["status"] for row in delivery.rows()] == ["parked", "delivered"]


def test_run_delivers_until_stopped_and_respects_a_pause(delivery: Delivery, pacs: Pacs) -> None:
    """The loop: nothing while the destination is paused, all that is due after."""
    import threading  # noqa: PLC0415

    pacs.start(CR)
    delivery.put(1)
    delivery.store.set_paused("pacs", True)
    stop = Event()
    looked = Event()
    paused = delivery.store.paused

    def watched() -> set[str]:
        found = paused()
        looked.set()
        return found

    delivery.store.paused = watched  # type: ignore[method-assign]
    thread = threading.Thread(target=delivery.sender.run, args=(stop, 0.02))
    thread.start()
    try:
        for _ in range(3):
            looked.clear()
            assert looked.wait(10)
        assert pacs.received == []
        delivery.store.set_paused("pacs", False)
        wait_for(lambda: delivery.rows()[0]["status"] == "delivered", 10, "the delivery")
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def test_outbox_keeps_what_rows_name_and_nothing_else(delivery: Delivery, data_dir: Path) -> None:
    """An object whose analysis was never recorded goes at the next start."""
    uid = delivery.put(1)
    delivery.outbox.keep("2.25.99", b"never recorded")
    delivery.outbox.reconcile()
    assert [path.name for path in (data_dir / "outbox").iterdir()] == [f"{uid}.dcm"]


def test_destination_gets_what_is_received_since_it_is_known(delivery: Delivery) -> None:
    """Nothing older, and nothing of another SR class."""

    def deliveries(number: int, sr_class: str) -> object:
        about = {"calling_ae_title": "XR1", "findings": [("hand", "normal")]}
        found = delivery.outbox.addresses(study_instance_uid=f"1.4.{number}", **about)
        return found.deliveries("sr", sr_class)

    delivery.put(1)
    delivery.moment -= timedelta(milliseconds=1)
    delivery.put(2)
    assert deliveries(1, "comprehensive3d") == {"pacs": ("waiting", None)}
    assert deliveries(1, "enhanced") == {}
    assert deliveries(2, "comprehensive3d") == {}


def test_echo(delivery: Delivery, pacs: Pacs) -> None:
    """None where it is answered, else one line."""
    assert "reached" in str(echo(delivery.destination, "PACS_AGENT"))
    pacs.start()
    assert echo(delivery.destination, "PACS_AGENT") is None


@pytest.mark.parametrize("seed", range(5))
def test_backoff_grows_to_its_bound_with_jitter(seed: int) -> None:
    """Doubled each time within a quarter of jitter, never beyond the longest."""
    backoff = Backoff(10, 900, Random(seed))
    for attempts in range(1, 2000, 7):
        full = min(900.0, 10 * 2.0 ** min(attempts - 1, 30))
        assert full * 0.75 <= backoff.pause_s(attempts) <= full
