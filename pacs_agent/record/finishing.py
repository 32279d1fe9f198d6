"""Analyses that the last run had in hand, whose objects are all there and whose rows are not: recorded after all.

Enters: the objects of studies that are claimed, and what they say. Leaves: what `record_analysis` would have left. Sets
that are not whole are left alone: they were never sent, and their analysis is made again.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from pacs_agent.record.analysing import InstanceResult, ReportRow, record_analysis
from pacs_agent.record.claiming import Claim, ClaimedInstance, last_revision
from pacs_agent.record.restoring import FoundObject, Said, by_study
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import instance, study
from pacs_agent.record.times import from_text, to_text
from pacs_agent.study.bodypart import BodyPartMapping
from pacs_agent.study.instance import Instance

Model = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Finishing:
    """How an analysis in hand is finished.

    Attributes:
        map_body_part: header facts to part and side.
        make_rows: claim, what its reports say and its objects, to their rows; none where a report is missing.
        model: name, version and hash of the live bundle; a report has only the beginning of the hash.
        further: the same of further bundles, which are to see the same images.
        lease_s: how long a claim holds.
    """

    map_body_part: Callable[[Instance], BodyPartMapping]
    make_rows: Callable[[Claim, Said, Sequence[FoundObject]], list[ReportRow]]
    model: Model
    further: Sequence[Model]
    lease_s: float


def finish_claimed(store: Store, found: Iterable[FoundObject], how: Finishing) -> int:
    """Record what was in hand and is whole; returns how many studies that were."""
    return sum(_finish(store, uid, of, how) for uid, of in by_study(found).items())


def _finish(store: Store, study_instance_uid: str, found: Sequence[FoundObject], how: Finishing) -> bool:
    with store.read() as connection:
        row = connection.execute(select(study).where(study.c.study_instance_uid == study_instance_uid)).first()
        if row is None or row.claimed_until is None:
            return False
        rows = connection.execute(
            select(instance).where(instance.c.study_id == row.id).order_by(instance.c.is_current, instance.c.id)
        ).all()
        revision = last_revision(connection, row.id) + 1
    images = {each.sop_instance_uid: each for each in rows}  # the current revision, or the last where it went
    whole = _whole(found, revision, images.keys())
    said = whole[-1].said if whole else None
    if said is None:
        return False
    claimed_at = to_text(from_text(row.claimed_until) - timedelta(seconds=how.lease_s))
    instances, results = list[ClaimedInstance](), list[InstanceResult]()
    for image in images.values():
        facts = Instance.from_json(image.facts)
        mapping = how.map_body_part(facts)
        if _was_seen(image, mapping, said, claimed_at):
            instances.append(ClaimedInstance(image.id, image.path, facts, image.received_at))
            if image.sop_instance_uid in said.images or image.status == "received":
                results.append(_result(image, mapping, said))
    claim = Claim(row.id, study_instance_uid, row.calling_ae_title, revision, row.alone, tuple(instances))
    reports = how.make_rows(claim, said, whole)
    if not reports:
        return False
    # Which weights the model has, the report says in short.
    is_live = said.model[:2] == how.model[:2] and how.model[2].startswith(said.model[2])
    record_analysis(
        store, claim, model=how.model if is_live else said.model, images=results, findings=said.findings,
        reports=reports, further=how.further,
    )  # fmt: skip
    with store.write() as connection:
        for made in reports:
            add_event(
                connection, store.now(), "object found without a row", study_instance_uid=study_instance_uid,
                sop_instance_uid=made.sop_instance_uid, detail=f"revision {revision}: its analysis was in hand",
            )  # fmt: skip
    return True


def _whole(found: Sequence[FoundObject], revision: int, images: Collection[str]) -> list[FoundObject]:
    """The objects of a revision, reports last, where each that they name is there; else none.

    Two reports of one class are of two analyses, of which nobody knows which one was sent.
    """
    reports = [each for each in found if each.object == "sr" and each.revision == revision]
    named = {uid for each in reports for uid in each.refers}
    pictures = [each for each in found if each.object == "capture" and each.sop_instance_uid in named]
    is_whole = (
        all(each.said and each.refers == named and each.said.images.keys() <= set(images) for each in reports)
        and len({each.sop_class_uid for each in reports}) == len(reports)
        and named <= {each.sop_instance_uid for each in pictures}.union(images)
    )
    return [*pictures, *reports] if reports and is_whole else []


def _was_seen(image: Any, mapping: BodyPartMapping, said: Said, claimed_at: str) -> bool:
    """Whether the claim had an image; one that is not sure to have been there is analysed again."""
    if image.sop_instance_uid in said.images:
        return bool(image.revision == 1 or not image.is_current or image.received_at <= claimed_at)
    is_left_out = not mapping.is_read or image.status in ("ignored", "unsupported")
    is_out = image.status == "rejected" or not image.is_current
    return bool(is_left_out and not is_out and image.received_at <= claimed_at)


def _result(image: Any, mapping: BodyPartMapping, said: Said) -> InstanceResult:
    result = InstanceResult(
        image.id, "unsupported", mapping.reason, mapping.body_part, mapping.body_part_source,
        mapping.laterality, mapping.laterality_source,
    )  # fmt: skip
    told = said.images.get(image.sop_instance_uid)
    if told is None or not mapping.body_part:
        return result
    return replace(result, status=told.status, reason=told.reason, abnormal_probability=told.abnormal_probability)
