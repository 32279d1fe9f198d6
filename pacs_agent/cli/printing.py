"""How anything is printed: lines, tables, JSON and CSV on stdout, notes on stderr.

Whatever a text of others holds, on its way through here it begins no line and moves no cursor.
"""

import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from pacs_agent.durable import write_durably
from pacs_agent.printable import json_printable, printable
from pacs_agent.record.reading import QueryResult

UNBOUNDED = 10_000  # columns, where no person's terminal folds the lines: a row stays a line
LAST_COLUMN = 24  # columns; the one that is folded, mostly a reason


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def line(text: str = "") -> None:
    """A line of the answer."""
    print(printable(text))


def lines(*texts: str) -> None:
    """Lines of the answer, then a blank one."""
    for text in (*texts, ""):
        line(text)


def note(text: str) -> None:
    """A line about the answer: progress, or what is wrong."""
    print(printable(text), file=sys.stderr)


def document(value: Any) -> None:
    """The answer as one JSON document."""
    print(json_printable(json.dumps(value, indent=2, ensure_ascii=False, default=str)))


def found(result: QueryResult, form: Format) -> None:
    """Rows as the database gave them."""
    if form is Format.JSON:
        document(result.records())
    elif form is Format.CSV:
        _csv(sys.stdout, result)
    else:
        table(result.columns, [[cell(value) for value in row] for row in result.rows])


def written(result: QueryResult, out: Path, form: str) -> None:
    """Rows to a file for its owner alone, whole or not at all."""
    text = io.StringIO()
    if form == "json":
        json.dump(result.records(), text, indent=2, ensure_ascii=False)
        text.write("\n")
    else:
        _csv(text, result)
    write_durably(out, (text.getvalue().encode(),), out.with_name(f".{out.name}.tmp"))


def _csv(file: TextIO, result: QueryResult) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(result.columns)
    writer.writerows(map(_printable_each, result.rows))


def _printable_each(values: Iterable[Any]) -> list[Any]:
    return [printable(value) if isinstance(value, str) else value for value in values]


def rows(records: Sequence[dict[str, Any]]) -> None:
    """Records of the same columns as CSV; at least one."""
    writer = csv.DictWriter(sys.stdout, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(dict(zip(record, _printable_each(record.values()), strict=True)) for record in records)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Rows for a person, then a blank line; the last column is folded to the terminal, without one a row is a line."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    rows = [_printable_each(row) for row in rows]
    for heading in headings:
        made.add_column(Text(heading), overflow="fold", no_wrap=heading != headings[-1])
    for row in rows:
        made.add_row(*map(Text, row))
    console = Console(width=_width(Console().width, headings, rows) if sys.stdout.isatty() else UNBOUNDED)
    with console.capture() as drawn:
        console.print(made)
    if title:
        lines(title)
    for text in drawn.get().splitlines():
        line(text.rstrip())
    line()


def _width(terminal: int, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The terminal's width, or what every column but the last needs: a value is never cut, a word rarely."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return max(terminal, sum(width + 2 for width in widths[:-1]) + min(widths[-1], LAST_COLUMN))


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number and its noun: `1 study`, `2 studies`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
