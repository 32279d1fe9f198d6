"""A new database from inbox and outbox: what the files say, and what a damaged database still does."""

import errno
import os
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from objects import EQUIPMENT, IDENTITY, finding, report
from pydicom.dataset import Dataset
from radiographs import hand
from spoiling import spoil_page
from sqlalchemy import select, update

from pacs_agent import rules
from pacs_agent.daemon import Daemon
from pacs_agent.deliver.outbox import Outbox
from pacs_agent.errors import DatabaseDamagedError, DatabaseError
from pacs_agent.rebuilding import rebuild
from pacs_agent.receive.dataset import read_received
from pacs_agent.receive.part10 import read_part10
from pacs_agent.record import analysing, damage, deciding, delivering
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store
from pacs_agent.record.tables import delivery, destination
from pacs_agent.recovering import Recovering
from pacs_agent.report.signature import ReportIdentity, encode_part10
from pacs_agent.rules import eligibility, inbox_of
from pacs_agent.settings import Settings

PACS = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    """Of a data directory with one destination."""
    return Settings(agent={"data_dir": data_dir, "min_free_mb": 1}, destination=[PACS])


@pytest.fixture
def receive(settings: Settings, store: Store, tmp_path: Path) -> Callable[[Dataset], None]:
    """Takes an instance into the inbox."""
    inbox = inbox_of(settings, store, eligibility(settings))

    def take(ds: Dataset) -> None:
        ds.save_as(tmp_path / "x.dcm", enforce_file_format=True)
        file = read_part10(tmp_path / "x.dcm")
        inbox.accept(file.encoded, read_received(file.encoded, file.transfer_syntax_uid, 64 << 20), "XR1")

    return take


def lay(data_dir: Path, number: int, images: list[Any], revision: int = 1) -> str:
    """A report of these images lies in the outbox; its UID."""
    uid = f"2.25.{number}"
    made = report(
        images, [finding(images, *[0.9] * len(images), part="hand")],
        identity=ReportIdentity(uid, f"{uid}.1", revision, IDENTITY.created_at),
    )  # fmt: skip
    folder = data_dir / "outbox"
    folder.mkdir(exist_ok=True)
    (folder / f"{uid}.dcm").write_bytes(encode_part10(made))
    return uid


def spoil(store: Store, *, wholly: bool = False) -> None:
    """Damage that a look through the file finds: everything, or an index alone."""
    store.close()
    if wholly:
        store.path.write_bytes(b"\x5a" * store.path.stat().st_size)
        return
    spoil_page(store.path, "study_by_state")


def rows(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    """Of the new database."""
    return list(query(settings.database_path, sql).rows)


STUDIES = "SELECT study_instance_uid, state FROM study ORDER BY id"
DELIVERIES = "SELECT sop_instance_uid, status, attempts FROM deliveries ORDER BY sop_instance_uid"


def test_report_of_every_image_is_the_studys(
    settings: Settings, store: Store, receive: Callable[[Dataset], None], data_dir: Path
) -> None:
    """The study is analysed as its report says, and the report goes again as the same instance, counted as a resend."""
    first = hand(seed=1)
    second = hand(seed=2, StudyInstanceUID=first.StudyInstanceUID)
    mute = hand(seed=3, StudyInstanceUID=first.StudyInstanceUID, BodyPartExamined="CHEST")  # of no part of ours
    for ds in (first, second, mute):
        receive(ds)
    uid = lay(data_dir, 1, [first, second], revision=3)
    spoil(store, wholly=True)
    made = rebuild(settings)
    assert (made.instances, made.studies, made.waiting, made.objects, made.set_aside) == (3, 1, 0, 1, 0)
    assert made.aside is not None
    assert made.aside.read_bytes()[:4] == b"ZZZZ"
    assert rows(settings, DELIVERIES) == [(uid, "waiting", 1)]
    told = "SELECT status, finding, abnormal_probability, threshold, image_count, revision, model_name FROM results"
    assert rows(settings, told) == [("analysed", "abnormal", 0.9, 0.5, 2, 3, "demonstration")]
    images = rows(settings, "SELECT status, body_part, abnormal_probability FROM image_results ORDER BY 1, 3")
    assert images == [("analysed", "hand", 0.9), ("analysed", "hand", 0.9), ("unsupported", None, None)]
    assert rows(settings, "SELECT device_uid, restored_at FROM installation") == [(EQUIPMENT.device_uid, None)]
    with pytest.raises(DatabaseError, match="is whole"):
        rebuild(settings)


def _another_image(first: Dataset) -> list[Dataset]:
    return [hand(seed=2, StudyInstanceUID=first.StudyInstanceUID)]


def _other_pixels(first: Dataset) -> list[Dataset]:
    return [hand(seed=2, **{name: first[name].value for name in ("StudyInstanceUID", "SOPInstanceUID")})]


def _other_pixels_and_the_first_again(first: Dataset) -> list[Dataset]:
    return [*_other_pixels(first), first]


@pytest.mark.parametrize("make", [_another_image, _other_pixels, _other_pixels_and_the_first_again])
def test_report_that_does_not_speak_of_every_image_is_a_predecessor(
    settings: Settings,
    store: Store,
    receive: Callable[[Dataset], None],
    data_dir: Path,
    make: Callable[[Dataset], list[Dataset]],
) -> None:
    """An image that came later, or other pixels under a known UID: the study waits, its report does not go again."""
    first = hand(seed=1)
    receive(first)
    for ds in make(first):
        receive(ds)
    uid = lay(data_dir, 1, [first])
    spoil(store, wholly=True)
    assert rebuild(settings).waiting == 1
    assert rows(settings, DELIVERIES) == [(uid, "cancelled", 1)]
    [study_id] = rows(settings, "SELECT id FROM study")[0]
    again = Store.attach(settings.database_path)
    assert [row.sop_instance_uid for row in analysing.predecessors(again, study_id)] == [uid]
    again.close()


@pytest.mark.parametrize("asks", [True, False])
def test_commitment_that_was_open_is_asked_for_again(
    settings: Settings, store: Store, receive: Callable[[Dataset], None], data_dir: Path, asks: bool
) -> None:
    """Of a destination that is asked; retention spares the object until then."""
    settings = settings.model_copy(
        update={"destination": (settings.destination[0].model_copy(update={"storage_commitment": asks}),)}
    )
    delivering.destinations_since(store, ["pacs"])
    ds = hand(seed=1)
    receive(ds)
    lay(data_dir, 0, [ds])
    outbox = Outbox(data_dir, store, settings.destination)
    recovering = Recovering(data_dir, store, outbox, settings.destination, rules.mapping(settings))
    assert recovering.adopt_lost(recovering.found()) == 1
    with store.write() as connection:
        connection.execute(update(delivery).values(status="delivered", delivered_at=store.now()))
    spoil(store)
    rebuild(settings)
    assert rows(settings, "SELECT status, commitment_due_at IS NOT NULL FROM delivery") == [("delivered", int(asks))]


def test_what_the_damaged_database_still_says_stands(
    settings: Settings, store: Store, receive: Callable[[Dataset], None], data_dir: Path
) -> None:
    """What was delivered, taken back, paused, who it was, and since when a destination is known."""
    delivered, withdrawn = hand(seed=1), hand(seed=2)
    store.device_uid("1.2.7")
    delivering.destinations_since(store, ["pacs"])
    [(since,)] = store.rows(select(destination.c.added_at))
    for number, ds in enumerate((delivered, withdrawn)):
        receive(ds)
        lay(data_dir, number, [ds])
    mapped = rules.mapping(settings)
    outbox = Outbox(data_dir, store, settings.destination)
    recovering = Recovering(data_dir, store, outbox, settings.destination, mapped)
    assert recovering.adopt_lost(recovering.found()) == 2
    with store.write() as connection:
        connection.execute(update(delivery).values(status="delivered", delivered_at=store.now()))
    deciding.settle(store, withdrawn.StudyInstanceUID, "withdraw", "another patient")
    store.set_paused("pacs", True)
    spoil(store)
    with pytest.raises(DatabaseDamagedError, match="pacs-agent rebuild"):
        Store.open(settings.database_path)
    made = rebuild(settings)
    assert (made.objects, made.set_aside, made.waiting) == (1, 1, 0)
    assert rows(settings, DELIVERIES) == [("2.25.0", "delivered", 1)]
    assert rows(settings, STUDIES)[1] == (withdrawn.StudyInstanceUID, "withdrawn")
    assert rows(settings, "SELECT device_uid FROM installation") == [("1.2.7",)]
    assert rows(settings, "SELECT name, added_at FROM destination") == [("pacs", since)]
    assert rows(settings, "SELECT stage FROM pause") == [("pacs",)]


def test_empty_place_of_a_database_is_not_filled(
    settings: Settings, store: Store, receive: Callable[[Dataset], None]
) -> None:
    """An empty database would have all that is there analysed and told again."""
    receive(hand())
    store.close()
    settings.database_path.write_bytes(b"")
    with pytest.raises(DatabaseDamagedError, match=r"is empty, though .*inbox has files.*pacs-agent rebuild"):
        damage.check_not_lost(settings.database_path, settings.data_dir)
    with pytest.raises(DatabaseDamagedError, match=r"it is empty.*pacs-agent rebuild"):
        query(settings.database_path, "SELECT status FROM results")
    settings.database_path.unlink()
    with pytest.raises(DatabaseDamagedError, match=r"is not there, though .*inbox has files.*pacs-agent rebuild"):
        Daemon(settings)
    assert rebuild(settings).instances == 1


def test_index_that_lost_its_entries_can_be_rebuilt(
    settings: Settings, store: Store, receive: Callable[[Dataset], None]
) -> None:
    """A start does not look that far, and stops once it meets it: `rebuild` looks further than a start."""
    receive(hand())
    store.close()
    empty_leaf = bytes([10]) + struct.pack(">HHHB", 0, 0, 4096, 0)  # of an index
    spoil_page(settings.database_path, "instance_by_study", empty_leaf)
    damage.check_whole(settings.database_path)
    assert rebuild(settings).instances == 1


def test_sector_gone_bad_can_be_rebuilt(
    settings: Settings, store: Store, receive: Callable[[Dataset], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk does not give the database back: that does not pass. One that is in use is not damaged."""
    receive(hand())
    store.close()
    code, connect = sqlite3.SQLITE_IOERR, sqlite3.connect

    def refused(path: Path, **how: Any) -> Any:
        if path != settings.database_path:
            return connect(path, **how)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(damage, "sqlite3", SimpleNamespace(**{**vars(sqlite3), "connect": refused}))
    assert rebuild(settings).instances == 1
    code = sqlite3.SQLITE_BUSY
    with pytest.raises(DatabaseError, match="cannot be looked at: disk I/O error"):
        rebuild(settings)


def test_spoilt_object_is_set_aside_alone(
    settings: Settings, store: Store, receive: Callable[[Dataset], None], data_dir: Path
) -> None:
    """Wherever its bytes went wrong, the others are read."""
    good, bad = hand(seed=1), hand(seed=2)
    for number, ds in enumerate((good, bad)):
        receive(ds)
        lay(data_dir, number, [ds])
    spoil(store, wholly=True)
    path = data_dir / "outbox" / "2.25.1.dcm"
    path.write_bytes(path.read_bytes().replace(b"\x20\0\x13\0IS", b"\x20\0\x13\0ZZ"))  # Instance Number, of no VR
    made = rebuild(settings)
    assert (made.instances, made.objects, made.set_aside, made.waiting) == (2, 1, 1, 1)


def test_rebuild_that_fails_leaves_what_was_there(
    settings: Settings, store: Store, receive: Callable[[Dataset], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up in the middle: the damaged database stands, and nothing lies beside it."""
    receive(hand())
    spoil(store, wholly=True)
    before = {path.name for path in settings.data_dir.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(Recovering, "adopt_all", _full)
        with pytest.raises(OSError, match="No space left"):
            rebuild(settings)
    assert {path.name for path in settings.data_dir.iterdir()} == before | {"outbox"}
    assert settings.database_path.read_bytes()[:4] == b"ZZZZ"
    assert rebuild(settings).instances == 1


def _full(_recovering: Recovering) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
