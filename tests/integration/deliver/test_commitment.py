"""Storage commitment with SCPs of every temper: which word of theirs counts, and what no word leads to. PS3.4 J"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import pytest
from deliveries import CR, Delivery, Pacs
from peers import wait_for
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from pacs_agent.deliver import commitment
from pacs_agent.receive.inbox import Inbox
from pacs_agent.receive.listener import Listener
from pacs_agent.record import deciding, delivering, retaining
from pacs_agent.record.committing import TRIES, CommitmentResult, renew_requests, settle_commitment
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store
from pacs_agent.settings import Listener as ListenerSettings

SC = SecondaryCaptureImageStorage
WAIT_S = 3600


def result(transaction_uid: str, committed: list[str], failed: dict[str, int] | None = None) -> Dataset:
    """Event information. PS3.4 Table J.3.3-2"""
    ds = Dataset()
    ds.TransactionUID = transaction_uid

    def item(uid: str, reason: int | None = None) -> Dataset:
        made = Dataset()
        made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = CR, uid
        if reason is not None:
            made.FailureReason = reason
        return made

    ds.ReferencedSOPSequence = [item(uid) for uid in committed]
    if failed:
        ds.FailedSOPSequence = [item(uid, reason) for uid, reason in failed.items()]
    return ds


def silent(_event: evt.Event, _information: Dataset, _kind: int) -> None:
    """A report that never comes."""


class Archive:
    """A PACS that commits, and what it was asked and told."""

    def __init__(self, pacs: Pacs, store: Store, data_dir: Path, **settings: Any) -> None:
        self.pacs = pacs
        self.asked: list[tuple[str, list[str]]] = []
        self.answers: list[int | None] = []
        self.failing: dict[str, int] = {}
        pacs.answer_action = self.take
        self.report: Callable[[evt.Event, Dataset, int], None] = silent
        self.status = 0
        pacs.start(CR, SC, StorageCommitmentPushModel)
        values = {"storage_commitment": True, "commitment_timeout_seconds": WAIT_S, **settings}
        self.delivery = Delivery(store, data_dir, pacs.port, **values)

    def take(self, event: evt.Event) -> int:
        """An N-ACTION."""
        wanted = event.action_information
        uids = [item.ReferencedSOPInstanceUID for item in wanted.ReferencedSOPSequence]
        self.asked.append((str(wanted.TransactionUID), uids))
        information, kind = self.information(*self.asked[-1])
        self.report(event, information, kind)
        return self.status

    def information(self, transaction_uid: str, uids: list[str]) -> tuple[Dataset, int]:
        """What it says of them."""
        failed = {uid: self.failing[uid] for uid in uids if uid in self.failing}
        return result(transaction_uid, [uid for uid in uids if uid not in failed], failed), 2 if failed else 1

    def say(self, assoc: Any, information: Dataset | None, kind: int) -> int | None:
        """An N-EVENT-REPORT on an association; the status it was answered with."""
        answer, _ = assoc.send_n_event_report(
            information, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.answers.append(answer.get("Status"))
        return self.answers[-1]

    def at_once(self, event: evt.Event, information: Dataset, kind: int) -> None:
        """Report before the response, on the same association."""
        self.say(event.assoc, information, kind)

    def ask(self) -> int:
        """Deliver what is due and ask for it; for how many it asked."""
        self.delivery.send()
        # For a word that will not come nobody need wait.
        with patch.object(commitment, "LINGER_S", 0.05 if self.report is silent else commitment.LINGER_S):
            return self.delivery.sender.ask_once()

    def statuses(self) -> list[str]:
        """Of the deliveries."""
        return [row["status"] for row in self.delivery.rows()]


@pytest.fixture
def archive(pacs: Pacs, store: Store, data_dir: Path) -> Archive:
    """One that answers N-ACTION and reports nothing."""
    return Archive(pacs, store, data_dir)


@pytest.fixture
def port(inbox: Inbox, store: Store) -> Iterator[int]:
    """Our listener, which hands results to the record."""
    listener = Listener(ListenerSettings(port=0), inbox, partial(settle_commitment, store))
    yield listener.start()
    listener.stop(0)


def call(archive: Archive, port: int, information: Dataset | None, kind: int, *, role: bool = True) -> int | None:
    """Report on an association of the PACS' own, with or without saying which role it has; the answer."""
    ae = AE(ae_title="PACS")
    ae.add_requested_context(StorageCommitmentPushModel)
    roles = [build_role(StorageCommitmentPushModel, scp_role=True)] if role else []
    assoc = ae.associate("127.0.0.1", port, ae_title="PACS_AGENT", ext_neg=roles)
    assert assoc.is_established
    try:
        if role:
            assert assoc.accepted_contexts[0].as_scp
        return archive.say(assoc, information, kind)
    finally:
        assoc.release()


def test_word_before_the_response(archive: Archive) -> None:
    """A report that comes before the N-ACTION's response counts, for its transaction is on the record already."""
    archive.report = archive.at_once
    uid = archive.delivery.put(1)
    assert archive.ask() == 1
    [row] = archive.delivery.rows()
    assert (row["status"], row["committed_at"]) == ("committed", archive.delivery.store.now())
    assert archive.answers == [0]
    assert [events for events, _ in archive.delivery.events()] == ["delivered", "committed"]
    assert archive.asked[0][1] == [uid]
    assert query(archive.delivery.store.path, "SELECT status FROM results").rows == (("delivered",),)
    archive.delivery.tick(100_000)
    assert archive.ask() == 0


def test_asked_again_after_a_start(archive: Archive) -> None:
    """A start asks anew for what was not answered, which is no failure; a late word on the first request counts."""
    uid = archive.delivery.put(1)
    assert archive.ask() == 1
    renew_requests(archive.delivery.store, [archive.delivery.destination.name])
    assert archive.ask() == 1
    assert [uids for _, uids in archive.asked] == [[uid], [uid]]
    assert archive.asked[0][0] != archive.asked[1][0]
    [row] = archive.delivery.rows()
    assert (row["status"], row["attempts"], row["last_error"]) == ("delivered", 1, None)
    settle_commitment(archive.delivery.store, CommitmentResult(archive.asked[0][0], frozenset([uid]), {}))
    assert archive.statuses() == ["committed"]


def test_nothing_is_asked_of_one_that_is_not_to_commit_any_more(archive: Archive) -> None:
    """Neither what was never asked for, nor what was not answered; it stays delivered."""
    archive.delivery.put(1)
    assert archive.ask() == 1
    archive.delivery.put(2)
    archive.delivery.send()
    renew_requests(archive.delivery.store, [])
    archive.delivery.tick(WAIT_S + 1)
    assert archive.ask() == 0
    assert len(archive.asked) == 1
    assert archive.statuses() == ["delivered", "delivered"]


def test_word_after_the_response(archive: Archive) -> None:
    """The same association is held open for a moment."""
    threads: list[Thread] = []

    def later(event: evt.Event, information: Dataset, kind: int) -> None:
        def say() -> None:
            wait_for(lambda: not event.assoc.dimse.msg_queue.qsize(), 5)
            archive.say(event.assoc, information, kind)

        threads.append(Thread(target=say))
        threads[-1].start()

    archive.report = later
    archive.delivery.put(1)
    archive.ask()
    for thread in threads:
        thread.join(20)
    assert archive.answers == [0]
    assert archive.statuses() == ["committed"]


@pytest.mark.parametrize("role", [True, False])
def test_word_on_an_association_of_its_own(archive: Archive, port: int, role: bool) -> None:
    """The listener takes it, and lets the PACS be the SCP; one that names no role is heard too."""
    archive.delivery.put(1)
    archive.ask()
    assert archive.statuses() == ["delivered"]
    assert call(archive, port, *archive.information(*archive.asked[0]), role=role) == 0
    assert archive.statuses() == ["committed"]
    assert call(archive, port, *archive.information(*archive.asked[0])) == 0  # said twice


def test_transaction_is_on_the_record_before_it_is_sent(archive: Archive) -> None:
    """While the PACS holds the N-ACTION, its UID can be read by others."""
    found: list[Any] = []

    def look(_event: evt.Event, information: Dataset, _kind: int) -> None:
        sql = 'SELECT destination FROM "commitment" WHERE transaction_uid = ?'
        found.extend(query(archive.delivery.store.path, sql, [information.TransactionUID]).rows)

    archive.report = look
    archive.delivery.put(1)
    archive.ask()
    assert found == [("pacs",)]


def test_a_revision_is_asked_for_as_a_whole(archive: Archive) -> None:
    """Nothing is asked while one of its objects is still to be sent; then all in one transaction."""
    first, second = archive.delivery.put_study(1, {"sr": CR, "capture": SC})
    archive.pacs.answer = lambda event: (
        event.assoc.abort() or 0 if event.request.AffectedSOPInstanceUID == second else 0
    )
    assert archive.ask() == 0
    assert archive.statuses() == ["delivered", "waiting"]
    archive.pacs.answer = lambda _event: 0
    archive.delivery.tick(60)
    assert archive.ask() == 2
    assert [uids for _, uids in archive.asked] == [[first, second]]


def test_one_of_two_failed(archive: Archive) -> None:
    """Only that one goes again, the same instance; 0111 counts as stored; it is asked for again, later."""
    first, second = archive.delivery.put_study(1, {"sr": CR, "capture": SC})
    archive.failing = {second: 0x0112}
    archive.report = archive.at_once
    assert archive.ask() == 2
    kept, again = archive.delivery.rows()
    assert (kept["status"], again["status"]) == ("committed", "waiting")
    assert again["last_error"] == "not committed: 0112 no such object instance"
    archive.failing = {}
    archive.pacs.answer = lambda _event: 0x0111
    assert archive.ask() == 0
    assert archive.statuses() == ["committed", "delivered"]
    archive.delivery.tick(1000)
    assert archive.ask() == 1
    assert archive.statuses() == ["committed", "committed"]
    assert archive.pacs.received == [first, second, second]
    assert len({transaction for transaction, _ in archive.asked}) == 2


def test_failure_without_end_parks(archive: Archive) -> None:
    """After so many failures a person must look; `retry` begins anew."""
    uid = archive.delivery.put(1)
    archive.failing = {uid: 0x0110}
    archive.report = archive.at_once
    for _ in range(2 * TRIES):
        archive.ask()
        archive.delivery.tick(1000)
    [row] = archive.delivery.rows()
    assert (row["status"], row["last_error"]) == ("parked", "not committed: 0110 processing failure")
    assert archive.pacs.received == [uid] * TRIES
    archive.failing = {}
    assert delivering.make_due(archive.delivery.store, ["parked"]) == 1
    assert archive.ask() == 1
    assert archive.statuses() == ["committed"]


def test_n_action_that_is_never_answered(pacs: Pacs, store: Store, data_dir: Path) -> None:
    """The sender does not hang: the object stays delivered until the wait is over, then it goes again, counted."""
    archive = Archive(pacs, store, data_dir, timeout_seconds=1)
    let_go = Event()

    def hold(_event: evt.Event, _information: Dataset, _kind: int) -> None:
        let_go.wait(60)

    archive.report = hold
    uid = archive.delivery.put(1)
    try:
        assert archive.ask() == 1
        assert archive.statuses() == ["delivered"]
        archive.delivery.tick(WAIT_S - 1)
        assert archive.ask() == 0
        archive.delivery.tick(2)
        assert archive.delivery.sender.ask_once() == 0
        [row] = archive.delivery.rows()
        assert (row["status"], row["last_error"]) == ("waiting", "not committed: no answer in time")
        archive.delivery.send()
        assert archive.pacs.received == [uid, uid]
    finally:
        let_go.set()


def test_late_word_counts(archive: Archive, port: int) -> None:
    """A success that comes when the object has gone again already, and was asked for again, is one."""
    archive.delivery.put(1)
    archive.ask()
    archive.delivery.tick(WAIT_S + 1)
    archive.delivery.sender.ask_once()
    archive.delivery.send()
    assert archive.statuses() == ["delivered"]
    assert call(archive, port, *archive.information(*archive.asked[0])) == 0
    assert archive.statuses() == ["committed"]


def test_late_failure_does_not_count(archive: Archive, port: int) -> None:
    """What a past transaction did not keep may have come since: the present one says."""
    uid = archive.delivery.put(1)
    archive.ask()
    archive.delivery.tick(WAIT_S + 1)
    archive.delivery.sender.ask_once()
    archive.delivery.send()
    assert call(archive, port, result(archive.asked[0][0], [], {uid: 0x0112}), 2) == 0
    assert archive.statuses() == ["delivered"]


@pytest.mark.parametrize(
    ("information", "kind", "answer"),
    [
        (result("1.2.3", ["1.2"]), 1, 0x0115),
        (result("", []), 1, 0x0115),
        (None, 1, 0x0115),
        (result("1.2.3", ["1.2"]), 7, 0x0113),
    ],
    ids=["unknown transaction", "empty transaction", "nothing", "unknown event"],
)
def test_senseless_report_is_answered(
    archive: Archive, port: int, information: Dataset | None, kind: int, answer: int
) -> None:
    """With a failure, and nothing changes; the next one is understood."""
    archive.delivery.put(1)
    archive.ask()
    assert call(archive, port, information, kind) == answer
    assert archive.statuses() == ["delivered"]
    assert call(archive, port, *archive.information(*archive.asked[0])) == 0


def test_instance_named_twice_is_not_safe(archive: Archive, port: int) -> None:
    """In both sequences: it failed; others that nobody asked for change nothing."""
    uid = archive.delivery.put(1)
    archive.ask()
    assert call(archive, port, result(archive.asked[0][0], [uid, "1.2.3"], {uid: 0x0213, "1.2.4": 1}), 2) == 0
    assert archive.statuses() == ["waiting"]


def test_refused_request_is_repeated_later(archive: Archive) -> None:
    """An N-ACTION that fails: the object is there and does not go again; asked with growing pauses, then parked."""
    archive.status = 0x0213
    uid = archive.delivery.put(1)
    pauses = []
    for _ in range(TRIES):
        assert archive.ask() == 1
        pauses.append(0)
        while archive.statuses() == ["delivered"] and not archive.delivery.sender._commitments.is_due():
            archive.delivery.tick(5)
            pauses[-1] += 5
    assert pauses[:-1] == sorted(set(pauses[:-1]))
    [row] = archive.delivery.rows()
    assert (row["status"], row["last_error"]) == ("parked", "not committed: N-ACTION answered 0213")
    assert archive.pacs.received == [uid]


def test_class_that_is_not_accepted(pacs: Pacs, store: Store, data_dir: Path) -> None:
    """A PACS without storage commitment: delivered, with the reason, and no association more for a while."""
    archive = Archive(pacs, store, data_dir)
    pacs.stop()
    pacs.start(CR)
    archive.delivery.put(1)
    assert archive.ask() == 1
    [row] = archive.delivery.rows()
    assert row["status"] == "delivered"
    assert row["last_error"] == "not committed: storage commitment: the destination does not accept this SOP class"
    assert archive.ask() == 0


def test_down_when_it_is_to_be_asked(archive: Archive) -> None:
    """An outage is no failure: the request was not made, and is made when the PACS is back."""
    archive.delivery.put(1)
    archive.delivery.send()
    archive.pacs.stop()
    assert archive.delivery.sender.ask_once() == 1
    assert archive.delivery.sender.ask_once() == 0  # shares the pause of all that waits
    rows = query(archive.delivery.store.path, 'SELECT COUNT(*) FROM "commitment"').rows
    assert rows == ((0,),)
    archive.pacs.start(CR, StorageCommitmentPushModel)
    archive.delivery.tick(100)
    archive.report = archive.at_once
    assert archive.ask() == 1
    assert archive.statuses() == ["committed"]


def test_ended_before_it_was_asked(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request was never written: it is made again, after a pause and not at once."""
    ask = Association.send_n_action

    def ended(assoc: Association, *about: Any) -> Any:
        assoc.abort()
        return ask(assoc, *about)

    archive.delivery.put(1)
    archive.delivery.send()
    monkeypatch.setattr(Association, "send_n_action", ended)
    assert archive.delivery.sender.ask_once() == 1
    assert archive.delivery.sender.ask_once() == 0
    assert query(archive.delivery.store.path, 'SELECT COUNT(*) FROM "commitment"').rows == ((0,),)
    monkeypatch.undo()
    archive.delivery.tick(100)
    archive.report = archive.at_once
    assert archive.delivery.sender.ask_once() == 1
    assert archive.statuses() == ["committed"]


def test_delivered_in_time_goes_again_after_it(pacs: Pacs, store: Store, data_dir: Path) -> None:
    """`deliver_within_hours` is of the first delivery: what was there in time is not held, and a late word counts."""
    archive = Archive(pacs, store, data_dir, deliver_within_hours=1)
    archive.delivery.put(1)
    assert archive.ask() == 1
    [before] = archive.delivery.rows()
    archive.delivery.tick(WAIT_S + 1)
    assert archive.delivery.sender.ask_once() == 0  # no answer in time
    assert archive.statuses() == ["waiting"]
    assert archive.delivery.send() == 1
    [row] = archive.delivery.rows()
    assert (row["status"], row["attempts"], row["delivered_at"]) == ("delivered", 2, before["delivered_at"])
    uid, uids = archive.asked[0]
    assert settle_commitment(store, CommitmentResult(uid, frozenset(uids), {}))
    assert archive.statuses() == ["committed"]


def test_replaced_report_does_not_go_again(archive: Archive) -> None:
    """A report that a later revision replaced is never sent after it, kept or not."""
    archive.report = archive.at_once
    archive.failing = {archive.delivery.put(1): 0x0112}
    archive.delivery.send()
    archive.delivery.put(1)
    archive.ask()
    archive.ask()
    assert archive.statuses() == ["cancelled", "committed"]
    assert archive.delivery.rows()[0]["last_error"].startswith("superseded by a later revision; not committed")


def test_withdrawn_report_does_not_go_again(archive: Archive) -> None:
    """What a person took back stays back."""
    archive.report = archive.at_once
    archive.failing = {archive.delivery.put(1): 0x0112}
    archive.delivery.send()
    assert deciding.settle(archive.delivery.store, "1.4.1", "withdraw", "wrong patient")
    archive.ask()
    assert archive.statuses() == ["cancelled"]


def test_object_is_kept_until_it_is_committed(archive: Archive) -> None:
    """Retention does not take what may have to go again; once committed it does."""
    archive.delivery.put(1)
    archive.ask()
    assert retaining.forget_objects(archive.delivery.store, "9999") == []
    settle_commitment(archive.delivery.store, _kept(archive))
    assert len(retaining.forget_objects(archive.delivery.store, "9999")) == 1
    retaining.forget_transactions(archive.delivery.store, "9999")
    assert not settle_commitment(archive.delivery.store, _kept(archive))


def test_nothing_is_asked_where_it_is_not_set(delivery: Delivery, pacs: Pacs) -> None:
    """Without the setting the class is not offered, and a delivered object is done with."""
    pacs.start(CR)
    delivery.put(1)
    delivery.send()
    assert delivery.sender.ask_once() == 0
    assert [row["status"] for row in delivery.rows()] == ["delivered"]


def _kept(archive: Archive) -> Any:
    from pacs_agent.commitment import read_result  # noqa: PLC0415

    return read_result(archive.information(*archive.asked[0])[0])
