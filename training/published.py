"""The author's published checkpoint in, a bundle with the same probabilities out.

Enters: a `.pth` file, from anybody. Leaves: a bundle whose gating is `default`, because the checkpoint's gates were
never trained: the data set's names do not match their keys. Never executes anything that the file names.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from pacs_agent.analyse.bundle import Bundle
from pacs_agent.analyse.network import EnhancedEnsemble
from training.export import CARD, export_state
from training.torchfile import Described, RefusedError, TorchFile, open_torch_file

STATE_KEY: Final = "model_state_dict"
FACTS: Final = ("epoch", "val_accuracy", "val_part_accuracy")
_OTHER_NETWORK: Final = "this is not the published network"


def import_published(checkpoint: Path, out: Path) -> Bundle:
    """Write the bundle of a published checkpoint.

    Args:
        checkpoint: with the keys `epoch`, `model_state_dict`, `val_accuracy` and others, which are not looked at.
        out: the bundle's folder, to be made.

    Raises:
        TrainingError: not such a checkpoint; one line.
        BundleError: the folder is there already or cannot be written.
    """
    read = read_checkpoint(checkpoint)
    fields = {
        "name": "mura-enhanced-ensemble",
        "version": "published",
        **CARD,
        "gating": "default",
        "trained": True,
        "requires_quality_control_subject": False,
        "intended_use": "research: abnormality in radiographs of the upper limb; not a medical device",
        "provenance": {
            "weights": "published checkpoint",
            "sha256": read.sha256,
            "data_set": "MURA v1.1, train",
            **read.facts,
            "note": "val accuracies are the file's own: image level on MURA's valid, which also chose the epoch",
        },
    }
    return export_state(out, fields, read.state)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds of interest.

    Attributes:
        state: of `EnhancedEnsemble`, every key, floats as float32.
        facts: what it says of `FACTS`; None where that is no number, short text, or mapping of such.
        sha256: of the file, hex.
    """

    state: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    sha256: str


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without executing anything in it.

    Raises:
        TrainingError: as `open_torch_file`, or its `model_state_dict` is of another network; one line.
    """
    with open_torch_file(path) as file:
        content = file.content
        # The methods of dict itself: a pickle may give a dict's own attributes any value.
        state = dict.get(content, STATE_KEY) if isinstance(content, dict) else None
        if not isinstance(state, dict):
            raise RefusedError(f"it holds no {STATE_KEY}: {_OTHER_NETWORK}")
        tensors = _fitting(dict(dict.items(state)), file)
        return Checkpoint(tensors, {key: _fact(dict.get(content, key)) for key in FACTS}, file.sha256)


def _fitting(found: Mapping[Any, Any], file: TorchFile) -> dict[str, Tensor]:
    """The tensors of the network. All names and shapes are compared before the first is read."""
    expected = EnhancedEnsemble(gating="default").state_dict()
    for what, names in (
        ("lacks", [name for name in expected if name not in found]),
        ("has the unknown key", [name for name in found if name not in expected]),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            # What is no text is named by its kind: a number may be too long for Python to write.
            first = names[0][:100] if isinstance(names[0], str) else type(names[0]).__name__
            raise RefusedError(f"{STATE_KEY} {what} {first!r}{more}: {_OTHER_NETWORK}")
    for name, own in expected.items():
        tensor = found[name]
        if not isinstance(tensor, Described):
            raise RefusedError(f"{name} is not a tensor: {_OTHER_NETWORK}")
        if tensor.size != tuple(own.shape) or tensor.storage.dtype.is_floating_point != own.is_floating_point():
            raise RefusedError(
                f"{name} is {tensor.storage.dtype} {tensor.size}, the network's is {own.dtype} {tuple(own.shape)}: "
                f"{_OTHER_NETWORK}"
            )
    state = {name: file.tensor(found[name]).to(own.dtype) for name, own in expected.items()}
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise RefusedError(f"{name} holds a number that is not finite")
    return state


def _fact(value: Any) -> Any:
    """A number, a short text or a mapping of such, as JSON can hold it; None for anything else."""
    if isinstance(value, dict):
        inner = {key: item for key, item in dict.items(value) if isinstance(key, str) and _is_plain(key)}
        return inner if 0 < len(inner) == len(value) <= 100 and all(map(_is_plain, inner.values())) else None
    return value if _is_plain(value) else None


def _is_plain(value: Any) -> bool:
    match value:
        case str():
            return len(value) <= 200 and value.isprintable()
        case float():
            return math.isfinite(value)
        case int():
            return abs(value) < 2**63
    return False
