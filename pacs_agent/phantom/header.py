"""How headers tell the body part and the side: the habits of vendors, sites and languages, as data.

Enters: a body part, a side, a view. Leaves: the elements of a data set that speak of them, put into it. Each style says
enough for a reader to be certain; none says anything false.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence


@dataclass(frozen=True, slots=True)
class HeaderStyle:
    """A habit.

    Args:
        body_part_examined: "term": the standard's; "spelled": as some site writes it; "side": the term with the side;
            "ambiguous": UP_EXM; "": empty.
        region: coding scheme of AnatomicRegionSequence, "SCT" or "SRT"; "": no item.
        language: of descriptions.
        series_description, protocol_name, study_description: templates with {part}, {side} and {view}; "": absent.
        procedure: whether the part stands in the requested procedure's code.
        side: where a CR's side stands: "image", "series", "region", "words".
        window: how the pixels are meant to be shown: "window", "sigmoid", "table", "none".
        one_series: whether the views of a study share a series, whose description then names no view.
    """

    body_part_examined: str = "term"
    region: str = ""
    language: str = "en"
    series_description: str = "{view}"
    protocol_name: str = ""
    study_description: str = ""
    procedure: bool = False
    side: str = "image"
    window: str = "window"
    one_series: bool = False


HEADER_STYLES: Mapping[str, HeaderStyle] = MappingProxyType(
    {
        "standard": HeaderStyle(region="SCT", study_description="XR {part}"),
        "older codes": HeaderStyle(region="SRT", side="region", window="sigmoid"),
        "coded only": HeaderStyle("", region="SCT", series_description="2 views", one_series=True),
        "term only": HeaderStyle(side="series", window="none"),
        "spelled": HeaderStyle(body_part_examined="spelled", side="series", window="table"),
        "term with side": HeaderStyle("side", side="words", series_description="", one_series=True),
        "series description": HeaderStyle("", series_description="{part} {view} {side}", side="words", window="none"),
        "protocol": HeaderStyle("ambiguous", protocol_name="{part} {side}", side="series", window="sigmoid"),
        "study description": HeaderStyle(
            "ambiguous", series_description="2 views", study_description="XR {part} {side}", one_series=True
        ),
        "procedure code": HeaderStyle("", procedure=True, side="image", window="table"),
        "German": HeaderStyle("", language="de", series_description="{part} {view} {side}", side="words"),
        "French": HeaderStyle(
            "", language="fr", series_description="", protocol_name="{part} {side}", side="words", one_series=True
        ),
        "Spanish": HeaderStyle("spelled", language="es", study_description="RX {part} {side}", side="image"),
        "Italian": HeaderStyle("", language="it", series_description="RX {part} {side}", side="words", window="none"),
    }
)

# PS3.16 Annex L: SCT, SRT, meaning.
REGIONS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "elbow": ("16953009", "T-15430", "Elbow joint"),
        "finger": ("7569003", "T-D8800", "Finger"),
        "forearm": ("14975008", "T-D8500", "Forearm"),
        "hand": ("85562004", "T-D8700", "Hand"),
        "humerus": ("85050009", "T-12410", "Humerus"),
        "shoulder": ("16982005", "T-D2220", "Shoulder"),
        "wrist": ("74670003", "T-15460", "Wrist joint"),
    }
)
# PS3.16 CID 244: SCT, SRT, meaning.
SIDES: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {"R": ("24028007", "G-A100", "Right"), "L": ("7771000", "G-A101", "Left")}
)
# PS3.16 CID 4010
_VIEW_CODES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "AP": ("399348003", "antero-posterior"),
        "PA": ("272479007", "postero-anterior"),
        "LATERAL": ("399067008", "lateral"),
        "OBLIQUE": ("399182000", "oblique"),
    }
)
_WORDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "en": {"elbow": "Elbow", "finger": "Finger", "forearm": "Forearm", "hand": "Hand", "humerus": "Humerus",
               "shoulder": "Shoulder", "wrist": "Wrist", "R": "right", "L": "left", "LATERAL": "lateral"},
        "de": {"elbow": "Ellenbogen", "finger": "Zeigefinger", "forearm": "Unterarm", "hand": "Hand",
               "humerus": "Oberarm", "shoulder": "Schulter", "wrist": "Handgelenk", "R": "rechts", "L": "links",
               "LATERAL": "seitlich", "OBLIQUE": "schräg"},
        "fr": {"elbow": "Coude", "finger": "Doigt", "forearm": "Avant-bras", "hand": "Main", "humerus": "Humérus",
               "shoulder": "Épaule", "wrist": "Poignet", "R": "droite", "L": "gauche", "LATERAL": "profil"},
        "es": {"elbow": "Codo", "finger": "Dedo de mano", "forearm": "Antebrazo", "hand": "Mano", "humerus": "Húmero",
               "shoulder": "Hombro", "wrist": "Muñeca", "R": "derecha", "L": "izquierda", "LATERAL": "lateral"},
        "it": {"elbow": "Gomito", "finger": "Dito mano", "forearm": "Avambraccio", "hand": "Mano", "humerus": "Omero",
               "shoulder": "Spalla", "wrist": "Polso", "R": "destra", "L": "sinistra", "LATERAL": "laterale"},
    }
)  # fmt: skip
_SPELLED: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "en": {"elbow": "ELB", "finger": "FNGR", "forearm": "FORE ARM", "hand": "HND", "humerus": "UPPER ARM",
               "shoulder": "SHLDR", "wrist": "WRST"},
        "es": {"elbow": "CODO", "finger": "DEDO DE MANO", "forearm": "ANTEBRAZO", "hand": "MANO", "humerus": "HUMERO",
               "shoulder": "HOMBRO", "wrist": "MUNECA"},
    }
)  # fmt: skip


def code_item(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def describe(ds: Dataset, style: HeaderStyle, body_part: str, laterality: str, view: str) -> None:
    """Put what *style* says of part, side and view into *ds*, whose SOPClassUID and Modality are there."""
    words = _WORDS[style.language]
    shown = {"part": words[body_part], "side": words[laterality], "view": words.get(view, view.lower())}
    if view in ("AP", "PA"):
        shown["view"] = view
    if not all(template.isascii() for template in (*shown.values(), style.series_description)):
        ds.SpecificCharacterSet = "ISO_IR 100" if style.language in ("de", "es") else "ISO_IR 192"
    for keyword, template in (
        ("SeriesDescription", style.series_description),
        ("ProtocolName", style.protocol_name),
        ("StudyDescription", style.study_description),
    ):
        if template:
            setattr(ds, keyword, template.format(**shown))
    spelled = _SPELLED.get(style.language, _SPELLED["en"])[body_part]
    ds.BodyPartExamined = {
        "term": body_part.upper(),
        "spelled": spelled,
        "side": f"{'RIGHT' if laterality == 'R' else 'LEFT'} {body_part.upper()}",
        "ambiguous": "UP_EXM",
    }.get(style.body_part_examined, "")
    ds.ViewPosition = view if view in ("AP", "PA") else ""  # PS3.3 C.8.1.2, C.8.11.5

    is_dx = ds.Modality == "DX"
    sct, srt, meaning = REGIONS[body_part]
    regions = []
    if is_dx and style.body_part_examined == "ambiguous":  # what says "arm" in one element says so in the other
        regions.append(code_item("53120007", "SCT", "Upper limb"))
    elif style.region or (is_dx and style.body_part_examined):
        scheme = style.region or "SCT"
        region = code_item(sct if scheme == "SCT" else srt, scheme, meaning)
        if style.side == "region":
            side_sct, side_srt, side_meaning = SIDES[laterality]
            side = code_item(side_sct if scheme == "SCT" else side_srt, scheme, side_meaning)
            region.AnatomicRegionModifierSequence = Sequence([side])
        regions.append(region)
    if regions or is_dx:  # PS3.3 C.8.11.2: type 2 in DX
        ds.AnatomicRegionSequence = Sequence(regions)
    if is_dx or style.side == "image":  # PS3.3 C.8.11.2: type 1 in DX
        ds.ImageLaterality = laterality
    else:  # PS3.3 C.7.3.1: type 2C, empty where the side stands elsewhere
        ds.Laterality = laterality if style.side == "series" else ""
    if is_dx:
        value, view_meaning = _VIEW_CODES[view]
        item = code_item(value, "SCT", view_meaning)
        item.ViewModifierCodeSequence = Sequence([])
        ds.ViewCodeSequence = Sequence([item])
    if style.procedure:
        request = Dataset()
        request.RequestedProcedureID = "1"
        request.ScheduledProcedureStepID = "1"
        procedure = code_item(f"XR-{body_part.upper()}", "99PHANTOM", f"XR {words[body_part]}")
        request.RequestedProcedureCodeSequence = Sequence([procedure])
        ds.RequestAttributesSequence = Sequence([request])
