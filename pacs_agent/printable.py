"""Texts of others on a terminal or in a log: what would move the cursor, begin a line or turn the writing is escaped.

Enters: any text. Leaves: one line that shows the same. The log and the commands put everything through here.
"""

import re

# C0 and C1 controls, line and paragraph separators, marks and overrides of direction, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text as one line: `\\n` of a line break, `\\x1b` of an escape."""
    return _UNSAFE.sub(lambda unsafe: unsafe.group().encode("unicode_escape").decode("ascii"), text)


def json_printable(document: str) -> str:
    """A JSON document of the same content, line breaks between its values left."""
    return _UNSAFE.sub(
        lambda unsafe: unsafe.group() if unsafe.group() == "\n" else f"\\u{ord(unsafe.group()):04x}", document
    )
