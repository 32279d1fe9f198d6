"""A bundle and a split become figures, plots and a page; what cannot be read is told and left out."""

import json
import math
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Raster

import training.evaluate
from pacs_agent.analyse.bundle import Bundle, Calibration, Thresholds, load_bundle
from pacs_agent.analyse.ensemble import Ensemble
from pacs_agent.analyse.pixels import model_input, read_picture
from pacs_agent.evaluation.metrics import FIGURES, OVERALL
from training.anchors import CARD, VALID_IMAGES, VALID_STUDIES, is_official_valid, judge
from training.cli import main
from training.errors import TrainingError
from training.evaluate import Evaluation, Predicted, evaluate, metrics_json, predict_images, score
from training.export import seed_bundle
from training.mura import Image, read_split
from training.page import page, table, write_evaluation

PARTS = ("hand", "shoulder", "wrist")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code if isinstance(ended.value.code, int) else -1


def write_split(root: Path, split: str, patients: int) -> None:
    """A tree of MURA's layout: each patient one study of two images in a part or two, labels in turn."""
    rng = np.random.default_rng(4)
    images, studies = [], []
    for patient in range(patients):
        for part in (PARTS[patient % 3], PARTS[(patient + 1) % 3])[: 1 + patient % 2]:
            label = (patient + len(part)) % 2
            study = (
                f"MURA-v1.1/{split}/XR_{part.upper()}/patient{patient:05d}/study1_{'positive' if label else 'negative'}"
            )
            (root.parent / study).mkdir(parents=True)
            studies.append(f"{study}/,{label}")
            for number in (1, 2):
                images.append(f"{study}/image{number}.png")
                picture = rng.integers(0, 256, (12, 9), dtype=np.uint8)
                Raster.fromarray(picture).resize((60, 80)).save(root.parent / images[-1])
    (root / f"{split}_image_paths.csv").write_text("".join(f"{row}\n" for row in images))
    (root / f"{split}_labeled_studies.csv").write_text("".join(f"{row}\n" for row in studies))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "MURA-v1.1"
    for split in ("train", "valid"):
        root.mkdir(exist_ok=True)
        write_split(root, split, 12)
    return root


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return seed_bundle(tmp_path_factory.mktemp("bundle") / "seeded", 3)


def calibrated(bundle: Bundle) -> Bundle:
    """The same with a calibration and thresholds that change things."""
    manifest = bundle.manifest.model_copy(
        update={
            "trained": True,
            "calibration": Calibration(temperature=0.5, bias=0.3),
            "thresholds": Thresholds(default=0.9, per_part={"wrist": 0.4}),
        }
    )
    return replace(bundle, manifest=manifest)


def mura_valid(per_part: int | None = None) -> list[Image]:
    """Images with the counts of MURA's valid, or so many of each part and label; two to four a study."""
    images = []
    studies = 0
    sizes = {place: VALID_STUDIES // 14 + (index < VALID_STUDIES % 14) for index, place in enumerate(VALID_IMAGES)}
    for (part, label), count in VALID_IMAGES.items():
        for number in range(per_part or count):
            study = number % sizes[part, label]
            patient = f"patient{study % 60:05d}"
            path = Path(f"/data/valid/XR_{part.upper()}/{patient}/study{study}_x/image{number}.png")
            images.append(Image(path, part, patient, f"{part}/{patient}/study{label}{study}", label))
        studies += sizes[part, label]
    assert studies == VALID_STUDIES
    return images


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> "Evaluator":
    return Evaluator(monkeypatch, bundle)


class Evaluator:
    """Evaluates made-up probabilities, without pictures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
        self._monkeypatch, self._bundle = monkeypatch, bundle

    def __call__(
        self,
        images: Sequence[Image],
        *,
        right: float = 0.9,
        unreadable: Sequence[tuple[Path, str]] = (),
        flagged: int | None = None,
        bundle: Bundle | None = None,
    ) -> Evaluation:
        """The first *flagged* images flagged; of each, the called label is right with that chance."""
        rng = np.random.default_rng(2)
        correct = rng.random(len(images)) < right
        labels = np.array([image.label == 1 for image in images])
        probabilities = np.where(labels == correct, 0.8, 0.2) + rng.uniform(-0.15, 0.15, len(images))
        flags = None if flagged is None else np.arange(len(images)) < flagged
        predicted = Predicted(tuple(images), probabilities, flags, tuple(unreadable))
        self._monkeypatch.setattr(training.evaluate, "read_split", lambda data, split: list(images))
        self._monkeypatch.setattr(training.evaluate, "data_root", lambda data: Path("/data"))
        self._monkeypatch.setattr(training.evaluate, "predict_images", lambda *args, **options: predicted)
        return evaluate(bundle or self._bundle, Path("/data"), "valid", resamples=50)


def test_metrics_json_has_the_contracts_shape(data: Path, bundle: Bundle, tmp_path: Path) -> None:
    """Both levels, overall and each part that occurs, every figure with value, low and high; guard beside them."""
    out = tmp_path / "out"
    assert run("evaluate", bundle.path, data, "--split", "valid", "--out", out, "--resamples", 20) == 0
    told = json.loads((out / "metrics.json").read_text())
    for level, n in (("image", 36), ("study", 18)):
        assert set(told[level]) == {OVERALL, *PARTS}
        assert told[level][OVERALL]["n"] == n == sum(told[level][part]["n"] for part in PARTS)
        for group in told[level].values():
            assert set(group) == {"n", *FIGURES}
            assert all(set(group[figure]) == {"value", "low", "high"} for figure in FIGURES)
    assert told["guard"] is None
    assert told["card"]["beaten"] is None
    assert told["provenance"]["bundle"]["weights_sha256"] == bundle.manifest.weights_sha256
    assert told["provenance"]["data"] == {
        "split": "valid", "images_listed": 36, "images_read": 36, "studies": 18, "patients": 12,
        "official_valid": False, "phantoms": False, "learnt_from": False,
    }  # fmt: skip
    assert str(data) not in (out / "metrics.json").read_text() + (out / "evaluation.html").read_text()
    names = ["confusion.png", "evaluation.html", "kappa.png", "metrics.json", "reliability.png", "roc.png"]
    assert sorted(path.name for path in out.iterdir()) == names


def test_the_same_again_is_the_same_bytes(data: Path, bundle: Bundle, tmp_path: Path) -> None:
    """Two evaluations of the same write the same metrics and the same page."""
    for name in ("a", "b"):
        arguments = ("--split", "train", "--out", tmp_path / name, "--resamples", 20, "--seed", 7)
        assert run("evaluate", bundle.path, data, *arguments) == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_probabilities_are_the_daemons(data: Path, bundle: Bundle) -> None:
    """Each image's probability is that of the daemon's ensemble and preprocessing with the part of its folder."""
    images = read_split(data, "valid")
    predicted = predict_images(bundle, images, device="cpu")
    assert predicted.images == tuple(images)
    ensemble = Ensemble(bundle, "cpu")
    for image, probability in list(zip(images, predicted.probabilities, strict=True))[::7]:
        inputs = np.stack([model_input(read_picture(image.path, max_pixels=10**6), bundle.manifest.input)])
        assert ensemble.predict(inputs, [image.part], 1)[0].item() == pytest.approx(probability, abs=1e-6)


def test_a_study_is_the_calibrated_mean_of_its_images(bundle: Bundle) -> None:
    """Mean first, then the bundle's calibration, then the threshold of the part; an image as a study of one."""
    own = calibrated(bundle)
    images = [Image(Path(f"{n}.png"), part, f"p{n // 2}", f"{part}/p{n // 2}/study1", 1) for n, part in
              enumerate(["wrist", "wrist", "hand", "hand", "hand"])]  # fmt: skip
    raw = np.array([0.2, 0.6, 0.9, 0.5, 0.5])
    patients, levels = score(own, Predicted(tuple(images), raw, None, ()))
    assert patients == 3
    assert levels["image"].probabilities == pytest.approx([own.calibrate(p) for p in raw])
    found = {
        (part, patient): (probability, threshold)
        for part, patient, probability, threshold in zip(
            levels["study"].parts, levels["study"].patients, levels["study"].probabilities,
            levels["study"].thresholds, strict=True,
        )
    }  # fmt: skip
    assert found == {
        ("wrist", 0): (pytest.approx(own.calibrate(0.4)), 0.4),
        ("hand", 1): (pytest.approx(own.calibrate(0.7)), 0.9),
        ("hand", 2): (pytest.approx(own.calibrate(0.5)), 0.9),
    }


def test_figures_at_half_stand_beside(made_up: Evaluator, bundle: Bundle) -> None:
    """Other thresholds than 0.5 change what is called, not the order; both are told."""
    evaluation = made_up(mura_valid(20), bundle=calibrated(bundle))
    told = metrics_json(evaluation)
    for level in ("image", "study"):
        at_own, at_half = told[level][OVERALL], told["at_half"][level][OVERALL]
        assert at_own["auroc"] == at_half["auroc"]
        assert at_own["sensitivity"] != at_half["sensitivity"]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"text"])
def test_unreadable_images_are_listed_and_left_out(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    """A broken file costs itself only: it is named on stdout, in metrics.json and on the page."""
    root = tmp_path / "MURA-v1.1"
    root.mkdir()
    write_split(root, "valid", 4)
    broken = next(root.glob("valid/*/*/*/image1.png"))
    broken.write_bytes(content)
    assert run("evaluate", bundle.path, root, "--split", "valid", "--out", tmp_path / "o", "--resamples", 10) == 0
    name = broken.relative_to(root).as_posix()
    told = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert [row["image"] for row in told["provenance"]["unreadable"]] == [name]
    assert (told["image"][OVERALL]["n"], told["study"][OVERALL]["n"]) == (11, 6)
    assert name in capsys.readouterr().out
    assert name in (tmp_path / "o" / "evaluation.html").read_text()


def test_json_on_stdout(data: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json, stdout is metrics.json and nothing else."""
    arguments = ("--split", "valid", "--out", tmp_path / "o", "--resamples", 10, "--json")
    assert run("evaluate", bundle.path, data, *arguments) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert captured.err == ""


@pytest.mark.parametrize(
    ("changed", "tells"),
    [
        ({"--split": "test"}, "--split"),
        ({"--device": "tpu"}, "--device"),
        ({"--out": "{data}"}, "is there already"),
        ({"DATA": "{data}/valid"}, "image_paths.csv"),
        ({"BUNDLE": "{data}"}, "model.json is missing"),
        ({"--resamples": "1"}, "--resamples"),
    ],
)
def test_used_wrongly_is_one_line(
    data: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], tells: str
) -> None:
    """Exit code 2, one line, nothing on stdout, nothing written."""
    options = {"--split": "valid", "--out": str(tmp_path / "o"), "--resamples": "10"}
    values = {"BUNDLE": str(bundle.path), "DATA": str(data)} | options
    values |= {name: value.format(data=data) for name, value in changed.items()}
    positional = [values.pop("BUNDLE"), values.pop("DATA")]
    assert run("evaluate", *positional, *(word for pair in values.items() for word in pair)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pacs-train: ")
    assert captured.err.count("\n") == 1
    assert tells in captured.err
    assert not (tmp_path / "o").exists()


def test_no_readable_image_is_one_line(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A split of broken files only cannot be evaluated, and nothing is written."""
    root = tmp_path / "MURA-v1.1"
    root.mkdir()
    write_split(root, "valid", 1)
    for path in root.glob("valid/*/*/*/*.png"):
        path.write_bytes(b"broken")
    assert run("evaluate", bundle.path, root, "--split", "valid", "--out", tmp_path / "o") == 2
    assert "no image of valid could be read" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_the_card_is_beaten_by_the_lower_bound_only(made_up: Evaluator) -> None:
    """On MURA's valid: a kappa far above the card's beats it; one whose interval holds the card's does not."""
    above, near, below = (made_up(mura_valid(), right=right) for right in (0.95, 0.825, 0.75))
    assert above.official
    assert above.verdict.beaten is True
    kappa = near.groups["image"][OVERALL].figures["kappa"]
    assert kappa.low is not None
    assert kappa.high is not None
    assert kappa.low < CARD.kappa < kappa.high
    assert near.verdict.beaten is False
    assert below.verdict.beaten is False
    assert metrics_json(above)["card"]["beaten"] is True
    # The study level stands higher, and does not count.
    study = near.groups["study"][OVERALL].figures["kappa"]
    assert study.low is not None
    assert study.low > CARD.kappa


def test_the_card_is_not_beaten_elsewhere(made_up: Evaluator) -> None:
    """Other data than MURA's whole valid, phantoms and images left out leave the question open, and say so."""
    smaller = made_up(mura_valid(30), right=0.99)
    assert smaller.verdict.beaten is None
    assert "not the images of MURA's official valid" in smaller.verdict.why
    assert not is_official_valid(mura_valid(), phantoms=True)
    assert is_official_valid(mura_valid(), phantoms=False)
    for options, tells in (
        ({"official": False, "phantoms": True, "left_out": 0}, "phantoms never beat the card"),
        ({"official": True, "phantoms": False, "left_out": 2}, "2 images"),
    ):
        verdict = judge(0.9, **options)
        assert verdict.beaten is None
        assert tells in verdict.why
    left_out = made_up(mura_valid(), right=0.99, unreadable=[(Path("/data/valid/x.png"), "broken")])
    assert left_out.verdict.beaten is None


def test_phantoms_tell_by_severity_and_kind(made_up: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the phantoms' record: AUROC of each severity and kind against all normals, and no question of the card."""
    images = mura_valid()
    abnormal = [image for image in images if image.label]
    lesions = {
        image.path: ("plate" if number % 2 else "wire", 0.1 if number % 4 == 0 else 0.9)
        for number, image in enumerate(abnormal)
    }
    monkeypatch.setattr(training.evaluate, "read_lesions", lambda root: lesions)
    monkeypatch.setattr(training.evaluate, "is_phantoms", lambda root: True)
    evaluation = made_up(images, right=0.97)
    assert evaluation.phantoms
    assert not evaluation.official
    assert "phantoms never beat the card" in evaluation.verdict.why
    told = metrics_json(evaluation)["lesions"]
    assert {name: row["n_abnormal"] for name, row in told["kind"].items()} == {
        "plate": len(abnormal) // 2, "wire": len(abnormal) - len(abnormal) // 2,
    }  # fmt: skip
    assert sum(row["n_abnormal"] for row in told["severity"].values()) == len(abnormal)
    assert list(told["severity"]) == ["subtle, up to 0.3", "above 0.8"]
    assert 0.9 < told["kind"]["plate"]["auroc"]["value"] < 1


def test_the_guards_share(made_up: Evaluator) -> None:
    """The share of the images that the guard flags."""
    evaluation = made_up(mura_valid(10), flagged=14)
    assert metrics_json(evaluation)["guard"] == pytest.approx(0.1)
    assert "10.00%" in table(evaluation)


class Page(HTMLParser):
    """What a page refers to, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def pngs(parsed: Page) -> Iterator[Raster.Image]:
    for reference in parsed.references:
        assert reference.startswith("data:image/png;base64,")
        yield Raster.open(BytesIO(b64decode(reference.partition(",")[2], validate=True)))


def test_the_page_is_whole_in_itself(made_up: Evaluator, bundle: Bundle, tmp_path: Path) -> None:
    """The page holds its pictures, no script, nothing from elsewhere; names and reasons are shown as text."""
    evil = "<script>alert(1)</script>"
    named = replace(bundle, manifest=bundle.manifest.model_copy(update={"name": evil, "intended_use": evil}))
    unreadable = [(Path(f"/data/valid/{n}&<b>.png"), evil) for n in range(60)]
    evaluation = made_up(mura_valid(10), bundle=named, unreadable=unreadable)
    write_evaluation(evaluation, tmp_path / "o")
    text = (tmp_path / "o" / "evaluation.html").read_text()
    parsed = Page(text)
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert "http" not in re.sub(r"base64,[^']*", "", text)
    assert "&lt;script&gt;alert(1)" in text
    assert "0&amp;&lt;b&gt;.png" in text
    pictures = list(pngs(parsed))
    assert len(pictures) == 8  # four plots, for light and for dark
    assert {picture.size for picture in pictures} == {pictures[0].size}
    light = (tmp_path / "o" / "roc.png").read_bytes()
    assert light in [b64decode(reference.partition(",")[2]) for reference in parsed.references]


def test_the_page_tells_what_the_metrics_tell(made_up: Evaluator) -> None:
    """Every figure of both levels with its interval, the anchors at their own level, and that they do not compare."""
    evaluation = made_up(mura_valid(), right=0.9)
    text = page(evaluation, *(dict.fromkeys(("roc", "reliability", "confusion", "kappa"), b""),) * 2)
    image, _, study = text.partition("<h2>Study level</h2>")
    for level, part_of_page in (("image", image), ("study", study)):
        for group in evaluation.groups[level].values():
            for figure in group.figures.values():
                assert figure.value is not None
                assert f"<td>{figure.value:.3f}<small>{figure.low:.3f}–{figure.high:.3f}</small>" in part_of_page
    assert "0.6415" in image.partition("Anchors of this level")[2]
    assert "radiologists" not in image
    assert "0.778" in study
    assert "not to be compared" in text
    assert "not to be compared" in table(evaluation)


def test_one_class_and_one_image_are_shown(made_up: Evaluator, tmp_path: Path) -> None:
    """Data of a single class, even a single image, give a page with dashes where a figure is undefined."""
    image = mura_valid(1)[0]
    evaluation = made_up([image])
    write_evaluation(evaluation, tmp_path / "o")
    assert metrics_json(evaluation)["image"]["elbow"]["auroc"] == {"value": None, "low": None, "high": None}
    assert "<td>–</td>" in (tmp_path / "o" / "evaluation.html").read_text()
    assert {row["figure"] for row in metrics_json(evaluation)["bootstrap"]["fewer"]} == {
        "auroc",
        "kappa",
        "sensitivity",
    }


def test_the_shipped_bundle_can_be_measured(data: Path, tmp_path: Path) -> None:
    """A bundle is named as in the settings; one that ships is found by its name."""
    assert run("evaluate", "demonstration", data, "--split", "valid", "--out", tmp_path / "o", "--resamples", 10) == 0
    told = json.loads((tmp_path / "o" / "metrics.json").read_text())
    shipped = load_bundle("demonstration").manifest
    assert told["provenance"]["bundle"]["weights_sha256"] == shipped.weights_sha256
    assert not any(math.isnan(group["brier"]["value"]) for group in told["image"].values())


def test_only_the_bundles_parts_are_evaluated(data: Path, bundle: Bundle) -> None:
    """A bundle made for hands is measured on hands alone; a split without any is one line."""
    of_hands = replace(bundle, manifest=bundle.manifest.model_copy(update={"body_parts": ("hand",)}))
    evaluation = evaluate(of_hands, data, "valid", device="cpu", resamples=10)
    assert set(evaluation.groups["study"]) == {OVERALL, "hand"}
    assert evaluation.listed == sum(image.part == "hand" for image in read_split(data, "valid"))
    of_fingers = replace(bundle, manifest=bundle.manifest.model_copy(update={"body_parts": ("finger",)}))
    with pytest.raises(TrainingError, match="valid lists no picture of finger"):
        evaluate(of_fingers, data, "valid", device="cpu")
