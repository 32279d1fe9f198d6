"""Tensors and plain values to one file and back: written whole or not at all, read without running anything in it."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pacs_agent.durable import write_durably
from training.errors import TrainingError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Replace *path* by a safetensors file whose metadata carries *values*, so that both are of one moment.

    Raises:
        TrainingError: the disk refused; what stood there before still does.
    """
    content = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {"values": json.dumps(values)}
    )
    write_bytes(path, content)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote, on the CPU.

    Raises:
        TrainingError: it is not there or not such a file.
    """
    with _opened(path) as (file, values):
        return {name: file.get_tensor(name) for name in file.keys()}, values  # noqa: SIM118 - not a mapping


def read_values(path: Path) -> dict[str, Any]:
    """The values of `write_tensors` alone: a backbone's checkpoint is half a gigabyte.

    Raises:
        TrainingError: as `read_tensors`.
    """
    with _opened(path) as (_, values):
        return values


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file, json.loads((file.metadata() or {})["values"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read: {error}") from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace *path* by *values*.

    Raises:
        TrainingError: the disk refused.
    """
    write_bytes(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace *path* whole.

    Raises:
        TrainingError: the disk refused.
    """
    try:
        write_durably(path, [content], path.with_name(f".{path.name}.{os.getpid()}"))
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written: {error.strerror or error}") from error
