"""`pacs-train seed-bundle`: an untrained bundle, the same bytes for the same seed, or one line and exit code 2."""

from pathlib import Path

import pytest
import torch

from pacs_agent.analyse.bundle import load_bundle
from pacs_agent.analyse.ensemble import Ensemble
from training.cli import main


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code if isinstance(ended.value.code, int) else -1


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    """A seed decides every byte of the weights, another seed gives others, and the caller's own seed is left alone."""
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run("seed-bundle", str(tmp_path / name), "--seed", seed) == 0
    assert torch.rand(1) == expected
    a, b, c = (load_bundle(tmp_path / name).weights_path.read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_it_claims_nothing_and_runs(tmp_path: Path) -> None:
    """The bundle is untrained, for phantoms only, tells its seed, and its network loads."""
    assert run("seed-bundle", str(tmp_path / "seeded"), "--seed", "11") == 0
    bundle = load_bundle(tmp_path / "seeded")
    assert not bundle.manifest.trained
    assert bundle.manifest.requires_quality_control_subject
    assert bundle.manifest.provenance["seed"] == 11
    assert Ensemble(bundle, "cpu").device.type == "cpu"


@pytest.mark.parametrize(
    ("arguments", "tells"),
    [
        ((), "Missing command"),
        (("seed-bundle",), "Missing argument"),
        (("seed-bundle", "there"), "--seed"),
        (("seed-bundle", "there", "--seed", "x"), "valid integer"),
        (("seed-bundle", "there", "--seed", "1"), "cannot be written"),
        (("plant",), "plant"),
    ],
)
def test_used_wrongly(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    tells: str,
) -> None:
    """Exit code 2 and one line on stderr, nothing on stdout, nothing written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pacs-train: ")
    assert captured.err.count("\n") == 1
    assert tells in captured.err
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "file"]


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` shows how the command is used."""
    assert run("seed-bundle", "--help") == 0
    assert "Example: pacs-train seed-bundle" in capsys.readouterr().out
