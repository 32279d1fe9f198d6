"""The record with a clock that the test moves."""

from collections.abc import Iterator

import pytest
from records import Record

from pacs_agent.record.store import Store


@pytest.fixture
def record(store: Store) -> Iterator[Record]:
    """A migrated record at a fixed moment."""
    made = Record(store.path)
    made.clock = lambda: made.moment
    yield made
    made.close()
