"""Wrong use of the commands: exit 2 and one line, before anything is touched."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "arguments",
    [
        ["release", "--since", "tomorrow"],
        ["release", "--since", ""],
        ["results", "--since", "yesterday"],
        ["withdraw", "1.2.3", "--reason", " "],
        ["show", ""],
        ["send", ".", "--to", "A@127.0.0.1:1", "--calling", "THISISMUCHTOOLONGATITLE"],
        ["send", ".", "--to", "nowhere"],
        ["pause", "lunch"],
    ],
)
def test_wrong_use_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    """Exit 2, one line on stderr, no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "pacs_agent", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
