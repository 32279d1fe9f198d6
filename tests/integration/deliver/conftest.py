"""A PACS that the test starts, and a delivery to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from deliveries import Delivery, Pacs

from pacs_agent.record.store import Store


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    """Not started."""
    made = Pacs()
    yield made
    made.stop()


@pytest.fixture
def delivery(store: Store, data_dir: Path, pacs: Pacs) -> Delivery:
    """What waits for that PACS."""
    return Delivery(store, data_dir, pacs.port)
