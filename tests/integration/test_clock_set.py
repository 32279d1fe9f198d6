"""A whole daemon whose machine's clock is set by hours: nothing waits for them to pass."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from peers import wait_for
from pydicom.dataset import FileDataset
from pynetdicom import AE
from radiographs import hand

from pacs_agent.clock import SteadyClock
from pacs_agent.daemon import Daemon
from pacs_agent.record.reading import query
from pacs_agent.record.times import utc_now
from pacs_agent.settings import Settings


class Wall:
    """The machine's clock, which somebody sets."""

    ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


@pytest.fixture
def wall() -> Wall:
    """Right at first."""
    return Wall()


@pytest.fixture
def settings(data_dir: Path, tmp_path: Path) -> Settings:
    """Of a quick daemon that delivers to a folder within the hour."""
    (tmp_path / "pacs").mkdir()
    return Settings(
        agent={"data_dir": data_dir, "min_free_mb": 1},
        listener={"port": 0},
        study={"quiet_seconds": 2},
        destination=[{"name": "pacs", "folder": tmp_path / "pacs", "deliver_within_hours": 1}],
    )


@pytest.fixture
def daemon(settings: Settings, wall: Wall) -> Iterator[Daemon]:
    """It runs."""
    running = Daemon(settings, SteadyClock(wall))
    running.start()
    yield running
    running.stop()


def store(daemon: Daemon, ds: FileDataset) -> None:
    """C-STORE; it is acknowledged."""
    ae = AE(ae_title="XR1")
    ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", daemon.port, ae_title="PACS_AGENT")
    assert assoc.send_c_store(ds).Status == 0
    assoc.release()


def statuses(settings: Settings) -> dict[str, str]:
    """Of each study."""
    return dict(query(settings.database_path, "SELECT study_instance_uid, status FROM results").rows)


def test_clock_is_set_while_a_study_waits(daemon: Daemon, settings: Settings, wall: Wall) -> None:
    """Back or ahead by five hours: the study is complete when it is quiet, and delivered within its time."""
    for hours in (-5, 10, -5):
        ds = hand()
        store(daemon, ds)
        wall.ahead += timedelta(hours=hours)
        wait_for(lambda uid=ds.StudyInstanceUID: statuses(settings).get(uid) == "delivered", 60, "delivery")
    told = query(settings.database_path, "SELECT detail FROM events WHERE event = 'clock set'").rows
    assert [detail for (detail,) in told] == ["by -18000 s", "by +36000 s", "by -18000 s"]


def test_clock_is_set_back_between_two_runs(settings: Settings, wall: Wall) -> None:
    """What the last run received in the future is complete when it is quiet, and so is what comes after it."""
    before, after = hand(seed=1), hand(seed=2)
    for ds, hours in ((before, 5), (after, 0)):
        wall.ahead = timedelta(hours=hours)
        daemon = Daemon(settings, SteadyClock(wall))
        daemon.start()
        store(daemon, ds)
        if ds is after:
            wait_for(lambda: list(statuses(settings).values()) == ["delivered"] * 2, 60, "delivery")
        daemon.stop()
