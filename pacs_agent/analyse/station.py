"""The analysis station: complete studies in, findings and reports recorded. Never decodes; the analysis process does.

The only place that parks a study: whatever goes wrong with one becomes its reason, and the others go on.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import structlog
from sqlalchemy.exc import OperationalError

from pacs_agent.analyse.bundle import Bundle
from pacs_agent.analyse.finding import Finding, ImageOutcome, LeftOut, decide
from pacs_agent.analyse.supervisor import AnalysisProcess, ImageAnswer, ImageRequest
from pacs_agent.errors import SHORTAGES, BundleError, UnreadableInstanceError, WorkerDiedError, WorkerUnavailableError
from pacs_agent.faults import crash_point
from pacs_agent.record.analysing import (
    FindingRow,
    InstanceResult,
    InstanceStatus,
    ReportRow,
    fail_study,
    record_analysis,
)
from pacs_agent.record.claiming import (
    Claim,
    ClaimedInstance,
    claim_studies,
    has_queued,
    put_off,
    release_claims,
    worker_died,
)
from pacs_agent.record.store import Store
from pacs_agent.record.times import from_text
from pacs_agent.study.bodypart import BodyPartMapping
from pacs_agent.study.eligibility import Eligibility
from pacs_agent.study.instance import Instance

log = structlog.get_logger()

STAGE = "analysis"  # its name for `pause` and `resume`
LONGEST_PAUSE_S = 60.0
READ_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class _Image:
    """An eligible image with what the header says of its part."""

    instance: ClaimedInstance
    mapping: BodyPartMapping


@dataclass(slots=True)
class _Plan:
    """What is to be done for one study, from its headers alone."""

    claim: Claim
    results: list[InstanceResult] = field(default_factory=list)  # of what is not analysed
    groups: dict[tuple[str | None, str | None], list[_Image]] = field(default_factory=dict)
    contradictions: dict[str | None, list[_Image]] = field(default_factory=dict)  # sides, by part

    @property
    def images(self) -> list[_Image]:
        """What goes to the analysis process."""
        return [image for (part, _), images in self.groups.items() if part for image in images]


class AnalysisStation:
    """Works through complete studies until told to stop.

    Args:
        store: the record.
        data_dir: what the instances' paths are relative to.
        bundle: the model.
        process: the analysis process that runs it.
        assess: header facts and the day of receipt to eligibility.
        map_body_part: header facts to part and side.
        make_reports: claim, findings, and what they leave out, to objects, their bytes safe on disk.
        discard_unrecorded: removes objects whose analysis could not be recorded; they are made again.
        batch_studies: studies claimed at a time.
        lease_s: how long a claim holds.
        read_again_s: the first pause of a study whose files the disk does not give back.
        further: name, version and hash of the bundles that see the same images afterwards (further.py).
    """

    def __init__(
        self,
        *,
        store: Store,
        data_dir: Path,
        bundle: Bundle,
        process: AnalysisProcess,
        assess: Callable[[Instance, date], Eligibility],
        map_body_part: Callable[[Instance], BodyPartMapping],
        make_reports: Callable[[Claim, Sequence[Finding], Sequence[LeftOut]], list[ReportRow]],
        discard_unrecorded: Callable[[], None],
        batch_studies: int,
        lease_s: float,
        read_again_s: float = READ_AGAIN_S,
        further: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        self._store = store
        self._data_dir = data_dir
        self._bundle = bundle
        self._process = process
        self._assess = assess
        self._map_body_part = map_body_part
        self._make_reports = make_reports
        self._discard_unrecorded = discard_unrecorded
        self._batch_studies = batch_studies
        self._lease_s = lease_s
        self._read_again_s = read_again_s
        self._further = further
        self.problem: str | None = None  # why studies wait, where that is nobody's fault

    def run(self, stop: threading.Event, idle_s: float = 0.2) -> None:
        """Work until *stop*; the thread that calls this owns the analysis process."""
        failures = 0
        while not stop.is_set():
            try:
                if failures:  # what was in hand goes back; nobody else holds a claim
                    self._discard_unrecorded()  # first: at a start, what is left of an unclaimed study counts as sent
                    release_claims(self._store)
                worked = self.work_once(stop)
            except (OperationalError, OSError, WorkerUnavailableError, BundleError) as error:
                if stop.is_set():
                    break
                if not _is_shortage(error):
                    raise
                failures += 1
                pause_s = min(2.0**failures, LONGEST_PAUSE_S)
                self.problem = str(error).splitlines()[0]
                log.error("analysis waits", reason=self.problem, next_try_in_s=pause_s)
                stop.wait(pause_s)
                continue
            failures, self.problem = 0, None
            if not worked:
                stop.wait(idle_s)

    def work_once(self, stop: threading.Event) -> int:
        """Claim, analyse and record one batch; returns how many studies it held.

        Raises:
            WorkerUnavailableError, BundleError: the analysis process cannot be started; nothing is said of any study.
            OperationalError, OSError: the database or the disk refused; the claims are still held.
        """
        # Before anything is claimed: a process that cannot start is nobody's fault, and is known before a study comes.
        self._process.ensure()
        # Looked at before it is claimed: a claim takes the write lock that the receipts need.
        if not has_queued(self._store) or STAGE in self._store.paused():
            return 0
        claims = claim_studies(self._store, self._batch_studies, self._lease_s)
        if not claims:
            return 0
        crash_point("studies claimed")
        plans = [plan for claim in claims if (plan := self._planned(claim))]
        requests = [
            ImageRequest(str(image.instance.instance_id), self._path(image.instance), image.mapping.body_part)
            for plan in plans
            for image in plan.images
        ]
        try:
            answers = self._process.analyse(requests)
        except WorkerUnavailableError:
            release_claims(self._store, claims)
            raise
        except WorkerDiedError as error:
            self._after_death([plan.claim for plan in plans], str(error), stop)
            return len(claims)
        crash_point("images analysed")
        by_key = {answer.key: answer for answer in answers}
        for plan in plans:
            self._conclude(plan, by_key)
        return len(claims)

    def _planned(self, claim: Claim) -> _Plan | None:
        """The plan of a study, or None where making it failed: the study is parked, the others go on."""
        try:
            plan = self._plan(claim)
            if plan.images and not any(self._path(image.instance).is_file() for image in plan.images):
                fail_study(self._store, claim, "the files of its images are missing from the inbox: send it again")
                return None
            return plan
        except Exception as error:
            if _is_shortage(error):
                raise
            self._park(claim, error)  # whatever else went wrong with one study becomes its reason
            return None

    def _park(self, claim: Claim, error: Exception) -> None:
        log.exception("study failed", study_instance_uid=claim.study_instance_uid)
        self._discard_unrecorded()
        fail_study(self._store, claim, f"{type(error).__name__}: {error}"[:500])

    def _put_off(self, claim: Claim, reason: str) -> None:
        """The disk may give the files back another time; nobody else waits for that."""
        self._discard_unrecorded()
        log.error("study put off", reason=reason)
        if put_off(self._store, claim, reason, self._read_again_s):
            fail_study(self._store, claim, f"{reason}; `retry` when the disk is well, or send it again")

    def _after_death(self, claims: Sequence[Claim], reason: str, stop: threading.Event) -> None:
        if stop.is_set():  # our own doing
            release_claims(self._store, claims)
            return
        log.error("analysis process died", reason=reason, studies=len(claims))
        for claim in worker_died(self._store, claims, reason):
            fail_study(self._store, claim, f"the analysis process died twice on this study alone: {reason}")

    def _path(self, instance: ClaimedInstance) -> Path:
        # A file that is gone is for the reader to report, as any other that cannot be read.
        return self._data_dir / (instance.path or "missing")

    def _plan(self, claim: Claim) -> _Plan:
        plan = _Plan(claim)
        for instance in claim.instances:
            eligibility = self._assess(instance.facts, from_text(instance.received_at).date())
            if not eligibility.is_eligible:
                status: InstanceStatus = "ignored" if eligibility.status == "ignored" else "unsupported"
                plan.results.append(InstanceResult(instance.instance_id, status, eligibility.reason))
                continue
            mapping = self._map_body_part(instance.facts)
            image = _Image(instance, mapping)
            if mapping.conflict == "side":
                plan.contradictions.setdefault(mapping.body_part, []).append(image)
            elif mapping.is_read:
                plan.groups.setdefault((mapping.body_part, mapping.laterality), []).append(image)
            if mapping.conflict or not mapping.body_part:
                plan.results.append(_result(image, "unsupported", mapping.reason))
        return plan

    def _conclude(self, plan: _Plan, answers: dict[str, ImageAnswer]) -> None:
        claim = plan.claim
        with structlog.contextvars.bound_contextvars(study_instance_uid=claim.study_instance_uid):
            try:
                _check_read(plan, answers)
                findings = [self._finding(key, images, answers) for key, images in plan.groups.items()]
                reports = self._make_reports(claim, findings, _left_out(plan)) if findings else []
                record_analysis(
                    self._store,
                    claim,
                    model=self._bundle.identity.key if findings else None,
                    images=[*plan.results, *_results(plan, findings)],
                    findings=[*(_finding_row(finding) for finding in findings), *_unsupported_rows(plan)],
                    reports=reports,
                    further=self._further,
                )
            except UnreadableInstanceError as error:
                self._put_off(claim, str(error))
                return
            except Exception as error:
                if _is_shortage(error):
                    raise
                self._park(claim, error)  # whatever else went wrong with one study becomes its reason
                return
            crash_point("analysis recorded")
            log.info("study analysed", revision=claim.revision, findings=len(findings))

    def _finding(
        self, key: tuple[str | None, str | None], images: Sequence[_Image], answers: dict[str, ImageAnswer]
    ) -> Finding:
        body_part, laterality = key
        return decide(
            body_part,
            laterality,
            [_outcome(image, answers) for image in images],
            self._bundle.threshold(body_part),
            self._bundle.identity,
            quality_control_subject=all(image.instance.facts.quality_control_subject == "YES" for image in images),
            calibrate=self._bundle.calibrate,
            reason=None if body_part else images[0].mapping.reason,
        )


def _check_read(plan: _Plan, answers: dict[str, ImageAnswer]) -> None:
    """Raise `UnreadableInstanceError` where the disk did not give an image back: nothing is said of its study yet."""
    for image in plan.images:
        answer = answers.get(str(image.instance.instance_id))
        if answer and answer.is_unread:
            raise UnreadableInstanceError(answer.reason)


def _is_shortage(error: Exception) -> bool:
    """Whether an error may pass by itself and says nothing of the study in hand."""
    if isinstance(error, OSError):
        return error.errno in SHORTAGES
    return isinstance(error, OperationalError | WorkerUnavailableError | BundleError)


def _result(
    image: _Image, status: InstanceStatus, reason: str | None, outcome: ImageOutcome | None = None
) -> InstanceResult:
    mapping = image.mapping
    return InstanceResult(
        image.instance.instance_id,
        status,
        reason,
        mapping.body_part,
        mapping.body_part_source,
        mapping.laterality,
        mapping.laterality_source,
        outcome.abnormal_probability if outcome else None,
        outcome.member_probabilities if outcome else (),
    )


def _results(plan: _Plan, findings: Sequence[Finding]) -> Iterator[InstanceResult]:
    """What the findings say of each image that went to the analysis process."""
    for ((part, _), images), finding in zip(plan.groups.items(), findings, strict=True):
        if part:
            for image, outcome in zip(images, finding.images, strict=True):
                yield _result(image, outcome.status, outcome.reason or outcome.doubt, outcome)


def _outcome(image: _Image, answers: dict[str, ImageAnswer]) -> ImageOutcome:
    facts = image.instance.facts
    answer = answers.get(str(image.instance.instance_id))
    if answer is None:  # its part is in doubt; no network has seen it
        return ImageOutcome(facts.sop_instance_uid, facts.series_instance_uid, "failed", reason=image.mapping.reason)
    return answer.outcome(facts.sop_instance_uid, facts.series_instance_uid)


def _finding_row(finding: Finding) -> FindingRow:
    return FindingRow(
        finding.body_part, finding.laterality, "analysed", finding.finding, finding.abnormal_probability,
        finding.threshold, finding.image_count, finding.images_analysed, finding.reason,
    )  # fmt: skip


def _left_out(plan: _Plan) -> list[LeftOut]:
    """What a report must say besides its findings: images of sides that contradict, and those it cannot speak of."""
    within = {image.instance.instance_id for images in plan.groups.values() for image in images}
    counted: Counter[tuple[str | None, str]] = Counter()
    for part, images in plan.contradictions.items():
        within.update(image.instance.instance_id for image in images)
        counted.update((part, image.mapping.reason or "its sides contradict") for image in images)
    counted.update(
        (None, result.reason or "no reason is known")
        for result in plan.results
        if result.status == "unsupported" and result.instance_id not in within
    )
    return [LeftOut(part, count, reason) for (part, reason), count in counted.items()]


def _unsupported_rows(plan: _Plan) -> list[FindingRow]:
    """A row for each part whose sides contradict; else, where nothing was found to analyse, one with the reason."""
    rows = [
        FindingRow(part, None, "unsupported", None, None, None, len(images), 0, images[0].mapping.reason)
        for part, images in plan.contradictions.items()
    ]
    if not rows and not plan.groups:
        # An image without a part says more than a report that was ignored.
        reasons = sorted(plan.results, key=lambda result: result.status == "ignored")
        reason = reasons[0].reason if reasons else "no instance"
        rows.append(FindingRow(None, None, "unsupported", None, None, None, 0, 0, reason))
    return rows
