"""A further bundle beside the live one: the same images seen, its findings recorded, nothing reported.

Enters: what the live analysis has recorded. Leaves: rows of `analyses`. Whatever goes wrong here ends here: the live
station neither waits for it nor learns of it. Never decodes, never reports, never changes a study.
"""

import threading
from pathlib import Path

import structlog
from sqlalchemy.exc import OperationalError

from pacs_agent.analyse.bundle import Bundle
from pacs_agent.analyse.finding import Finding, decide
from pacs_agent.analyse.station import LONGEST_PAUSE_S, STAGE
from pacs_agent.analyse.supervisor import AnalysisProcess, ImageRequest
from pacs_agent.errors import BundleError, WorkerDiedError, WorkerUnavailableError
from pacs_agent.record.claiming import has_queued
from pacs_agent.record.further import (
    FurtherFinding,
    FurtherGroup,
    FurtherWork,
    Model,
    further_died,
    further_failed,
    next_further,
    record_further,
)
from pacs_agent.record.store import Store

log = structlog.get_logger()


class FurtherStation:
    """Works through what waits for one further bundle, one study at a time, while no study waits for the live one.

    Args:
        store: the record.
        data_dir: what the instances' paths are relative to.
        bundle: the further model.
        process: an analysis process of its own.
    """

    def __init__(self, *, store: Store, data_dir: Path, bundle: Bundle, process: AnalysisProcess) -> None:
        self._store = store
        self._data_dir = data_dir
        self._bundle = bundle
        self._process = process
        self.problem: str | None = None  # why nothing is done, where that is no study's fault

    @property
    def model(self) -> Model:
        """Which model this is, as the record names it."""
        return self._bundle.identity.key

    def run(self, stop: threading.Event, idle_s: float = 1.0) -> None:
        """Work until *stop*; the thread that calls this owns the analysis process. Never raises."""
        failures = 0
        while not stop.is_set():
            try:
                self._process.ensure()  # that it cannot start is known before a study waits for it
                worked = self._is_due() and self.work_once(stop)
            except Exception as error:  # noqa: BLE001 - whatever it is, the live analysis goes on
                if stop.is_set():
                    break
                failures += 1
                pause_s = min(2.0**failures, LONGEST_PAUSE_S)
                self.problem = (str(error).splitlines() or [type(error).__name__])[0]
                log.error("a further bundle waits", model=self.model[0], reason=self.problem, next_try_in_s=pause_s)
                stop.wait(pause_s)
                continue
            failures, self.problem = 0, None
            if not worked:
                stop.wait(idle_s)

    def _is_due(self) -> bool:
        return not has_queued(self._store) and STAGE not in self._store.paused()

    def work_once(self, stop: threading.Event) -> bool:
        """See one study; returns whether any waited.

        Raises:
            WorkerUnavailableError, BundleError: the analysis process cannot be started; the study goes on waiting.
            OperationalError, OSError: the database or the machine refused; the study goes on waiting.
        """
        work = next_further(self._store, self.model)
        if work is None:
            return False
        with structlog.contextvars.bound_contextvars(study_instance_uid=work.study_instance_uid):
            try:
                self._see(work)
            except (WorkerUnavailableError, BundleError, OperationalError, OSError):
                raise
            except WorkerDiedError as error:
                if not stop.is_set():  # else it was our own doing
                    log.error("the analysis process of a further bundle died", model=self.model[0], reason=str(error))
                    further_died(self._store, work, str(error))
            except Exception as error:
                log.exception("a further bundle failed", model=self.model[0])
                further_failed(self._store, work, f"{type(error).__name__}: {error}"[:500])
        return True

    def _see(self, work: FurtherWork) -> None:
        paths = {
            image.instance_id: self._data_dir / (image.path or "missing")
            for group in work.groups
            for image in group.instances
        }
        if any(len(group.instances) != group.image_count for group in work.groups):
            further_failed(self._store, work, "its images have changed since the live analysis")
            return
        if not any(path.is_file() for path in paths.values()):
            further_failed(
                self._store, work, "the files of its images are gone: retention removed them, or they are lost"
            )
            return
        answers = self._process.analyse(
            [
                ImageRequest(str(image.instance_id), paths[image.instance_id], group.body_part)
                for group in work.groups
                for image in group.instances
            ]
        )
        outcomes = {answer.key: answer for answer in answers}
        findings = []
        for group in work.groups:
            found = decide(
                group.body_part,
                group.laterality,
                [
                    outcomes[str(image.instance_id)].outcome(
                        image.facts.sop_instance_uid, image.facts.series_instance_uid
                    )
                    for image in group.instances
                ],
                self._bundle.threshold(group.body_part),
                self._bundle.identity,
                quality_control_subject=all(image.facts.quality_control_subject == "YES" for image in group.instances),
                calibrate=self._bundle.calibrate,
            )
            findings.append(_row(group, found))
        record_further(self._store, work, findings)
        log.info("a further bundle has seen a study", model=self.model[0], revision=work.revision)


def _row(group: FurtherGroup, found: Finding) -> FurtherFinding:
    return FurtherFinding(
        group.body_part, group.laterality, found.finding, found.abnormal_probability, found.threshold,
        found.image_count, found.images_analysed, found.reason,
    )  # fmt: skip
