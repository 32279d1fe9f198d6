"""Files that survive a power cut: written beside, synced, renamed, their folder synced."""

import os
from collections.abc import Iterable
from pathlib import Path


def write_durably(path: Path, parts: Iterable[bytes | memoryview], temporary: Path) -> None:
    """Write *parts* to *path*; on return the name and the bytes survive a power cut.

    Args:
        path: where the file shall stand; replaced whole if it exists.
        parts: the content.
        temporary: a name on the same file system that nobody else uses.

    Raises:
        OSError: the disk refused; nothing is left behind.
    """
    try:
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
