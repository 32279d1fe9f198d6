"""`pacs-train fit`: three members one after the other, or one at a time, and then what stands on top of them.

Enters: a data folder and a preset. Leaves: a run's folder, from which `export` makes a bundle. What stands on top:
gates by the hold-out that chose the epochs; calibration, thresholds and guard by the other one. Official valid is never
read.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pacs_agent.analyse.ensemble import configure_torch, describe, normalised, resolve_device
from pacs_agent.analyse.network import GatedEnsemble, build_network
from pacs_agent.errors import BundleError
from pacs_agent.evaluation.metrics import draw_patients, measure
from training.cache import alone
from training.calibrate import calibrated, fit_calibration, fit_thresholds
from training.checkpoint import read_tensors, write_json, write_tensors
from training.errors import TrainingError
from training.gate import fit_gates
from training.guard import fit_guard
from training.member import BEST, EVALUATION_BATCH, Task, train_member
from training.mura import PARTS
from training.preset import Preset
from training.run import ENSEMBLE, RESULT, Run, open_run
from training.state import is_done
from training.studies import Studies, choosing_figures, studies_of

MEMBERS = (1, 2, 3)
GUARD_IMAGES = 20_000  # more would not change a covariance of a few hundred features


class Reporter(Protocol):
    """Who is told how far it is."""

    def begin(self, what: str, total: int) -> None:
        """Something of *total* steps begins."""

    def advance(self, count: int) -> None:
        """So many of them are done."""


class Silent:
    """A reporter that tells nobody."""

    def begin(self, what: str, total: int) -> None:
        """See `Reporter`."""

    def advance(self, count: int) -> None:
        """See `Reporter`."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for beside its preset.

    Attributes:
        seed: of the hold-outs and of everything random.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        resume: go on with a run that is there.
        pretrained: start backbones from weights of photographs.
        member: train this one only, 1 to 3; the last one to end puts the ensemble together.
        parts: to train with.
        cache: folder of decoded pictures; None: in the run's folder.
    """

    seed: int = 1
    device: str = "auto"
    resume: bool = False
    pretrained: bool = True
    member: int | None = None
    parts: Sequence[str] = PARTS
    cache: Path | None = None


def fit(
    data: Path, preset: Preset, out: Path, options: Options, reporter: Reporter | None = None
) -> dict[str, Any] | None:
    """Train, from where the run stands.

    Args:
        data: of MURA or of phantoms.
        preset: the recipe.
        out: the run's folder.
        options: see there.
        reporter: told of every picture and step.

    Returns:
        What `result.json` says; None where members are still to be trained.

    Raises:
        TrainingError: the data, the device or the folder cannot be used.
    """
    reporter = reporter or Silent()
    try:
        device = resolve_device(options.device)
    except BundleError as error:
        raise TrainingError(str(error)) from error
    configure_torch()
    reporter.begin("decoding", 0)
    run = open_run(
        out,
        data,
        preset,
        seed=options.seed,
        pretrained=options.pretrained and any(member.backbone for member in preset.members),
        parts=options.parts,
        cache=options.cache,
        begun=options.resume or options.member is not None,
        advance=reporter.advance,
    )
    for number in MEMBERS if options.member is None else (options.member,):
        task = member_task(run, number)
        with _held(task.folder):
            if not options.resume and any(task.folder.glob("*.safetensors")):
                raise TrainingError(f"{task.folder}: was begun already; --resume goes on with it")
            reporter.begin(f"member {number}", task.steps * task.recipe.epochs)
            train_member(task, device, advance=reporter.advance)
    if not all(is_done(run.member_folder(number)) for number in MEMBERS):
        return None
    return put_together(run, device, reporter)


def member_task(run: Run, number: int) -> Task:
    """What a member of the run learns from."""
    chosen = run.indices("choose")
    studies = studies_of([run.images[index] for index in chosen])
    size = len(run.pictures)
    labels, weights = np.zeros(size, np.int64), np.ones(size, np.float32)
    labels[run.rows] = [image.label for image in run.images]
    if run.preset.rebalance:
        weights[run.rows] = part_weights(run)
    return Task(
        folder=run.member_folder(number),
        number=number,
        seed=run.facts["seed"],
        spec=run.preset.input,
        recipe=run.preset.members[number - 1],
        flip=run.preset.test_time_flip,
        pretrained=run.facts["pretrained"],
        pictures=run.pictures,
        rows=run.rows[run.indices("fit")],
        labels=labels,
        weights=weights,
        chosen_by=run.rows[chosen],
        score=lambda probabilities: choosing_figures(studies, probabilities),
    )


def part_weights(run: Run) -> NDArray[np.float32]:
    """Each image's weight by its part: N/(A+N) for abnormal ones, A/(A+N) for normal ones, of what is learnt from."""
    learnt = [run.images[index] for index in run.indices("fit")]
    share = {part: np.mean([image.label for image in learnt if image.part == part]) for part in run.facts["parts"]}
    return np.array([1 - share[image.part] if image.label else share[image.part] for image in run.images], np.float32)


def put_together(run: Run, device: torch.device, reporter: Reporter) -> dict[str, Any]:
    """The ensemble of the members' best weights, and all that is fitted on top of it.

    Returns:
        What it wrote to `result.json`.
    """
    preset, seed = run.preset, run.facts["seed"]
    ensemble = build_network(preset.architecture.name, preset.architecture.arguments, gating="by_part")
    members = []
    for number, member in enumerate(ensemble.members, start=1):
        tensors, best = read_tensors(run.member_folder(number) / BEST)
        member.load_state_dict(tensors)
        members.append(best)
    network = ensemble.eval().to(device).to(memory_format=torch.channels_last)
    fitted, chosen, held_out = run.indices("fit"), run.indices("choose"), run.indices("calibrate")
    if len(fitted) > GUARD_IMAGES:
        fitted = np.sort(np.random.default_rng(seed).choice(fitted, GUARD_IMAGES, replace=False))
    reporter.begin("ensemble", len(fitted) + len(chosen) + len(held_out))
    seen = {name: _describe_all(run, network, which, reporter) for name, which in
            (("fit", fitted), ("choose", chosen), ("calibrate", held_out))}  # fmt: skip
    ensemble = ensemble.cpu()

    images = [run.images[index] for index in chosen]
    gates = fit_gates(
        ensemble,
        seen["choose"][0],
        torch.tensor([image.label for image in images]),
        [image.part for image in images],
        np.unique([image.patient for image in images], return_inverse=True)[1].astype(np.int64),
        seed,
    )
    studies = {name: studies_of([run.images[i] for i in which]) for name, which in
               (("choose", chosen), ("calibrate", held_out))}  # fmt: skip
    means = {
        name: studies[name].means(_probabilities(ensemble, seen[name][0], [run.images[i].part for i in which]))
        for name, which in (("choose", chosen), ("calibrate", held_out))
    }
    calibration = fit_calibration(means["calibrate"], studies["calibrate"].labels)
    certain = {name: calibrated(calibration, means[name]) for name in means}
    thresholds = fit_thresholds(studies["calibrate"], certain["calibrate"], preset.thresholds)
    guard, tensors = fit_guard(
        seen["fit"][1],
        [run.images[index].part for index in fitted],
        np.array([run.images[index].label for index in fitted], np.int64),
        seen["calibrate"][1],
        [run.images[index].part for index in held_out],
        preset.guard,
    )
    result = {
        "calibration": calibration.model_dump(),
        "thresholds": thresholds.model_dump(),
        "guard": guard.model_dump(mode="json"),
        "members": members,
        "gates": gates,
        "threshold_rule": preset.thresholds.model_dump(),
        "hold_outs": {name: _figures(studies[name], certain[name], thresholds.per_part) for name in certain},
    }
    write_tensors(run.folder / ENSEMBLE, {**ensemble.state_dict(), **tensors}, {})
    write_json(run.folder / RESULT, result)
    return result


@torch.no_grad()  # not inference mode: gates are fitted on what leaves here
def _describe_all(
    run: Run, network: GatedEnsemble, which: NDArray[np.int64], reporter: Reporter
) -> tuple[Tensor, Tensor]:
    """Member logits (N, 3, classes) and pooled features (N, D) of some images, on the CPU."""
    device = next(network.parameters()).device
    logits, pooled = [], []
    # In float32 on any device: calibration and guard must hold for a daemon on a CPU too.
    for start in range(0, len(which), EVALUATION_BATCH):
        some = which[start : start + EVALUATION_BATCH]
        inputs = normalised(np.asarray(run.pictures[run.rows[some]]), run.preset.input, device)
        parts = [run.images[index].part for index in some]
        output = describe(network, inputs, parts, flip=run.preset.test_time_flip, reduced=False)
        logits.append(output.member_logits.float().cpu())
        pooled.append(output.pooled.float().cpu())
        reporter.advance(len(some))
    return torch.cat(logits), torch.cat(pooled)


@torch.no_grad()
def _probabilities(ensemble: GatedEnsemble, member_logits: Tensor, parts: Sequence[str]) -> NDArray[np.float64]:
    logits = ensemble.combine(member_logits, list(parts))
    return torch.softmax(logits, dim=1)[:, 1].double().numpy()


def _figures(studies: Studies, probabilities: NDArray[np.float64], per_part: dict[str, float]) -> dict[str, Any]:
    """Study level, with intervals: at the thresholds, and at 0.5 beside them."""
    draws = draw_patients(int(studies.patients.max()) + 1)
    thresholds = np.array([per_part[part] for part in studies.parts.tolist()])
    told: dict[str, Any] = {"studies": len(studies.labels)}
    for name, at in (("at_thresholds", thresholds), ("at_half", np.float64(0.5))):
        groups = measure(studies.scored(probabilities, at), draws)
        told[name] = {
            part: {
                "studies": group.n,
                **{
                    figure: {"value": found.value, "low": found.low, "high": found.high}
                    for figure, found in group.figures.items()
                },
            }
            for part, group in groups.items()
        }
    return told


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Train a member in one process only."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise TrainingError(f"{folder}: another process trains this member") from error
        except OSError as error:
            raise TrainingError(f"{folder}: cannot be written: {error.strerror or error}") from error
        yield
