"""Rejection notes of our own objects: what each destination is told, when, and that a kill makes no second one."""

import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from threading import Event
from typing import Any, Literal

import pytest
from deliveries import CR, Delivery, Pacs
from peers import answers_echo, dcmtk, free_port, wait_for
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage, SecondaryCaptureImageStorage
from pynetdicom import evt

from pacs_agent.deliver.outbox import Outbox
from pacs_agent.deliver.sender import Sender
from pacs_agent.receive.inbox import Inbox
from pacs_agent.record import analysing, committing, deciding, delivering, receiving, retaining
from pacs_agent.record import rejecting as rejecting_record
from pacs_agent.record.committing import CommitmentResult
from pacs_agent.record.reading import query
from pacs_agent.rejecting import Rejecting
from pacs_agent.report.content import Equipment
from pacs_agent.settings import Destination
from pacs_agent.study.eligibility import Eligibility
from pacs_agent.study.instance import Instance, Reference

KO, SC = KeyObjectSelectionDocumentStorage, SecondaryCaptureImageStorage
EQUIPMENT = Equipment(device_uid="2.25.7", station_name="PACS_AGENT", software_version="0.1.0")
STUDY = "1.4.1"


class Site:
    """A destination or several, and the notes that are made for them."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.store = delivery.store
        self.make = self.maker()

    def maker(self) -> Rejecting:
        """As a start of the daemon makes it."""
        return Rejecting(self.delivery.data_dir, self.store, self.delivery.outbox, EQUIPMENT)

    def withdraw(self, reason: str = "wrong patient") -> bool:
        """`withdraw --reject`."""
        return deciding.settle(
            self.store, STUDY, "withdraw", reason, [each.name for each in self.delivery.destinations]
        )

    def tell(self) -> None:
        """Every destination's turn: make what is wanted."""
        for destination in self.delivery.destinations:
            self.make(destination)

    def notes(self) -> list[dict[str, Any]]:
        """Deliveries of notes."""
        sql = "SELECT * FROM deliveries WHERE object = 'rejection' ORDER BY destination, sop_instance_uid"
        return query(self.store.path, sql).records()

    def note(self, destination: str = "pacs") -> Dataset:
        """The only note for a destination."""
        [row] = [row for row in self.notes() if row["destination"] == destination]
        return dcmread(self.delivery.data_dir / "outbox" / f"{row['sop_instance_uid']}.dcm")

    def named(self, destination: str = "pacs") -> set[str]:
        """What it names."""
        return {each.sop_instance_uid for each in Instance.from_dataset(self.note(destination)).rejects}

    def events(self) -> list[tuple[str, str]]:
        """The history of notes."""
        return list(query(self.store.path, "SELECT event, detail FROM events WHERE event LIKE '%rejection%'").rows)


@pytest.fixture
def site(delivery: Delivery) -> Site:
    """One PACS, not started."""
    return Site(delivery)


def breaking(event: evt.Event) -> int:
    """The PACS has it, and its answer is lost."""
    event.assoc.abort()
    return 0


def test_note_names_what_a_destination_may_have(site: Site, pacs: Pacs) -> None:
    """Delivered, and lost without an answer, of every revision; not what was refused or never offered."""
    pacs.start(CR, SC, KO)
    first = site.delivery.put_study(1, {"capture": SC, "sr": CR})
    site.delivery.send()
    second, third, fourth = site.delivery.put_study(1, {"capture": SC, "other": CR, "sr": CR})
    pacs.answer = lambda event: 0xA700 if event.request.AffectedSOPInstanceUID == second else 0
    site.delivery.send()
    pacs.answer = breaking
    fifth, sixth = site.delivery.put_study(1, {"capture": SC, "sr": CR})
    site.delivery.send()
    assert pacs.received == [*first, second, third, fourth, fifth]
    assert site.withdraw()
    site.tell()
    assert site.named() == {*first, third, fourth, fifth}
    assert sixth not in site.named()
    pacs.answer = lambda _event: 0
    assert site.delivery.send() == 1
    [row] = site.notes()
    assert (row["status"], row["object"], row["study_instance_uid"]) == ("delivered", "rejection", STUDY)
    assert pacs.received[-1] == row["sop_instance_uid"]
    assert site.events() == [
        ("rejection note wanted", "pacs: wrong patient"),
        ("rejection note made", "pacs: of 5 objects: wrong patient"),
    ]
    assert ("delivered", row["sop_instance_uid"]) in site.delivery.events()
    assert query(site.store.path, "SELECT status FROM results").rows == (("withdrawn",),)


def test_broken_then_refused_is_not_there(site: Site, pacs: Pacs) -> None:
    """A refusal is the last word, until it is offered again without an answer."""
    pacs.start(CR, KO)
    uid = site.delivery.put(1)
    pacs.answer = breaking
    site.delivery.send()
    site.delivery.tick(1000)
    pacs.answer = lambda _event: 0x0122
    site.delivery.send()
    assert site.withdraw()
    site.tell()
    assert site.notes() == []
    assert deciding.reanalyse(site.store, STUDY) is None
    [uid] = site.delivery.put_study(1, {"sr": CR})
    site.delivery.send()
    delivering.make_due(site.store, ["parked"])
    pacs.answer = breaking
    site.delivery.send()
    assert site.withdraw("again")
    site.tell()
    assert site.named() == {uid}


def test_each_destination_is_told_of_what_it_has(site: Site, pacs: Pacs, tmp_path: Path) -> None:
    """One note each: a folder has its own, a silent one's is held, one out of reach that has nothing gets none."""
    pacs.start(CR, SC, KO)
    (folder := tmp_path / "results").mkdir()
    writer = site.delivery.add("files", 0, folder=folder, objects=("sr",))
    site.delivery.add("silent", pacs.port, mode="silent")
    site.delivery.add("away", free_port())
    site = Site(site.delivery)
    capture, sr = site.delivery.put_study(1, {"capture": SC, "sr": CR})
    delivering.make_due(site.store, ["held"])
    [silent] = site.delivery.senders(site.delivery.destinations[2])
    for sender in (site.delivery.sender, writer, silent, site.delivery.senders(site.delivery.destinations[3])[0]):
        sender.deliver_once(Event())
    assert site.withdraw()
    site.tell()
    assert {row["destination"]: (row["status"], row["last_error"]) for row in site.notes()} == {
        "files": ("waiting", None), "pacs": ("waiting", None), "silent": ("held", "silent mode"),
    }  # fmt: skip
    assert site.named("pacs") == site.named("silent") == {capture, sr}
    assert site.named("files") == {sr}
    assert len({row["sop_instance_uid"] for row in site.notes()}) == 3
    writer.deliver_once(Event())
    there = {path.name: path.read_bytes() for path in folder.iterdir()}
    note = site.note("files")
    stored = site.delivery.data_dir / "outbox" / f"{note.SOPInstanceUID}.dcm"
    assert there[f"{note.SOPInstanceUID}.dcm"] == stored.read_bytes()
    assert silent.deliver_once(Event()) == 0
    delivering.make_due(site.store, ["held"], "2026-01-01")
    assert silent.deliver_once(Event()) == 1


def test_withdrawal_while_it_is_on_the_wire(site: Site, pacs: Pacs) -> None:
    """The note is made after the transfer, names what came through too late, and goes behind it; no more goes."""
    pacs.start(CR, SC, KO)
    first, second = site.delivery.put_study(1, {"capture": SC, "sr": CR})

    def answer(_event: evt.Event) -> int:
        if len(pacs.received) == 1:
            assert site.withdraw()
        return 0

    pacs.answer = answer
    stop = Event()
    sender = with_notes(site, site.maker())
    idle = stopping(stop, lambda: len(pacs.received) == 2)
    sender.run(idle, idle_s=0.01)
    assert site.named() == {first}
    assert pacs.received == [first, site.note().SOPInstanceUID]
    assert second not in pacs.received
    assert ("cancelled too late", first) in site.delivery.events()


def with_notes(site: Site, make: Callable[[Destination], None]) -> Sender:
    """A sender that has notes made, as the daemon's."""
    return Sender(
        site.delivery.destination, ae_title="PACS_AGENT", store=site.store, data_dir=site.delivery.data_dir,
        random=Random(7), make_notes=make,
    )  # fmt: skip


def stopping(stop: Event, when: Callable[[], bool]) -> Any:
    """An event that sets itself once *when* holds."""

    class Until(Event):
        def is_set(self) -> bool:
            return stop.is_set()

        def wait(self, timeout: float | None = None) -> bool:
            if when():
                stop.set()
            return stop.wait(timeout)

    return Until()


def test_claimed_and_never_offered_is_not_named(site: Site, pacs: Pacs) -> None:
    """The withdrawal comes when a batch was claimed: nothing went out, nothing is to be taken back."""
    pacs.start(KO)
    uid = site.delivery.put(1)
    dues = delivering.claim_due(site.store, "pacs", 20, 60)
    assert site.withdraw()
    delivering.give_back(site.store, dues)
    site.tell()
    assert site.notes() == []
    assert site.events()[-1] == ("no rejection note", "pacs has nothing of it")
    assert uid not in pacs.received


def test_killed_before_the_row_is_written(site: Site, pacs: Pacs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are there and no row names them: removed at the next start, the note is made anew, and sent once."""
    pacs.start(CR, KO)
    uid = site.delivery.put(1)
    site.delivery.send()
    assert site.withdraw()
    with monkeypatch.context() as killed:
        killed.setattr(rejecting_record, "record_note", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            site.tell()
    orphans = set((site.delivery.data_dir / "outbox").iterdir())
    site.delivery.outbox.reconcile()
    assert len(orphans - set((site.delivery.data_dir / "outbox").iterdir())) == 1
    site.make = site.maker()
    site.tell()
    site.tell()
    assert site.named() == {uid}
    site.delivery.send()
    assert pacs.received == [uid, site.note().SOPInstanceUID]


def test_killed_after_the_row_is_written(site: Site, pacs: Pacs) -> None:
    """Before it is sent, and after it is sent and before the answer is written: the same instance goes."""
    pacs.start(CR, KO)
    uid = site.delivery.put(1)
    site.delivery.send()
    assert site.withdraw()
    site.tell()
    site.delivery.outbox.reconcile()
    delivering.claim_due(site.store, "pacs", 20, 60)  # killed here
    delivering.wake_waiting(site.store)
    site.make = site.maker()
    site.tell()
    pacs.answer = lambda _event: 0x0111
    [sender] = site.delivery.senders(site.delivery.destination)
    assert sender.deliver_once(Event()) == 1
    [row] = site.notes()
    assert (row["status"], row["attempts"]) == ("delivered", 2)
    assert pacs.received == [uid, row["sop_instance_uid"]]


def test_nothing_is_told_twice(site: Site, pacs: Pacs) -> None:
    """Withdrawn first, rejected later: yes, once. A destination that had nothing then has nothing to be told."""
    pacs.start(CR, KO)
    site.delivery.put(1)
    site.delivery.send()
    assert deciding.settle(site.store, STUDY, "withdraw", "wrong patient")
    assert site.withdraw("wrong side too")
    assert not site.withdraw()
    site.tell()
    assert not site.withdraw()
    assert len(site.notes()) == 1
    assert query(site.store.path, "SELECT reason FROM results").rows == (("wrong patient",),)
    [text] = [item.TextValue for item in site.note().ContentSequence if "TextValue" in item][-1:]
    assert text == "AI result withdrawn: wrong side too"


def test_emptied_study_can_be_rejected(site: Site, pacs: Pacs) -> None:
    """The PACS rejected every image; our report still stands there until a person says so."""
    pacs.start(CR, KO)
    uid = site.delivery.put(1)
    site.delivery.send()
    facts, status = note_of_all(site)
    receipt = receiving.Receipt(facts, Eligibility(status), "note", "note", 1, "PACS", site.store.now())
    receiving.Reception(site.store).accept(receipt)
    site.tell()
    assert site.notes() == []
    assert site.withdraw()
    site.tell()
    assert site.named() == {uid}


def test_plain_withdrawal_tells_nobody(site: Site, pacs: Pacs) -> None:
    """Only --reject does; and of a study that was never sent there is nothing to tell."""
    pacs.start(CR, KO)
    site.delivery.put(1)
    assert site.withdraw()
    site.tell()
    assert site.notes() == []
    site.delivery.put(2)
    site.delivery.send()
    assert deciding.settle(site.store, "1.4.2", "withdraw", "wrong patient")
    site.tell()
    assert site.notes() == []


def test_reanalysed_after_the_note(site: Site, pacs: Pacs) -> None:
    """The note goes first, though the new revision came meanwhile; then the new report, which names no predecessor."""
    pacs.start(CR, KO)
    first = site.delivery.put(1)
    site.delivery.send()
    assert [row.sop_instance_uid for row in analysing.predecessors(site.store, 1)] == [first]
    assert site.withdraw()
    assert deciding.reanalyse(site.store, STUDY) is None
    assert analysing.predecessors(site.store, 1) == []
    second = site.delivery.put(1)
    site.tell()
    assert site.named() == {first}
    assert site.delivery.send() == 1
    assert site.delivery.send() == 1
    assert pacs.received == [first, site.note().SOPInstanceUID, second]
    assert [row.sop_instance_uid for row in analysing.predecessors(site.store, 1)] == [second]
    assert query(site.store.path, "SELECT status, revision FROM results").rows == (("delivered", 2),)
    assert query(site.store.path, "SELECT revision, status FROM analyses ORDER BY 1").rows == (
        (1, "delivered"), (2, "delivered"),
    )  # fmt: skip


def strangers() -> list[tuple[Instance, Literal["received"]]]:
    """Images of two patients."""
    return [(Instance(f"1.2.8.{number}", CR, "1.3", STUDY, patient_id=f"P{number}"), "received") for number in (1, 2)]


def note_of_all(site: Site) -> tuple[Instance, Literal["ignored"]]:
    """The PACS rejects every image."""
    uids = query(site.store.path, "SELECT sop_instance_uid FROM image_results").rows
    rejects = tuple(Reference(STUDY, uid) for (uid,) in uids)
    return Instance("1.2.9", KO, "1.3", STUDY, rejection="113001", rejects=rejects), "ignored"


@pytest.mark.parametrize("then", ["withdrawn again", "emptied", "held"])
def test_nothing_holds_a_note_up(site: Site, pacs: Pacs, then: str) -> None:
    """It waits for a PACS that is away while its study is withdrawn again, emptied by a note, or held: it goes."""
    pacs.start(CR, KO)
    site.delivery.put(1)
    site.delivery.send()
    assert site.withdraw()
    site.tell()
    assert deciding.reanalyse(site.store, STUDY) is None
    site.delivery.put(1)
    if then == "withdrawn again":
        assert deciding.settle(site.store, STUDY, "withdraw", "wrong side")
    else:
        for facts, status in strangers() if then == "held" else [note_of_all(site)]:
            content = facts.sop_instance_uid
            receipt = receiving.Receipt(facts, Eligibility(status), content, content, 1, "XR1", site.store.now())
            receiving.Reception(site.store).accept(receipt)
    states = {"withdrawn again": "withdrawn", "emptied": "withdrawn", "held": "held"}
    assert query(site.store.path, "SELECT status FROM results").rows == ((states[then],),)
    assert site.delivery.send() == 1
    assert [row["status"] for row in site.notes()] == ["delivered"]


def test_pacs_that_refuses_the_class(site: Site, pacs: Pacs) -> None:
    """The note is parked, a person is told; once the PACS takes it `retry` sends it, later revision or not."""
    pacs.start(CR)
    site.delivery.put(1)
    site.delivery.send()
    assert site.withdraw()
    site.tell()
    site.delivery.send()
    assert [(row["status"], row["last_error"]) for row in site.notes()] == [
        ("parked", "the destination does not accept this SOP class: Key Object Selection Document Storage")
    ]
    assert deciding.reanalyse(site.store, STUDY) is None
    site.delivery.put(1)
    site.delivery.send()
    # A note is no result: what became of the results says nothing of it.
    assert query(site.store.path, "SELECT status, reason FROM analyses").rows == (("delivered", None),) * 2
    pacs.stop()
    pacs.start(CR, KO)
    delivering.make_due(site.store, ["parked"])
    site.delivery.send()
    assert [row["status"] for row in site.notes()] == ["delivered"]


@pytest.mark.parametrize("came", ["nothing", "a refusal", "no answer"])
def test_destination_that_was_removed_and_is_back(site: Site, pacs: Pacs, came: str) -> None:
    """A note that never went there told nobody: another is made. One that may be there is not told twice."""
    pacs.start(CR, KO)
    first = site.delivery.put(1)
    site.delivery.send()
    assert site.withdraw()
    site.tell()
    if came != "nothing":
        pacs.answer = breaking if came == "no answer" else lambda _event: 0xC000
        site.delivery.send()
    delivering.forget_destinations(site.store, [])
    delivering.destinations_since(site.store, ["pacs"])
    site.make = site.maker()
    pacs.answer = lambda _event: 0
    assert site.withdraw() == (came != "no answer")
    site.tell()
    assert site.delivery.send() == (came != "no answer")
    if came != "no answer":
        assert sorted(row["status"] for row in site.notes()) == ["cancelled", "delivered"]
        [new] = [row["sop_instance_uid"] for row in site.notes() if row["status"] == "delivered"]
        note = Instance.from_dataset(dcmread(site.delivery.data_dir / "outbox" / f"{new}.dcm"))
        assert {each.sop_instance_uid for each in note.rejects} == {first}


def test_note_that_cannot_be_made(site: Site, pacs: Pacs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds up neither the sender nor another study's; the history says so, and it may be asked for again."""
    pacs.start(CR, KO)
    site.delivery.put(1)
    site.delivery.send()
    assert site.withdraw()

    def broken(*_: Any) -> Any:
        raise KeyError

    monkeypatch.setattr("pacs_agent.rejecting.rejection_note", broken)
    site.tell()
    assert site.notes() == []
    assert ("rejection note failed", "pacs: it cannot be made: KeyError") in site.events()
    monkeypatch.undo()
    assert site.withdraw()
    site.tell()
    assert len(site.notes()) == 1


def test_disk_without_room(site: Site, pacs: Pacs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note waits and the sender goes on; it is made once there is room."""
    pacs.start(CR, KO)
    site.delivery.put(1)
    site.delivery.send()
    assert site.withdraw()

    def full(*_: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as small:
        small.setattr(Outbox, "keep", full)
        site.tell()
    site.tell()
    assert site.notes() == []
    site.delivery.tick(60)
    site.tell()
    assert len(site.notes()) == 1


def test_our_objects_are_gone(site: Site, pacs: Pacs) -> None:
    """Retention removed them: the note says whose it is from what the record knows of the images."""
    pacs.start(CR, KO)
    uid = site.delivery.put(1)
    site.delivery.send()
    site.delivery.outbox.remove(retaining.forget_objects(site.store, "9999"))
    assert site.withdraw()
    site.tell()
    assert site.named() == {uid}
    assert site.note().StudyInstanceUID == STUDY


def test_patient_of_the_note(site: Site, pacs: Pacs) -> None:
    """It is of the patient that the latest report there is of."""
    pacs.start(CR, SC, KO)
    *_, uid = site.delivery.put_study(1, {"capture": SC, "sr": CR})
    site.delivery.send()
    path = site.delivery.data_dir / "outbox" / f"{uid}.dcm"
    ds = dcmread(path)
    ds.PatientID = "P-42"
    ds.save_as(path)
    assert site.withdraw()
    site.tell()
    assert (site.note().PatientID, site.note().StudyInstanceUID) == ("P-42", STUDY)


def test_spoilt_report_of_ours(site: Site, pacs: Pacs) -> None:
    """Neither of another study nor unreadable: the next one says whose the note is."""
    pacs.start(CR, SC, KO)
    uids = site.delivery.put_study(1, {"capture": SC, "other": CR, "sr": CR})
    site.delivery.send()
    first, other, report = (site.delivery.data_dir / "outbox" / f"{uid}.dcm" for uid in uids)
    report.write_bytes(b"spoilt")
    ds = dcmread(other)
    ds.StudyInstanceUID, ds.PatientID = "1.9", "P-9"
    ds.save_as(other)
    ds = dcmread(first)
    ds.PatientID = "P-42"
    ds.save_as(first)
    assert site.withdraw()
    site.tell()
    assert (site.note().PatientID, site.note().StudyInstanceUID) == ("P-42", STUDY)
    assert site.named() == set(uids)


def test_own_note_comes_back(site: Site, pacs: Pacs, inbox: Inbox) -> None:
    """A PACS that forwards it to us: kept as `ignored`, nothing is rejected here and the study stays as it is."""
    pacs.start(CR, KO)
    site.delivery.put(1)
    site.delivery.send()
    assert site.withdraw()
    site.tell()
    assert deciding.reanalyse(site.store, STUDY) is None
    site.delivery.put(1)
    before = query(site.store.path, "SELECT * FROM results").rows
    facts = Instance.from_dataset(site.note())
    assert (facts.patient_id, facts.rejection) == ("PHANTOM-1", "113001")  # another patient than the study is of now
    receipt = receiving.Receipt(facts, Eligibility("ignored"), "x", "note", 1, "PACS", site.store.now())
    assert receiving.Reception(site.store).accept(receipt) == "new"
    assert query(site.store.path, "SELECT COUNT(*) FROM rejection").rows == ((0,),)
    assert query(site.store.path, "SELECT * FROM results").rows == before
    statuses = query(site.store.path, "SELECT status FROM image_results ORDER BY 1").rows
    assert set(statuses) == {("ignored",), ("received",)}


def test_rejected_object_does_not_go_again(site: Site, pacs: Pacs) -> None:
    """The PACS removed it and cannot commit to it: it stays back, also after a new analysis; a lost note goes again."""
    pacs.start(CR, KO)
    uid = site.delivery.put(1)
    [due] = delivering.claim_due(site.store, "pacs", 20, 60)
    delivering.mark_delivered(site.store, due, "pacs", "0000", ask_at=site.store.clock())
    request = committing.next_request(site.store, "pacs", lambda: "2.25.1", 60, 50)
    assert request is not None
    assert site.withdraw()
    site.tell()
    [due] = delivering.claim_due(site.store, "pacs", 20, 60)
    delivering.mark_delivered(site.store, due, "pacs", "0000", ask_at=site.store.clock())
    note = str(site.note().SOPInstanceUID)
    assert deciding.reanalyse(site.store, STUDY) is None
    second = committing.next_request(site.store, "pacs", lambda: "2.25.2", 60, 50)
    assert second is not None
    assert [each for _, each in second.objects] == [note]
    for request_uid, lost in (("2.25.1", uid), ("2.25.2", note)):
        committing.settle_commitment(
            site.store, CommitmentResult(request_uid, frozenset(), {lost: "0112 no such object instance"})
        )
    statuses = dict(query(site.store.path, "SELECT object, status FROM deliveries").rows)
    assert statuses == {"sr": "cancelled", "rejection": "waiting"}


def test_what_is_rejected_is_not_asked_for(site: Site, pacs: Pacs) -> None:
    """Its commitment was not asked for yet: it is not any more, and retention may take its file."""
    pacs.start(CR, KO)
    site.delivery.put(1)
    [due] = delivering.claim_due(site.store, "pacs", 20, 60)
    delivering.mark_delivered(site.store, due, "pacs", "0000", ask_at=site.store.clock())
    assert site.withdraw()
    site.tell()
    assert not committing.has_commitment_due(site.store, "pacs")
    assert len(retaining.forget_objects(site.store, "9999")) == 1


def test_destination_that_is_taken_out(site: Site, pacs: Pacs) -> None:
    """What was wanted for it is forgotten at the next start; a note that was made is cancelled."""
    pacs.start(CR, KO)
    site.delivery.put(1)
    site.delivery.send()
    assert site.withdraw()
    delivering.forget_destinations(site.store, ["pacs"])
    assert rejecting_record.next_wanted(site.store, "pacs") is not None
    delivering.forget_destinations(site.store, [])
    assert rejecting_record.next_wanted(site.store, "pacs") is None


def test_retention_keeps_what_is_to_be_told(site: Site, pacs: Pacs) -> None:
    """Rows of a withdrawn study stay until the note is made and delivered; then they go, all of them."""
    pacs.start(CR, KO)
    site.delivery.put(1)
    site.delivery.send()
    assert site.withdraw()

    def forget() -> int:
        retaining.forget_instances(site.store, "9999")
        retaining.forget_objects(site.store, "9999")
        return retaining.forget_rows(site.store, "9999")

    assert forget() == 0
    site.tell()
    assert forget() == 0
    site.delivery.send()
    assert forget() == 1
    assert query(site.store.path, "SELECT COUNT(*) FROM rejection_note").rows == ((0,),)


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """DCMTK's storescp; its port and the folder it stores into."""
    folder, port = tmp_path / "stored", free_port()
    folder.mkdir()
    process = subprocess.Popen(
        [dcmtk("storescp"), "-aet", "PACS", "-od", folder, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answers_echo(port, "PACS"), 20, "storescp's C-ECHO")
        yield port, folder
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.dcmtk
def test_storescp_takes_it(store: Any, data_dir: Path, storescp: tuple[int, Path]) -> None:
    """The note arrives as it was made."""
    port, folder = storescp
    site = Site(Delivery(store, data_dir, port))
    site.delivery.put(1)
    site.delivery.send()
    assert site.withdraw()
    site.tell()
    assert site.delivery.send() == 1
    note = site.note()
    [there] = [path for path in folder.iterdir() if str(note.SOPInstanceUID) in path.name]
    assert dcmread(there) == note
