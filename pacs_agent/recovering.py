"""From objects that lie in the outbox without a row to rows: what was made is neither lost nor made a second time.

Enters: files. Leaves: rows, by `record.restoring`; what has no place there goes to the folder `set-aside`. Never sends.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import structlog
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage
from sqlalchemy.exc import DBAPIError

from pacs_agent.deliver.outbox import Outbox
from pacs_agent.durable import rename_durably
from pacs_agent.record import analysing, deciding, restoring
from pacs_agent.record.analysing import FindingRow, ReportRow
from pacs_agent.record.claiming import Claim
from pacs_agent.record.delivering import NOTE
from pacs_agent.record.finishing import Finishing, finish_study
from pacs_agent.record.further import Model
from pacs_agent.record.restoring import Advice, FoundDelivery, FoundObject, KnownStudy, Said, SaidImage
from pacs_agent.record.store import Store
from pacs_agent.record.times import deadline, to_text
from pacs_agent.report.readback import SaidOfPart, said_by_report
from pacs_agent.report.sr import SR_CLASSES, SrClass
from pacs_agent.settings import Destination
from pacs_agent.study.bodypart import BodyPartMapping
from pacs_agent.study.instance import Instance

log = structlog.get_logger()
T = TypeVar("T")

SET_ASIDE = "set-aside"
TELL_EVERY_S = 10.0
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
_SR_NAMES = {uid: name for name, uid in SR_CLASSES.items()}
Known = Mapping[str, Mapping[str, FoundDelivery]]
"""SOP Instance UID, and destination → what is known of that delivery."""


class Recovering:
    """Finds objects without a row, and gives them one.

    Args:
        data_dir: the data directory.
        store: the record.
        outbox: theirs.
        destinations: as configured.
        map_body_part: header facts to part and side.
        known: what is known of deliveries from elsewhere.
    """

    def __init__(
        self,
        data_dir: Path,
        store: Store,
        outbox: Outbox,
        destinations: Collection[Destination],
        map_body_part: Callable[[Instance], BodyPartMapping],
        known: Known | None = None,
    ) -> None:
        self._data_dir = data_dir
        self._store = store
        self._outbox = outbox
        self._known = known or {}
        self._asking = {part.name for target in destinations if target.storage_commitment for part in target.apart()}
        self._advice = Advice(
            destinations=[part.name for target in destinations for part in target.apart()],
            map_body_part=map_body_part,
            deliveries=self._deliveries,
        )

    def adopt_all(self) -> tuple[int, int]:
        """After a restore or a rebuild: objects that no row names may have been sent, and get rows again.

        What has no place in the record goes to the folder `set-aside`, where nothing removes it. Returns how many got
        rows, and how many went there.
        """
        found, unread = self._read(self._outbox.unnamed())
        self._withdraw(found)
        # What was rejected since is not spoken of again, nor is the note.
        rejected = {uid for each in found if each.object == NOTE for uid in each.refers}
        spoken = [each for each in found if each.object != NOTE and each.sop_instance_uid not in rejected]
        adopted = self._adopt(spoken)
        aside = self._data_dir / SET_ASIDE
        for path in [self._data_dir / each.path for each in found if each not in adopted] + unread:
            aside.mkdir(mode=0o700, exist_ok=True)
            rename_durably(path, aside / path.name)
        return len(adopted), len(found) + len(unread) - len(adopted)

    def found(self) -> list[FoundObject]:
        """Objects that no row names, as they say of themselves, but those that cannot be read."""
        return self._read(self._outbox.unnamed())[0]

    def finish_claimed(self, found: Sequence[FoundObject], model: Model, further: Sequence[Model]) -> int:
        """At any start: studies in the analysis whose objects are all there are analysed; returns how many.

        Whether a kill came before their rows, or a journal that was cut short took them after they were sent, nobody
        can tell: they are recorded and go as a resend. Before the inbox is looked through: until then the record is as
        it was at some moment of the last run, and a hold or a rejection in it was there when the analysis ended.

        Args:
            found: the objects without a row.
            model: the live one.
            further: those that are to see the same images.
        """
        if not (claimed := restoring.claimed_studies(self._store)):
            return 0
        self._withdraw(found)
        how = Finishing(self._advice.map_body_part, self._rows, model, further)
        count = 0
        for uid, of in restoring.by_study(each for each in found if each.study_instance_uid in claimed).items():
            try:
                count += finish_study(self._store, uid, of, how)
            except (DBAPIError, OSError):
                raise
            except Exception:  # whatever is wrong with one study, it is analysed again, and no start fails for it
                log.exception("analysis in hand not recorded", study_instance_uid=uid)
        return count

    def adopt_lost(self, found: Sequence[FoundObject]) -> int:
        """At any start: reports whose rows were there once, for their study is not in the analysis; returns how many.

        A journal that is cut short or spoilt takes its last transactions with it, and SQLite does not tell. What is
        left of a study that is claimed is not whole (`finish_claimed`), and is not looked at here.

        Args:
            found: the objects that had no row when the start began.
        """
        self._withdraw(found)
        claimed = restoring.claimed_studies(self._store)
        known = restoring.known_objects(self._store, [each.sop_instance_uid for each in found])
        # What was lost came last. An earlier revision that nobody names beside the recorded one was never sent.
        reports = [
            each
            for each in found
            if each.object == "sr" and each.revision > restoring.recorded_revision(self._store, each.study_instance_uid)
        ]
        whole = {each.sop_instance_uid for each in reports}.union(*(each.refers for each in reports))
        return len(
            self._adopt(
                each
                for each in found
                if each.study_instance_uid not in claimed and each.sop_instance_uid in whole - known
            )
        )

    def device_uid(self) -> str | None:
        """Of the installation that made what lies there, as its reports say."""
        for path in self._outbox.unnamed():
            with suppress(Exception):  # as in `_read`, which tells
                if (said := said_by_report(dcmread(path, stop_before_pixels=True))) and said.device_uid:
                    return said.device_uid
        return None

    def _read(self, paths: Sequence[Path]) -> tuple[list[FoundObject], list[Path]]:
        """What objects say of themselves, and what cannot be read. Of no object more than that stays in memory."""
        found, unread = list[FoundObject](), list[Path]()
        for path in _told("objects without a row are read", paths):
            try:
                found.append(self._found(path))
            # Elements are decoded when they are looked at, and a spoilt one raises whatever it leads pydicom to.
            except Exception as error:  # noqa: BLE001 - as above; it is set aside, and nothing else suffers
                log.warning("object not read", file=path.name, reason=type(error).__name__)
                unread.append(path)
        return found, unread

    def _found(self, path: Path) -> FoundObject:
        ds = dcmread(path, stop_before_pixels=True)
        study, series, uid, sop_class = (str(ds.get(keyword) or "") for keyword in _UIDS)
        revision = int(ds.get("InstanceNumber") or 1)
        if not (study and series and uid and sop_class and revision > 0):
            raise ValueError(path.name)
        return FoundObject(
            study_instance_uid=study,
            object=_kind(sop_class),
            sop_class_uid=sop_class,
            sop_instance_uid=uid,
            series_instance_uid=series,
            revision=revision,
            path=self._outbox.name(path),
            created_at=to_text(datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)),
            said=_said(ds),
            refers=_named(ds, *_EVIDENCE),
            replaces=_named(ds, "PredecessorDocumentsSequence"),
        )

    def _withdraw(self, found: Sequence[FoundObject]) -> None:
        """A note of ours that the record does not know of: somebody withdrew the study, and that was lost with it.

        Not where a later revision was made: it was then to be analysed again.
        """
        for note in (each for each in found if each.object == NOTE):
            uid = note.study_instance_uid
            made = [each.revision for each in found if each.object == "sr" and each.study_instance_uid == uid]
            if max(made, default=0) > note.revision or restoring.recorded_revision(self._store, uid) > note.revision:
                continue
            if not restoring.knows_of_a_note(self._store, uid):
                deciding.settle(self._store, uid, "withdraw", "a rejection note tells that it was withdrawn")

    def _adopt(self, found: Iterable[FoundObject]) -> set[FoundObject]:
        """Give them rows, one study after the other; returns those that got theirs."""
        adopted = set[FoundObject]()
        for study, of in _told("objects get their rows", list(restoring.by_study(found).items())):
            if restoring.adopt_study(self._store, study, of, self._advice):
                adopted.update(of)
        return adopted

    def _rows(self, claim: Claim, said: Said, found: Sequence[FoundObject]) -> list[ReportRow]:
        """As the analysis makes them; none where a destination wants a class of report that is not there."""
        addresses = self._outbox.addresses(
            study_instance_uid=claim.study_instance_uid,
            calling_ae_title=claim.calling_ae_title,
            findings=[(row.body_part, row.finding) for row in said.findings],
            offered=analysing.offered_destinations(self._store, claim.study_id),
        )
        if not addresses.sr_classes <= {_sr_class(each) for each in found}:
            return []
        return [
            ReportRow(
                object=each.object,
                sop_class_uid=each.sop_class_uid,
                sop_instance_uid=each.sop_instance_uid,
                series_instance_uid=each.series_instance_uid,
                path=each.path,
                deliveries=addresses.deliveries(each.object, _sr_class(each)),
                not_wanted=addresses.not_wanted(each.object, _sr_class(each)),
                replaces=tuple(each.replaces),
                is_resend=True,
            )
            for each in found
        ]

    def _deliveries(self, study: KnownStudy, found: FoundObject, said: Said) -> dict[str, FoundDelivery]:
        """Where an object goes by the settings; of what is known of it, that."""
        addresses = self._outbox.addresses(
            study_instance_uid=study.study_instance_uid,
            calling_ae_title=study.calling_ae_title,
            findings=[(row.body_part, row.finding) for row in said.findings],
        )
        wanted = {
            name: FoundDelivery(status, deadline(study.received_at, hours))
            for name, (status, hours) in addresses.deliveries(found.object, _sr_class(found)).items()
        }
        known = {
            name: replace(each, is_to_be_asked=each.status == "delivered" and name in self._asking)
            for name, each in self._known.get(found.sop_instance_uid, {}).items()
            if name in self._advice.destinations
        }
        return wanted | known


def _told(what: str, of: Sequence[T]) -> Iterator[T]:
    """One after the other; where that takes long, the log says how far it is."""
    next_at = time.monotonic() + TELL_EVERY_S
    for number, each in enumerate(of):
        if time.monotonic() >= next_at:
            log.info(what, done=number, of=len(of))
            next_at = time.monotonic() + TELL_EVERY_S
        yield each


def _said(ds: Dataset) -> Said | None:
    if (said := said_by_report(ds)) is None:
        return None
    return Said(
        said.model,
        tuple(_finding(part) for part in said.parts),
        {
            image.sop_instance_uid: SaidImage(
                "analysed" if image.is_analysed else "failed", image.abnormal_probability, image.reason
            )
            for part in said.parts
            for image in part.images
        },
    )


def _finding(part: SaidOfPart) -> FindingRow:
    return FindingRow(
        part.body_part, part.laterality, "analysed", part.finding, part.abnormal_probability, part.threshold,
        len(part.images), sum(image.is_counted for image in part.images), part.reason,
    )  # fmt: skip


def _named(ds: Dataset, *keywords: str) -> frozenset[str]:
    """The SOP Instance UIDs within sequences of an object."""
    return frozenset(
        str(element.value)
        for keyword in keywords
        for item in ds.get(keyword) or ()
        for element in item.iterall()
        if element.keyword == "ReferencedSOPInstanceUID"
    )


def _kind(sop_class_uid: str) -> str:
    if sop_class_uid == KeyObjectSelectionDocumentStorage:
        return NOTE
    # PS3.4 B.5: the SR document classes
    return "sr" if sop_class_uid.startswith("1.2.840.10008.5.1.4.1.1.88.") else "capture"


def _sr_class(found: FoundObject) -> SrClass | None:
    return _SR_NAMES.get(found.sop_class_uid) if found.object == "sr" else None
