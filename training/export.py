"""Networks in, bundles out: what training made (or a seed) becomes a folder that the daemon runs.

Enters: a network's parameters and what is known of them. Leaves: a bundle, written whole. Never imported by the daemon.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pacs_agent.analyse.bundle import WEIGHTS_NAME, Bundle, write_bundle
from pacs_agent.analyse.network import EnhancedEnsemble
from pacs_agent.study.bodypart import BODY_PARTS

CARD_INPUT = {
    "size": 160,
    "fit": "stretch",
    "source_longest_side": 512,  # MURA's pictures
    "channels": 3,
    "mean": 0.485,
    "std": 0.229,
}
"""The input of the card's networks, as a manifest states it."""


def export_state(out: Path, fields: Mapping[str, Any], state: Mapping[str, Tensor]) -> Bundle:
    """Write a bundle of a state dict.

    Args:
        out: the folder to be made.
        fields: of the manifest, without the weights' hash.
        state: every parameter and buffer; the same state gives the same bytes.

    Raises:
        BundleError: the fields are not those of a bundle, or the folder is there already or cannot be written.
    """
    with TemporaryDirectory() as temporary:
        weights = Path(temporary) / WEIGHTS_NAME
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, weights)
        return write_bundle(out, fields, weights)


def seed_bundle(out: Path, seed: int) -> Bundle:
    """Write a bundle of the card's ensemble with random weights: it runs, and claims nothing.

    Args:
        out: the folder to be made.
        seed: of the initial weights.

    Raises:
        BundleError: the folder is there already or cannot be written.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = EnhancedEnsemble()
    fields = {
        "name": "demonstration",
        "version": "0.1.0",
        "architecture": {"name": "enhanced_ensemble", "arguments": {"num_classes": 2}},
        "input": CARD_INPUT,
        "body_parts": sorted(BODY_PARTS),
        "gating": "by_part",
        "trained": False,
        "requires_quality_control_subject": True,
        "intended_use": "demonstration: synthetic phantoms",
        "provenance": {
            "weights": "random initial weights, never trained",
            "seed": seed,
            "torch": torch.__version__.partition("+")[0],
        },
    }
    return export_state(out, fields, network.state_dict())
