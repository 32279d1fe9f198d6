"""From claim and findings to objects: built, their bytes safe in the outbox, their destinations named.

Enters: what the analysis station found. Leaves: rows for the record. Never sends, never decides what is found, never
lets a heat map that cannot be made hold the report up.
"""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import structlog
from pydicom.dataset import Dataset

from pacs_agent.analyse.finding import Finding, ImageOutcome, LeftOut, ModelIdentity
from pacs_agent.analyse.supervisor import CapturePicture, CaptureRequest
from pacs_agent.deliver.outbox import Addresses, Outbox
from pacs_agent.errors import (
    SHORTAGES,
    NotUnderstoodError,
    UnreadableInstanceError,
    WorkerDiedError,
    WorkerUnavailableError,
)
from pacs_agent.receive.dataset import read_kept_header
from pacs_agent.receive.part10 import read_part10
from pacs_agent.record import analysing
from pacs_agent.record.analysing import PredecessorRow, ReportRow
from pacs_agent.record.claiming import Claim, ClaimedInstance
from pacs_agent.record.store import Store
from pacs_agent.report import capture
from pacs_agent.report.content import CaptureReference, Equipment
from pacs_agent.report.signature import ReportIdentity, encode_part10
from pacs_agent.report.sr import SR_CLASSES, Predecessor, SrClass, structured_report
from pacs_agent.report.uids import new_uid
from pacs_agent.settings import Settings
from pacs_agent.study.instance import Instance

log = structlog.get_logger()


class Reporting:
    """Claim and findings to objects: headers read, captures and SR built, bytes made safe, destinations named.

    Args:
        settings: which objects are made, and the destinations.
        store: the record.
        outbox: where bytes are safe.
        model: which model spoke.
        equipment: this installation.
        render: has the analysis process show an image with its heat map, or says why it cannot.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        outbox: Outbox,
        model: ModelIdentity,
        equipment: Equipment,
        render: Callable[[CaptureRequest], CapturePicture | str],
    ) -> None:
        self._settings = settings
        self._store = store
        self._outbox = outbox
        self._model = model
        self._equipment = equipment
        self._render = render

    def __call__(self, claim: Claim, findings: Sequence[Finding], left_out: Sequence[LeftOut] = ()) -> list[ReportRow]:
        """The captures, then one report for each class of SR that a destination wants.

        Raises:
            WorkerUnavailableError: the analysis process was stopped, or cannot be started again.
        """
        named = {image.sop_instance_uid for finding in findings for image in finding.images}
        sources = [self._source(instance) for instance in claim.instances if instance.facts.sop_instance_uid in named]
        predecessors = analysing.predecessors(self._store, claim.study_id)
        addresses = self._outbox.addresses(
            study_instance_uid=claim.study_instance_uid,
            calling_ae_title=claim.calling_ae_title,
            findings=[(finding.body_part, finding.finding) for finding in findings],
            offered=analysing.offered_destinations(self._store, claim.study_id),
        )
        rows: list[ReportRow] = []
        captures: dict[str, CaptureReference | str] = {}
        if "capture" in self._settings.report.objects and addresses.wants_captures:
            headers = {str(source.SOPInstanceUID): source for source in sources}
            for uid, made in self._captures(claim, findings, headers, addresses):
                if isinstance(made, str):
                    log.warning("no heat map", sop_instance_uid=uid, reason=made)
                    captures[uid] = made
                else:
                    captures[uid] = CaptureReference(made.sop_instance_uid, made.series_instance_uid)
                    rows.append(made)
        # Behind the pictures that they refer to, so that a PACS has those first.
        rows += [
            self._report(
                claim,
                findings,
                sources,
                predecessors,
                captures,
                left_out,
                name,
                addresses,
            )
            for name in SR_CLASSES
            if name in addresses.sr_classes
        ]
        return rows

    def _captures(
        self, claim: Claim, findings: Sequence[Finding], headers: dict[str, Dataset], addresses: Addresses
    ) -> Iterator[tuple[str, ReportRow | str]]:
        """Of each image with a heat map its UID and the object, one after the other; or why there is none."""
        paths = {instance.facts.sop_instance_uid: instance.path for instance in claim.instances}
        for number, finding in enumerate(findings):
            series_instance_uid = new_uid()
            for outcome in finding.explained:
                uid = outcome.sop_instance_uid
                picture = self._picture(finding, outcome, paths[uid])
                if isinstance(picture, str):
                    yield uid, picture
                    continue
                identity = self._identity(claim, series_instance_uid)
                ds = capture.secondary_capture(
                    finding,
                    outcome,
                    headers[uid],
                    (picture.rows, picture.columns, picture.rgb),
                    self._model,
                    self._equipment,
                    identity,
                    series_number=capture.FIRST_SERIES_NUMBER + number,
                )
                yield uid, self._row("capture", ds, addresses)

    def _picture(self, finding: Finding, outcome: ImageOutcome, path: str | None) -> CapturePicture | str:
        request = CaptureRequest(
            self._settings.data_dir / (path or "missing"),
            finding.body_part,
            capture.full_scale(finding),
            capture.TITLE,
            capture.caption(finding, outcome, self._model, self._equipment),
            capture.SCALE,
        )
        try:
            return self._render(request)
        except WorkerUnavailableError:
            raise
        except WorkerDiedError as error:
            return str(error)

    def _identity(self, claim: Claim, series_instance_uid: str) -> ReportIdentity:
        return ReportIdentity(
            sop_instance_uid=new_uid(),
            series_instance_uid=series_instance_uid,
            revision=claim.revision,
            created_at=self._store.clock().astimezone(),  # the site's zone, as StudyTime is
        )

    def _row(
        self,
        kind: Literal["sr", "capture"],
        ds: Dataset,
        addresses: Addresses,
        sr_class: SrClass | None = None,
        replaces: Iterable[PredecessorRow] = (),
    ) -> ReportRow:
        """The object's bytes made safe."""
        return ReportRow(
            object=kind,
            sop_class_uid=str(ds.SOPClassUID),
            sop_instance_uid=str(ds.SOPInstanceUID),
            series_instance_uid=str(ds.SeriesInstanceUID),
            path=self._outbox.keep(str(ds.SOPInstanceUID), encode_part10(ds)),
            deliveries=addresses.deliveries(kind, sr_class),
            not_wanted=addresses.not_wanted(kind, sr_class),
            replaces=tuple(row.sop_instance_uid for row in replaces),
        )

    def _source(self, instance: ClaimedInstance) -> Dataset:
        return source_header(self._settings.data_dir, instance.path, instance.facts)

    def _report(
        self,
        claim: Claim,
        findings: Sequence[Finding],
        sources: Sequence[Dataset],
        predecessors: Sequence[PredecessorRow],
        captures: Mapping[str, CaptureReference | str],
        left_out: Sequence[LeftOut],
        sr_class: SrClass,
        addresses: Addresses,
    ) -> ReportRow:
        there = addresses.deliveries("sr", sr_class).keys()
        replaced = [row for row in predecessors if row.destinations & there]
        ds = structured_report(
            findings,
            sources,
            self._model,
            self._equipment,
            self._identity(claim, new_uid()),
            predecessors=[
                Predecessor(row.sop_class_uid, row.sop_instance_uid, row.series_instance_uid, claim.study_instance_uid)
                for row in replaced
            ],
            captures=captures,
            left_out=left_out,
            sr_class=sr_class,
        )
        return self._row("sr", ds, addresses, sr_class, replaced)


def source_header(data_dir: Path, path: str | None, facts: Instance) -> Dataset:
    """The header of an image; where its file is gone, spoilt or more than may be read, what the record knows of it.

    Raises:
        UnreadableInstanceError: the disk does not give it back.
        OSError: the machine is short of something.
    """
    if path and (file := data_dir / path).is_file():
        try:
            kept = read_part10(file)
            return read_kept_header(kept.encoded, kept.transfer_syntax_uid)
        except NotUnderstoodError as error:
            if isinstance(cause := error.__cause__, OSError) and cause.errno in SHORTAGES:
                if cause.errno == errno.EIO:
                    raise UnreadableInstanceError(f"{path}: {cause.strerror}") from error
                raise cause from None
            log.warning("header not read", sop_instance_uid=facts.sop_instance_uid, reason=str(error))
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = facts.sop_class_uid, facts.sop_instance_uid
    header.StudyInstanceUID, header.SeriesInstanceUID = facts.study_instance_uid, facts.series_instance_uid
    header.PatientID, header.IssuerOfPatientID = facts.patient_id, facts.issuer_of_patient_id
    header.PatientBirthDate, header.StudyDate = facts.patient_birth_date, facts.study_date
    header.AccessionNumber, header.Modality = facts.accession_number, facts.modality
    return header
