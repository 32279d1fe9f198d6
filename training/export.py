"""Networks in, bundles out: what training made (or a seed) becomes a folder that the daemon runs.

Enters: a network's parameters and what is known of them. Leaves: a bundle, written whole. Never imported by the daemon.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pacs_agent.analyse.bundle import WEIGHTS_NAME, Bundle, write_bundle
from pacs_agent.analyse.network import EnhancedEnsemble
from pacs_agent.errors import BundleError
from pacs_agent.study.bodypart import BODY_PARTS
from training.checkpoint import read_tensors
from training.run import ENSEMBLE, preset_of, read_facts, read_result

CARD: Mapping[str, Any] = {
    "architecture": {"name": "enhanced_ensemble", "arguments": {"num_classes": 2}},
    "input": {
        "size": 160,
        "fit": "stretch",
        "source_longest_side": 512,  # MURA's pictures
        "channels": 3,
        "mean": 0.485,
        "std": 0.229,
    },
    "body_parts": sorted(BODY_PARTS),
}
"""The card's networks and their input, as a manifest states them."""


def export_state(out: Path, fields: Mapping[str, Any], state: Mapping[str, Tensor]) -> Bundle:
    """Write a bundle of a state dict.

    Args:
        out: the folder to be made.
        fields: of the manifest, without the weights' hash.
        state: every parameter and buffer; the same state gives the same bytes.

    Raises:
        BundleError: the fields are not those of a bundle, or the folder is there already or cannot be written.
    """
    out = out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
            weights = Path(temporary) / WEIGHTS_NAME
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, weights)
            return write_bundle(out, fields, weights)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BundleError(f"bundle {out}: cannot be written: {reason}") from error


PHANTOM_USE = "demonstration: synthetic phantoms"
MURA_USE = "research: musculoskeletal radiographs of the seven body parts of MURA; not a medical device"


def export_run(run: Path, out: Path, *, name: str | None = None, version: str = "1.0.0") -> Bundle:
    """Write a bundle of a run that has come to its end, with all that is known of where it comes from.

    A run on phantoms makes a bundle that speaks of phantoms only (QualityControlSubject YES).

    Args:
        run: the run's folder.
        out: the bundle's folder, to be made.
        name: of the model; None: the preset's.
        version: of the model.

    Raises:
        TrainingError: the run has not come to its end.
        BundleError: the folder is there already or cannot be written.
    """
    facts, result = read_facts(run), read_result(run)
    preset = preset_of(facts)
    phantoms = bool(facts["data"]["phantoms"])
    state, _ = read_tensors(run / ENSEMBLE)
    fields = {
        "name": name or preset.name,
        "version": version,
        "architecture": preset.architecture.model_dump(mode="json"),
        "input": asdict(preset.input),
        "body_parts": facts["parts"],
        "gating": "by_part",
        "calibration": result["calibration"],
        "thresholds": result["thresholds"],
        "test_time_flip": preset.test_time_flip,
        "guard": result["guard"],
        "trained": True,
        "requires_quality_control_subject": phantoms,
        "intended_use": PHANTOM_USE if phantoms else MURA_USE,
        "provenance": {
            "data_set": "phantoms of this project" if phantoms else "MURA v1.1 or of its layout, train",
            **{key: facts[key] for key in ("data", "seed", "pretrained", "preset", "versions")},
            **{key: result[key] for key in ("members", "gates", "threshold_rule", "hold_outs")},
        },
    }
    return export_state(out, fields, state)


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
        "name": "seeded",
        "version": "0.1.0",
        **CARD,
        "gating": "by_part",
        "trained": False,
        "requires_quality_control_subject": True,
        "intended_use": "none: random weights, to try all but the findings",
        "provenance": {
            "weights": "random initial weights, never trained",
            "seed": seed,
            "torch": torch.__version__.partition("+")[0],
        },
    }
    return export_state(out, fields, network.state_dict())
