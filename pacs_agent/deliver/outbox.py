"""The outbox: objects' bytes made safe, and the policy of which destination gets them when. Never sends."""

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from pacs_agent.durable import close_to_others, rename_durably, sync, write_synced
from pacs_agent.faults import crash_point
from pacs_agent.record import delivering
from pacs_agent.record.store import Store
from pacs_agent.settings import Destination

Deliveries = dict[str, tuple[Literal["waiting", "held"], float | None]]
"""Destination to status, and within how many hours of the study's receipt it goes; None: whenever."""


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


@dataclass(frozen=True, slots=True)
class _Address:
    """A destination that gets the objects of a study, or does not, and why."""

    destination: Destination
    not_wanted: str | None = None


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the objects of one revision of a study go."""

    addresses: tuple[_Address, ...]

    @property
    def sr_classes(self) -> set[str]:
        """The classes of structured report to be made: what destinations want, and where none does one all the same."""
        return {each.destination.sr_class for each in self._of("sr", None)} or {"comprehensive3d"}

    @property
    def wants_captures(self) -> bool:
        """Whether captures are to be made: not where there are destinations and none gets them."""
        return not self.addresses or bool(self._of("capture", None))

    def deliveries(self, kind: str, sr_class: str | None = None) -> Deliveries:
        """Where an object of *kind* goes; of a structured report only where its class is the wanted one."""
        return {
            each.destination.name: (
                "held" if each.destination.mode == "silent" else "waiting",
                each.destination.deliver_within_hours or None,
            )
            for each in self._of(kind, sr_class)
            if not each.not_wanted
        }

    def not_wanted(self, kind: str, sr_class: str | None = None) -> dict[str, str]:
        """Where an object of *kind* would go but for a filter, or an address that is not known, and which it is."""
        return {each.destination.name: each.not_wanted for each in self._of(kind, sr_class) if each.not_wanted}

    def _of(self, kind: str, sr_class: str | None) -> list[_Address]:
        return [
            each
            for each in self.addresses
            if (each.destination.objects is None or kind in each.destination.objects)
            and sr_class in (None, each.destination.sr_class)
        ]


class Outbox:
    """The objects' place under the data directory, and their rows.

    Args:
        data_dir: the data directory.
        store: the record.
        destinations: as configured, `to_sender` not taken apart; the record knows them.
    """

    def __init__(self, data_dir: Path, store: Store, destinations: tuple[Destination, ...]) -> None:
        self._data_dir = data_dir
        self._root = data_dir / "outbox"
        self._store = store
        self._destinations = destinations
        self._recording = threading.Lock()
        self._root.mkdir(mode=0o700, exist_ok=True)
        close_to_others(self._root)
        sync(data_dir)

    def keep(self, sop_instance_uid: str, encoded: bytes) -> str:
        """Make an object's bytes safe; returns the path relative to the data directory.

        Args:
            sop_instance_uid: our own, so fit for a file name.
            encoded: Part 10.
        """
        path = self._root / f"{sop_instance_uid}.dcm"
        temporary = path.with_suffix(".tmp")
        write_synced(temporary, (encoded,))
        crash_point("object written")
        rename_durably(temporary, path)
        crash_point("object kept")
        return self.name(path)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """From `keep` to the row that names the object, where `reconcile` may run in another thread."""
        with self._recording:
            yield

    def reconcile(self) -> None:
        """Remove objects that no row names: their analysis was never recorded and is made again."""
        with self._recording:
            named = delivering.outbox_paths(self._store)
            for path in self._root.iterdir():
                if self.name(path) not in named:
                    path.unlink(missing_ok=True)  # retention may be at it too

    def unnamed(self) -> list[Path]:
        """Objects that no row names."""
        named = delivering.outbox_paths(self._store)
        return [path for path in sorted(self._root.glob("*.dcm")) if self.name(path) not in named]

    def name(self, path: Path) -> str:
        """As rows have it: relative to the data directory."""
        return str(path.relative_to(self._data_dir))

    def remove(self, paths: Collection[str]) -> int:
        """Remove objects that retention took from their rows; returns how many."""
        for name in paths:
            (self._data_dir / name).unlink(missing_ok=True)
        return len(paths)

    def addresses(
        self,
        *,
        study_instance_uid: str,
        calling_ae_title: str,
        findings: Iterable[tuple[str | None, str | None]],
        offered: Collection[str] = (),
    ) -> Addresses:
        """Where the objects of a study go.

        Args:
            study_instance_uid: a destination gets what was received since it is known.
            calling_ae_title: who sent it.
            findings: body part and finding of each of its findings.
            offered: destinations that may have an earlier revision: no filter keeps from them what replaces it.
        """
        about = tuple(findings)
        known = delivering.destinations_at_receipt(self._store, study_instance_uid)
        found: list[_Address] = []
        for target in self._destinations:
            parts = target.apart()
            if not any(part.name in known for part in parts):
                continue
            if target.to_sender:
                parts = tuple(part for part in parts if part.ae_title == calling_ae_title.strip())
            if not parts:
                found.append(_Address(target, f"not sent: to_sender has no address of {calling_ae_title}"))
            for part in parts:
                if part.name in known:
                    found.append(
                        _Address(part, None if part.name in offered else part.not_wanted(calling_ae_title, about))
                    )
        return Addresses(tuple(found))
