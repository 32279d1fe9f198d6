"""Where a member stands, and the files that it goes on from: `checkpoint.safetensors` and `metrics.jsonl`.

Enters: networks and an optimizer. Leaves: the same, on disk or in place. Each file is of one moment; a checkpoint is
the truth, and lines of the metrics that are younger than it are forgotten.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pacs_agent.analyse.network import Member
from training.checkpoint import read_tensors, read_values, write_bytes, write_tensors
from training.errors import TrainingError

CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.jsonl"


@dataclass
class State:
    """Where a member stands; all that a checkpoint holds."""

    network: Member
    average: Member
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    done: bool = False


def is_done(folder: Path) -> bool:
    """Whether the member of this folder has had its last epoch."""
    path = folder / CHECKPOINT
    return path.exists() and bool(read_values(path)["done"])


def save(folder: Path, state: State) -> None:
    """Write the checkpoint.

    Raises:
        TrainingError: the disk refused; the one before still stands.
    """
    tensors = {f"network.{name}": tensor for name, tensor in state.network.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in state.average.state_dict().items()}
    for index, (parameter, _) in enumerate(_parameters(state.optimizer)):
        for name, value in state.optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
    values = {
        "epoch": state.epoch, "step": state.step, "loss_sum": state.loss_sum, "best": state.best, "done": state.done
    }  # fmt: skip
    write_tensors(folder / CHECKPOINT, tensors, values)


def resume(folder: Path, state: State) -> None:
    """Bring a state to where the checkpoint stands.

    Args:
        folder: of the member.
        state: as it was before the first step, on its device.

    Raises:
        TrainingError: the checkpoint cannot be read, or the disk refused.
    """
    tensors, values = read_tensors(folder / CHECKPOINT)
    for module, prefix in ((state.network, "network."), (state.average, "average.")):
        module.load_state_dict(
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        )
    parameters = _parameters(state.optimizer)
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            parameter, fused = parameters[int(index)]
            state.optimizer.state[parameter][name] = _like_new(tensor, parameter, fused=fused)
    state.epoch, state.step, state.done = values["epoch"], values["step"], values["done"]
    state.loss_sum, state.best = values["loss_sum"], values["best"]
    path = folder / METRICS
    if path.exists():
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise TrainingError(f"{path}: cannot be read: {error.strerror or error}") from error
        write_bytes(path, b"".join(lines[: state.epoch]))


def append_metrics(folder: Path, line: Mapping[str, float]) -> None:
    """Add an epoch's line; a figure that is not known is null.

    Raises:
        TrainingError: the disk refused.
    """
    path = folder / METRICS
    try:
        with path.open("a", encoding="utf-8") as file:
            told = {key: value if math.isfinite(value) else None for key, value in line.items()}  # NaN is not JSON
            file.write(json.dumps(told, allow_nan=False) + "\n")
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written: {error.strerror or error}") from error


def _like_new(tensor: Tensor, parameter: nn.Parameter, *, fused: bool) -> Tensor:
    """A value of the optimizer's, where and laid out as the optimizer itself would have made it."""
    if tensor.shape == parameter.shape:
        # In the parameter's own memory format: the fused optimizers walk through both side by side.
        return torch.empty_like(parameter, requires_grad=False).copy_(tensor)
    # A count of steps: the fused optimizers keep it beside the parameter, the others on the CPU.
    return tensor.to(parameter.device, copy=True) if fused else tensor.clone()


def _parameters(optimizer: torch.optim.Optimizer) -> list[tuple[nn.Parameter, bool]]:
    """Every parameter, and whether its group's optimizer is a fused one."""
    return [(each, bool(group.get("fused"))) for group in optimizer.param_groups for each in group["params"]]
