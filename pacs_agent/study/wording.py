"""Reads one header text: which words name body parts, in any of the languages of vocabulary.py.

Enters: the text of one element as it was decoded, right or wrong. Leaves: its words and the body parts mentioned. It
guesses no word from a part of it ("hand" is not in "handed"), and it never raises.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from pacs_agent.study import lexicon, vocabulary
from pacs_agent.study.lexicon import LOST, fold

MAX_TEXT = 256  # characters read of one text; the longest that PS3.5 6.2 allows these elements (LO) has 64
# A text as long as its VR allows was perhaps cut there, as equipment does (PS3.5 6.2).
_CS_LENGTH, _LO_LENGTH = 16, 64

# What a lost letter looks like: the replacement character; C1 controls and signs, which letters of the old PC code
# pages become; and "?" between letters.
_LOST_PATTERN = re.compile("[\ufffd\x80-\x9f¡¢£¤§]|(?<=[^\\W\\d_\ufffd?])\\?{1,2}(?=[^\\W\\d_])")
_CAMEL_CASE = re.compile(r"(?<=[a-zà-öø-ÿ])(?=[A-ZÀ-ÖØ-Þ])")
# Words, and numbers; a "?" before a word may be a lost capital letter ("?paule") or a question mark.
_TOKEN = re.compile(f"\\??(?:[^\\W\\d_]|{LOST})+|\\d+")
_BREAKS = frozenset("/+&,;|\\()")


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
    prepared = unicodedata.normalize("NFKC", _LOST_PATTERN.sub(LOST, prepared)).lower()
    end = 0
    for match in _TOKEN.finditer(prepared):
        native, before = match.group(), prepared[end : match.start()]
        end = match.end()
        word = fold(native)
        if word[:1] == "?":
            before, word = before + "?", word[1:]
            # "?paule" is read as "épaule", but "?hand" as a question, and never as another word with a letter more.
            if word not in lexicon.KNOWN and len(word) >= 5:
                word = LOST + word
        if LOST in word:
            word = lexicon.restored(word)
        for index, part in enumerate(lexicon.unglued(word)):
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


# -- mentions ---------------------------------------------------------------------------------------------------------


def _mentions(tokens: tuple[Token, ...], *, whole: bool) -> Iterator[Mention]:
    if whole and len(tokens) == 1 and tokens[0].text in lexicon.WHOLE_ONLY:
        yield Mention(0, 1, lexicon.WHOLE_ONLY[tokens[0].text], frozenset(), False)
        return
    texts = {token.text for token in tokens}
    start = 0
    while start < len(tokens):
        found = None
        for phrase in lexicon.PHRASES.get(tokens[start].text, ()):  # the longest first
            end = _match(phrase.words, tokens, start)
            if end is not None:
                found = phrase, end
                break
        if found is None:
            start += 1
            continue
        phrase, end = found
        if len(phrase.words) > 1 or _counts(tokens, start, texts, whole=whole):
            yield Mention(start, end, phrase.meaning, phrase.languages, _is_void(tokens, start, end))
        start = end


def _match(words: tuple[str, ...], tokens: tuple[Token, ...], start: int) -> int | None:
    """Where *words* end that begin at *start*, articles and sides between them left out; None where they do not."""
    at = start + 1
    for word in words[1:]:
        while at < len(tokens) and tokens[at].text != word and tokens[at].text in lexicon.PASSED_OVER:
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
    if tokens[start].native in lexicon.NATIVE:
        return True
    if any(lexicon.MARKS.get(text, frozenset()) and lexicon.MARKS[text] <= set(languages) for text in texts - {word}):
        return True
    # "MAIN D", "MAIN G": the letters that French uses for the sides.
    following = tokens[start + 1] if start + 1 < len(tokens) else None
    return "fr" in languages and following is not None and following.text in {"d", "g"}


def _is_void(tokens: tuple[Token, ...], start: int, end: int) -> bool:
    before = start - 1
    while before >= 0 and tokens[before].text in lexicon.PASSED_OVER:
        before -= 1
    if before >= 0 and tokens[before].text in lexicon.VOID_BEFORE:
        return True
    return end < len(tokens) and tokens[end].text in lexicon.VOID_AFTER and _BREAKS.isdisjoint(tokens[end].before)


def _went_on(word: str, mention: Mention) -> Iterator[Mention]:
    """What else the last *word* of a text that may have been cut there may have meant: "hand" was "Handgelenk"."""
    meanings = {
        lexicon.meaning_of(longer) for longer in lexicon.KNOWN if longer.startswith(word) and longer in lexicon.SINGLE
    }
    for meaning in sorted(meanings - {mention.meaning}):
        yield mention._replace(meaning=meaning)
