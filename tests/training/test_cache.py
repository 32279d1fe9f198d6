"""The cache holds what the daemon would feed to the network; it is there whole or not at all."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trees import make_tree

from pacs_agent.analyse.pixels import InputSpec, model_input, read_picture
from training import cache
from training.cache import open_cache
from training.errors import TrainingError
from training.mura import Image, read_split

SPEC = InputSpec(size=24, fit="letterbox", source_longest_side=32, channels=3, mean=0.485, std=0.229)


@pytest.fixture
def images(tmp_path: Path) -> list[Image]:
    found = read_split(make_tree(tmp_path / "data", patients=5, parts=("hand", "wrist")), "train")
    found[3].path.write_bytes(b"\x89PNG\r\n\x1a\nand nothing")
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_are_what_the_daemon_sees(tmp_path: Path, images: list[Image], workers: int) -> None:
    """Each row is `model_input` of its picture, however many processes decode; a broken one is told, and zero."""
    many = images * 4  # more than one process's share
    cached = open_cache(tmp_path / "cache", many, SPEC, workers=workers)
    assert set(cached.unreadable) == {3, 43, 83, 123}
    assert not cached.pictures[3].any()
    for row, image in enumerate(many):
        if row not in cached.unreadable:
            expected = model_input(read_picture(image.path, max_pixels=10_000, longest_side=32), SPEC)
            np.testing.assert_array_equal(cached.pictures[row], expected)


def test_made_once_and_again_when_a_file_changes(
    tmp_path: Path, images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second opening decodes nothing; a changed file, another input, preprocessing or Pillow does."""
    calls: list[int] = []
    decode = cache._decode_all
    monkeypatch.setattr(cache, "_decode_all", lambda *arguments: calls.append(1) or decode(*arguments))
    first = open_cache(tmp_path / "cache", images, SPEC)
    again = open_cache(tmp_path / "cache", images, SPEC)
    assert len(calls) == 1
    assert again.unreadable == first.unreadable
    os.utime(images[0].path, (1, 1))
    open_cache(tmp_path / "cache", images, SPEC)
    open_cache(tmp_path / "cache", images, InputSpec(16, "stretch", 32, 3, 0.485, 0.229))
    assert len(calls) == 3
    for changed in ("training.cache.PREPROCESSING", "PIL.__version__"):
        with monkeypatch.context() as patch:
            patch.setattr(changed, "another")
            open_cache(tmp_path / "cache", images, SPEC)
    assert len(calls) == 5


def _no_room_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.cache.SPARE_BYTES", 1 << 60)


def _no_room_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", refuse)


def _interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "_decode_some", interrupt)


@pytest.mark.parametrize(
    ("spoil", "error", "tells"),
    [
        (_no_room_said, TrainingError, "are needed"),
        (_no_room_found, TrainingError, "No space left"),
        (_interrupted, KeyboardInterrupt, None),
    ],
)
def test_nothing_half_written(
    tmp_path: Path,
    images: list[Image],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Any,
    error: type[BaseException],
    tells: str | None,
) -> None:
    """No room, or Ctrl-C: one line, and nothing but a lock is left."""
    spoil(monkeypatch)
    with pytest.raises(error, match=tells):
        open_cache(tmp_path / "cache", images, SPEC)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_room_that_a_killed_run_took_counts_as_free(
    tmp_path: Path, images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed run left half made is removed before room is judged: a disk just large enough is enough."""
    folder = tmp_path / "cache"
    left = folder / f".{cache.fingerprint(images, SPEC)}.making" / cache.PICTURES
    left.parent.mkdir(parents=True)
    left.touch()
    disk_usage = cache.shutil.disk_usage
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: disk_usage(path)._replace(free=0) if left.exists() else disk_usage(path)
    )
    assert len(open_cache(folder, images, SPEC).pictures) == len(images)


@pytest.mark.parametrize("name", [cache.PICTURES, cache.INDEX])
def test_a_damaged_cache_is_one_line(tmp_path: Path, images: list[Image], name: str) -> None:
    """A cache whose files were cut off is named, with what to do."""
    open_cache(tmp_path / "cache", images, SPEC)
    (damaged,) = (tmp_path / "cache").glob(f"*/{name}")
    damaged.write_bytes(damaged.read_bytes()[:10])
    with pytest.raises(TrainingError, match=f"{damaged.parent}: is damaged; remove it"):
        open_cache(tmp_path / "cache", images, SPEC)
