"""docs/sql.md against a database as it is made: its columns are those of the views, its queries run."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs_agent.record import reading
from pacs_agent.record.store import Store
from pacs_agent.record.views import VIEWS

TEXT = (Path(__file__).parents[3] / "docs" / "sql.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """A database without a study."""
    store = Store.open(tmp_path / "pacs-agent.db")
    yield store.path
    store.close()


@pytest.mark.parametrize("view", VIEWS)
def test_columns(database: Path, view: str) -> None:
    """The page names every column of a view, in its order, and no other."""
    section = TEXT.split(f"\n## {view}\n")[1].split("\n## ")[0]
    table = section.split("| Column | Meaning |\n|---|---|\n")[1].split("\n\n")[0]
    stated = [row.split("|")[1].strip() for row in table.splitlines()]
    assert stated == list(reading.query(database, f"SELECT * FROM {view}").columns)


def test_there_are_queries() -> None:
    """The page shows six queries."""
    assert len(QUERIES) == 6


@pytest.mark.parametrize("sql", QUERIES)
def test_queries_run(database: Path, sql: str) -> None:
    """Each query of the page runs through `pacs-agent sql` and finds nothing where there is nothing."""
    assert reading.query(database, sql).rows == ()
