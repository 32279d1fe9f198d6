"""Texts of others: one line that shows the same, whatever they hold."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pacs_agent.printable import json_printable, printable


def test_what_is_escaped() -> None:
    """Controls, separators and overrides of direction; what people write stays as it is."""
    assert printable("a\nb\t\x1b[2J\x9b\x7f\u202e\u2028\ud800") == r"a\nb\t\x1b[2J\x9b\x7f\u202e\u2028\ud800"
    assert printable("Größe 手^Paula \\ <b> 'x' 🦴") == "Größe 手^Paula \\ <b> 'x' 🦴"


@given(st.text(st.characters(codec=None)))
def test_any_text_is_one_line(text: str) -> None:
    """Nothing that splits a line or is a control is left; a second time changes nothing."""
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(character < " " or "\x7f" <= character <= "\x9f" for character in shown)
    assert printable(shown) == shown


@given(st.dictionaries(st.text(), st.text()))
def test_a_json_document_says_the_same(content: dict[str, str]) -> None:
    """Escaped as JSON escapes: who reads it gets the text itself."""
    assert json.loads(json_printable(json.dumps(content, ensure_ascii=False, indent=2))) == content
