"""`pacs-train phantoms`: MURA's layout to the letter, the same bytes however it came about, nothing overwritten."""

import errno
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacs_agent.analyse.pixels import read_picture
from pacs_agent.errors import PacsAgentError, PixelsError
from pacs_agent.phantom.lesion import LESIONS
from pacs_agent.study.bodypart import BODY_PARTS
from training import phantoms
from training.cli import main
from training.evaluate import evaluate
from training.export import seed_bundle
from training.inspect import inspect
from training.phantoms import RECORD_NAME, TreeSettings, is_phantoms, plan, write_tree

ROW = re.compile(
    r"MURA-v1\.1/(train|valid)/XR_(ELBOW|FINGER|FOREARM|HAND|HUMERUS|SHOULDER|WRIST)"
    r"/patient\d{5}/study\d_(positive|negative)/image\d\.png"
)
SMALL = TreeSettings(patients=8, seed=3, valid=0.25)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tree, made by two workers."""
    out = tmp_path_factory.mktemp("tree")
    write_tree(out, SMALL, workers=2)
    return out


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A folder where a run was interrupted after five pictures."""

    def interrupt(done: int, _total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tree(tmp_path, SMALL, progress=interrupt)
    return tmp_path


def rows(tree: Path, name: str) -> list[str]:
    return (tree / "MURA-v1.1" / name).read_text().splitlines()


def records(tree: Path) -> Iterator[dict[str, object]]:
    return (json.loads(line) for line in rows(tree, RECORD_NAME))


class TestPlan:
    def test_mix(self) -> None:
        """Parts, labels, views, severities and kinds come as often as the shares say, the label alike in every part."""
        planned = plan(TreeSettings(3000, 1, subtle=0.2))
        studies = {picture.path.parent: picture for picture in planned}
        abnormal = [picture.lesion for picture in studies.values() if picture.lesion is not None]
        assert len(abnormal) / len(studies) == pytest.approx(0.45, abs=0.03)
        for part in BODY_PARTS:
            mine = [picture.lesion is not None for picture in studies.values() if picture.body_part == part]
            assert np.mean(mine) == pytest.approx(0.45, abs=0.08)
        assert np.mean([lesion.severity < 0.3 for lesion in abnormal]) == pytest.approx(0.2, abs=0.04)
        assert {lesion.kind for lesion in abnormal} == set(LESIONS)
        views = Counter(picture.path.parent for picture in planned)
        assert set(views.values()) == {1, 2, 3, 4, 5}
        several = Counter(patient for patient, _ in {(p.path.parts[3], p.body_part) for p in planned})
        assert 0.05 < np.mean([parts > 1 for parts in several.values()]) < 0.2

    def test_label_tells_nothing_else(self) -> None:
        """Normal and abnormal studies have as many views, as many RGB pictures, the same ages and sides."""
        planned = plan(TreeSettings(3000, 2))
        groups = [[p for p in planned if (p.lesion is None) is is_normal] for is_normal in (True, False)]
        for tell, tolerance in (
            (lambda p: p.rgb, 0.04),
            (lambda p: p.laterality == "L", 0.04),
            (lambda p: int(p.path.stem[5:]), 0.1),
            (lambda p: p.age_years, 2.0),
        ):
            normal, abnormal = (np.mean([tell(p) for p in group]) for group in groups)
            assert normal == pytest.approx(abnormal, abs=tolerance)

    def test_patients_keep_to_their_split(self) -> None:
        """No patient is in both splits, and valid has its share of them."""
        planned = plan(TreeSettings(100, 1, valid=0.3))
        patients = {split: {p.path.parts[3] for p in planned if p.split == split} for split in ("train", "valid")}
        assert not patients["train"] & patients["valid"]
        assert (len(patients["train"]), len(patients["valid"])) == (70, 30)

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            (TreeSettings(8, 1, subtle=1.5), "--subtle is a share"),
            (TreeSettings(8, 1, valid=-0.1), "--valid is a share"),
            (TreeSettings(8, 1, valid=0.0), "leave a split empty"),
        ],
    )
    def test_refused(self, settings: TreeSettings, told: str) -> None:
        """Shares that are none, and splits without a patient, are refused."""
        with pytest.raises(PacsAgentError, match=told):
            plan(settings)


class TestTree:
    def test_lists_are_the_folders(self, tree: Path) -> None:
        """Every row of the path lists is a file of MURA's pattern, and every PNG but the dot file is a row."""
        listed = [row for split in ("train", "valid") for row in rows(tree, f"{split}_image_paths.csv")]
        assert all(ROW.fullmatch(row) for row in listed)
        found = {str(path.relative_to(tree)) for path in tree.rglob("*.png")}
        dots = {path for path in found if Path(path).name.startswith(".")}
        assert len(dots) == 1
        assert found - dots == set(listed)

    def test_labels(self, tree: Path) -> None:
        """The labelled studies are those of the path lists, each once, 1 where the folder says positive."""
        for split in ("train", "valid"):
            labelled = [row.split(",") for row in rows(tree, f"{split}_labeled_studies.csv")]
            studies = {path.rpartition("/")[0] + "/" for path in rows(tree, f"{split}_image_paths.csv")}
            assert {study for study, _ in labelled} == studies
            assert len(labelled) == len(studies)
            assert all((label == "1") == study.endswith("_positive/") for study, label in labelled)
            assert {label for _, label in labelled} <= {"0", "1"}

    def test_pictures(self, tree: Path) -> None:
        """8 bit, grey or RGB, 512 pixels long; one file in the whole tree does not decode."""
        broken, modes = [], set()
        for record in records(tree):
            path = tree / str(record["path"])
            try:
                picture = read_picture(path, max_pixels=512 * 512)
            except PixelsError:
                broken.append(record)
                continue
            assert max(picture.shape) == 512
            assert picture.shape == (record["rows"], record["columns"])
            with Image.open(path) as image:
                modes.add(image.mode)
        assert modes == {"L", "RGB"}
        assert [record["broken"] for record in broken] == [True]
        assert "/train/" in str(broken[0]["path"])

    def test_record(self, tree: Path) -> None:
        """The record has a line for each row of the lists, and lesion, severity and box exactly where abnormal."""
        found = list(records(tree))
        listed = [row for split in ("train", "valid") for row in rows(tree, f"{split}_image_paths.csv")]
        assert [record["path"] for record in found] == listed
        for record in found:
            told = [record[key] is not None for key in ("lesion", "severity", "box")]
            assert told == [("_positive/" in str(record["path"]))] * 3 == [record["abnormal"]] * 3

    def test_views_share_the_lesion(self, tree: Path) -> None:
        """The pictures of a study show one kind of lesion, equally severe."""
        told: dict[str, set[object]] = {}
        for record in records(tree):
            told.setdefault(str(record["path"]).rpartition("/")[0], set()).add((record["lesion"], record["severity"]))
        assert all(len(kinds) == 1 for kinds in told.values())


class TestRuns:
    def test_interrupted(self, tree: Path, half: Path) -> None:
        """An interrupted run leaves no list, and goes on to the same bytes as one by two workers in one go."""
        assert not list(half.rglob("*.csv"))
        before = {path: path.stat().st_mtime_ns for path in half.rglob("image*.png")}
        assert len(before) == 5
        write_tree(half, SMALL)
        assert contents(half) == contents(tree)
        assert all(path.stat().st_mtime_ns == time for path, time in before.items())

    def test_complete(self, tree: Path) -> None:
        """A complete tree is left as it is."""
        before = contents(tree)
        write_tree(tree, SMALL)
        assert contents(tree) == before

    def test_other_settings(self, half: Path) -> None:
        """What another seed began is not gone on with."""
        before = contents(half)
        with pytest.raises(PacsAgentError, match="other settings"):
            write_tree(half, TreeSettings(patients=8, seed=4, valid=0.25))
        assert contents(half) == before

    def test_foreign_folder(self, tmp_path: Path) -> None:
        """A tree that is no phantom's, such as MURA itself, is never written into."""
        (tmp_path / "MURA-v1.1").mkdir()
        (tmp_path / "MURA-v1.1/train_image_paths.csv").write_text("another's")
        before = contents(tmp_path)
        with pytest.raises(PacsAgentError, match="there already"):
            write_tree(tmp_path, SMALL)
        assert contents(tmp_path) == before

    @pytest.mark.parametrize("left", ["", "..phantoms.json.part"])
    def test_killed_before_the_settings(self, tree: Path, tmp_path: Path, left: str) -> None:
        """A folder that is empty, or holds half of the settings only, is what a killed run leaves: it goes on."""
        (tmp_path / "MURA-v1.1").mkdir()
        if left:
            (tmp_path / "MURA-v1.1" / left).write_text("{")
        write_tree(tmp_path, SMALL)
        assert contents(tmp_path) == contents(tree)

    @pytest.mark.parametrize("name", [RECORD_NAME, "train_image_paths.csv", "valid_labeled_studies.csv"])
    def test_killed_at_the_end(self, tree: Path, half: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Killed before any of the last files: what can be read already says that it is phantoms; it goes on."""
        write = phantoms._write

        def killed(path: Path, data: bytes) -> None:
            if path.name == name:
                raise KeyboardInterrupt
            write(path, data)

        with monkeypatch.context() as patch:
            patch.setattr(phantoms, "_write", killed)
            with pytest.raises(KeyboardInterrupt):
                write_tree(half, SMALL)
        root = half / "MURA-v1.1"
        assert is_phantoms(root)
        assert (root / RECORD_NAME).exists() or not list(root.glob("*.csv"))
        write_tree(half, SMALL)
        assert contents(half) == contents(tree)

    @pytest.mark.parametrize("lost", [RECORD_NAME, ".phantoms.json"])
    def test_either_file_tells(self, tree: Path, tmp_path: Path, lost: str) -> None:
        """A copy without one of the two files that say so is phantoms still: for `inspect`, and never the card's."""
        root = tmp_path / "MURA-v1.1"
        shutil.copytree(tree / "MURA-v1.1", root)
        (root / lost).unlink()
        assert is_phantoms(root)
        assert inspect(root, decode=False).phantoms
        bundle = seed_bundle(tmp_path / "bundle", 1)
        evaluation = evaluate(bundle, root, "valid", device="cpu", resamples=10)
        assert evaluation.phantoms
        assert "phantoms never beat the card" in evaluation.verdict.why

    def test_too_little_space(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Too small a disk is told before anything is written."""
        monkeypatch.setattr(phantoms, "BYTES_AN_IMAGE", 10**15)
        with pytest.raises(PacsAgentError, match="may need"):
            write_tree(tmp_path / "new", SMALL)
        assert not contents(tmp_path)

    def test_disk_full(self, half: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that fills up on the way is one line; with space again the run goes on to the same bytes."""
        write = Path.write_bytes

        def full(path: Path, data: bytes) -> int:
            write(path, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", full)
            with pytest.raises(PacsAgentError, match=r"No space left on device; .* goes on"):
                write_tree(half, SMALL)
        assert not list(half.rglob("*.part"))
        write_tree(half, SMALL)
        assert contents(half) == contents(tree)

    def test_command(self, half: Path, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The command goes on with a tree and prints where it is; other settings are one line and exit code 2."""
        arguments = ["phantoms", str(half), "--patients", "8", "--seed", "3", "--valid", "0.25", "--workers", "1"]
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert capsys.readouterr().out.strip() == str(half / "MURA-v1.1")
        assert contents(half) == contents(tree)
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--subtle", "0.5"])
        assert ended.value.code == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert [line for line in told.err.splitlines() if line.startswith("pacs-train: ")] == [
            line for line in told.err.splitlines() if line.strip()
        ][-1:]

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["phantoms", "{out}", "--patients", "8", "--seed", "3"], "; the same command goes on"),
            (["inspect", "{tree}", "--no-decode"], ""),
        ],
    )
    def test_ctrl_c(
        self,
        tree: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        told: str,
    ) -> None:
        """Ctrl-C is exit code 130 and one line, which speaks of going on only where there is such a way."""

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(phantoms, "write_tree", interrupt)
        monkeypatch.setattr("training.inspect.inspect", interrupt)
        with pytest.raises(SystemExit) as ended:
            main([word.format(out=tmp_path, tree=tree) for word in arguments])
        assert ended.value.code == 130
        assert capsys.readouterr().err == f"pacs-train: stopped{told}\n"
