"""Bytes that survive: an encoded data set in, a Part 10 file and its row out. Never decodes pixels, never deletes an
instance.

A file is named by the SHA-256 of its transfer syntax and data set, so no received string becomes part of a path, the
same bytes land on the same file, and a file without a row can be read in again at start.
"""

import dataclasses
import fcntl
import hashlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

from pacs_agent.durable import close_to_others, rename_durably, sync, write_synced
from pacs_agent.errors import DataDirectoryInUseError, NotUnderstoodError, OutOfResourcesError
from pacs_agent.faults import crash_point
from pacs_agent.receive.dataset import ReceivedDataSet, read_received
from pacs_agent.receive.part10 import file_head, read_part10
from pacs_agent.record import receiving
from pacs_agent.record.store import Store
from pacs_agent.record.times import to_text
from pacs_agent.study.eligibility import Eligibility
from pacs_agent.study.instance import Instance

log = structlog.get_logger()

# Facts that change no decision: how it was encoded, and which machine says it made it.
_INDIFFERENT = ("transfer_syntax_uid", "station_name", "manufacturer", "manufacturer_model_name")
_HASHED_BESIDE_BYTES = 2 << 20


class DataDirectory:
    """A data directory that belongs to this process for as long as it lives.

    The lock is the kernel's: it falls with the process, however that dies, and is not inherited by the analysis
    process (Python's descriptors are close-on-exec).
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        close_to_others(path)
        self.path = path
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise DataDirectoryInUseError(f"another daemon works in {path}") from error

    def release(self) -> None:
        """Give the directory back."""
        os.close(self._lock)


class Inbox:
    """The instances' place under the data directory.

    Args:
        data_dir: the data directory.
        store: the record.
        assess: header facts and the day of receipt to eligibility, the site's limits inside.
        min_free_bytes: below this no instance is accepted.
        max_instance_bytes: bound of one data set.
    """

    def __init__(
        self,
        data_dir: Path,
        store: Store,
        *,
        assess: Callable[[Instance, date], Eligibility],
        min_free_bytes: int,
        max_instance_bytes: int,
    ) -> None:
        self._data_dir = data_dir
        self._store = store
        self._reception = receiving.Reception(store)
        self._assess = assess
        self._min_free_bytes = min_free_bytes
        self._max_instance_bytes = max_instance_bytes
        self._root = data_dir / "inbox"
        self._tmp = self._root / "tmp"
        self._lock = threading.Lock()
        self._in_hand: Counter[Path] = Counter()  # files between their rename and their row, which `remove` spares
        self._hashing = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="digest")
        # All folders beforehand, each with its name on disk: a new one would cost a further fsync at the wrong moment.
        self._root.mkdir(exist_ok=True, mode=0o700)
        close_to_others(self._root)
        for name in ("tmp", *(f"{byte:02x}" for byte in range(256))):
            (self._root / name).mkdir(exist_ok=True, mode=0o700)
        sync(self._root)
        sync(data_dir)

    def accept(
        self, encoded: memoryview, received: ReceivedDataSet, calling_ae_title: str, calling_address: str | None = None
    ) -> receiving.Outcome:
        """Keep an instance; on return it survives a power cut.

        Args:
            encoded: the data set as transferred.
            received: what was read of it.
            calling_ae_title: who sent it.
            calling_address: whence.

        Raises:
            OutOfResourcesError: the disk is below its floor, or refused the write.
            DBAPIError: the database refused; unless a row names it after all, nothing is left.
        """
        facts = received.facts
        self.check_space()
        current = receiving.current_instance(self._store, facts.sop_instance_uid)
        digest = self._digest_of(facts.transfer_syntax_uid, encoded)
        if (
            current
            and self._is_kept(current)
            and (current.sha256 == digest.result() or self._is_same(current, received))
        ):
            return "duplicate"
        temporary = self._tmp / f"{threading.get_ident()}.dcm"
        try:
            # Writing waits for the disk and hashing for the processor: neither waits for the other.
            write_synced(temporary, (file_head(facts, calling_ae_title), encoded))
            crash_point("instance written")
            sha256 = digest.result()
            path = self._root / sha256[:2] / f"{sha256}.dcm"
            try:
                with self._spared(path):
                    rename_durably(temporary, path)
                    crash_point("instance named")
                    moment = self._store.clock()
                    outcome = self._register(
                        path, facts, sha256, len(encoded), calling_ae_title, moment, calling_address
                    )
                    crash_point("instance recorded")
                    return outcome
            except DBAPIError:
                # Not acknowledged, and perhaps for want of room: the file must not take more of it.
                with suppress(DBAPIError, OSError):
                    self.remove([str(path.relative_to(self._data_dir))])
                raise
        except OSError as error:
            raise OutOfResourcesError(f"the instance cannot be written: {error.strerror}") from error

    @contextmanager
    def _spared(self, path: Path) -> Iterator[None]:
        with self._lock:
            self._in_hand[path] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_hand -= Counter([path])

    def remove(self, paths: Iterable[str]) -> int:
        """Remove files that retention took from their rows, unless one was sent again meanwhile; returns how many.

        Args:
            paths: relative to the data directory.
        """
        removed = 0
        for name in paths:
            path = self._data_dir / name
            with self._lock:
                if not self._in_hand[path] and not receiving.is_named(self._store, name) and path.exists():
                    path.unlink()
                    removed += 1
        return removed

    def check_space(self) -> None:
        """Raise `OutOfResourcesError` while less than the floor is free."""
        free = shutil.disk_usage(self._root).free
        if free < self._min_free_bytes:
            raise OutOfResourcesError(f"{free >> 20} MB free, the floor is {self._min_free_bytes >> 20} MB")

    def reconcile(self) -> int:
        """Bring files and rows together again after whatever ended the last run.

        A file without a row becomes a row (its sender may have been told success); one that retention took from its row
        and was killed before it went is its row's again; a row without its file says so; half-written files go. Returns
        how many files are no instance, or cannot be read; they are left alone.
        """
        for leftover in self._tmp.iterdir():
            leftover.unlink()
        known = receiving.known_paths(self._store)
        on_disk = {str(path.relative_to(self._data_dir)): path for path in self._root.glob("??/*.dcm")}
        unread = 0
        for relative in sorted(on_disk.keys() - known.keys(), key=lambda name: on_disk[name].stat().st_mtime_ns):
            unread += not self._adopt(on_disk[relative])
        if lost := known.keys() - on_disk.keys():
            receiving.mark_lost(self._store, [known[path] for path in lost])
            log.error("instance files are missing", count=len(lost))
        return unread

    def _adopt(self, path: Path) -> bool:
        try:
            file = read_part10(path)
            received = read_received(file.encoded, file.transfer_syntax_uid, self._max_instance_bytes)
            sha256 = _digest(file.transfer_syntax_uid, file.encoded)
            if sha256 != path.stem:
                raise NotUnderstoodError("its name is not the digest of its content")
        except (NotUnderstoodError, OSError) as error:
            log.error("a file in the inbox is not an instance and is left alone", file=path.name, reason=str(error))
            return False
        now = self._store.clock()
        # No later than now: the clock may have been ahead.
        modified = min(now, datetime.fromtimestamp(path.stat().st_mtime, tz=now.tzinfo))
        sender, size_bytes = file.sending_ae_title, len(file.encoded)
        self._register(path, received.facts, sha256, size_bytes, sender, modified, is_adopted=True)
        log.info("a file that no row named was taken in again", sop_instance_uid=received.facts.sop_instance_uid)
        return True

    def _register(
        self,
        path: Path,
        facts: Instance,
        sha256: str,
        size_bytes: int,
        calling_ae_title: str,
        moment: datetime,
        calling_address: str | None = None,
        *,
        is_adopted: bool = False,
    ) -> receiving.Outcome:
        return self._reception.accept(
            receiving.Receipt(
                facts=facts,
                eligibility=self._assess(facts, moment.date()),
                path=str(path.relative_to(self._data_dir)),
                sha256=sha256,
                size_bytes=size_bytes,
                calling_ae_title=calling_ae_title,
                received_at=to_text(moment),
                is_adopted=is_adopted,
                calling_address=calling_address,
            ),
        )

    def _digest_of(self, transfer_syntax_uid: str, encoded: memoryview) -> Future[str]:
        """In another thread where that is worth its while."""
        if len(encoded) > _HASHED_BESIDE_BYTES:
            return self._hashing.submit(_digest, transfer_syntax_uid, encoded)
        done: Future[str] = Future()
        done.set_result(_digest(transfer_syntax_uid, encoded))
        return done

    def _is_kept(self, current: receiving.StoredInstance) -> bool:
        return current.path is not None and (self._data_dir / current.path).exists()

    def _is_same(self, current: receiving.StoredInstance, received: ReceivedDataSet) -> bool:
        """Whether a second receipt says nothing new: routers re-encode, and group 0002 is theirs."""
        without: dict[str, Any] = dict.fromkeys(_INDIFFERENT, "")
        if dataclasses.replace(current.facts, **without) != dataclasses.replace(received.facts, **without):
            return False
        if current.facts.transfer_syntax_uid != received.facts.transfer_syntax_uid:
            # Without decoding there is no telling which revision's picture this is, where there are several.
            return current.is_only
        try:
            file = read_part10(self._data_dir / str(current.path))
            stored = read_received(file.encoded, file.transfer_syntax_uid, self._max_instance_bytes)
        except NotUnderstoodError:
            return False  # our file is spoilt; the sender's is not
        return stored.pixels == received.pixels


def _digest(transfer_syntax_uid: str, encoded: memoryview) -> str:
    digest = hashlib.sha256(transfer_syntax_uid.encode("ascii") + b"\0")
    digest.update(encoded)
    return digest.hexdigest()
