"""From objects that lie in the outbox without a row to rows: what was made is neither lost nor made a second time.

Enters: files. Leaves: rows, by `record.restoring`; what has no place there goes to the folder `set-aside`. Never sends.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from pacs_agent.deliver.outbox import Outbox
from pacs_agent.durable import rename_durably
from pacs_agent.record import restoring
from pacs_agent.record.analysing import FindingRow
from pacs_agent.record.restoring import Advice, FoundDelivery, FoundObject, KnownStudy, Said, SaidImage
from pacs_agent.record.store import Store
from pacs_agent.record.times import hours_after, to_text
from pacs_agent.report.readback import SaidOfPart, said_by_report
from pacs_agent.report.sr import SR_CLASSES
from pacs_agent.settings import Destination
from pacs_agent.study.bodypart import BodyPartMapping
from pacs_agent.study.instance import Instance

log = structlog.get_logger()

SET_ASIDE = "set-aside"
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_SR_NAMES = {uid: name for name, uid in SR_CLASSES.items()}
Known = Mapping[tuple[str, str], FoundDelivery]
"""SOP Instance UID and destination → what is known of that delivery."""


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
        paths = self._outbox.unnamed()
        headers, unread = self._read(paths)
        # What was rejected since is not spoken of again, nor is the note: the record knows of no withdrawal.
        notes = {path: ds for path, ds in headers.items() if _is_note(ds)}
        rejected = {uid for ds in notes.values() for uid in _named(ds)}
        for path in [path for path, ds in headers.items() if path in notes or str(ds.SOPInstanceUID) in rejected]:
            del headers[path]
            unread.append(path)
        left = [self._data_dir / each.path for each in self._adopt(headers)] + unread
        aside = self._data_dir / SET_ASIDE
        for path in left:
            aside.mkdir(mode=0o700, exist_ok=True)
            rename_durably(path, aside / path.name)
        return len(paths) - len(left), len(left)

    def adopt_lost(self) -> int:
        """At any start: reports whose rows were there once, for their study is not in the analysis; returns how many.

        A journal that is cut short or spoilt takes its last transactions with it, and SQLite does not tell. What a kill
        left before it had a row is of a study that is claimed; it is not looked at here.
        """
        headers, _ = self._read(self._outbox.unnamed())
        claimed = restoring.claimed_studies(self._store)
        known = restoring.known_objects(self._store, [str(ds.SOPInstanceUID) for ds in headers.values()])
        reports = [ds for ds in headers.values() if _is_report(ds)]
        whole = {str(ds.SOPInstanceUID) for ds in reports} | {uid for ds in reports for uid in _named(ds)}
        lost = {
            path: ds
            for path, ds in headers.items()
            if str(ds.StudyInstanceUID) not in claimed and str(ds.SOPInstanceUID) in whole - known
        }
        return len(lost) - len(self._adopt(lost))

    def device_uid(self) -> str | None:
        """Of the installation that made what lies there, as its reports say."""
        for path in self._outbox.unnamed():
            headers, _ = self._read([path])
            for ds in headers.values():
                if (said := said_by_report(ds)) and said.device_uid:
                    return said.device_uid
        return None

    def _read(self, paths: Iterable[Path]) -> tuple[dict[Path, Dataset], list[Path]]:
        """Headers of objects, and what cannot be read."""
        headers, unread = dict[Path, Dataset](), list[Path]()
        for path in paths:
            try:
                ds = dcmread(path, stop_before_pixels=True)
                # Elements are decoded when they are looked at, and a spoilt one raises whatever it leads pydicom to.
                is_whole = all(ds.get(keyword) for keyword in _UIDS) and int(ds.get("InstanceNumber") or 1) > 0
                _named(ds), _said(ds)
            except Exception as error:  # noqa: BLE001 - as above; it is set aside, and nothing else suffers
                log.warning("object not read", file=path.name, reason=type(error).__name__)
                is_whole = False
            if is_whole:
                headers[path] = ds
            else:
                unread.append(path)
        return headers, unread

    def _adopt(self, headers: Mapping[Path, Dataset]) -> list[FoundObject]:
        """Give them rows; returns those that have no place. A heat map is of the report that names it."""
        revision_of = {
            uid: int(ds.get("InstanceNumber") or 1) for ds in headers.values() if _is_report(ds) for uid in _named(ds)
        }
        found = [
            FoundObject(
                study_instance_uid=str(ds.StudyInstanceUID),
                object="sr" if _is_report(ds) else "capture",
                sop_class_uid=str(ds.SOPClassUID),
                sop_instance_uid=str(ds.SOPInstanceUID),
                series_instance_uid=str(ds.SeriesInstanceUID),
                revision=int(ds.get("InstanceNumber") or 1)
                if _is_report(ds)
                else revision_of.get(str(ds.SOPInstanceUID), 1),
                path=self._outbox.name(path),
                created_at=to_text(datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)),
                said=_said(ds),
            )
            for path, ds in headers.items()
        ]
        return restoring.adopt_objects(self._store, found, self._advice)

    def _deliveries(self, study: KnownStudy, found: FoundObject, said: Said) -> dict[str, FoundDelivery]:
        """Where an object goes by the settings; of what is known of it, that."""
        addresses = self._outbox.addresses(
            study_instance_uid=study.study_instance_uid,
            calling_ae_title=study.calling_ae_title,
            findings=[(row.body_part, row.finding) for row in said.findings],
        )
        sr_class = _SR_NAMES.get(found.sop_class_uid) if found.object == "sr" else None
        wanted = {
            name: FoundDelivery(status, hours_after(study.received_at, hours) if hours else None)
            for name, (status, hours) in addresses.deliveries(found.object, sr_class).items()
        }
        known = {
            name: replace(each, is_to_be_asked=each.status == "delivered" and name in self._asking)
            for (uid, name), each in self._known.items()
            if uid == found.sop_instance_uid
        }
        return wanted | {name: each for name, each in known.items() if name in self._advice.destinations}


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


def _named(ds: Dataset) -> list[str]:
    """The SOP Instance UIDs of what an object refers to."""
    return [str(element.value) for element in ds.iterall() if element.keyword == "ReferencedSOPInstanceUID"]


def _is_report(ds: Dataset) -> bool:
    uid = str(ds.SOPClassUID)
    return uid.startswith("1.2.840.10008.5.1.4.1.1.88.") and not _is_note(ds)  # PS3.4 B.5: the SR document classes


def _is_note(ds: Dataset) -> bool:
    return str(ds.SOPClassUID) == KeyObjectSelectionDocumentStorage
