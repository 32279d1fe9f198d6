"""From claim and findings to objects: built, their bytes safe in the outbox, their destinations named.

Enters: what the analysis station found. Leaves: rows for the record. Never sends, never decides what is found.
"""

from collections.abc import Sequence

from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs_agent.analyse.finding import Finding, ModelIdentity
from pacs_agent.deliver.outbox import Addresses, Outbox, gets
from pacs_agent.record import analysing
from pacs_agent.record.analysing import ReportRow
from pacs_agent.record.claiming import Claim, ClaimedInstance
from pacs_agent.record.store import Store
from pacs_agent.report.sr import (
    SR_CLASSES,
    Equipment,
    Predecessor,
    ReportIdentity,
    SrClass,
    encode_part10,
    structured_report,
)
from pacs_agent.report.uids import new_uid
from pacs_agent.settings import Settings


class Reporting:
    """Claim and findings to objects: headers read, SR built, bytes made safe, destinations named."""

    def __init__(
        self, settings: Settings, store: Store, outbox: Outbox, model: ModelIdentity, equipment: Equipment
    ) -> None:
        self._settings = settings
        self._store = store
        self._outbox = outbox
        self._model = model
        self._equipment = equipment

    def __call__(self, claim: Claim, findings: Sequence[Finding]) -> list[ReportRow]:
        """One report for each class of SR that a destination wants."""
        named = {image.sop_instance_uid for finding in findings for image in finding.images}
        sources = [self._source(instance) for instance in claim.instances if instance.facts.sop_instance_uid in named]
        predecessors = [
            Predecessor(row.sop_class_uid, row.sop_instance_uid, row.series_instance_uid, claim.study_instance_uid)
            for row in analysing.predecessors(self._store, claim.study_id)
        ]
        addresses = self._outbox.addresses(
            received_at=claim.received_at,
            calling_ae_title=claim.calling_ae_title,
            findings=[(finding.body_part, finding.finding) for finding in findings],
            offered=analysing.offered_destinations(self._store, claim.study_id),
        )
        targets = self._settings.destination
        classes = {target.sr_class for target in targets if gets(target, "sr")} if targets else {"comprehensive3d"}
        return [
            self._one(
                claim,
                findings,
                sources,
                [each for each in predecessors if each.sop_class_uid == uid],
                name,
                addresses,
            )
            for name, uid in SR_CLASSES.items()
            if name in classes
        ]

    def _source(self, instance: ClaimedInstance) -> Dataset:
        """The header of an image; where its file is gone, what the record knows of it."""
        if instance.path and (path := self._settings.data_dir / instance.path).is_file():
            return dcmread(path, stop_before_pixels=True)
        header, facts = Dataset(), instance.facts
        header.SOPClassUID, header.SOPInstanceUID = facts.sop_class_uid, facts.sop_instance_uid
        header.StudyInstanceUID, header.SeriesInstanceUID = facts.study_instance_uid, facts.series_instance_uid
        header.PatientID, header.IssuerOfPatientID = facts.patient_id, facts.issuer_of_patient_id
        header.PatientBirthDate, header.StudyDate = facts.patient_birth_date, facts.study_date
        header.AccessionNumber, header.Modality = facts.accession_number, facts.modality
        return header

    def _one(
        self,
        claim: Claim,
        findings: Sequence[Finding],
        sources: Sequence[Dataset],
        predecessors: Sequence[Predecessor],
        sr_class: SrClass,
        addresses: Addresses,
    ) -> ReportRow:
        identity = ReportIdentity(
            sop_instance_uid=new_uid(),
            series_instance_uid=new_uid(),
            revision=claim.revision,
            created_at=self._store.clock().astimezone(),  # the site's zone, as StudyTime is
        )
        ds = structured_report(
            findings,
            sources,
            self._model,
            self._equipment,
            identity,
            predecessors=predecessors,
            sr_class=sr_class,
        )
        return ReportRow(
            object="sr",
            sop_class_uid=SR_CLASSES[sr_class],
            sop_instance_uid=identity.sop_instance_uid,
            series_instance_uid=identity.series_instance_uid,
            path=self._outbox.keep(identity.sop_instance_uid, encode_part10(ds)),
            deliveries=addresses.deliveries("sr", sr_class),
            not_wanted=addresses.not_wanted("sr", sr_class),
        )
