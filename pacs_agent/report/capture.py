"""The heat map as a DICOM object: a Secondary Capture that any viewer shows, one for each image of an abnormal finding.

Enters: a finding, the header of the image, the rendered picture, which model and which installation spoke, the UIDs
and the time given to it. Leaves: the words for the picture's footer, and a data set ready to encode. The same arguments
give the same bytes. Never renders, never changes the caller's data sets, never invents an orientation or a scale.
"""

from copy import deepcopy

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from pacs_agent.analyse.finding import Finding, ImageOutcome, ModelIdentity
from pacs_agent.errors import PacsAgentError
from pacs_agent.report import codes
from pacs_agent.report.content import Equipment, algorithm_version, group_name, percent
from pacs_agent.report.legal import legal_value
from pacs_agent.report.signature import ReportIdentity, local_time, sign

CAPTURE_CLASS = SecondaryCaptureImageStorage
FIRST_SERIES_NUMBER = 9002  # behind the report's; a series for each finding, as a series has one side
SERIES_DESCRIPTION = "AI RESEARCH - UNVERIFIED heat map"
TITLE = "AI RESEARCH - UNVERIFIED - not for clinical use"
WARNING = "Shows model attention, not lesion location."
SCALE = ("no attention", "highest of this finding")
DERIVATION = "Reduced to 2048 pixels at most; heat map (gradient-weighted class activation) laid on; footer added"


def caption(finding: Finding, outcome: ImageOutcome, model: ModelIdentity, equipment: Equipment) -> tuple[str, ...]:
    """The lines of the footer below `TITLE`: the warning, what was found where, and who says so."""
    name = group_name(finding)
    number = 1 + finding.images.index(outcome)
    word = (codes.PROBABILITY if model.calibrated else codes.CERTAINTY_OF_FINDING).meaning.lower()
    lines = [WARNING]
    if not outcome.attention:
        lines.append("Nothing in this image spoke for an abnormality.")
    lines.append(
        f"{name[:1].upper()}{name[1:]} · image {number} of {finding.image_count}: "
        f"{word} {_percent(outcome.abnormal_probability)} · "
        f"finding: {finding.finding}, {word} {_percent(finding.abnormal_probability)}, "
        f"threshold {_percent(finding.threshold)}"
    )
    lines.append(f"{model.name} {algorithm_version(model)} · {equipment.model_name} {equipment.software_version}")
    return tuple(lines)


def full_scale(finding: Finding) -> float:
    """The attention at the upper end of the colour bar: one scale for a finding, so that its images can be compared."""
    return max((image.attention or 0.0 for image in finding.explained), default=0.0)


def secondary_capture(
    finding: Finding,
    outcome: ImageOutcome,
    source: Dataset,
    picture: tuple[int, int, bytes],
    model: ModelIdentity,
    equipment: Equipment,
    identity: ReportIdentity,
    *,
    series_number: int = FIRST_SERIES_NUMBER,
) -> Dataset:
    """The capture of one image.

    Args:
        finding: that the image belongs to.
        outcome: of the image.
        source: the image's header; pixel data is not looked at.
        picture: rows, columns and 8-bit RGB by pixel, the footer burned in.
        model: which model spoke.
        equipment: this installation.
        identity: the UIDs, the revision and the time given to it.
        series_number: of the finding's captures.

    Raises:
        PacsAgentError: the picture's bytes are not rows × columns × 3, or the source is another image.
    """
    rows, columns, rgb = picture
    if len(rgb) != rows * columns * 3 or str(source.SOPInstanceUID) != outcome.sop_instance_uid:
        raise PacsAgentError("the picture of a capture is not that of its image")
    source = deepcopy(source)  # looking at an element decodes it in place
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CAPTURE_CLASS, UID(identity.sop_instance_uid)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = source.StudyInstanceUID, UID(identity.series_instance_uid)
    # PS3.3 C.7.3.1, C.8.6.1
    ds.Modality, ds.ConversionType = "OT", "WSD"
    ds.SeriesNumber, ds.SeriesDescription = series_number, SERIES_DESCRIPTION
    ds.InstanceNumber = 1 + finding.images.index(outcome)
    # Enumerated R and L; of another side or none nothing may be said here.
    ds.Laterality = finding.laterality if finding.laterality in ("R", "L") else ""
    if finding.body_part:
        ds.BodyPartExamined = finding.body_part.upper()
    # PS3.3 C.7.6.1
    ds.ImageType = ["DERIVED", "SECONDARY"]
    orientation = legal_value(source, "PatientOrientation")
    ds.PatientOrientation = list(orientation) if orientation and len(orientation) == 2 else None
    ds.BurnedInAnnotation = "YES"
    ds.ImageComments = WARNING
    ds.DerivationDescription = DERIVATION
    ds.DerivationCodeSequence = [_code(derivation) for derivation in codes.DERIVATIONS]
    ds.SourceImageSequence = [_source_image(source)]
    if legal_value(source, "LossyImageCompression") == "01":  # what was lost stays lost
        ds.LossyImageCompression = "01"
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = rgb + b"\0" * (len(rgb) % 2)
    sign(ds, [source], model, equipment, local_time(identity, [source]))
    if not ds.ReferencedPerformedProcedureStepSequence:  # type 3 here
        del ds.ReferencedPerformedProcedureStepSequence
    return ds


def _source_image(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    item.SpatialLocationsPreserved = "NO"
    item.PurposeOfReferenceCodeSequence = [_code(codes.SOURCE_IMAGE_FOR_PROCESSING)]
    return item


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _percent(probability: float | None) -> str:
    return "unknown" if probability is None else f"{percent(probability):.1f} %"
