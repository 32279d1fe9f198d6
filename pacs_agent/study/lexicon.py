"""The vocabulary as tables for the reader: phrases by their first word, words by what is left where letters were lost.

Enters: vocabulary.py. Leaves: look-up tables, built once at import, and the questions asked of them about one word. It
reads no header.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from pacs_agent.study import vocabulary

LOST = "\ufffd"  # stands for a letter that was lost in a wrong character set
_FOLDED_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i", "ð": "d"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
_PREFIXES = ("right", "left", "bilat", "rt", "lt", "re", "li", "r", "l")
_SUFFIXES = ("right", "left", "obl", "lat", "rt", "lt", "re", "li", "ap", "pa", "dp", "r", "l")
_NEVER_GLUED = frozenset({"rankle"})


class Phrase(NamedTuple):
    """Folded words that together have a meaning, and the languages that write it so."""

    words: tuple[str, ...]
    meaning: str
    languages: frozenset[str]


def fold(text: str) -> str:
    """*text* without case and accents, in compatibility form."""
    if text.isascii():  # most is, and each process reads the whole vocabulary as it starts
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in decomposed if not unicodedata.combining(c)).translate(_FOLDED_LETTERS)


def words_of(text: str) -> frozenset[str]:
    """The folded entries of a comma-separated list."""
    return frozenset(fold(entry.strip()) for entry in text.split(",") if entry.strip())


def restored(word: str) -> str:
    """*word* with its lost letters, where the vocabulary has one meaning for it; else as it is."""
    masked = re.sub(f"{LOST}+", LOST, word)
    candidates = _MASKED.get(masked, set())
    if len({meaning_of(candidate) for candidate in candidates}) == 1:
        return min(candidates)
    return word


def meaning_of(word: str) -> str:
    """What *word* means by itself; itself where it is only part of longer phrases."""
    return next((p.meaning for p in PHRASES.get(word, ()) if len(p.words) == 1), word)


def unglued(word: str) -> tuple[str, ...]:
    """`LHAND` and `HANDPA` in two; every other word as it is."""
    if word not in KNOWN and word not in _NEVER_GLUED:
        for prefix in _PREFIXES:
            if word.startswith(prefix) and word.removeprefix(prefix) in _GLUED:
                return prefix, word.removeprefix(prefix)
        for suffix in _SUFFIXES:
            if word.endswith(suffix) and word.removesuffix(suffix) in _GLUED:
                return word.removesuffix(suffix), suffix
    return (word,)


def _spellings() -> Iterator[tuple[str, str, str]]:
    """Language, meaning and spelling of every entry of the vocabulary."""
    for language, meanings in vocabulary.SPELLINGS.items():
        for meaning, entries in meanings.items():
            for entry in entries.split(","):
                spelling = entry.strip().lower()
                yield language, meaning, spelling
                if language == "de" and spelling.translate(_UMLAUTS) != spelling:
                    yield language, meaning, spelling.translate(_UMLAUTS)  # "Huefte"


def _phrase_table() -> dict[str, tuple[Phrase, ...]]:
    meanings: dict[tuple[str, ...], str] = {}
    languages: dict[tuple[str, ...], set[str]] = {}
    for language, meaning, spelling in _spellings():
        words = tuple(fold(spelling).split())
        meanings.setdefault(words, meaning)
        languages.setdefault(words, set()).add(language)
    table: dict[str, list[Phrase]] = {}
    for words, meaning in meanings.items():
        table.setdefault(words[0], []).append(Phrase(words, meaning, frozenset(languages[words])))
    return {first: tuple(sorted(phrases, key=lambda p: -len(p.words))) for first, phrases in table.items()}


def _mark_table() -> dict[str, frozenset[str]]:
    """The languages of the words that tell one: single words of the vocabulary that are not weak, and the marks."""
    table: dict[str, set[str]] = {}
    for phrases in PHRASES.values():
        for phrase in phrases:
            if len(phrase.words) == 1 and phrase.words[0] not in vocabulary.WEAK:
                table.setdefault(phrase.words[0], set()).update(phrase.languages)
    for language, marks in vocabulary.LANGUAGE_MARKS.items():
        for mark in words_of(marks):
            table.setdefault(mark, set()).add(language)
    return {word: frozenset(languages) for word, languages in table.items()}


def _masked_table() -> dict[str, set[str]]:
    """The words by what is left of them where letters were lost.

    Of a part that is analysed: all its letters that are not ASCII, or one letter of a long word. Of other parts, where
    a wrong reading does no harm: one letter of any word of five letters.
    """
    table: dict[str, set[str]] = {}
    for _, meaning, spelling in _spellings():
        analysed = meaning in vocabulary.BODY_PARTS or meaning in vocabulary.EXTENDED
        for native in spelling.split():
            word = fold(native)
            lost = re.sub("[^\x00-\x7f]+", LOST, native)
            if len(native) > len(lost.replace(LOST, "")) > 0:
                table.setdefault(lost, set()).add(word)
            if len(native) >= (7 if analysed else 5):
                letters = [fold(letter) for letter in native]
                for at in range(len(letters)):
                    masked = "".join((*letters[:at], LOST, *letters[at + 1 :]))
                    table.setdefault(masked, set()).add(word)
    return table


PHRASES = _phrase_table()
KNOWN = frozenset(itertools.chain.from_iterable(p.words for phrases in PHRASES.values() for p in phrases))
SINGLE = frozenset(p.words[0] for phrases in PHRASES.values() for p in phrases if len(p.words) == 1)
NATIVE = frozenset(native for _, _, spelling in _spellings() for native in spelling.split() if not native.isascii())
MARKS = _mark_table()
_MASKED = _masked_table()
WHOLE_ONLY = {fold(word): meaning for word, meaning in vocabulary.WHOLE_ONLY.items()}
_GLUED = frozenset(
    p.words[0]
    for phrases in PHRASES.values()
    for p in phrases
    if len(p.words) == 1 and len(p.words[0]) >= 4 and p.languages & {"en", "de"} and p.words[0] not in vocabulary.WEAK
)
VOID_BEFORE = words_of(vocabulary.VOID_BEFORE)
VOID_AFTER = words_of(vocabulary.VOID_AFTER)
_SIDES_PASSED_OVER = (
    "right, left, rt, lt, r, l, re, li, rechts, links, rechte, rechter, rechten, linke, linker, linken, droite, "
    "gauche, derecha, izquierda, destra, sinistra, direita, esquerda, both, bilateral, bilat"
)
PASSED_OVER = words_of(vocabulary.ARTICLES) | words_of(_SIDES_PASSED_OVER)
