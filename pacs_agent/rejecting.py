"""From a withdrawal to rejection notes: built, their bytes safe in the outbox, each for one destination.

Enters: which notes the record wants for a destination. Leaves: a row and a delivery each. Called by the destination's
sender between associations, so that nothing is on its way there: what the note names is what came through, and it is
sent after that. Never sends.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy.exc import DBAPIError

from pacs_agent.deliver.outbox import Outbox
from pacs_agent.deliver.sender import UNREADABLE
from pacs_agent.errors import UnreadableInstanceError
from pacs_agent.record import rejecting
from pacs_agent.record.rejecting import MadeNote, SentObject, WantedNote
from pacs_agent.record.store import Store
from pacs_agent.report.content import Equipment
from pacs_agent.report.rejection import Rejected, rejection_note
from pacs_agent.report.signature import ReportIdentity, encode_part10
from pacs_agent.report.uids import new_uid
from pacs_agent.reporting import source_header
from pacs_agent.settings import Destination

log = structlog.get_logger()

PAUSE = timedelta(seconds=30)


class Rejecting:
    """Makes the notes that are wanted; thread-safe, one thread a destination.

    Args:
        data_dir: what the objects' paths are relative to.
        store: the record.
        outbox: where bytes are safe.
        equipment: this installation.
    """

    def __init__(self, data_dir: Path, store: Store, outbox: Outbox, equipment: Equipment) -> None:
        self._data_dir = data_dir
        self._store = store
        self._outbox = outbox
        self._equipment = equipment
        self._not_before: dict[str, datetime] = {}

    def __call__(self, destination: Destination) -> None:
        """Make every note that is wanted for a destination; what the disk has no room for waits."""
        name = destination.name
        now = self._store.clock()
        if name in self._not_before and now < self._not_before[name] <= now + PAUSE:  # else the clock was set back
            return
        self._not_before.pop(name, None)
        while wanted := rejecting.next_wanted(self._store, name):
            try:
                self._make(wanted, destination)
            except (OSError, UnreadableInstanceError) as error:
                self._not_before[name] = self._store.clock() + PAUSE
                log.error(
                    "a rejection note waits", destination=name, study_instance_uid=wanted.study_instance_uid,
                    reason=getattr(error, "strerror", str(error)), next_try_in_s=PAUSE.total_seconds(),
                )  # fmt: skip
                return
            except DBAPIError:
                raise
            except Exception as error:
                # Whatever is wrong with one study holds no other's objects up; a person may ask for it again.
                log.exception("no rejection note", destination=name, study_instance_uid=wanted.study_instance_uid)
                detail = f"{name}: it cannot be made: {type(error).__name__}"
                rejecting.drop_note(self._store, wanted, "rejection note failed", detail)

    def _make(self, wanted: WantedNote, destination: Destination) -> None:
        name = destination.name
        objects = rejecting.sent_objects(self._store, wanted, name)
        if not objects:
            rejecting.drop_note(self._store, wanted, "no rejection note", f"{name} has nothing of it")
            return
        ds = rejection_note(
            [Rejected(each.sop_class_uid, each.sop_instance_uid, each.series_instance_uid) for each in objects],
            self._header(objects, wanted),
            wanted.reason,
            self._equipment,
            ReportIdentity(new_uid(), new_uid(), wanted.revision, self._store.clock().astimezone()),
        )
        with self._outbox.recording():
            made = MadeNote(
                sop_class_uid=str(ds.SOPClassUID),
                sop_instance_uid=str(ds.SOPInstanceUID),
                series_instance_uid=str(ds.SeriesInstanceUID),
                path=self._outbox.keep(str(ds.SOPInstanceUID), encode_part10(ds)),
                status="held" if destination.mode == "silent" else "waiting",
            )
            rejecting.record_note(self._store, wanted, name, made)
        log.info(
            "rejection note made", destination=name, study_instance_uid=wanted.study_instance_uid,
            sop_instance_uid=made.sop_instance_uid, objects=len(objects),
        )  # fmt: skip

    def _header(self, objects: Sequence[SentObject], wanted: WantedNote) -> Dataset:
        """Of the latest report that the note names, else of a picture: the note is of the same patient as they are."""
        reports = [each for each in objects if each.object == "sr"]
        for each in (*reversed(reports), *reversed(objects)):
            try:
                header = dcmread(self._data_dir / (each.path or "missing"), stop_before_pixels=True)
            except UNREADABLE as error:  # gone or spoilt: another will do
                log.warning("object not read", sop_instance_uid=each.sop_instance_uid, reason=type(error).__name__)
                continue
            if header.get("StudyInstanceUID") == wanted.study_instance_uid:
                return header
        facts, path = rejecting.facts_of(self._store, wanted.study_id)
        return source_header(self._data_dir, path, facts)
