"""One member of an ensemble: a recipe and decoded pictures in, the weights of its best epoch out.

The loop reads top to bottom. Every random number of a step comes from the run's seed, the member, the epoch and the
step, so that there is no random state to save: a run that was killed goes on from its last checkpoint to the same end.
Enters: arrays and a folder. Leaves: `best.safetensors`, `metrics.jsonl`, and `checkpoint.safetensors` to go on from.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pacs_agent.analyse.ensemble import normalised
from pacs_agent.analyse.network import Backbone, BaseModel, Member
from pacs_agent.analyse.pixels import InputSpec
from training.augment import augment
from training.checkpoint import write_tensors
from training.errors import TrainingError
from training.preset import Recipe
from training.schedule import learning_rate
from training.state import CHECKPOINT, State, append_metrics, resume, save

BEST = "best.safetensors"
CHECKPOINT_SECONDS = 180.0
EVALUATION_BATCH = 64

Score = Callable[[NDArray[np.float64]], dict[str, float]]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Task:
    """What a member learns from.

    Attributes:
        folder: of this member.
        number: 1 to 3.
        seed: of the run.
        spec: of the network's input.
        recipe: how it learns.
        flip: whether the ensemble will see mirror images too; then the score does.
        pretrained: whether a backbone starts from weights of photographs.
        pictures: uint8 (N, size, size) of every image.
        rows: of those to learn from.
        labels: int64 (N,), 1 abnormal.
        weights: float32 (N,), of each image's loss.
        chosen_by: rows of the hold-out that the best epoch is chosen by.
        score: probabilities of those rows to figures; the greatest `score` is best.
    """

    folder: Path
    number: int
    seed: int
    spec: InputSpec
    recipe: Recipe
    flip: bool
    pretrained: bool
    pictures: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    chosen_by: NDArray[np.int64]
    score: Score

    @property
    def steps(self) -> int:
        """Of an epoch: whole batches only, because a batch of one has no variance to normalise by."""
        return max(1, len(self.rows) // self.recipe.batch)


def train_member(
    task: Task,
    device: torch.device,
    *,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    advance: Advance = lambda _: None,
) -> dict[str, float]:
    """Train until the last epoch, from the last checkpoint if there is one.

    Args:
        task: what from, and where to.
        device: to train on.
        checkpoint_seconds: the longest time that a kill may cost.
        advance: called with the number of steps just done.

    Returns:
        The figures of the best epoch.

    Raises:
        TrainingError: the loss is no longer a number, no epoch can be told from another, or the disk refused.
    """
    recipe = task.recipe
    with torch.random.fork_rng(devices=[]):
        state = new_state(task, device)
        if (task.folder / CHECKPOINT).exists():
            resume(task.folder, state)
            advance(state.epoch * task.steps + state.step)
        weights = torch.from_numpy(task.weights).to(device)
        labels = torch.from_numpy(task.labels).to(device)
        saved = time.monotonic()
        for epoch in range(state.epoch, recipe.epochs):
            order = np.random.default_rng(mixed(task.seed, task.number, epoch)).permutation(task.rows)
            _freeze_body(state.network, epoch < recipe.head_epochs)
            loss_sum = torch.full((), state.loss_sum, dtype=torch.float64, device=device)
            for step in range(state.step, task.steps):
                rows = order[step * recipe.batch : (step + 1) * recipe.batch]
                loss_sum += train_step(task, state, rows, labels, weights, epoch, step)
                advance(1)
                if time.monotonic() - saved >= checkpoint_seconds and step + 1 < task.steps:
                    state.step, state.loss_sum = step + 1, float(loss_sum)
                    save(task.folder, state)
                    saved = time.monotonic()
            _finish_epoch(task, state, epoch, float(loss_sum) / task.steps)
            saved = time.monotonic()
    return state.best


def new_member(recipe: Recipe, *, pretrained: bool = False) -> Member:
    """A network as the recipe names it.

    Raises:
        TrainingError: timm is not installed, or cannot fetch weights.
    """
    if recipe.backbone is None:
        return BaseModel(dropout=recipe.stage_dropout)
    try:
        return Backbone(recipe.backbone, 2, dropout=recipe.dropout, pretrained=pretrained)
    except ModuleNotFoundError as error:
        raise TrainingError(f"{recipe.backbone} needs {error.name} (pip install 'pacs-agent[train]')") from error
    except (RuntimeError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        hint = "; --no-pretrained starts without" if pretrained else ""
        raise TrainingError(f"{recipe.backbone}: its weights cannot be had: {lines[0][:200]}{hint}") from error


@torch.inference_mode()
def predict_member(network: Member, pictures: NDArray[np.uint8], spec: InputSpec, *, flip: bool) -> NDArray[np.float64]:
    """The probability of `abnormal` for each of N pictures, of a member alone."""
    device = next(network.parameters()).device
    found = [np.zeros(0)]
    for start in range(0, len(pictures), EVALUATION_BATCH):
        inputs = normalised(pictures[start : start + EVALUATION_BATCH], spec, device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(inputs)
            if flip:
                logits = (logits + network(inputs.flip(3))) / 2
        found.append(torch.softmax(logits.double(), dim=1)[:, 1].cpu().numpy())
    return np.concatenate(found)


def mixed(*numbers: int) -> int:
    """A seed made of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def train_step(
    task: Task, state: State, rows: NDArray[np.int64], labels: Tensor, weights: Tensor, epoch: int, step: int
) -> Tensor:
    """One batch forward and back; its loss."""
    recipe, device = task.recipe, labels.device
    seed = mixed(task.seed, task.number, epoch, step)
    torch.manual_seed(seed)  # of dropout
    pictures = torch.from_numpy(np.asarray(task.pictures[rows])).to(device)
    inputs = augment(pictures, task.spec, recipe.augment, torch.Generator().manual_seed(seed))
    index = torch.from_numpy(rows).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        logits = state.network(inputs)
    losses = functional.cross_entropy(
        logits.float(), labels[index], reduction="none", label_smoothing=recipe.label_smoothing
    )
    loss = (losses * weights[index]).sum() / weights[index].sum()
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if recipe.gradient_norm:
        nn.utils.clip_grad_norm_(state.network.parameters(), recipe.gradient_norm)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(recipe, epoch + step / task.steps)
    state.optimizer.step()
    _follow(state.average, state.network, recipe.ema, epoch * task.steps + step)
    return loss.detach().double()


@torch.no_grad()
def _follow(average: Member, network: Member, decay: float, steps_done: int) -> None:
    """Move the moving average of the weights, batch norm's statistics among them; it starts quick and slows down."""
    decay = min(decay, (1 + steps_done) / (10 + steps_done))
    mine, theirs = average.state_dict(), network.state_dict()
    names = [name for name, tensor in theirs.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([mine[name] for name in names], [theirs[name] for name in names], 1 - decay)


def _finish_epoch(task: Task, state: State, epoch: int, loss: float) -> None:
    if not math.isfinite(loss):
        raise TrainingError(f"member {task.number}: the loss is no longer a number in epoch {epoch + 1}: learn slower")
    figures = task.score(_predict_rows(task, state.average))
    line = {"epoch": epoch + 1, "loss": loss, "learning_rate": state.optimizer.param_groups[0]["lr"], **figures}
    append_metrics(task.folder, line)
    # A score of NaN is less than none: every other would lose against it.
    if math.isfinite(figures["score"]) and (not state.best or figures["score"] > state.best["score"]):
        state.best = {"epoch": epoch + 1, **figures}
        write_tensors(task.folder / BEST, state.average.state_dict(), state.best)
    state.epoch, state.step, state.loss_sum, state.done = epoch + 1, 0, 0.0, epoch + 1 == task.recipe.epochs
    if state.done and not state.best:
        raise TrainingError(f"member {task.number}: no epoch gave a score on the hold-out to choose it by")
    save(task.folder, state)


def _predict_rows(task: Task, network: Member) -> NDArray[np.float64]:
    """As `predict_member`, a batch of rows at a time, so that the pictures are never in memory all at once."""
    batches = np.array_split(task.chosen_by, max(1, -(-len(task.chosen_by) // EVALUATION_BATCH)))
    return np.concatenate(
        [predict_member(network, np.asarray(task.pictures[rows]), task.spec, flip=task.flip) for rows in batches]
    )


def new_state(task: Task, device: torch.device) -> State:
    """The state before the first step, by the run's seed; the folder is made."""
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{task.folder}: cannot be written: {error.strerror or error}") from error
    torch.manual_seed(mixed(task.seed, task.number))
    network = new_member(task.recipe, pretrained=task.pretrained and not (task.folder / CHECKPOINT).exists())
    network = network.to(device).to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(network).eval().requires_grad_(False)
    return State(network, average, _optimizer(network, task.recipe))


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Weight decay is for matrices and kernels only, not for biases and norms."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in network.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    rate = recipe.learning_rate
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, rate, fused=True)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, rate, fused=True)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
    return torch.optim.RMSprop(groups, rate, momentum=recipe.momentum)


def _freeze_body(network: Member, frozen: bool) -> None:
    """While only the last layer learns, a backbone keeps its weights and its batch statistics."""
    if isinstance(network, Backbone):
        network.body.requires_grad_(not frozen)
        network.body.train(not frozen)
