"""Codes that name body parts and sides, as data: SNOMED CT and the older SRT of anatomic regions, LOINC of procedures.

Enters: a code as met in a header. Leaves: what it means, in the words of vocabulary.py, and the side it holds. The
code's meaning text is not looked at here.
"""

from collections.abc import Mapping
from typing import NamedTuple

from pacs_agent.study.instance import Code


class Coded(NamedTuple):
    """What a code says: a meaning of vocabulary.py ("" for none) and a side, `L`, `R`, `B` or ""."""

    meaning: str
    side: str = ""


# PS3.16 Annex L, CID 4009 and CID 4031: SCT code, SRT code ("" where there is none), meaning.
_REGIONS = """
16953009 T-15430 elbow
7569003 T-D8800 finger
76505004 T-D8810 finger
125682004 T-15516 finger
14975008 T-D8500 forearm
62413002 T-12420 forearm
23416004 T-12430 forearm
110535000 T-12403 forearm
47728000 T-12423 forearm
21133008 T-12435 forearm
85562004 T-D8700 hand
36455000 T-12540 hand
24097009 T-12600 hand
85050009 T-12410 humerus
40983000 T-D8200 humerus
20760004 T-12412 humerus
16982005 T-D2220 shoulder
74670003 T-15460 wrist
8205005 T-D8600 wrist
30518006 T-12450 wrist
75129005 T-1242B wrist
51299004 T-12310 clavicle
79601000 T-12280 scapula
31934006 T-12281 scapula
46385009 T-1228A scapula
8931003 T-12282 scapula
85856004 T-15420 acromioclavicular joint
53120007 T-D8000 upper limb
371195002 T-D0821 upper limb
26444007 T-12200 upper limb
66019005 T-D0300 extremity
82680008 T-D0310 digit
91238003 T-1243B distal forearm
12881000 T-1242A proximal forearm
34318004 T-1243A proximal forearm
118495001 T-1241F distal humerus
119524001 T-1240F proximal humerus
91470000 T-D8104 axilla
816094009 - chest
51185008 T-D3000 chest
39607008 T-28000 chest
113197003 T-11300 chest
56873002 T-11210 chest
7844006 T-15610 chest
80891009 T-32000 chest
72410000 T-D3300 chest
416550000 R-FAB55 chest
416775004 R-FAB56 chest
818981001 - abdomen
113345001 T-D4000 abdomen
818982008 - abdomen
64033007 T-71000 abdomen
89837001 T-74000 abdomen
69695003 T-57000 abdomen
71854001 T-59300 abdomen
816092008 - pelvis
12921003 T-D6000 pelvis
22356005 T-12340 pelvis
39723000 T-15680 pelvis
24136001 T-15710 hip
29836001 T-D2500 hip
68367000 T-D9100 thigh
71341001 T-12710 thigh
72696002 T-D9200 knee
64234005 T-12730 knee
30021000 T-D9400 lower leg
12611008 T-12740 lower leg
87342007 T-12750 lower leg
70258002 T-15750 ankle
56459004 T-D9700 foot
29707007 T-D9800 foot
80144004 T-12770 foot
27949001 T-15770 foot
58742003 T-12980 foot
61685007 T-D9000 lower limb
72001000 T-12700 lower limb
1231522001 - lower limb
421060004 T-D04FF spine
122494005 T-11501 spine
122495006 T-11502 spine
122496007 T-11503 spine
1217257000 - spine
1217256009 - spine
1217253001 - spine
1217254007 - spine
54735007 T-11AD0 spine
64688005 T-11BF0 spine
69536005 T-D1100 head
89546000 T-11100 head
91397008 T-11196 head
91609006 T-11180 head
70925003 T-11170 head
661005 T-D1213 head
74386004 T-11149 head
2095001 T-22000 head
363654007 T-D14AE head
53620006 T-15290 head
13881006 T-11166 head
774007 T-D1000 head
45048000 T-D1600 neck
76752008 T-04000 breast
38266002 T-D0010 whole body
"""
# SNOMED CT structures that hold their side.
_SIDED_REGIONS = """
85151006 hand L
78791008 hand R
5951000 wrist L
9736006 wrist R
368148009 elbow L
368149001 elbow R
66480008 forearm L
64262003 forearm R
368208006 humerus L
368209003 humerus R
91775009 shoulder L
91774008 shoulder R
"""
# LOINC codes of radiography procedures; any other code is read by its meaning text.
_PROCEDURES = """
24676-9 elbow
24706-4 finger
24891-4 forearm
24721-3 hand
24722-1 hand
28582-5 hand
28567-6 humerus
24908-6 shoulder
24909-4 shoulder
24619-9 wrist
"""
# PS3.16 CID 244 Laterality, with the SRT codes of older objects.
_SIDES: Mapping[str, str] = {
    "24028007": "R",
    "G-A100": "R",
    "7771000": "L",
    "G-A101": "L",
    "51440002": "B",
    "G-A102": "B",
}
# PS3.16 8.2: the designators, SNM3 and 99SDM of older equipment, and those in the field. "" is an absent one.
_SNOMED_SCHEMES = frozenset({"SCT", "SRT", "SNM3", "99SDM", "SNM", "SNOMED", "SNOMEDCT", "SNOMED-CT", "SNOMED CT", ""})
_SNOMED_SCHEMES |= {"2.16.840.1.113883.6.96", "2.16.840.1.113883.6.5", "HTTP://SNOMED.INFO/SCT"}
_LOINC_SCHEMES = frozenset({"LN", "LOINC", "2.16.840.1.113883.6.1", "HTTP://LOINC.ORG"})


def _snomed_table() -> dict[str, Coded]:
    table: dict[str, Coded] = {}
    for line in _REGIONS.split("\n"):
        if line:
            sct, srt, meaning = line.split(" ", 2)
            table[sct] = Coded(meaning)
            if srt != "-":
                table[srt] = Coded(meaning)
    for line in _SIDED_REGIONS.split("\n"):
        if line:
            sct, meaning, side = line.split(" ")
            table[sct] = Coded(meaning, side)
    return table


_SNOMED = _snomed_table()
_LOINC = {number: Coded(meaning) for number, meaning in (line.split(" ") for line in _PROCEDURES.split("\n") if line)}


def look_up(code: Code) -> Coded | None:
    """What *code* says, or None where it is not known."""
    value = code.value.strip().upper()
    scheme = code.scheme.strip().upper()
    if scheme in _SNOMED_SCHEMES:
        return _SNOMED.get(value) or _SNOMED.get(_with_hyphen(value))
    if scheme in _LOINC_SCHEMES:
        return _LOINC.get(value)
    return None


def side_of(code: Code) -> str:
    """The side that a region's modifier *code* says: `L`, `R`, `B`, or "" where it says none or is not known."""
    if code.scheme.strip().upper() not in _SNOMED_SCHEMES:
        return ""
    return _SIDES.get(code.value.strip().upper(), "")


def _with_hyphen(value: str) -> str:
    """`TD8700` as `T-D8700`: the hyphen is lost on the way through some systems."""
    return f"{value[0]}-{value[1:]}" if len(value) == 6 and value[0] == "T" else value
