"""Fixtures of the integration tests: a data directory with its record, inbox and listener, all real."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from commands import Run, runner

from pacs_agent.receive.inbox import Inbox
from pacs_agent.receive.listener import Listener
from pacs_agent.record.store import Store
from pacs_agent.settings import Listener as ListenerSettings
from pacs_agent.study.eligibility import EligibilityRules, assess

MAX_INSTANCE_BYTES = 4 << 20


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data directory."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of the present schema, to be copied: migrating takes longer than many a test."""
    path = tmp_path_factory.mktemp("migrated") / "pacs-agent.db"
    Store.open(path).close()
    return path


@pytest.fixture
def store(data_dir: Path, migrated: Path) -> Iterator[Store]:
    """A migrated record."""
    opened = Store.open(shutil.copy(migrated, data_dir / "pacs-agent.db"))
    yield opened
    opened.close()


@pytest.fixture
def make_inbox(data_dir: Path, store: Store) -> Callable[[], Inbox]:
    """Makes the inbox of the data directory, as each start of the daemon does."""

    def make() -> Inbox:
        return Inbox(
            data_dir,
            store,
            assess=lambda facts, received_on: assess(facts, EligibilityRules(), received_on),
            min_free_bytes=1 << 20,
            max_instance_bytes=MAX_INSTANCE_BYTES,
        )

    return make


@pytest.fixture
def inbox(make_inbox: Callable[[], Inbox]) -> Inbox:
    """An empty inbox."""
    return make_inbox()


class Running(Listener):
    """A listener with its port."""

    port: int


@pytest.fixture
def make_listener(inbox: Inbox) -> Iterator[Callable[..., Running]]:
    """Makes listeners on free ports, with settings to choose; stops them after the test."""
    made: list[Running] = []

    def make(**settings: Any) -> Running:
        listener = Running(ListenerSettings(port=0, **{"max_instance_mb": 4, **settings}), inbox)
        listener.port = listener.start()
        made.append(listener)
        return listener

    yield make
    for listener in made:
        listener.stop(0)


@pytest.fixture
def listener(make_listener: Callable[..., Running]) -> Running:
    """A listener on a free port, its settings the defaults."""
    return make_listener()


@pytest.fixture
def run(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs a command on the data directory: its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PACS_AGENT_CONFIG", raising=False)
    monkeypatch.setenv("PACS_AGENT__AGENT__DATA_DIR", str(data_dir))
    yield runner(capsys)
    structlog.reset_defaults()
