"""Files for their owner alone, from the first moment."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs_agent.durable import close_to_others, write_durably


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    previous = os.umask(0)
    yield
    os.umask(previous)


def test_file_is_closed_before_it_has_content(tmp_path: Path) -> None:
    """Under a umask of 000 nobody else could open it in between."""
    seen: list[int] = []

    def parts() -> Iterator[bytes]:
        seen.append((tmp_path / "x.tmp").stat().st_mode & 0o777)
        yield b"content"

    write_durably(tmp_path / "x", parts(), tmp_path / "x.tmp")
    assert seen == [0o600]
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_close_to_others_leaves_the_owner_what_he_had(tmp_path: Path) -> None:
    """Rights of group and others go, the owner's stay."""
    file = tmp_path / "x"
    file.touch(0o666)
    tmp_path.chmod(0o755)
    close_to_others(file)
    close_to_others(tmp_path)
    assert (file.stat().st_mode & 0o777, tmp_path.stat().st_mode & 0o777) == (0o600, 0o700)
