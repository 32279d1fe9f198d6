"""Rows made anew from what lies in the outbox: after a restore, after a rebuild, after a journal that was lost.

Enters: objects and what they say of themselves. Leaves: rows. Files are the caller's.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection, func, insert, select, update

from pacs_agent.record import deciding
from pacs_agent.record.analysing import FindingRow, InstanceStatus
from pacs_agent.record.claiming import UNTRIED, last_revision
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import analysis, delivery, finding, instance, rejection_note, report, study
from pacs_agent.record.times import from_text, to_text
from pacs_agent.study.bodypart import BodyPartMapping
from pacs_agent.study.instance import Instance

LOST_ROW = "its row was lost; it may have been delivered"
# Of an image that was revised shortly before a report nobody knows which revision the report saw.
REVISED_IN_DOUBT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class SaidImage:
    """What a report says of an image: of `InstanceResult` as much."""

    status: InstanceStatus
    abnormal_probability: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Said:
    """What a report says: name, version and hash of its model, findings, images by SOP Instance UID."""

    model: tuple[str, str, str]
    findings: tuple[FindingRow, ...]
    images: Mapping[str, SaidImage]


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object that lies in the outbox and that no row names, as it says of itself.

    Attributes:
        created_at: when its file was written.
        said: what it says, where it is a report that could be read.
        refers: SOP Instance UIDs of its evidence: images, and the heat maps that a report names.
        replaces: those of the reports that it names as its predecessors.
    """

    study_instance_uid: str
    object: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    revision: int
    path: str
    created_at: str
    said: Said | None = field(default=None, hash=False)
    refers: frozenset[str] = frozenset()
    replaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FoundDelivery:
    """What is known of an object's way to a destination."""

    status: str
    deliver_before: str | None = None
    delivered_at: str | None = None
    committed_at: str | None = None
    last_error: str | None = None
    is_to_be_asked: bool = False


@dataclass(frozen=True, slots=True)
class KnownStudy:
    """Whose objects were found, and by what they are addressed."""

    study_instance_uid: str
    calling_ae_title: str
    received_at: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What the record must ask others.

    Attributes:
        destinations: names of those that may have been offered an object.
        map_body_part: header facts to part and side.
        deliveries: where the objects of a study's latest revision go.
    """

    destinations: Collection[str]
    map_body_part: Callable[[Instance], BodyPartMapping]
    deliveries: Callable[[KnownStudy, FoundObject, Said], Mapping[str, FoundDelivery]]


@dataclass(slots=True)
class _Images:
    """A study's images beside a report: those that it speaks of, those that it need not."""

    mappings: dict[str, BodyPartMapping] = field(default_factory=dict)
    is_covered: bool = True


def forget_removed(store: Store, data_dir: Path) -> int:
    """Of finished studies, what retention has removed since the backup is not missing; returns how many files."""
    finished = select(study.c.id).where(study.c.state.in_(("analysed", "withdrawn")))
    count = 0
    with store.write() as connection:
        rows = connection.execute(
            select(instance.c.id, instance.c.path).where(
                instance.c.path.is_not(None), instance.c.study_id.in_(finished)
            )
        ).all()
        for row in rows:
            if not (data_dir / row.path).exists():
                connection.execute(update(instance).where(instance.c.id == row.id).values(path=None))
                count += 1
    return count


def claimed_studies(store: Store) -> set[str]:
    """Studies that were in the analysis when the last run ended."""
    rows = store.rows(select(study.c.study_instance_uid).where(study.c.claimed_until.is_not(None)))
    return {row.study_instance_uid for row in rows}


def known_objects(store: Store, uids: Collection[str]) -> set[str]:
    """Those of *uids* whose row is there, though it may have given its file up."""
    of = report.c.sop_instance_uid
    return {
        uid for uid in uids if store.rows(select(of).where(of == uid))
    }  # few, but perhaps too many for one statement


def recorded_revision(store: Store, study_instance_uid: str) -> int:
    """The latest revision of a study that is recorded; 0 where none is."""
    [(revision,)] = store.rows(
        select(func.coalesce(func.max(analysis.c.revision), 0))
        .join(study, study.c.id == analysis.c.study_id)
        .where(study.c.study_instance_uid == study_instance_uid)
    )
    return int(revision)


def knows_of_a_note(store: Store, study_instance_uid: str) -> bool:
    """Whether any rejection note of a study was wanted, or made, for all that is recorded."""
    return bool(
        store.rows(
            select(rejection_note.c.id)
            .join(analysis, analysis.c.id == rejection_note.c.analysis_id)
            .join(study, study.c.id == analysis.c.study_id)
            .where(study.c.study_instance_uid == study_instance_uid)
            .limit(1)
        )
    )


def by_study(found: Iterable[FoundObject]) -> dict[str, list[FoundObject]]:
    """Objects by the study that they are of."""
    studies: dict[str, list[FoundObject]] = {}
    for each in found:
        studies.setdefault(each.study_instance_uid, []).append(each)
    return studies


def adopt_study(store: Store, study_instance_uid: str, found: Sequence[FoundObject], advice: Advice) -> bool:
    """Give the objects of a study that is known their rows again; returns whether that was done.

    Where the latest report speaks of every image that is to be read, its study is analysed, and the object goes again
    as the same instance: nobody gets a second report of one analysis. Else the study is analysed again, the new report
    names this one as its predecessor (PS3.3 C.17.2), and it is not sent itself. A heat map is of the report that names
    it.
    """
    rows = store.rows(select(study).where(study.c.study_instance_uid == study_instance_uid))
    if not rows or rows[0].state == "withdrawn":
        return False
    [row] = rows
    of_revision: dict[int, list[FoundObject]] = {}
    revision_of = {uid: each.revision for each in found if each.object == "sr" for uid in each.refers}
    for each in found:
        revision = each.revision if each.object == "sr" else revision_of.get(each.sop_instance_uid, 1)
        of_revision.setdefault(revision, []).append(each)
    last = max(of_revision)
    spoken = next((each for each in of_revision[last] if each.said), None)
    images = _images(store, row.id, spoken, advice) if spoken else _Images(is_covered=False)
    if (
        not images.is_covered
        and row.state in ("analysed", "failed")
        and deciding.reanalyse(store, study_instance_uid) is not None
    ):
        return False
    known = KnownStudy(study_instance_uid, row.calling_ae_title, row.received_at)
    with store.write() as connection:
        number = last_revision(connection, row.id)
        for revision in sorted(of_revision):
            number = max(number + 1, revision)
            said = next((each.said for each in of_revision[revision] if each.said), None)
            analysis_id = _add_analysis(connection, row.id, number, said, of_revision[revision][0].created_at)
            for each in of_revision[revision]:
                wanted: Mapping[str, FoundDelivery] = {}
                if revision == last and images.is_covered and said:
                    wanted = advice.deliveries(known, each, said)
                _add_object(connection, store.now(), analysis_id, each, advice.destinations, wanted)
        if images.is_covered and spoken and spoken.said:
            _conclude(connection, row.id, spoken.said, images.mappings)
    return True


def _images(store: Store, study_id: int, spoken: FoundObject, advice: Advice) -> _Images:
    """The study's images beside its latest report."""
    rows = store.rows(
        select(
            instance.c.sop_instance_uid, instance.c.facts, instance.c.status,
            instance.c.received_at,
        ).where(instance.c.study_id == study_id, instance.c.is_current, instance.c.status != "ignored")
    )  # fmt: skip
    of_study = store.rows(select(instance.c.sop_instance_uid).where(instance.c.study_id == study_id))
    revisions = Counter(row.sop_instance_uid for row in of_study)
    cited = spoken.said.images if spoken.said else {}
    found = _Images()
    doubtful_since = to_text(from_text(spoken.created_at) - REVISED_IN_DOUBT)
    for row in rows:
        if row.status == "rejected":  # what is said rests on it
            found.is_covered &= row.sop_instance_uid not in cited
        if row.status in ("rejected", "unsupported"):
            continue
        mapping = found.mappings[row.sop_instance_uid] = advice.map_body_part(Instance.from_json(row.facts))
        is_old = row.received_at <= (doubtful_since if revisions[row.sop_instance_uid] > 1 else spoken.created_at)
        found.is_covered &= is_old and (row.sop_instance_uid in cited or not mapping.is_read)
    return found


def _add_analysis(connection: Connection, study_id: int, revision: int, said: Said | None, at: str) -> int:
    name, version, bundle_hash = said.model if said else (None, None, None)
    analysis_id = connection.execute(
        insert(analysis)
        .values(
            study_id=study_id, revision=revision, analysed_at=at, model_name=name, model_version=version,
            bundle_hash=bundle_hash,
        ).returning(analysis.c.id)
    ).scalar_one()  # fmt: skip
    for row in said.findings if said else ():
        connection.execute(insert(finding).values(analysis_id=analysis_id, **asdict(row)))
    return int(analysis_id)


def _add_object(
    connection: Connection,
    now: str,
    analysis_id: int,
    found: FoundObject,
    destinations: Collection[str],
    wanted: Mapping[str, FoundDelivery],
) -> None:
    """The object's row and its deliveries, each counted as offered once: 0111 (duplicate instance) then is "has it"."""
    report_id = connection.execute(
        insert(report).values(
            analysis_id=analysis_id, object=found.object, sop_class_uid=found.sop_class_uid,
            sop_instance_uid=found.sop_instance_uid, series_instance_uid=found.series_instance_uid,
            path=found.path, created_at=found.created_at,
        ).returning(report.c.id)
    ).scalar_one()  # fmt: skip
    for name in dict.fromkeys((*destinations, *wanted)):
        each = wanted.get(name) or FoundDelivery("cancelled", last_error=LOST_ROW)
        connection.execute(
            insert(delivery).values(
                report_id=report_id, destination=name, status=each.status, attempts=1,
                next_attempt_at=now if each.status == "waiting" else None, deliver_before=each.deliver_before,
                delivered_at=each.delivered_at, committed_at=each.committed_at, last_error=each.last_error,
                commitment_due_at=now if each.is_to_be_asked else None,
            )
        )  # fmt: skip
    add_event(
        connection, now, "object found without a row", study_instance_uid=found.study_instance_uid,
        sop_instance_uid=found.sop_instance_uid,
        detail=", ".join(f"{name}: {each.status}" for name, each in wanted.items()) or LOST_ROW,
    )  # fmt: skip


def _conclude(connection: Connection, study_id: int, said: Said, mappings: Mapping[str, BodyPartMapping]) -> None:
    """The study is analysed: its images say what its report says of them."""
    for uid, mapping in mappings.items():
        image = said.images.get(uid) or SaidImage("unsupported", None, mapping.reason)
        connection.execute(
            update(instance)
            .where(instance.c.study_id == study_id, instance.c.sop_instance_uid == uid, instance.c.is_current)
            .where(instance.c.status.in_(("received", "failed")))
            .values(
                status=image.status, reason=image.reason, abnormal_probability=image.abnormal_probability,
                body_part=mapping.body_part, body_part_source=mapping.body_part_source,
                laterality=mapping.laterality, laterality_source=mapping.laterality_source,
            )
        )  # fmt: skip
    connection.execute(update(study).where(study.c.id == study_id).values(waiting_since=None, **UNTRIED))
    connection.execute(
        update(study).where(study.c.id == study_id, study.c.state.in_(("receiving", "queued", "failed")))
        .values(state="analysed", reason=None)
    )  # fmt: skip
