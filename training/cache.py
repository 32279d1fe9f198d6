"""Pictures decoded once: a file of uint8 network inputs, mapped into memory, never copied into it whole.

Enters: images and the network's input. Leaves: a `Cache` of one row an image, and the reason for each that could not
be read (its row is zero). The rows are those of `model_input`: what the daemon feeds to the network. A cache is known
by its input, its preprocessing, and the paths, sizes and times of its files; it is written beside and renamed, or not
at all. Never imports torch: the decoding processes would pay for it.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from pacs_agent.analyse.pixels import PREPROCESSING, InputSpec, model_input, read_picture
from pacs_agent.durable import sync
from pacs_agent.errors import PixelsError
from training.errors import TrainingError
from training.mura import Image
from training.workers import processes

MAX_PIXELS = 100_000_000
CHUNK = 64  # pictures that a process decodes at a time
SPARE_BYTES = 64 * 1024 * 1024  # left on the disk beside the cache
PICTURES, INDEX = "pictures.u8", "index.json"

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Cache:
    """Decoded pictures, in the order of the images they were made of.

    Attributes:
        pictures: uint8 (N, size, size), read only, mapped.
        unreadable: by row, why it could not be read.
    """

    pictures: NDArray[np.uint8]
    unreadable: dict[int, str]


def open_cache(
    folder: Path,
    images: Sequence[Image],
    spec: InputSpec,
    *,
    workers: int | None = None,
    advance: Progress = lambda _: None,
) -> Cache:
    """The cache of these images, made first where it is not there.

    Args:
        folder: of caches; each lies in a folder of its own in it.
        images: whose files are decoded.
        spec: of the network's input.
        workers: processes to decode with; None: one for each core; 0: this process.
        advance: called with the number of pictures just done.

    Raises:
        TrainingError: the disk has no room, or cannot be written, or the cache that is there is damaged.
    """
    path = folder / fingerprint(images, spec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / f".{path.name}.lock"):
            if not (path / INDEX).exists():
                _make(path, images, spec, workers, advance)
            unreadable = json.loads((path / INDEX).read_text())["unreadable"]
            pictures = np.memmap(path / PICTURES, np.uint8, "r", shape=(len(images), spec.size, spec.size))
    except OSError as error:
        raise TrainingError(f"cache {folder}: {error.strerror or error}") from error
    except (ValueError, KeyError) as error:
        raise TrainingError(f"cache {path}: is damaged; remove it, and it is made again") from error
    return Cache(pictures, {int(row): reason for row, reason in unreadable.items()})


def fingerprint(images: Sequence[Image], spec: InputSpec) -> str:
    """What a cache is known by: the picture's geometry, what makes it so, and each file's path, size and time."""
    made_by = [PREPROCESSING, PIL.__version__]
    digest = hashlib.sha256(json.dumps([spec.size, spec.fit, spec.source_longest_side, *made_by]).encode())
    for image in images:
        try:
            status = image.path.stat()
        except OSError as error:
            raise TrainingError(f"{image.path}: {error.strerror}") from error
        digest.update(f"{image.path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def _make(path: Path, images: Sequence[Image], spec: InputSpec, workers: int | None, advance: Progress) -> None:
    size = len(images) * spec.size**2
    beside = path.with_name(f".{path.name}.making")
    shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed; first, because it takes the room needed now
    free = shutil.disk_usage(path.parent).free
    if free < (needed := size + SPARE_BYTES):
        words = (
            f"{needed / 1e6:.1f} MB are needed, {SPARE_BYTES / 1e6:.1f} of them to spare; {free / 1e6:.1f} MB are free"
        )
        raise TrainingError(f"cache {path.parent}: {words}") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    beside.mkdir()
    try:
        with (beside / PICTURES).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))  # the room is taken now, not found missing half way
        unreadable = _decode_all(beside / PICTURES, [image.path for image in images], spec, workers, advance)
        index = {"input": asdict(spec), "count": len(images), "unreadable": unreadable}
        (beside / INDEX).write_text(json.dumps(index))
        for name in (PICTURES, INDEX):
            sync(beside / name)
        beside.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _decode_all(
    target: Path, paths: Sequence[Path], spec: InputSpec, workers: int | None, advance: Progress
) -> dict[int, str]:
    chunks = [(start, paths[start : start + CHUNK]) for start in range(0, len(paths), CHUNK)]
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    unreadable: dict[int, str] = {}
    if workers == 0 or len(chunks) < 2:  # processes take longer to start than this takes
        for start, some in chunks:
            unreadable |= _decode_some(target, start, some, spec)
            advance(len(some))
        return unreadable
    with processes(min(workers, len(chunks))) as pool:
        waiting = {pool.submit(_decode_some, target, start, some, spec): len(some) for start, some in chunks}
        try:
            for done in as_completed(waiting):
                unreadable |= done.result()
                advance(waiting[done])
        except BrokenExecutor as error:
            raise TrainingError("a process that decodes pictures was killed (out of memory?)") from error
    return dict(sorted(unreadable.items()))


def _decode_some(target: Path, start: int, paths: Sequence[Path], spec: InputSpec) -> dict[int, str]:
    """Write the rows from *start* on; by row, why one could not be read."""
    unreadable: dict[int, str] = {}
    with target.open("r+b") as file:
        for row, path in enumerate(paths, start):
            try:
                picture = model_input(
                    read_picture(path, max_pixels=MAX_PIXELS, longest_side=spec.source_longest_side), spec
                )
            except PixelsError as error:
                unreadable[row] = str(error)
                continue
            file.seek(row * spec.size**2)
            file.write(picture.tobytes())
    return unreadable


@contextmanager
def alone(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file: members trained side by side share one cache, and one run.

    Raises:
        BlockingIOError: another process holds it, and *wait* is false.
        OSError: it cannot be made.
    """
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
