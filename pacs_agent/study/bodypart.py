"""The body part and side of an instance, from its header, or why there is none.

Enters: the header facts of an instance and the configured rules. Leaves: a `BodyPartMapping`, for any instance
whatever its header holds. It never guesses: texts that name several parts, or none for certain, are passed over, and it
never looks at pixels or at other instances.

The sources speak in ranks. The first rank in which an element names one part for certain decides; elements of one rank
that name different parts are a conflict; a later rank never overrides an earlier one:

1. the rules of `[mapping]`;
2. BodyPartExamined and AnatomicRegionSequence;
3. SeriesDescription, ProtocolName, AcquisitionDeviceProcessingDescription, which describe the acquisition;
4. PerformedProcedureStepDescription, which may span several series;
5. StudyDescription, RequestedProcedureDescription, ScheduledProcedureStepDescription;
6. procedure codes, by code where it is known, else by meaning.

An element that leaves the part open ("UPPERLIMB", "HAND/WRIST") binds the later ranks: what decides must be one of the
parts that it may mean.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pacs_agent.study import laterality, regions, wording
from pacs_agent.study.instance import Code, Instance
from pacs_agent.study.laterality import SideStatement
from pacs_agent.study.rule import RULE_FIELDS, MappingRule
from pacs_agent.study.vocabulary import AMBIGUOUS, BODY_PARTS, EXTENDED, NEVER_PLAIN, NONE
from pacs_agent.study.wording import MAX_TEXT

__all__ = ["BODY_PARTS", "RULE_FIELDS", "BodyPartMapping", "MappingRule", "map_body_part"]

_TEXT_RANKS: tuple[tuple[laterality.Scope, tuple[str, ...]], ...] = (
    ("series", ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")),
    ("study", ("PerformedProcedureStepDescription",)),
    ("study", ("StudyDescription", "RequestedProcedureDescription", "ScheduledProcedureStepDescription")),
)
_PROCEDURE_CODES = "ProcedureCodeSequence"
_MAX_CODES = 32  # procedure codes and regions looked at; more are no header of a real study
_MAX_QUOTE = 64  # characters of a header text repeated in a reason
_MAX_TOLD = 3
# "T-D8700": some equipment writes the SRT code where the term belongs.
_SRT_IN_TEXT = re.compile(r"(?<![\w-])T-?[0-9A-F]{5}(?![\w-])", re.ASCII | re.IGNORECASE)
_SCT_ALONE = re.compile(r"\d{6,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class BodyPartMapping:
    """What the header says of body part and side.

    Attributes:
        body_part: one of `BODY_PARTS`, or None.
        body_part_source: DICOM keyword of the element that decided, or "rule"; also where it decided that the part is
            not one of ours; None where none did.
        laterality: `L`, `R`, `B`, or None.
        laterality_source: DICOM keyword of the element that named the side.
        reason: one sentence: why there is no part, or what contradicts what; None where all is plain.
        conflict: "part": sources of one rank name different parts; "side": sources name different sides of the part
            that is given. Without a part and without a conflict the instance is unsupported.
    """

    body_part: str | None
    body_part_source: str | None
    laterality: str | None
    laterality_source: str | None
    reason: str | None
    conflict: Literal["part", "side"] | None

    @property
    def is_read(self) -> bool:
        """Whether a report speaks of the instance; where its part is in doubt, to say so."""
        return self.conflict == "part" or (self.body_part is not None and self.conflict is None)


class _Statement(NamedTuple):
    """An element that speaks of a body part: what its words are, and the parts that they may mean."""

    source: str
    quote: str
    names: tuple[str, ...]
    parts: frozenset[str]

    def __str__(self) -> str:
        return f"{self.source} '{self.quote}' names {' and '.join(self.names)}"


class _Part(NamedTuple):
    body_part: str | None
    source: str | None
    reason: str | None = None
    conflict: bool = False


class _Text(NamedTuple):
    """A source as read: what it names, and the side it says (`L`, `R`, `B` or "")."""

    source: str
    scope: laterality.Scope
    quote: str
    names: tuple[str, ...]
    side: str


def map_body_part(instance: Instance, rules: Sequence[MappingRule] = (), *, extended: bool = False) -> BodyPartMapping:
    """The body part and side of *instance*; a total function that raises nothing.

    Args:
        instance: header facts; each text is read up to 256 characters.
        rules: tried in their order, before everything else.
        extended: clavicle, scapula and acromioclavicular joint are read as shoulder.
    """
    ranks = [
        [_read(instance, "BodyPartExamined", "series")],
        *([_read(instance, keyword, scope) for keyword in keywords] for scope, keywords in _TEXT_RANKS),
        [_read_procedures(instance.procedure_codes[:_MAX_CODES])],
    ]
    part = _by_rule(instance, rules) or _by_header(instance, ranks, extended=extended)
    side = laterality.outcome([*laterality.in_header(instance), *_sides(ranks, part.body_part, extended=extended)])
    if part.body_part is not None and side.conflict:
        return BodyPartMapping(part.body_part, part.source, None, None, side.conflict, "side")
    conflict: Literal["part"] | None = "part" if part.conflict else None
    return BodyPartMapping(part.body_part, part.source, side.side, side.source, part.reason, conflict)


# -- the part ---------------------------------------------------------------------------------------------------------


def _by_rule(instance: Instance, rules: Iterable[MappingRule]) -> _Part | None:
    for rule in rules:
        if rule.matches(instance):
            if rule.body_part == NONE:
                return _Part(None, "rule", f"a mapping rule on {rule.field} says that this is not analysed")
            return _Part(rule.body_part, "rule")
    return None


def _by_header(instance: Instance, ranks: Sequence[Sequence[_Text]], *, extended: bool) -> _Part:
    """The outcome of the ranks in their order."""
    open_statements: list[_Statement] = []
    for rank, texts in enumerate(ranks):
        statements = [s for text in texts if (s := _statement(text.source, text.quote, text.names, extended=extended))]
        if rank == 0:
            statements.extend(_regions(instance, extended=extended))
        decided = _by_rank(statements, open_statements, extended=extended)
        if decided is not None:
            return decided
        open_statements.extend(s for s in statements if len(s.parts) > 1)
    if not open_statements:
        return _Part(None, None, f"no header element names a body part{_as_read(ranks)}")
    return _Part(None, None, f"{open_statements[0]}, and no other element says which one part")


def _as_read(ranks: Sequence[Sequence[_Text]]) -> str:
    """The first texts that say nothing to us: what a site's mapping rule may be made for."""
    texts = [f"{text.source} '{_quoted(text.quote)}'" for rank in ranks for text in rank if text.quote.strip()]
    return f" ({', '.join(texts[:_MAX_TOLD])})" if texts else ""


def _by_rank(statements: Sequence[_Statement], earlier: Sequence[_Statement], *, extended: bool) -> _Part | None:
    """What the statements of one rank decide; None where they leave the part open."""
    certain = [statement for statement in statements if len(statement.parts) == 1]
    if not certain:
        return None
    first = certain[0]
    for other in (*certain[1:], *statements):
        if not first.parts & other.parts:
            return _Part(None, None, f"{first}, but {other}", conflict=True)
    (part,) = first.parts
    for statement in earlier:
        if part not in statement.parts:
            return _Part(None, None, f"{statement}, but {first}")
    if part != NONE:
        return _Part(part, first.source)
    reason = f"{first}, which is not analysed"
    if not extended and EXTENDED.intersection(first.names):
        reason = f"{first}, which is read as shoulder only with the setting extended of [mapping]"
    return _Part(None, first.source, reason)


def _statement(source: str, quote: str, names: tuple[str, ...], *, extended: bool) -> _Statement | None:
    """What *names*, all of one element, say of the part; None where they say nothing."""
    if not names:
        return None
    certain = frozenset().union(*(_parts(name, extended=extended) for name in names if name not in AMBIGUOUS))
    told = tuple(
        name
        for name in names
        if name not in AMBIGUOUS or name in NEVER_PLAIN or not certain & _parts(name, extended=extended)
    )
    parts = frozenset().union(*(_parts(name, extended=extended) for name in told))
    return _Statement(source, _quoted(quote), told, parts)


def _parts(name: str, *, extended: bool) -> frozenset[str]:
    """The parts that a meaning of the vocabulary may be; `NONE` for those that are not analysed."""
    if name in BODY_PARTS:
        return frozenset((name,))
    if name in EXTENDED:
        return frozenset(("shoulder" if extended else NONE,))
    if name in AMBIGUOUS:
        return frozenset().union(*((_parts(n, extended=extended) if n in EXTENDED else {n}) for n in AMBIGUOUS[name]))
    return frozenset((NONE,))


def _regions(instance: Instance, *, extended: bool) -> Iterator[_Statement]:
    """A statement for each item of AnatomicRegionSequence: each names one region of the picture (PS3.3 10.5)."""
    for region in instance.anatomic_regions[:_MAX_CODES]:
        names = _names_of_code(region.code)
        statement = _statement("AnatomicRegionSequence", _told(region.code), names, extended=extended)
        if statement:
            yield statement


# -- the side ---------------------------------------------------------------------------------------------------------


def _sides(ranks: Sequence[Sequence[_Text]], body_part: str | None, *, extended: bool) -> Iterator[SideStatement]:
    """What the texts say of the side; a text that speaks of other parts says nothing of this one's."""
    for text in (text for texts in ranks for text in texts):
        if text.side and (
            body_part is None
            or not text.names
            or any(body_part in _parts(name, extended=extended) for name in text.names)
        ):
            yield SideStatement(text.source, text.side, text.scope, _quoted(text.quote))


# -- texts and codes --------------------------------------------------------------------------------------------------


def _read(instance: Instance, keyword: str, scope: laterality.Scope) -> _Text:
    value: str = getattr(instance, RULE_FIELDS[keyword])
    if not value:
        return _Text(keyword, scope, "", (), "")
    names, side = _read_text(value, whole=keyword == "BodyPartExamined")
    return _Text(keyword, scope, value, names, side)


def _read_procedures(codes: Sequence[Code]) -> _Text:
    """All procedure codes as one source: they list what was ordered, which may be several parts."""
    names = tuple(dict.fromkeys(name for code in codes for name in _names_of_code(code)))
    sides = {side for code in codes if (side := _read_text(code.meaning, whole=False)[1])}
    quote = ", ".join(_told(code) for code in codes)
    return _Text(_PROCEDURE_CODES, "study", quote, names, sides.pop() if len(sides) == 1 else "")


def _names_of_code(code: Code) -> tuple[str, ...]:
    """What *code* names: by its value where that is known, else by its meaning's words."""
    known = regions.look_up(code)
    return (known.meaning,) if known else _read_text(code.meaning, whole=False)[0]


# The texts of a site are few, and come with every instance.
@functools.lru_cache(maxsize=2048)
def _read_text(text: str, *, whole: bool) -> tuple[tuple[str, ...], str]:
    """What *text* names, and its side."""
    read = wording.read(text, whole=whole)
    names = read.meanings
    coded = _SRT_IN_TEXT.findall(text[:MAX_TEXT])
    if whole and _SCT_ALONE.fullmatch(text):
        coded.append(text)
    if coded:
        known = (regions.look_up(Code(value, "", "")) for value in coded)
        names = tuple(dict.fromkeys((*names, *(code.meaning for code in known if code))))
    return names, laterality.in_text(read)


def _told(code: Code) -> str:
    return " ".join(part for part in (code.value, code.meaning) if part)


def _quoted(text: str) -> str:
    """*text* on one line, cut to what a reason needs."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:MAX_TEXT]).split())
    return line if len(line) <= _MAX_QUOTE else line[: _MAX_QUOTE - 1] + "…"
