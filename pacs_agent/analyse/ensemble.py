"""A bundle's network on a device: pictures in, probabilities out.

Enters: a checked `Bundle`, then 8-bit pictures of the bundle's size and the body part of each. Leaves: probabilities.
Never reads a picture's file, never decides: thresholds are the finding's matter.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pacs_agent.analyse.bundle import Bundle
from pacs_agent.analyse.network import build_network
from pacs_agent.errors import BundleError

MAX_CPU_THREADS = 8  # networks this small gain nothing from more, and a busy machine has other work


class Ensemble:
    """A network with its bundle's weights, ready to predict.

    Args:
        bundle: of `load_bundle`.
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        BundleError: the weights do not fit the architecture, or the device is not there.
    """

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.bundle = bundle
        self.device = resolve_device(device)
        self.network = _load_network(bundle).to(self.device).to(memory_format=torch.channels_last)

    def predict(
        self, inputs: NDArray[np.uint8], body_parts: Sequence[str | None], batch_size: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The probability of `abnormal` for each picture.

        Args:
            inputs: uint8 (N, size, size), each of `model_input`.
            body_parts: N names; None or one without a gate of its own takes the default weights.
            batch_size: pictures that go through the network at a time.

        Returns:
            The ensemble's (N,) and its members' (N, 3), 0 to 1. NaN where the network gave none.
        """
        ensemble: list[Tensor] = []
        members: list[Tensor] = []
        for start in range(0, len(inputs), batch_size):
            chunk = slice(start, start + batch_size)
            logits, member_logits = self._forward(inputs[chunk], body_parts[chunk])
            ensemble.append(torch.softmax(logits, dim=-1)[:, 1])
            members.append(torch.softmax(member_logits, dim=-1)[..., 1])
        if not ensemble:
            return np.zeros(0, np.float32), np.zeros((0, 3), np.float32)
        return torch.cat(ensemble).cpu().numpy(), torch.cat(members).cpu().numpy()

    @torch.inference_mode()
    def _forward(self, inputs: NDArray[np.uint8], body_parts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        # bfloat16 on CUDA only: on a CPU it is several times slower than float32.
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            logits, member_logits = self.network(self._normalised(inputs), body_parts)
        return logits.float(), member_logits.float()

    def _normalised(self, inputs: NDArray[np.uint8]) -> Tensor:
        """(N, size, size) uint8 to (N, channels, size, size) float32 on the device, channels last."""
        spec = self.bundle.manifest.input
        grey = torch.from_numpy(np.ascontiguousarray(inputs)).to(self.device).float().unsqueeze(1)
        normalised = grey.div_(255).sub_(spec.mean).div_(spec.std)
        return normalised.expand(-1, spec.channels, -1, -1).contiguous(memory_format=torch.channels_last)


def resolve_device(name: str) -> torch.device:
    """The device of a setting: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        BundleError: CUDA was asked for by name and is not there.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index = int(name.removeprefix("cuda:")) if name.startswith("cuda:") else 0
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        raise BundleError(f"device {name} was asked for, and this machine has {count or 'no'} usable CUDA devices")
    return torch.device("cuda", index)


def use_available_cores() -> None:
    """Let torch use the cores that this process may run on, within reason. It holds for the whole process."""
    torch.set_num_threads(min(len(os.sched_getaffinity(0)), MAX_CPU_THREADS))


def _load_network(bundle: Bundle) -> nn.Module:
    architecture = bundle.manifest.architecture
    try:
        network = build_network(architecture.name, architecture.arguments, gating=bundle.manifest.gating)
        network.load_state_dict(load_file(bundle.weights_path), strict=True)
    except KeyError as error:
        raise BundleError(f"bundle {bundle.path}: unknown architecture {error}") from error
    except TypeError as error:
        raise BundleError(f"bundle {bundle.path}: architecture.arguments: {error}") from error
    except (RuntimeError, SafetensorError, OSError) as error:
        # torch tells of every key and shape, a line each; the first is enough to see that it is another network's file.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        what = lines[1] if len(lines) > 1 else lines[0]
        raise BundleError(f"bundle {bundle.path}: weights do not fit {architecture.name}: {what[:200]}") from error
    return network.eval()
