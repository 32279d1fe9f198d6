"""docs/objects.md shows what the program makes, and not what it once made."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from peers import dcmtk
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"


def but_digits(path: Path) -> str:
    return re.sub(r"\d+", "#", path.read_text())


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """Of each picture."""
    found = {}
    for path in sorted(folder.iterdir()):
        with Image.open(path) as picture:
            found[path.name] = picture.size
    return found


@pytest.mark.dcmtk
def test_page_is_what_its_script_makes(tmp_path: Path) -> None:
    """Every text is the one of today, but for digits, which another processor may give; the pictures have its size."""
    dcmtk("dsrdump")
    shutil.copy(DOCS / "objects.md", tmp_path)
    subprocess.run([sys.executable, DOCS / "objects.py", tmp_path], check=True, capture_output=True, timeout=120)
    assert but_digits(tmp_path / "objects.md") == but_digits(DOCS / "objects.md")
    made = sizes(tmp_path / "objects")
    assert made == sizes(DOCS / "objects")
    for name in made:
        assert f"(objects/{name})" in (DOCS / "objects.md").read_text()
    assert sum(path.stat().st_size for path in (DOCS / "objects").iterdir()) < 400_000
