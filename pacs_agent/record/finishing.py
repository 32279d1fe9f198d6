"""Analyses that the last run had in hand, whose objects are all there and whose rows are not: recorded after all.

Enters: the objects of a study that is claimed, and what they say. Leaves: what `record_analysis` would have left. A set
that is not whole is left alone: its analysis is made again.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select

from pacs_agent.record.analysing import InstanceResult, ReportRow, record_analysis
from pacs_agent.record.claiming import Claim, ClaimedInstance, last_revision
from pacs_agent.record.further import Model
from pacs_agent.record.restoring import FoundObject, Said
from pacs_agent.record.store import Store
from pacs_agent.record.tables import instance, study
from pacs_agent.study.bodypart import BodyPartMapping
from pacs_agent.study.instance import Instance


@dataclass(frozen=True, slots=True)
class Finishing:
    """How an analysis in hand is finished.

    Attributes:
        map_body_part: header facts to part and side.
        make_rows: claim, what its reports say and its objects, to their rows; none where a report is missing.
        model: name, version and hash of the live bundle; a report has only the beginning of the hash.
        further: the same of further bundles, which are to see the same images.
    """

    map_body_part: Callable[[Instance], BodyPartMapping]
    make_rows: Callable[[Claim, Said, Sequence[FoundObject]], list[ReportRow]]
    model: Model
    further: Sequence[Model]


def finish_study(store: Store, study_instance_uid: str, found: Sequence[FoundObject], how: Finishing) -> bool:
    """Record what was in hand of a study, in one transaction, where it is claimed and its set is whole; whether so."""
    with store.read() as connection:
        row = connection.execute(select(study).where(study.c.study_instance_uid == study_instance_uid)).first()
        if row is None or row.claimed_until is None or row.claimed_through is None:
            return False
        rows = connection.execute(select(instance).where(instance.c.study_id == row.id).order_by(instance.c.id)).all()
        revision = last_revision(connection, row.id) + 1
    in_hand = [each for each in rows if each.id <= row.claimed_through]
    whole = _whole(found, revision, {each.sop_instance_uid for each in in_hand})
    said = whole[-1].said if whole else None
    if said is None:
        return False
    revisions = Counter(each.sop_instance_uid for each in in_hand)
    instances, results = list[ClaimedInstance](), list[InstanceResult]()
    for image in in_hand:
        facts = Instance.from_json(image.facts)
        mapping = how.map_body_part(facts)
        if revisions[image.sop_instance_uid] == 1 and _was_seen(image, mapping, said):
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


def _was_seen(image: Any, mapping: BodyPartMapping, said: Said) -> bool:
    """Whether an image that came before the claim was in it: cited, or left out for a reason that still stands."""
    if image.sop_instance_uid in said.images:
        return True
    is_left_out = not mapping.is_read or image.status in ("ignored", "unsupported")
    return bool(is_left_out and image.status != "rejected")


def _result(image: Any, mapping: BodyPartMapping, said: Said) -> InstanceResult:
    result = InstanceResult(
        image.id, "unsupported", mapping.reason, mapping.body_part, mapping.body_part_source,
        mapping.laterality, mapping.laterality_source,
    )  # fmt: skip
    told = said.images.get(image.sop_instance_uid)
    if told is None or not mapping.body_part:
        return result
    return replace(result, status=told.status, reason=told.reason, abnormal_probability=told.abnormal_probability)
