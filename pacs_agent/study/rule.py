"""The rules of `[mapping]`: a text of the header that names a part for this site.

Enters: what the settings say. Leaves: rules that bodypart.py tries before its own reading. It imports nothing that
reads DICOM: the settings are read by every command.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from pacs_agent.errors import SettingsError
from pacs_agent.study.vocabulary import BODY_PARTS, NONE
from pacs_agent.study.wording import MAX_TEXT

if TYPE_CHECKING:
    from pacs_agent.study.instance import Instance

# DICOM keyword -> attribute of `Instance`: the text elements that a rule may look at.
RULE_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "BodyPartExamined": "body_part_examined",
        "SeriesDescription": "series_description",
        "ProtocolName": "protocol_name",
        "AcquisitionDeviceProcessingDescription": "acquisition_device_processing_description",
        "PerformedProcedureStepDescription": "performed_procedure_step_description",
        "StudyDescription": "study_description",
        "RequestedProcedureDescription": "requested_procedure_description",
        "ScheduledProcedureStepDescription": "scheduled_procedure_step_description",
        "ViewPosition": "view_position",
        "StationName": "station_name",
        "Manufacturer": "manufacturer",
        "ManufacturerModelName": "manufacturer_model_name",
    }
)


@dataclass(frozen=True, slots=True)
class MappingRule:
    """A configured text rule, tried before the built-in reading.

    Attributes:
        field: DICOM keyword of the element, one of `RULE_FIELDS`.
        pattern: regular expression, searched in the element's first 256 characters. An expression with nested
            repetition may still take long on such a text: it is the operator's own.
        body_part: one of `BODY_PARTS`, or "none": not to be analysed.

    Raises:
        SettingsError: any of the three is not what it must be.
    """

    field: str
    pattern: str
    body_part: str

    def __post_init__(self) -> None:
        if self.field not in RULE_FIELDS:
            raise SettingsError(f"a mapping rule's field must be one of {', '.join(RULE_FIELDS)}, not {self.field!r}")
        if self.body_part not in (*BODY_PARTS, NONE):
            raise SettingsError(
                f"a mapping rule's body_part must be one of {', '.join(BODY_PARTS)} or none, not {self.body_part!r}"
            )
        try:
            _compiled(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise SettingsError(f"a mapping rule's pattern is no regular expression: {error}") from None

    def matches(self, instance: "Instance") -> bool:
        """Whether the pattern is found in the instance's element."""
        return _compiled(self.pattern).search(getattr(instance, RULE_FIELDS[self.field])[:MAX_TEXT]) is not None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
