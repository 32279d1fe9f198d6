"""Files in, probabilities out, without a database: `pacs-agent predict`, through the same analysis process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from pacs_agent.analyse.bundle import load_bundle
from pacs_agent.analyse.finding import decide
from pacs_agent.analyse.supervisor import AnalysisProcess, ImageRequest
from pacs_agent.errors import PacsAgentError
from pacs_agent.settings import Model
from pacs_agent.study.bodypart import BODY_PARTS, BodyPartMapping, map_body_part
from pacs_agent.study.instance import Instance


@dataclass(frozen=True, slots=True)
class Prediction:
    """One file's answer; the fields are a promise to programs. The probability is calibrated where the model is."""

    file: str
    body_part: str | None
    body_part_source: str | None
    abnormal_probability: float | None
    member_probabilities: tuple[float, ...]
    finding: str | None
    reason: str | None


def predict_files(files: Sequence[Path], *, body_part: str | None, bundle_name: str) -> list[Prediction]:
    """Analyse each file by itself.

    Args:
        files: DICOM Part 10, PNG or JPEG.
        body_part: instead of what the header says; None: the header's.
        bundle_name: a folder, or the name of one that ships.

    Raises:
        PacsAgentError: an unknown body part, or a bundle that cannot be used.
    """
    if body_part is not None and body_part not in BODY_PARTS:
        raise PacsAgentError(f"unknown body part {body_part!r}: one of {', '.join(BODY_PARTS)}")
    bundle = load_bundle(bundle_name)
    headers = [_header(file) for file in files]
    mappings = [_mapping(header, body_part) for header in headers]
    process = AnalysisProcess.of(bundle, Model())
    try:
        process.start()
        answers = process.analyse(
            [
                ImageRequest(str(index), file.absolute(), mapping.body_part)
                for index, (file, mapping) in enumerate(zip(files, mappings, strict=True))
            ]
        )
    finally:
        process.stop()
    predictions = []
    for file, header, mapping, answer in zip(files, headers, mappings, answers, strict=True):
        finding = decide(
            mapping.body_part,
            mapping.laterality,
            [answer.outcome("", "")],
            bundle.threshold(mapping.body_part),
            bundle.identity,
            quality_control_subject=header is not None and header.quality_control_subject == "YES",
            calibrate=bundle.calibrate,
            reason=mapping.reason,
        )
        predictions.append(
            Prediction(
                str(file),
                mapping.body_part,
                mapping.body_part_source,
                finding.images[0].abnormal_probability,
                answer.member_probabilities,
                finding.finding if answer.abnormal_probability is not None else None,
                answer.reason or "; ".join(filter(None, (mapping.reason, answer.doubt))) or finding.reason,
            )
        )
    return predictions


def _header(file: Path) -> Instance | None:
    """The header facts of a DICOM file; None for another kind of file, whose reader says what is wrong with it."""
    try:
        return Instance.from_dataset(dcmread(file, stop_before_pixels=True))
    except (InvalidDicomError, OSError, EOFError, ValueError, AttributeError, RecursionError, NotImplementedError):
        return None


def _mapping(header: Instance | None, body_part: str | None) -> BodyPartMapping:
    if body_part is not None:
        return BodyPartMapping(body_part, "argument", None, None, None, None)
    if header is None:
        return BodyPartMapping(None, None, None, None, "no body part is known: name it with --body-part", None)
    return map_body_part(header)
