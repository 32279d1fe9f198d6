"""The side of an instance: which header elements name one, and what follows where they disagree.

Enters: the header facts of an instance, its texts already read. Leaves: statements of sides and their outcome. An
instance without a side stays without one: nothing is inferred from views, order or other instances.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pacs_agent.study import lexicon, regions, wording
from pacs_agent.study.instance import Instance
from pacs_agent.study.lexicon import words_of
from pacs_agent.study.wording import Wording

Scope = Literal["picture", "series", "study"]


class SideStatement(NamedTuple):
    """A header element that names a side.

    `scope` is what it speaks of: "both" of a series or a study is no contradiction to one side of a picture in it.
    """

    source: str
    side: str
    scope: Scope
    quote: str


class SideOutcome(NamedTuple):
    """The side with its source, or neither and why."""

    side: str | None
    source: str | None
    conflict: str | None = None


_RIGHT = words_of(
    "right, rt, rechts, rechte, rechter, rechtes, rechten, rechterhand, droite, droit, derecha, derecho, "
    "derechas, destra, destro, direita, direito, dcha, dcho, drte, höger, högra, højre, høyre, prawa, prawy, "
    "prawej, prawe, prawego, pravá, pravý, pravé, oikea, oikean, правая, правый, правой, правого, dextra, dexter"
)
_LEFT = words_of(
    "left, lt, links, linke, linker, linkes, linken, linkerhand, gauche, izquierda, izquierdo, izquierdas, izq, "
    "izda, izdo, izqda, sinistra, sinistro, esquerda, esquerdo, gche, vänster, vänstra, venstre, lewa, lewy, "
    "lewej, lewe, lewego, levá, levý, levé, vasen, vasemman, левая, левый, левой, левого, sinister"
)
_BOTH = words_of(
    "bilateral, bilat, bilaterale, bilaterales, bilatérales, bilateraux, bilaterali, bilaterais, beidseits, "
    "beidseitig, beiderseits, beids, bds, bdsts, dubbelzijdig, beiderzijds, bilateralt, obustronne"
)
# These count beside a body part only: "both views", "beide Ebenen" are no sides.
_BOTH_BESIDE = words_of("both, beide, beiden, beider, ambas, ambos, entrambi, entrambe, begge, båda, b")
# Letters and syllables count beside a body part, or where the text holds nothing but views and numbers.
_SHORT = {"r": "R", "l": "L", "re": "R", "li": "L"}
# What some languages write after the part: "main D", "polso dx", "mano der.", "mão dir".
_AFTER_PART: dict[str, dict[str, str]] = {
    "fr": {"d": "R", "g": "L", "dt": "R", "dte": "R", "ga": "L"},
    "it": {"d": "R", "dx": "R", "sx": "L", "dex": "R", "sn": "L"},
    "es": {"d": "R", "der": "R", "i": "L"},
    "pt": {"d": "R", "dir": "R", "esq": "L"},
    "sv": {"dx": "R", "sin": "L", "ho": "R", "va": "L"},
}
# "Right-handed" is a habit and "left in place" no side.
_VOID_AFTER_SIDE = words_of("handed, hander, handedness, dominant, in, open, over, out, as, behind, angle, angled")
_VOID_BEFORE_SIDE = words_of("dominant, dominance, handed, handedness")
_VIEWS = words_of(
    "ap, pa, dp, pd, lat, lateral, latl, obl, oblique, axial, ax, axillary, oblik, seitlich, seitl, schräg, view, "
    "views, v, vw, vws, xr, cr, dx, dr, x, ray, xray, min, minimum, comp, complete, or, more, and, with, the, e, "
    "ebenen, 2e, f, p, face, profil, int, ext, rot, norgaard, ballcatcher, y, stress, standing, grid, bucky, "
    "portable, mobile, upright, only, single, two, three, four, six, one, additional, general, routine, adult, "
    "child, ped, peds, pediatric, view1, image, img, exam, rx, rtg, rad, diag, plain, film, s, m, d, a"
)
# A letter after one of these is a projection: "AP/L" is anteroposterior and lateral.
_PROJECTIONS = words_of("ap, pa, dp, f, a, p")


def in_element(value: str) -> str:
    """The side that ImageLaterality or Laterality says: `L`, `R`, `B`, or "" (blank, unpaired, unreadable)."""
    word = lexicon.fold(value.strip(" .()[]"))
    if word in {"r", "l", "b"}:
        return word.upper()
    return _plain_side(word) or ("B" if word in {"both", "beide"} else "")


def in_text(text: Wording) -> str:
    """The one side that *text* names: `L`, `R`, `B`; "" where it names none, or left as well as right."""
    beside: dict[int, frozenset[str]] = {}  # languages of the part that a token stands beside
    after: set[int] = set()
    void: set[int] = set()
    covered: set[int] = set()
    for mention in text.mentions:
        covered.update(range(mention.start, mention.end))
        if mention.void:
            void.update((mention.start - 1, mention.start - 2, mention.end))
        else:
            beside[mention.start - 1] = beside[mention.end] = mention.languages
            after.add(mention.end)
    plain = all(
        index in covered
        or token.text.isdigit()
        or token.text in _VIEWS
        or token.text in _SHORT
        or _plain_side(token.text)
        for index, token in enumerate(text.tokens)
    )
    sides = set()
    for index in range(len(text.tokens)):
        if index in void or _is_elision(text, index) or _followed_by(text, index, _VOID_AFTER_SIDE):
            continue
        if index in covered and text.tokens[index].text not in _RIGHT | _LEFT:
            continue
        if index and text.tokens[index - 1].text in _VOID_BEFORE_SIDE:
            continue
        side = _plain_side(text.tokens[index].text) or _short_side(text, index, beside, plain=plain)
        if not side and index in after:
            side = _side_after(text, index, beside[index])
        if side:
            sides.add(side)
    # A letter that is too uncertain to name a side can still be the other one: "compare L and R wrist".
    sides |= {_SHORT[token.text] for i, token in enumerate(text.tokens) if _is_lone_letter(text, i)} if sides else set()
    return sides.pop() if len(sides) == 1 else ""


def in_regions(instance: Instance) -> str:
    """The one side that AnatomicRegionSequence says by its modifiers (PS3.3 10.5), or by codes that hold a side."""
    sides = set()
    for region in instance.anatomic_regions:
        known = regions.look_up(region.code)
        sides.add(known.side if known else in_text(wording.read(region.code.meaning)))
        for modifier in region.modifiers:
            sides.add(regions.side_of(modifier) or in_text(wording.read(modifier.meaning)))
    sides.discard("")
    return sides.pop() if len(sides) == 1 else ""


def in_header(instance: Instance) -> list[SideStatement]:
    """What the elements made for it say, in their order: ImageLaterality, Laterality, AnatomicRegionSequence."""
    found = (
        SideStatement("ImageLaterality", in_element(instance.image_laterality), "picture", instance.image_laterality),
        SideStatement("Laterality", in_element(instance.laterality), "series", instance.laterality),
        SideStatement("AnatomicRegionSequence", in_regions(instance), "picture", ""),
    )
    return [statement for statement in found if statement.side]


def outcome(statements: Sequence[SideStatement]) -> SideOutcome:
    """The first statement's side, unless a later one contradicts it.

    One side against the other contradicts, and so does one side where the first says both; "both" of a series or a
    study does not contradict one side of a picture, which is a part of it.
    """
    if not statements:
        return SideOutcome(None, None)
    first = statements[0]
    for other in statements[1:]:
        if other.side != first.side and not (other.side == "B" and other.scope != "picture"):
            return SideOutcome(None, None, f"{_told(first)}, but {_told(other)}")
    return SideOutcome(first.side, first.source)


_NAMES = {"L": "left", "R": "right", "B": "both sides"}


def _told(statement: SideStatement) -> str:
    quote = f" '{statement.quote}'" if statement.quote and len(statement.quote) > 1 else ""
    return f"{statement.source}{quote} says {_NAMES[statement.side]}"


def _plain_side(word: str) -> str:
    return "R" if word in _RIGHT else "L" if word in _LEFT else "B" if word in _BOTH else ""


def _short_side(text: Wording, index: int, beside: dict[int, frozenset[str]], *, plain: bool) -> str:
    word = text.tokens[index].text
    if word in {"b", "l"} and _is_b_slash_l(text, index - (word == "l")):
        return "B"
    if word in _BOTH_BESIDE and index in beside:
        return "" if _followed_by(text, index, _VIEWS) or _touches_number(text, index) else "B"
    side = _SHORT.get(word, "")
    if not side or not (index in beside or plain) or _touches_number(text, index):
        return ""
    after = text.tokens[index + 1] if index + 1 < len(text.tokens) else None
    if word == "l" and index and text.tokens[index - 1].text in _PROJECTIONS:
        return ""
    # "r/o" rules out, "re:" regards, "re-take" repeats.
    if after is not None and (
        (word == "r" and after.text == "o" and "/" in after.before)
        or (word == "re" and (":" in after.before or "-" in after.before))
    ):
        return ""
    return side


def _side_after(text: Wording, index: int, languages: frozenset[str]) -> str:
    """A side as the languages of the part before it write it; none where English or German has that part's name too."""
    if _touches_number(text, index) or languages & {"en", "de", "nl"}:
        return ""
    word = text.tokens[index].text
    if "pt" in languages and word == "e" and index == len(text.tokens) - 1:
        return "L"  # elsewhere it is "and"
    sides = {_AFTER_PART[language].get(word, "") for language in languages if language in _AFTER_PART} - {""}
    return sides.pop() if len(sides) == 1 else ""


def _touches_number(text: Wording, index: int) -> bool:
    """Whether a digit is joined to the token, as in `L1`."""
    after = text.tokens[index + 1] if index + 1 < len(text.tokens) else None
    joined_after = after is not None and after.text.isdigit() and not after.before
    joined_before = index > 0 and text.tokens[index - 1].text.isdigit() and not text.tokens[index].before
    return joined_after or joined_before


def _is_elision(text: Wording, index: int) -> bool:
    """Whether the token is an article with an apostrophe, as in "l'épaule"."""
    after = text.tokens[index + 1] if index + 1 < len(text.tokens) else None
    return after is not None and after.before[:1] in {"'", "’", "`", "´"} and len(text.tokens[index].text) == 1


def _is_lone_letter(text: Wording, index: int) -> bool:
    """Whether the token is an L or R that stands alone, and is no projection, article, number or part of a name."""
    if text.tokens[index].text not in {"l", "r"} or _is_elision(text, index) or _touches_number(text, index):
        return False
    if any(mention.start <= index < mention.end for mention in text.mentions):
        return False
    before = text.tokens[index - 1].text if index else ""
    ruled_out = text.tokens[index].text == "r" and _followed_by(text, index, frozenset({"o"}))
    return not ruled_out and before not in _PROJECTIONS and before != "b"


def _is_b_slash_l(text: Wording, index: int) -> bool:
    """Whether the token and its successor are "B/L", bilateral."""
    words = [token.text for token in text.tokens[max(index, 0) : index + 2]]
    return words == ["b", "l"] and text.tokens[index + 1].before == "/"


def _followed_by(text: Wording, index: int, words: frozenset[str]) -> bool:
    return index + 1 < len(text.tokens) and text.tokens[index + 1].text in words
