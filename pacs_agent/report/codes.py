"""Every coded concept that a report says or is read by.

Enters: our words (`wrist`, `L`, `abnormal`). Leaves: codes of PS3.16 with the meaning the standard prints. Never a
private code.
"""

from collections.abc import Mapping

from pydicom.sr.coding import Code

from pacs_agent.analyse.finding import FindingValue

# PS3.16 Annex L, SNOMED CT
BODY_PARTS: Mapping[str, Code] = {
    "elbow": Code("16953009", "SCT", "Elbow joint"),
    "finger": Code("7569003", "SCT", "Finger"),
    "forearm": Code("14975008", "SCT", "Forearm"),
    "hand": Code("85562004", "SCT", "Hand"),
    "humerus": Code("85050009", "SCT", "Humerus"),
    "shoulder": Code("16982005", "SCT", "Shoulder"),
    "wrist": Code("74670003", "SCT", "Wrist joint"),
}

# PS3.16 CID 244
LATERALITIES: Mapping[str, Code] = {
    "R": Code("24028007", "SCT", "Right"),
    "L": Code("7771000", "SCT", "Left"),
    "B": Code("51440002", "SCT", "Bilateral"),
}

# PS3.16 CID 222
NORMALITIES: Mapping[FindingValue, Code] = {
    "normal": Code("17621005", "SCT", "Normal"),
    "abnormal": Code("263654008", "SCT", "Abnormal"),
    "undetermined": Code("371934000", "SCT", "Normality Undetermined"),
}

# PS3.16 CID 29
MODALITIES: Mapping[str, Code] = {
    "CR": Code("CR", "DCM", "Computed Radiography"),
    "DX": Code("DX", "DCM", "Digital Radiography"),
}

# PS3.16 CID 4010 for the View Positions (0018,5101) that say one thing only
VIEWS: Mapping[str, Code] = {
    "AP": Code("399348003", "SCT", "antero-posterior"),
    "PA": Code("272479007", "SCT", "postero-anterior"),
    "LL": Code("399173006", "SCT", "left lateral"),
    "RL": Code("399198007", "SCT", "right lateral"),
}

NORMALITY = Code("121402", "DCM", "Normality")
PROBABILITY = Code("122157", "DCM", "Probability")
CERTAINTY_OF_FINDING = Code("111012", "DCM", "Certainty of Finding")
PERCENT = Code("%", "UCUM", "Percent")

XR_UNSPECIFIED_BODY_REGION = Code("43468-8", "LN", "XR unspecified body region")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")  # PS3.16 CID 7005
DEVICE = Code("121007", "DCM", "Device")  # PS3.16 CID 270
DEVICE_OBSERVER_UID = Code("121012", "DCM", "Device Observer UID")  # PS3.16 TID 1004

# The structure of TID 1500, 1501, 1600, 1602 and 4019
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
COMMENT = Code("121106", "DCM", "Comment")
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
LATERALITY = Code("272741003", "SCT", "Laterality")
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")
SOURCE = Code("260753009", "SCT", "Source")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
MODALITY = Code("121139", "DCM", "Modality")
IMAGE_LATERALITY = Code("111027", "DCM", "Image Laterality")
IMAGE_VIEW = Code("111031", "DCM", "Image View")
PIXEL_DATA_ROWS = Code("110910", "DCM", "Pixel Data Rows")
PIXEL_DATA_COLUMNS = Code("110911", "DCM", "Pixel Data Columns")
PIXELS = Code("{pixels}", "UCUM", "Pixels")

# Heat maps: what the report calls them (PS3.16 CID 217, 7469), and how their pictures were made (CID 7202, 7203)
VISUAL_EXPLANATION = Code("130401", "DCM", "Visual explanation")
MEASUREMENT_METHOD = Code("370129005", "SCT", "Measurement Method")
GRADIENT_WEIGHTED_CLASS_ACTIVATION = Code("130403", "DCM", "Gradient-weighted class activation")
SOURCE_IMAGE_FOR_PROCESSING = Code("121322", "DCM", "Source image for image processing operation")
DERIVATIONS = (
    Code("113085", "DCM", "Spatial resampling"),
    Code("113042", "DCM", "Pixel by pixel addition"),
)

# The title of a rejection note, PS3.16 CID 7011: what it names is not to be shown (IHE IOCM)
REJECTED_FOR_QUALITY_REASONS = Code("113001", "DCM", "Rejected for Quality Reasons")
