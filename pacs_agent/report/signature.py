"""What every object of ours carries: whose study it is of, what made it, with which model, and when.

Enters: a data set that says its own, and the headers of its sources. Leaves: the data set complete, and its Part 10
bytes. Never reads a clock: the time is given once to a revision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DA, DT, TM

from pacs_agent.analyse.finding import ModelIdentity
from pacs_agent.errors import PacsAgentError
from pacs_agent.identity import IMPLEMENTATION_CLASS_UID
from pacs_agent.report import codes
from pacs_agent.report.content import Equipment, algorithm_version
from pacs_agent.report.header import (
    character_set,
    copy_patient_and_study,
    performed_procedure_steps,
    settle_character_set,
    time_zone,
)


@dataclass(frozen=True, slots=True)
class ReportIdentity:
    """What is given once to an object of a stored revision of an analysis.

    Attributes:
        revision: from 1; InstanceNumber of the report.
        created_at: with its zone. ContentDate and ContentTime are its wall clock in the zone the sources name
            (TimezoneOffsetFromUTC), else in its own: pass the site's zone for a time that fits StudyTime.
    """

    sop_instance_uid: str
    series_instance_uid: str
    revision: int
    created_at: datetime


def local_time(identity: ReportIdentity, sources: Sequence[Dataset]) -> datetime:
    """When the object was made, in the zone that the sources' times are in.

    Raises:
        PacsAgentError: the time has no zone.
    """
    if identity.created_at.tzinfo is None:
        raise PacsAgentError("the time of a report needs its zone")
    return identity.created_at.astimezone(time_zone(sources) or identity.created_at.tzinfo)


def sign(
    ds: Dataset, sources: Sequence[Dataset], by: ModelIdentity | str, equipment: Equipment, created_at: datetime
) -> None:
    """Put patient, study, equipment, time, character set and implementation into *ds*, which has its file meta.

    Args:
        ds: says its own already.
        sources: headers.
        by: which model spoke; or, where none did, what was done.
        equipment: this installation.
        created_at: as `local_time` gives it.
    """
    ds.ContentDate, ds.ContentTime = DA(created_at.date()), TM(created_at.time())
    ds.InstanceCreationDate, ds.InstanceCreationTime = ds.ContentDate, ds.ContentTime
    ds.Manufacturer, ds.ManufacturerModelName = equipment.manufacturer, equipment.model_name
    ds.SoftwareVersions = equipment.software_version
    ds.StationName = equipment.station_name
    ds.ContributingEquipmentSequence = [_contribution(by, equipment, created_at)]
    ds.ReferencedPerformedProcedureStepSequence = performed_procedure_steps(sources)
    copy_patient_and_study(ds, sources)
    settle_character_set(ds, character_set(sources))
    # PS3.10 7.1: the implementation that writes the file
    ds.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    ds.file_meta.ImplementationVersionName = f"PACS_AGENT {equipment.software_version}"[:16].strip()


def encode_part10(ds: Dataset) -> bytes:
    """The data set as the bytes of a Part 10 file, Explicit VR Little Endian."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _contribution(by: ModelIdentity | str, equipment: Equipment, created_at: datetime) -> hd.ContributingEquipment:
    """PS3.3 C.12.1.1.5: what processed the images, with which model, and when (with the offset from UTC)."""
    description = by if isinstance(by, str) else f"AI analysis by {by.name} {algorithm_version(by)}"
    item = hd.ContributingEquipment(
        manufacturer=equipment.manufacturer,
        purpose_of_reference=codes.PROCESSING_EQUIPMENT,
        manufacturer_model_name=equipment.model_name,
        software_versions=equipment.software_version,
        station_name=equipment.station_name,
        contribution_description=description,
    )
    item.DeviceUID = equipment.device_uid
    item.ContributionDateTime = DT(f"{created_at:%Y%m%d%H%M%S.%f%z}")
    return item
