"""The body-part mapping: a table of header cases through real bytes, and what must hold for any header."""

import dataclasses
import io
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from pacs_agent.errors import SettingsError
from pacs_agent.study import lexicon
from pacs_agent.study.bodypart import BODY_PARTS, RULE_FIELDS, BodyPartMapping, MappingRule, map_body_part
from pacs_agent.study.instance import Code, Instance, Region
from pacs_agent.study.vocabulary import SPELLINGS, WEAK

SAMPLES = Path(__file__).parents[3] / ".." / "shared" / "samples" / "dicom"


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of the table."""

    header: str
    body_part: str | None
    body_part_source: str | None
    laterality: str | None
    laterality_source: str | None
    verdict: str


def read_cases() -> list[Case]:
    lines = (Path(__file__).parent / "bodypart_cases.txt").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if not line.startswith("#")]
    return [Case(row[0], *(None if cell == "-" else cell for cell in row[1:5]), row[5]) for row in cells]


CASES = read_cases()


# -- the bytes of a header --------------------------------------------------------------------------------------------


def element(keyword: str, value: bytes, vr: str | None = None) -> tuple[int, bytes]:
    """An element in explicit VR little endian (PS3.5 7.1.2) by its tag."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    vr = vr or dictionary_VR(tag)
    value += b" " * (len(value) % 2) if vr != "SQ" else b""
    long = vr in {"SQ", "UN", "UT"}
    length = struct.pack("<2xI", len(value)) if long else struct.pack("<H", len(value))
    return tag, struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode() + length + value


def item(elements: list[tuple[int, bytes]]) -> bytes:
    body = b"".join(data for _, data in sorted(elements))
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body


def code(text: str, charset: str) -> list[tuple[int, bytes]]:
    keywords = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    return [element(k, v.strip().encode(charset)) for k, v in zip(keywords, text.split(",", 2), strict=True)]


def as_bytes(value: str) -> bytes:
    """The value in UTF-8, with \\xNN as that byte."""
    parts = re.split(r"\\x([0-9a-f]{2})", value)
    return b"".join(bytes.fromhex(p) if i % 2 else p.encode() for i, p in enumerate(parts))


def instance_of(header: str) -> tuple[Instance, list[MappingRule], bool]:
    """The instance, rules and `extended` that a case's header describes."""
    pairs = [pair.split("=", 1) for pair in header.split(" ; ") if pair]
    if not header.isascii() and "SpecificCharacterSet" not in header:
        pairs.append(["SpecificCharacterSet", "ISO_IR 192"])
    elements: list[tuple[int, bytes]] = []
    sequences: dict[str, bytes] = {}
    rules = []
    extended = False
    for keyword, value in pairs:
        if keyword == "rule":
            rules.append(MappingRule(*(cell.strip() for cell in value.split(" ~ "))))
        elif keyword == "extended":
            extended = value == "true"
        elif keyword.endswith("CodeSequence") or keyword == "AnatomicRegionSequence":
            main, *modifiers = value.split("+")
            inner = code(main, "utf-8")
            if modifiers:
                items = b"".join(item(code(modifier, "utf-8")) for modifier in modifiers)
                inner.append(element("AnatomicRegionModifierSequence", items))
            sequences[keyword] = sequences.get(keyword, b"") + item(inner)
        elif keyword == "ScheduledProcedureStepDescription":
            sequences["RequestAttributesSequence"] = item([element(keyword, as_bytes(value))])
        else:
            elements.append(element(keyword, as_bytes(value)))
    elements.extend(element(keyword, items) for keyword, items in sequences.items())
    meta = element("TransferSyntaxUID", b"1.2.840.10008.1.2.1\0")[1]
    body = b"".join(data for _, data in sorted(elements))
    ds = dcmread(io.BytesIO(bytes(128) + b"DICM" + meta + body), force=True)
    return Instance.from_dataset(ds), rules, extended


# -- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.header or "(empty)")
def test_table(case: Case) -> None:
    """Every header of the table gives its part, side, sources and verdict, and a reason exactly where one is due."""
    instance, rules, extended = instance_of(case.header)
    mapping = map_body_part(instance, rules, extended=extended)
    verdict = mapping.conflict or ("-" if mapping.body_part else "unsupported")
    found = Case(
        case.header,
        mapping.body_part,
        mapping.body_part_source,
        mapping.laterality,
        mapping.laterality_source,
        verdict,
    )
    assert found == case
    assert (mapping.reason is None) == (verdict == "-")


def test_table_is_large() -> None:
    """The table holds at least 300 different headers."""
    assert len({case.header for case in CASES}) == len(CASES)
    assert len(CASES) >= 300


def test_table_reaches_every_source() -> None:
    """Each text element, both code sequences and every part decide at least one case of the table."""
    sources = {case.body_part_source for case in CASES}
    fields = set(RULE_FIELDS) - {"ViewPosition", "StationName", "Manufacturer", "ManufacturerModelName"}
    assert sources >= fields | {"AnatomicRegionSequence", "ProcedureCodeSequence", "rule"}
    assert {case.body_part for case in CASES} == {*BODY_PARTS, None}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("BodyPartExamined=HAND ; AnatomicRegionSequence=74670003,SCT,Wrist", ("HAND", "hand", "74670003", "wrist")),
        ("SeriesDescription=Hand ; ProtocolName=Wrist", ("SeriesDescription", "ProtocolName")),
        ("BodyPartExamined=HAND ; ImageLaterality=L ; StudyDescription=RIGHT HAND", ("ImageLaterality", "RIGHT HAND")),
        ("BodyPartExamined=CHEST", ("BodyPartExamined", "CHEST", "not analysed")),
        ("BodyPartExamined=CLAVICLE", ("CLAVICLE", "extended", "[mapping]")),
        ("BodyPartExamined=UP_EXM", ("UP_EXM", "upper limb", "no other element")),
        ("StudyDescription=PA", ("no header element names a body part",)),
        ("rule=BodyPartExamined ~ HAND ~ none ; BodyPartExamined=HAND", ("rule", "BodyPartExamined")),
    ],
)
def test_reason_names_what_decided(header: str, words: tuple[str, ...]) -> None:
    """The reason names the elements and values that a person must look at, on one line."""
    instance, rules, extended = instance_of(header)
    reason = map_body_part(instance, rules, extended=extended).reason
    assert reason is not None
    assert all(word in reason for word in words)
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("name", "body_part", "laterality"),
    [
        ("HAND_kodak_cr500_J2KR.dcm", "hand", "R"),
        ("EXTREMITY_fuji_RG3_J2KR.dcm", None, "R"),
        ("EXTREMITY_fuji_RG3_J2KI.dcm", None, "R"),
    ],
)
def test_real_files(name: str, body_part: str | None, laterality: str) -> None:
    """Real files of two manufacturers: the hand is one, the lower leg under EXTREMITY is unsupported."""
    path = SAMPLES / name
    if not path.exists():
        pytest.skip("the sample files are not beside this checkout")
    mapping = map_body_part(Instance.from_dataset(dcmread(path, stop_before_pixels=True)))
    assert (mapping.body_part, mapping.laterality, mapping.conflict) == (body_part, laterality, None)


# -- any header at all ------------------------------------------------------------------------------------------------

_WORDS = sorted({"R", "L", "left", "droite", "/", "?", "\ufffd", "after", *lexicon.KNOWN})
_texts = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(_WORDS), max_size=8).map(" ".join))
_codes = st.builds(
    Code,
    st.one_of(_texts, st.sampled_from(["T-D8700", "85562004", "G-A100", "72696002"])),
    st.sampled_from(["SCT", "SRT", "LN", "99X", ""]),
    _texts,
)
_instances = st.builds(
    Instance,
    *[st.just("1")] * 4,
    **dict.fromkeys(RULE_FIELDS.values(), _texts),
    image_laterality=st.one_of(st.sampled_from(["L", "R", "B", "U", ""]), _texts),
    laterality=st.sampled_from(["L", "R", ""]),
    anatomic_regions=st.lists(st.builds(Region, _codes, st.lists(_codes, max_size=2).map(tuple)), max_size=2).map(
        tuple
    ),
    procedure_codes=st.lists(_codes, max_size=2).map(tuple),
)


def assert_sound(mapping: BodyPartMapping) -> None:
    """What any mapping must satisfy."""
    assert mapping.body_part in {*BODY_PARTS, None}
    assert mapping.laterality in {"L", "R", "B", None}
    assert (mapping.laterality is None) == (mapping.laterality_source is None)
    assert mapping.body_part is None or mapping.body_part_source
    assert (mapping.reason is None) == (mapping.body_part is not None and mapping.conflict is None)
    assert mapping.conflict in {None, "part", "side"}
    assert mapping.conflict != "part" or mapping.body_part is None
    assert mapping.conflict != "side" or (mapping.body_part is not None and mapping.laterality is None)


@given(_instances, st.booleans())
@settings(max_examples=300)
def test_any_instance(instance: Instance, extended: bool) -> None:
    """The mapping is total: any texts and codes give a part with its source, or a reason."""
    rules = [MappingRule("StudyDescription", "wrist$", "wrist"), MappingRule("ProtocolName", "^x", "none")]
    assert_sound(map_body_part(instance, rules, extended=extended))


@given(
    st.dictionaries(st.sampled_from([*RULE_FIELDS, "ImageLaterality", "Laterality"]), st.binary(max_size=60)),
    st.sampled_from([b"", b"ISO_IR 100", b"ISO_IR 192", b"ISO_IR 144", b"\\ISO 2022 IR 87", b"GB18030", b"?\xff"]),
)
@settings(max_examples=300)
def test_any_bytes(values: dict[str, bytes], charset: bytes) -> None:
    """Any bytes under any character set, decoded by pydicom, give a sound mapping."""
    elements = [element("SpecificCharacterSet", charset), *(element(k, v, "LO") for k, v in values.items())]
    meta = element("TransferSyntaxUID", b"1.2.840.10008.1.2.1\0")[1]
    body = b"".join(data for _, data in sorted(elements))
    ds = dcmread(io.BytesIO(bytes(128) + b"DICM" + meta + body), force=True)
    assert_sound(map_body_part(Instance.from_dataset(ds)))


@given(st.sampled_from(BODY_PARTS), st.text(st.characters(categories=["Ll", "Lu", "Lo"]), min_size=1, max_size=4))
def test_no_part_inside_a_word(part: str, letters: str) -> None:
    """A part's name inside a longer word names no part, but for glued sides, plurals and words of the vocabulary."""
    word = f"zq{part}{letters}".lower()
    assert map_body_part(Instance("1", "2", "3", "4", study_description=word)).body_part is None


def test_empty_data_set() -> None:
    """A data set without any element is unsupported, with the reason."""
    mapping = map_body_part(Instance.from_dataset(Dataset()))
    assert mapping == BodyPartMapping(None, None, None, None, "no header element names a body part", None)


# -- texts that were cut ----------------------------------------------------------------------------------------------


def test_cut_text_is_not_trusted() -> None:
    """A word that ends where its VR ends may have been a longer one: "Hand" may be the beginning of "Handgelenk"."""
    cut = "Roentgenaufnahme in zwei Ebenen dorsopalmar und schraeg der Hand"
    assert len(cut) == 64
    assert map_body_part(Instance("1", "2", "3", "4", study_description=cut)).body_part is None
    assert map_body_part(Instance("1", "2", "3", "4", study_description=cut[1:])).body_part == "hand"
    assert map_body_part(
        Instance("1", "2", "3", "4", body_part_examined="RECHTE SEITE H.".ljust(12) + "HAND")
    ).body_part


def test_long_text_is_bounded() -> None:
    """Only the first 256 characters of a text are read, and a million of them take no longer."""
    instance = Instance(
        "1", "2", "3", "4", study_description="x " * 500_000 + "hand", series_description="r l b " * 99_999
    )
    start = time.perf_counter()
    assert map_body_part(instance).body_part is None
    assert time.perf_counter() - start < 1


def test_typical_instance_is_quick() -> None:
    """A typical header takes well under a millisecond, so that the listener can map it while it answers."""
    instance, rules, _ = instance_of(
        "rule=StudyDescription ~ (?i)poignet ~ wrist ; BodyPartExamined=EXTREMITY ; SeriesDescription=PA"
        " ; ProtocolName=XRAY RIGHT HAND ; StudyDescription=XRAY RIGHT HAND 3 VIEWS"
    )
    start = time.perf_counter()
    for _ in range(1000):
        map_body_part(instance, rules)
    assert (time.perf_counter() - start) / 1000 < 1e-3


# -- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "pattern", "body_part", "word"),
    [
        ("PatientName", "x", "hand", "PatientName"),
        ("StudyDescription", "(", "hand", "regular expression"),
        ("StudyDescription", "x", "knee", "knee"),
        ("StudyDescription", "x", "", "body_part"),
    ],
)
def test_rule_that_cannot_be(field: str, pattern: str, body_part: str, word: str) -> None:
    """A rule on an unknown element, with a broken pattern or for a part that is not ours is refused, naming which."""
    with pytest.raises(SettingsError, match=word):
        MappingRule(field, pattern, body_part)


def test_rule_fields_exist() -> None:
    """Every rule field is a DICOM keyword and an attribute of an instance that holds text."""
    instance = Instance("1", "2", "3", "4")
    for keyword, attribute in RULE_FIELDS.items():
        assert tag_for_keyword(keyword) is not None
        assert getattr(instance, attribute) == ""


# -- the vocabulary ---------------------------------------------------------------------------------------------------


def spellings() -> Iterator[tuple[str, str]]:
    for meanings in SPELLINGS.values():
        for meaning, entries in meanings.items():
            for entry in entries.split(","):
                if meaning in BODY_PARTS and lexicon.fold(entry.strip()) not in WEAK:
                    yield entry.strip(), meaning


@pytest.mark.parametrize(("spelling", "part"), sorted(set(spellings())))
def test_every_spelling_is_read(spelling: str, part: str) -> None:
    """Every spelling of a part is read as it, as written and in capitals without accents."""
    for text in (spelling, lexicon.fold(spelling).upper()):
        assert map_body_part(Instance("1", "2", "3", "4", series_description=text)).body_part == part


def test_spellings_mean_one_thing() -> None:
    """No spelling means different parts in different languages."""
    seen: dict[str, str] = {}
    for meanings in SPELLINGS.values():
        for meaning, entries in meanings.items():
            for entry in entries.split(","):
                assert seen.setdefault(lexicon.fold(entry.strip()), meaning) == meaning, entry


def test_reason_quotes_what_says_nothing_to_us() -> None:
    """A site makes its mapping rules of it: the element and its text, cut to a line."""
    facts = Instance("1", "2", "3", "4", body_part_examined="ZZ9 PLURAL", study_description="QQ\n" * 100)
    reason = map_body_part(facts).reason or ""
    assert reason.startswith("no header element names a body part (BodyPartExamined 'ZZ9 PLURAL', StudyDescription 'QQ")
    assert "\n" not in reason
    assert len(reason) < 300
