"""The outbox: objects' bytes made safe, and the policy of which destination gets them when. Never sends."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Literal

from pacs_agent.durable import sync, write_durably
from pacs_agent.record import delivering
from pacs_agent.record.store import Store
from pacs_agent.record.times import from_text, to_text
from pacs_agent.settings import Destination

Deliveries = dict[str, tuple[Literal["waiting", "held"], str | None]]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Growing pauses between tries: *first_s*, doubled each time up to *longest_s*, each shortened by chance.

    The jitter keeps many objects from knocking at the same moment.
    """

    first_s: float
    longest_s: float
    random: Random

    def pause_s(self, attempts: int) -> float:
        """Seconds to wait after that many tries (at least one)."""
        full = min(self.longest_s, self.first_s * 2.0 ** min(attempts - 1, 30))
        return full * self.random.uniform(0.75, 1.0)


class Outbox:
    """The objects' place under the data directory, and their rows.

    Args:
        data_dir: the data directory.
        store: the record.
        destinations: as configured.
        added_at: since when each destination is known; it gets what is received from then on.
    """

    def __init__(
        self, data_dir: Path, store: Store, destinations: tuple[Destination, ...], added_at: dict[str, str]
    ) -> None:
        self._data_dir = data_dir
        self._root = data_dir / "outbox"
        self._store = store
        self._destinations = destinations
        self._added_at = added_at
        self._root.mkdir(mode=0o700, exist_ok=True)
        sync(data_dir)

    def keep(self, sop_instance_uid: str, encoded: bytes) -> str:
        """Make an object's bytes safe; returns the path relative to the data directory.

        Args:
            sop_instance_uid: our own, so fit for a file name.
            encoded: Part 10.
        """
        path = self._root / f"{sop_instance_uid}.dcm"
        write_durably(path, (encoded,), path.with_suffix(".tmp"))
        return str(path.relative_to(self._data_dir))

    def reconcile(self) -> None:
        """Remove objects that no row names: their analysis was never recorded and is made again."""
        named = delivering.outbox_paths(self._store)
        for path in self._root.iterdir():
            if str(path.relative_to(self._data_dir)) not in named:
                path.unlink(missing_ok=True)  # retention may be at it too

    def remove(self, paths: Collection[str]) -> int:
        """Remove objects that retention took from their rows; returns how many."""
        for name in paths:
            (self._data_dir / name).unlink(missing_ok=True)
        return len(paths)

    def deliveries(self, sr_class: str | None, received_at: str) -> Deliveries:
        """Where an object goes: destination to status and deadline.

        Args:
            sr_class: of a report, which goes where this class is wanted; None: a capture, which goes everywhere.
            received_at: when the study came.
        """
        wanted: Deliveries = {}
        for target in self._destinations:
            if sr_class not in (None, target.sr_class) or self._added_at[target.name] > received_at:
                continue
            deadline = None
            if target.deliver_within_hours:
                deadline = to_text(from_text(received_at) + timedelta(hours=target.deliver_within_hours))
            wanted[target.name] = ("held" if target.mode == "silent" else "waiting", deadline)
        return wanted
