"""Reads one header text: which words name body parts, in any of the languages of vocabulary.py.

Enters: the text of one element as it was decoded, right or wrong. Leaves: its words and the body parts mentioned. It
guesses no word from a part of it ("hand" is not in "handed"), and it never raises.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from pacs_agent.study import vocabulary

MAX_TEXT = 256  # characters read of one text; the longest that PS3.5 6.2 allows these elements (LO) has 64
# A text as long as its VR allows was perhaps cut there, as equipment does (PS3.5 6.2).
_CS_LENGTH, _LO_LENGTH = 16, 64

_LOST = "\ufffd"  # stands for a letter that was lost in a wrong character set
# What a lost letter looks like: the replacement character; C1 controls and signs, which letters of the old PC code
# pages become; and "?" between letters.
_LOST_PATTERN = re.compile("[\ufffd\x80-\x9f¡¢£¤§]|(?<=[^\\W\\d_\ufffd?])\\?{1,2}(?=[^\\W\\d_])")
_CAMEL_CASE = re.compile(r"(?<=[a-zà-öø-ÿ])(?=[A-ZÀ-ÖØ-Þ])")
# Words, and numbers; a "?" before a word may be a lost capital letter ("?paule") or a question mark.
_TOKEN = re.compile(f"\\??(?:[^\\W\\d_]|{_LOST})+|\\d+")
_BREAKS = frozenset("/+&,;|\\()")
_FOLDED_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i", "ð": "d"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})

SIDE_PREFIXES = ("right", "left", "bilat", "rt", "lt", "re", "li", "r", "l")
_SUFFIXES = ("right", "left", "obl", "lat", "rt", "lt", "re", "li", "ap", "pa", "dp", "r", "l")


class Token(NamedTuple):
    """A word or a number.

    `text` is folded (no case, no accents), `before` what stands between it and its predecessor, `native` the word with
    its accents, in lower case.
    """

    text: str
    before: str
    native: str


class Mention(NamedTuple):
    """Tokens *start* to *end* (exclusive) name *meaning*; void ones name nothing of this picture ("hand surgery")."""

    start: int
    end: int
    meaning: str
    languages: frozenset[str]
    void: bool


class Wording(NamedTuple):
    """A text's tokens and what they mention."""

    tokens: tuple[Token, ...]
    mentions: tuple[Mention, ...]

    @property
    def meanings(self) -> tuple[str, ...]:
        """The meanings mentioned, each once, in order; without views and void mentions."""
        found = (m.meaning for m in self.mentions if not m.void and m.meaning != vocabulary.VIEW)
        return tuple(dict.fromkeys(found))


class _Phrase(NamedTuple):
    words: tuple[str, ...]
    meaning: str
    languages: frozenset[str]


def fold(text: str) -> str:
    """*text* without case and accents, in compatibility form."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in decomposed if not unicodedata.combining(c)).translate(_FOLDED_LETTERS)


def words_of(text: str) -> frozenset[str]:
    """The folded entries of a comma-separated list."""
    return frozenset(fold(entry.strip()) for entry in text.split(",") if entry.strip())


def read(text: str, *, whole: bool = False) -> Wording:
    """The words of *text* and what they mention.

    Args:
        text: one element's value; of a longer one the first `MAX_TEXT` characters are read.
        whole: the element names a body part and nothing else (BodyPartExamined), so that words which are everyday words
            of another language count where they are the whole of it.
    """
    tokens = tuple(_tokens(text))
    mentions = tuple(_mentions(tokens, whole=whole))
    cut = len(text) > MAX_TEXT or len(text) == (_CS_LENGTH if whole else _LO_LENGTH)
    if cut and mentions and mentions[-1].end == len(tokens) and text[:MAX_TEXT][-1].isalpha():
        mentions += tuple(_went_on(tokens[-1].text, mentions[-1]))
    return Wording(tokens, mentions)


# -- words ------------------------------------------------------------------------------------------------------------


def _tokens(text: str) -> Iterator[Token]:
    prepared = _CAMEL_CASE.sub(" ", _repaired(text[:MAX_TEXT]))
    prepared = unicodedata.normalize("NFKC", _LOST_PATTERN.sub(_LOST, prepared)).lower()
    end = 0
    for match in _TOKEN.finditer(prepared):
        native, before = match.group(), prepared[end : match.start()]
        end = match.end()
        word = fold(native)
        if word[:1] == "?":
            before, word = before + "?", word[1:]
            # "?paule" is read as "épaule", but "?hand" as a question, and never as another word with a letter more.
            if word not in _KNOWN and len(word) >= 5:
                word = _LOST + word
        if _LOST in word:
            word = _restored(word)
        for index, part in enumerate(_unglued(word)):
            yield Token(part, "" if index else before, native)


def _repaired(text: str) -> str:
    """UTF-8 that was decoded as Latin-1, as where SpecificCharacterSet is absent (PS3.3 C.12.1.1.2), decoded again."""
    if not text.isascii() and ("Ã" in text or "Å" in text or "Ä" in text or "Ð" in text or "Â" in text):
        for encoding in ("latin-1", "cp1252"):
            try:
                return text.encode(encoding).decode("utf-8")
            except UnicodeError:
                continue
    return text


def _restored(word: str) -> str:
    """*word* with its lost letters, where the vocabulary has one meaning for it; else as it is."""
    masked = re.sub(f"{_LOST}+", _LOST, word)
    candidates = _MASKED.get(masked, set())
    if len({_meaning_of(candidate) for candidate in candidates}) == 1:
        return min(candidates)
    return word


def _meaning_of(word: str) -> str:
    return next((p.meaning for p in _PHRASES.get(word, ()) if len(p.words) == 1), word)


def _unglued(word: str) -> tuple[str, ...]:
    """`LHAND` and `HANDPA` in two; every other word as it is."""
    if word not in _KNOWN and word not in _NEVER_GLUED:
        for prefix in SIDE_PREFIXES:
            if word.startswith(prefix) and word.removeprefix(prefix) in _GLUED:
                return prefix, word.removeprefix(prefix)
        for suffix in _SUFFIXES:
            if word.endswith(suffix) and word.removesuffix(suffix) in _GLUED:
                return word.removesuffix(suffix), suffix
    return (word,)


# -- mentions ---------------------------------------------------------------------------------------------------------


def _mentions(tokens: tuple[Token, ...], *, whole: bool) -> Iterator[Mention]:
    texts = {token.text for token in tokens}
    start = 0
    while start < len(tokens):
        found = None
        for phrase in _PHRASES.get(tokens[start].text, ()):  # the longest first
            end = _match(phrase.words, tokens, start)
            if end is not None:
                found = phrase, end
                break
        if found is None:
            start += 1
            continue
        phrase, end = found
        if whole and len(tokens) == 1 and phrase.words[0] in _WHOLE_ONLY:
            yield Mention(start, end, _WHOLE_ONLY[phrase.words[0]], phrase.languages, False)
        elif len(phrase.words) > 1 or _counts(tokens, start, texts, whole=whole):
            yield Mention(start, end, phrase.meaning, phrase.languages, _is_void(tokens, start, end))
        start = end


def _match(words: tuple[str, ...], tokens: tuple[Token, ...], start: int) -> int | None:
    """Where *words* end that begin at *start*, articles and sides between them left out; None where they do not."""
    at = start + 1
    for word in words[1:]:
        while at < len(tokens) and tokens[at].text != word and tokens[at].text in _PASSED_OVER:
            at += 1
        if at >= len(tokens) or tokens[at].text != word or not _BREAKS.isdisjoint(tokens[at].before):
            return None
        at += 1
    return at


def _counts(tokens: tuple[Token, ...], start: int, texts: set[str], *, whole: bool) -> bool:
    """Whether the word at *start* counts: always, but for an everyday word of another language (`vocabulary.WEAK`)."""
    word = tokens[start].text
    languages = vocabulary.WEAK.get(word)
    if languages is None or (whole and len(tokens) == 1):
        return True
    if tokens[start].native in _NATIVE:
        return True
    if any(_MARKS.get(text, frozenset()) and _MARKS[text] <= set(languages) for text in texts - {word}):
        return True
    # "MAIN D", "MAIN G": the letters that French uses for the sides.
    following = tokens[start + 1] if start + 1 < len(tokens) else None
    return "fr" in languages and following is not None and following.text in {"d", "g"}


def _is_void(tokens: tuple[Token, ...], start: int, end: int) -> bool:
    before = start - 1
    while before >= 0 and tokens[before].text in _PASSED_OVER:
        before -= 1
    if before >= 0 and tokens[before].text in _VOID_BEFORE:
        return True
    return end < len(tokens) and tokens[end].text in _VOID_AFTER and _BREAKS.isdisjoint(tokens[end].before)


def _went_on(word: str, mention: Mention) -> Iterator[Mention]:
    """What else the last *word* of a text that may have been cut there may have meant: "hand" was "Handgelenk"."""
    meanings = {_meaning_of(longer) for longer in _KNOWN if longer.startswith(word) and longer in _SINGLE}
    for meaning in sorted(meanings - {mention.meaning}):
        yield mention._replace(meaning=meaning)


# -- tables, built once -----------------------------------------------------------------------------------------------


def _spellings() -> Iterator[tuple[str, str, str]]:
    """Language, meaning and spelling of every entry of the vocabulary."""
    for language, meanings in vocabulary.SPELLINGS.items():
        for meaning, entries in meanings.items():
            for entry in entries.split(","):
                spelling = entry.strip().lower()
                yield language, meaning, spelling
                if language == "de" and spelling.translate(_UMLAUTS) != spelling:
                    yield language, meaning, spelling.translate(_UMLAUTS)  # "Huefte"


def _phrase_table() -> dict[str, tuple[_Phrase, ...]]:
    meanings: dict[tuple[str, ...], str] = {}
    languages: dict[tuple[str, ...], set[str]] = {}
    for language, meaning, spelling in _spellings():
        words = tuple(fold(spelling).split())
        if meanings.setdefault(words, meaning) != meaning:
            raise AssertionError(f"{spelling!r} means {meanings[words]!r} and {meaning!r}")
        languages.setdefault(words, set()).add(language)
    table: dict[str, list[_Phrase]] = {}
    for words, meaning in meanings.items():
        table.setdefault(words[0], []).append(_Phrase(words, meaning, frozenset(languages[words])))
    return {first: tuple(sorted(phrases, key=lambda p: -len(p.words))) for first, phrases in table.items()}


def _mark_table() -> dict[str, frozenset[str]]:
    """The languages of the words that tell one: single words of the vocabulary that are not weak, and the marks."""
    table: dict[str, set[str]] = {}
    for phrases in _PHRASES.values():
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
            if not native.isascii():
                table.setdefault(re.sub("[^\x00-\x7f]+", _LOST, native), set()).add(word)
            if len(native) >= (7 if analysed else 5):
                for at in range(len(native)):
                    masked = fold(native[:at]) + _LOST + fold(native[at + 1 :])
                    table.setdefault(masked, set()).add(word)
    return table


_PHRASES = _phrase_table()
_KNOWN = frozenset(itertools.chain.from_iterable(p.words for phrases in _PHRASES.values() for p in phrases))
_SINGLE = frozenset(p.words[0] for phrases in _PHRASES.values() for p in phrases if len(p.words) == 1)
_NATIVE = frozenset(native for _, _, spelling in _spellings() for native in spelling.split() if not native.isascii())
_MARKS = _mark_table()
_MASKED = _masked_table()
_WHOLE_ONLY = {fold(word): meaning for word, meaning in vocabulary.WHOLE_ONLY.items()}
_GLUED = frozenset(
    p.words[0]
    for phrases in _PHRASES.values()
    for p in phrases
    if len(p.words) == 1 and len(p.words[0]) >= 4 and p.languages & {"en", "de"} and p.words[0] not in vocabulary.WEAK
)
_NEVER_GLUED = frozenset({"rankle", "behead"})
_VOID_BEFORE = words_of(vocabulary.VOID_BEFORE)
_VOID_AFTER = words_of(vocabulary.VOID_AFTER)
_SIDES_PASSED_OVER = (
    "right, left, rt, lt, r, l, re, li, rechts, links, rechte, rechter, rechten, linke, linker, linken, droite, "
    "gauche, "
    "derecha, izquierda, destra, sinistra, direita, esquerda, both, bilateral, bilat"
)
_PASSED_OVER = words_of(vocabulary.ARTICLES) | words_of(_SIDES_PASSED_OVER)
