"""Files that survive a power cut: written beside, synced, renamed, their folder synced."""

import os
from collections.abc import Iterable
from pathlib import Path


def write_durably(path: Path, parts: Iterable[bytes | memoryview], temporary: Path, mode: int = 0o600) -> None:
    """Write *parts* to *path*; on return the name and the bytes survive a power cut.

    Args:
        path: where the file shall stand; replaced whole if it exists.
        parts: the content.
        temporary: a name on the same file system that nobody else uses.
        mode: who may read it.

    Raises:
        OSError: the disk refused; nothing is left behind.
    """
    write_synced(temporary, parts, mode)
    rename_durably(temporary, path)


def write_synced(path: Path, parts: Iterable[bytes | memoryview], mode: int = 0o600) -> None:
    """Write *parts* to *path*; on return the bytes survive a power cut, the name perhaps not.

    Raises:
        OSError: the disk refused; nothing is left behind.
    """
    try:
        # Nobody else's from the first moment, whatever the umask.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), mode)
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def rename_durably(temporary: Path, path: Path) -> None:
    """Give a synced file its name; on return that survives a power cut.

    Raises:
        OSError: the disk refused; *temporary* is gone.
    """
    try:
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def close_to_others(path: Path) -> None:
    """Take from a file or folder what its group and others may do with it, where it is ours."""
    mode = path.stat().st_mode
    if mode & 0o077 and path.stat().st_uid == os.geteuid():
        path.chmod(mode & 0o700)
