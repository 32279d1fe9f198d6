"""A run on a tiny tree: killed and resumed to the same end, refused in one line, and made into a bundle that runs."""

import errno
import json
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peers import wait_for
from safetensors import SafetensorError
from safetensors.torch import load_file
from trees import PRESET, make_tree

from pacs_agent.analyse.bundle import load_bundle
from pacs_agent.analyse.ensemble import Ensemble
from pacs_agent.analyse.network import BackboneEnsemble
from pacs_agent.analyse.pixels import model_input, read_picture
from training import fit as fitting
from training import member
from training import run as runs
from training.cli import main
from training.errors import TrainingError
from training.evaluate import evaluate, predict_images, score
from training.fit import Options, fit, member_task, part_weights
from training.member import new_state, train_member, train_step
from training.mura import read_split
from training.preset import Preset, make_preset, read_preset
from training.run import Run, open_run
from training.schedule import learning_rate
from training.state import CHECKPOINT, METRICS, is_done, resume, save
from training.studies import Studies

PARTS = ("elbow", "hand", "shoulder")
Told = list[tuple[Studies, np.ndarray, dict[str, float]]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors are slower on several threads; sums, and so the last bits, depend on their number."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in ("training.fit", "training.evaluate"):
            monkeypatch.setattr(f"{module}.configure_torch", lambda: torch.set_num_threads(1))
        yield
    torch.set_num_threads(threads)


ON_ONE_CORE = (
    "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from training.cli import main; main()"
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("mura") / "MURA-v1.1", patients=8, parts=PARTS)


@pytest.fixture(scope="module")
def preset_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preset") / "tiny.toml"
    path.write_text(PRESET)
    return path


@pytest.fixture(scope="module")
def preset(preset_path: Path) -> Preset:
    return read_preset(str(preset_path))


@pytest.fixture(scope="module")
def finished(tree: Path, preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("run") / "whole"
    assert fit(tree, preset, run, Options(device="cpu", parts=PARTS)) is not None
    return run


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code if isinstance(ended.value.code, int) else -1


def same_tensors(first: Path, second: Path) -> bool:
    a, b = load_file(first), load_file(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class StopError(Exception):
    """A test's own way to end a run at a moment."""


@pytest.mark.parametrize("where", ["before a checkpoint", "within an epoch", "before its end", "between members"])
def test_resumed_to_the_same_end(
    tree: Path, preset: Preset, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Stopped at any moment and resumed: the weights, the metrics and the result of a run that never stopped."""
    with monkeypatch.context() as stopping:
        stopping.setattr("training.fit.train_member", checkpoints_at_every_step(preset))
        stop_at(stopping, where)
        with pytest.raises(StopError):
            fit(tree, preset, tmp_path / "run", Options(device="cpu", parts=PARTS))
    fit(tree, preset, tmp_path / "run", Options(device="cpu", parts=PARTS, resume=True))
    for number in (1, 2, 3):
        for name in ("best.safetensors", CHECKPOINT):
            assert same_tensors(tmp_path / f"run/member{number}" / name, finished / f"member{number}" / name)
        metrics = f"member{number}/{METRICS}"
        assert (tmp_path / "run" / metrics).read_text() == (finished / metrics).read_text()
    assert same_tensors(tmp_path / "run/ensemble.safetensors", finished / "ensemble.safetensors")
    assert (tmp_path / "run/result.json").read_text() == (finished / "result.json").read_text()


def checkpoints_at_every_step(preset: Preset) -> Callable[..., object]:
    """`train_member`, writing a checkpoint after each step."""
    assert preset.members[0].epochs == 2
    return lambda task, device, advance: train_member(task, device, checkpoint_seconds=0, advance=advance)


def stop_at(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Raise `StopError` at a moment: the second call of something, or the first."""
    target = {
        "before a checkpoint": ("_follow", 1),
        "within an epoch": ("_follow", 3),
        "before its end": ("save", 4),
        "between members": ("new_state", 2),
    }[where]
    real, calls = getattr(member, target[0]), []

    def stopping(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == target[1]:
            raise StopError
        return real(*arguments)

    monkeypatch.setattr(member, target[0], stopping)


def test_a_killed_process_resumes(tree: Path, preset_path: Path, finished: Path, tmp_path: Path) -> None:
    """SIGKILL after the first epoch, `--resume` with one member a process: member 1 has the same weights."""
    run = tmp_path / "run"
    arguments = ["fit", str(tree), "--preset", str(preset_path), "--out", str(run), "--device", "cpu"]
    arguments += ["--parts", ",".join(PARTS), "--member", "1"]
    process = subprocess.Popen([sys.executable, "-c", ON_ONE_CORE, *arguments], stderr=subprocess.DEVNULL)
    wait_for(lambda: (run / "member1" / CHECKPOINT).exists() or process.poll() is not None, what="a checkpoint")
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert command(*arguments) == 2  # begun already
    assert command(*arguments, "--resume") == 0
    assert same_tensors(run / "member1/best.safetensors", finished / "member1/best.safetensors")
    assert not (run / "result.json").exists()
    assert command("export", str(run), "--out", str(tmp_path / "bundle")) == 2
    assert not (tmp_path / "bundle").exists()


def test_ctrl_c_is_one_line(
    tree: Path, preset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while pictures are decoded: exit code 130, one line, nothing but a lock in the run's folder."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.cache._decode_all", interrupt)
    run = tmp_path / "run"
    arguments = ["fit", str(tree), "--preset", str(preset_path), "--out", str(run), "--parts", ",".join(PARTS)]
    assert command(*arguments, "--device", "cpu") == 130
    assert capsys.readouterr().err == "pacs-train: stopped; a run goes on with --resume\n"
    assert [path.suffix for path in run.rglob("*") if path.is_file()] == [".lock"]


def test_the_bundle_runs_and_tells_where_it_comes_from(tree: Path, finished: Path, tmp_path: Path) -> None:
    """The exported bundle is trained, its guard knows its own pictures and flags strangers, its provenance is there."""
    assert command("export", str(finished), "--out", str(tmp_path / "bundle"), "--version", "2.0.0") == 0
    bundle = load_bundle(tmp_path / "bundle")
    manifest = bundle.manifest
    assert (manifest.name, manifest.version, manifest.trained) == ("tiny", "2.0.0", True)
    assert not manifest.requires_quality_control_subject
    assert manifest.body_parts == PARTS
    assert manifest.calibration is not None
    assert manifest.guard is not None
    assert {"data", "seed", "preset", "versions", "hold_outs", "members"} <= set(manifest.provenance)
    images = read_split(tree, "train")
    inputs = np.stack([model_input(read_picture(i.path, max_pixels=10_000), manifest.input) for i in images])
    stranger = np.random.default_rng(1).integers(0, 256, (1, 32, 32)).astype(np.uint8)
    examined = Ensemble(bundle, "cpu").examine(
        np.concatenate([inputs, stranger]), [*(image.part for image in images), "hand"], 16
    )
    flags = [verdict is not None and verdict.flagged for verdict in examined.verdicts]
    assert flags[-1]
    assert sum(flags[:-1]) <= 0.1 * len(images)


@pytest.fixture(scope="module")
def learnt(preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any], Told]:
    """Data, a run with epochs enough to learn them, its result, and by hold-out the studies' probabilities."""
    tree = make_tree(tmp_path_factory.mktemp("mura") / "MURA-v1.1", patients=12, parts=PARTS)
    out = tmp_path_factory.mktemp("run") / "learnt"
    told: Told = []
    figures = fitting._figures

    def kept(studies: Studies, probabilities: np.ndarray, per_part: dict[str, float]) -> dict[str, Any]:
        told.append((studies, probabilities, per_part))
        return figures(studies, probabilities, per_part)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(fitting, "_figures", kept)
        result = fit(tree, preset.changed(epochs=8, rebalance=False), out, Options(device="cpu", parts=PARTS))
    assert result is not None
    return tree, out, result, told


def test_it_learns(learnt: tuple[Path, Path, dict[str, Any], Told]) -> None:
    """Each member finds the square on patients it has not seen, whatever its recipe, and so does the ensemble."""
    _, _, result, _ = learnt
    assert all(best["score"] > 0.9 for best in result["members"])
    for hold_out in result["hold_outs"].values():
        figures = hold_out["at_thresholds"]["overall"]
        assert figures["auroc"]["value"] > 0.9
        assert figures["brier"]["value"] < 0.2  # calibrated the right way round


def test_evaluation_says_what_the_fit_said(learnt: tuple[Path, Path, dict[str, Any], Told], tmp_path: Path) -> None:
    """The exported bundle gives the hold-outs' studies the same probabilities, judged by the same thresholds."""
    tree, out, _, told = learnt
    assert command("export", str(out), "--out", str(tmp_path / "bundle")) == 0
    bundle = load_bundle(tmp_path / "bundle")
    opened = open_run(
        out, tree, read_run_preset(out), seed=1, pretrained=False, parts=PARTS, cache=None, begun=True,
        advance=lambda _: None,
    )  # fmt: skip
    for role, (studies, probabilities, per_part) in zip(("choose", "calibrate"), told, strict=True):
        images = [opened.images[index] for index in opened.indices(role)]
        _, levels = score(bundle, predict_images(bundle, images, device="cpu"))
        np.testing.assert_array_equal(levels["study"].labels, studies.labels)
        np.testing.assert_allclose(levels["study"].probabilities, probabilities, atol=1e-5)
        assert levels["study"].thresholds.tolist() == [per_part[part] for part in studies.parts.tolist()]
    assert evaluate(bundle, tree, "train", device="cpu", resamples=10).learnt_from
    other = make_tree(tmp_path / "MURA-v1.1", patients=1, parts=PARTS)
    assert not evaluate(bundle, other, "train", device="cpu", resamples=10).learnt_from


def read_run_preset(folder: Path) -> Preset:
    """The preset that a run was begun with."""
    return runs.preset_of(runs.read_facts(folder))


def test_phantoms_make_a_bundle_for_phantoms(finished: Path, tmp_path: Path) -> None:
    """A run whose data say that they are phantoms makes a bundle that asks for QualityControlSubject."""
    for name in ("run.json", "result.json", "ensemble.safetensors"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    facts = json.loads((tmp_path / "run.json").read_text())
    facts["data"]["phantoms"] = True
    (tmp_path / "run.json").write_text(json.dumps(facts))
    assert command("export", str(tmp_path), "--out", str(tmp_path / "bundle")) == 0
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.requires_quality_control_subject
    assert manifest.intended_use == "demonstration: synthetic phantoms"


@pytest.mark.parametrize(
    ("change", "tells"),
    [
        (["--device", "cuda:9"], "cuda:9 was asked for"),
        (["--device", "tpu"], "--device is"),
        (["--parts", "all"], "no picture of finger"),
        (["--parts", "knee"], "'knee' is none of"),
        (["--preset", "other"], "preset other: there is none"),
        (["--cache", "/proc/none"], "cache /proc/none"),
        (["--out", "/proc/none/run", "--cache", "{tmp}/cache"], "/proc/none/run: cannot be written"),
    ],
)
def test_used_wrongly(
    tree: Path, preset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], tells: str
) -> None:
    """One line, exit code 2, no run's folder."""
    arguments = ["fit", str(tree), "--preset", str(preset_path), "--out", str(tmp_path / "run"), "--device", "cpu"]
    change = [word.format(tmp=tmp_path) for word in change]
    assert command(*arguments, "--parts", ",".join(PARTS), *change) == 2
    captured = capsys.readouterr()
    assert tells in captured.err
    assert captured.err.strip().count("\n") == 0
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_only_as_it_began(tree: Path, preset: Preset, finished: Path) -> None:
    """A run that is there is refused without `resume`, and with another seed or preset."""
    for options, other, tells in (
        (Options(parts=PARTS), preset, "--resume goes on"),
        (Options(parts=PARTS, resume=True, seed=9), preset, "another seed"),
        (Options(parts=PARTS, resume=True), preset.changed(epochs=5, rebalance=False), "another preset"),
    ):
        with pytest.raises(TrainingError, match=tells):
            fit(tree, other, finished, options)


def test_a_loss_that_is_no_number_ends_in_one_line(tree: Path, preset: Preset, tmp_path: Path) -> None:
    """A learning rate far too high is told, and leaves nothing that would be taken for a trained member."""
    wild = preset.members[1].model_copy(update={"learning_rate": 1e30})
    hot = preset.model_copy(update={"members": (wild, *preset.members[1:])})
    with pytest.raises(TrainingError, match="member 1: the loss is no longer a number in epoch"):
        fit(tree, hot, tmp_path / "run", Options(device="cpu", parts=PARTS))
    assert not is_done(tmp_path / "run/member1")


def test_a_broken_picture_is_left_out_and_rebalancing_weighs(tmp_path: Path, preset: Preset) -> None:
    """A picture that does not decode is counted in `run.json` and learnt from by nobody; weights add up per part."""
    root = make_tree(tmp_path / "data", patients=6, parts=("hand",))
    broken = read_split(root, "train")[0].path
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    run = open_run(
        tmp_path / "run",
        root,
        preset.changed(epochs=None, rebalance=True),
        seed=1,
        pretrained=False,
        parts=("hand",),
        cache=None,
        begun=False,
        advance=lambda _: None,
    )
    assert run.facts["data"]["unreadable_count"] == 1
    assert broken not in [image.path for image in run.images]
    task = member_task(run, 1)
    assert 0 not in {*task.rows, *task.chosen_by}
    weights, learnt = part_weights(run), run.indices("fit")
    labels = np.array([image.label for image in run.images])[learnt]
    assert weights[learnt][labels == 1].sum() == pytest.approx(weights[learnt][labels == 0].sum())


def test_presets_that_ship_can_be_used() -> None:
    """`card` and `pretrained` read; their recipes are the card's options and the backbones that mura.md names."""
    card, pretrained = read_preset("card"), read_preset("pretrained")
    assert {member.optimizer for member in card.members} == {"adamw", "sgd", "adam"}
    assert card.input.size == 160
    assert not card.rebalance
    names = ["convnext_tiny", "tf_efficientnetv2_s", "densenet169"]
    assert [member.backbone for member in pretrained.members] == names
    assert pretrained.test_time_flip
    fields = tomllib.loads(PRESET)
    fields["members"][2]["optimizer"] = "lion"
    with pytest.raises(TrainingError, match=r"preset x: members\.2\.optimizer: Input should be 'adam'"):
        make_preset("x", fields)


@pytest.mark.parametrize(
    ("table", "change", "tells"),
    [
        ("architecture", {"arguments": {"num_classes": 3}}, "num_classes is 2"),
        ("architecture", {"arguments": {"num_classes": 2, "width": 4}}, "num_classes is 2"),
        ("architecture", {"name": "backbone_ensemble", "arguments": {}}, "members without a backbone"),
        ("input", {"channels": 1}, "channels are 3"),
        ("input", {"size": 1024}, "source_longest_side not below it"),
    ],
)
def test_what_no_bundle_could_be_made_of_is_told_at_once(table: str, change: dict[str, Any], tells: str) -> None:
    """A preset whose ensemble or input could not be put together after training is refused before it."""
    fields = tomllib.loads(PRESET)
    fields[table].update(change)
    with pytest.raises(TrainingError, match=tells):
        make_preset("x", fields)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "cyclic", "one-cycle"])
def test_schedules_stay_below_the_highest_and_end_low(preset: Preset, schedule: str) -> None:
    """Never above the recipe's rate, nearly reached once, and all but the constant one end at a tenth or less."""
    recipe = preset.members[0].model_copy(
        update={"schedule": schedule, "epochs": 12, "learning_rate": 1.0, "warm_up_epochs": 1.0}
    )
    rates = [learning_rate(recipe, epoch / 100) for epoch in range(1200)]
    assert 0.99 <= max(rates) <= 1.0
    assert min(rates) > 0
    assert (rates[-1] <= 0.1) == (schedule != "constant")


def test_backbones_go_the_same_way(tree: Path, preset: Preset, tmp_path: Path) -> None:
    """An ensemble of timm's, without weights, head first, flipped: fitted, exported, loaded."""
    pytest.importorskip("timm")
    names = ["test_resnet", "test_efficientnet", "test_convnext"]
    members = tuple(
        recipe.model_copy(update={"backbone": name, "optimizer": "adamw", "learning_rate": 1e-3, "head_epochs": 1})
        for recipe, name in zip(preset.members, names, strict=True)
    )
    architecture = preset.architecture.model_copy(
        update={"name": "backbone_ensemble", "arguments": {"backbones": names, "num_classes": 2}}
    )
    other = preset.model_copy(update={"members": members, "architecture": architecture, "test_time_flip": True})
    options = Options(device="cpu", parts=("hand",), pretrained=False)
    assert fit(tree, other, tmp_path / "run", options) is not None
    assert command("export", str(tmp_path / "run"), "--out", str(tmp_path / "bundle")) == 0
    ensemble = Ensemble(load_bundle(tmp_path / "bundle"), "cpu")
    assert isinstance(ensemble.network, BackboneEnsemble)
    picture = np.random.default_rng(1).integers(0, 256, (1, 32, 32)).astype(np.uint8)
    one, _ = ensemble.predict(picture, ["hand"], 1)
    mirrored, _ = ensemble.predict(picture[:, :, ::-1], ["hand"], 1)
    assert one == pytest.approx(mirrored, abs=1e-5)


def open_tiny(folder: Path, tree: Path, preset: Preset, seed: int) -> Run:
    """A run as `fit --member` begins it or goes on with it."""
    return open_run(
        folder, tree, preset, seed=seed, pretrained=False, parts=PARTS, cache=None, begun=True, advance=lambda _: None
    )


def test_begun_by_another_while_this_one_decodes(
    tree: Path, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two members started side by side with different seeds: the second is refused, the run is kept."""
    real = runs.open_cache

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(runs, "open_cache", real)
        open_tiny(tmp_path / "run", tree, preset, seed=2)
        return real(*arguments, **options)

    monkeypatch.setattr(runs, "open_cache", meanwhile)
    with pytest.raises(TrainingError, match="begun with another seed"):
        open_tiny(tmp_path / "run", tree, preset, seed=1)
    assert runs.read_facts(tmp_path / "run")["seed"] == 2


def test_no_room_is_no_fault_of_who_asked(
    tree: Path, preset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk too full for the cache: one line with both figures, exit 1, no run begun and no part of a cache."""
    monkeypatch.setattr("training.cache.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 60_000))
    with pytest.raises(SystemExit) as ended:
        main(
            ["fit", str(tree), "--preset", str(preset_path), "--out", str(tmp_path / "run"), "--parts", ",".join(PARTS)]
        )
    assert ended.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "MB are needed" in line
    assert "0.1 MB are free" in line
    left = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert [path.suffix for path in left] == [".lock"]  # which others may be waiting for


def test_a_score_of_nan_never_wins(tree: Path, preset: Preset, tmp_path: Path) -> None:
    """An epoch without a score loses against every other, and is null in the metrics; without any, it is told."""
    task = member_task(open_tiny(tmp_path / "run", tree, preset, seed=1), 1)
    scores = iter([float("nan"), 0.5, float("nan"), float("nan")])
    task = replace(task, score=lambda _: {"score": next(scores)})
    assert train_member(task, torch.device("cpu")) == {"epoch": 2, "score": 0.5}
    lines = (task.folder / METRICS).read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["score"] for line in lines[:2]] == [None, 0.5]
    with pytest.raises(TrainingError, match="no epoch gave a score"):
        train_member(replace(task, folder=tmp_path / "other"), torch.device("cpu"))


@pytest.mark.parametrize("name", [METRICS, ".lock", "member1"])
def test_a_full_disk_is_one_line(
    tree: Path, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A disk that fills up while a member's folder, lock or metrics are written: a TrainingError, no traceback."""
    opened, made = Path.open, Path.mkdir

    def full(real: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
            if path.name == name and path.is_relative_to(tmp_path / "run/member1"):
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(path, *arguments, **options)

        return refuse

    monkeypatch.setattr(Path, "open", full(opened))
    monkeypatch.setattr(Path, "mkdir", full(made))
    with pytest.raises(TrainingError, match="No space left on device"):
        fit(tree, preset, tmp_path / "run", Options(device="cpu", parts=PARTS))


def test_export_needs_no_other_disk(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights are written beside the bundle, wherever TMPDIR is; a full disk is one line and leaves nothing."""
    monkeypatch.setattr("tempfile.tempdir", "/proc/none")
    assert command("export", str(finished), "--out", str(tmp_path / "bundles/good")) == 0

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("training.export.save_file", full)
    assert command("export", str(finished), "--out", str(tmp_path / "bundles/full")) == 2
    assert "bundles/full: cannot be written: Error while serializing" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["good"]


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_resumes_on_cuda(tree: Path, preset: Preset, tmp_path: Path, optimizer: str) -> None:
    """What an optimizer keeps is, after a resume, on the device where it was; another step can be done."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda")
    task = member_task(open_tiny(tmp_path / "run", tree, preset, seed=1), 1)
    task = replace(task, recipe=task.recipe.model_copy(update={"optimizer": optimizer}))
    labels, weights = torch.from_numpy(task.labels).to(device), torch.from_numpy(task.weights).to(device)
    before, after = new_state(task, device), new_state(task, device)
    train_step(task, before, task.rows[:16], labels, weights, 0, 0)
    save(task.folder, before)
    resume(task.folder, after)
    kept, again = places(before.optimizer), places(after.optimizer)
    assert kept == again
    assert torch.isfinite(train_step(task, after, task.rows[16:32], labels, weights, 0, 1))


def places(optimizer: torch.optim.Optimizer) -> list[torch.device]:
    """Where each tensor lies that an optimizer keeps."""
    kept = optimizer.state_dict()["state"]
    return [value.device for index in sorted(kept) for value in kept[index].values() if isinstance(value, torch.Tensor)]
