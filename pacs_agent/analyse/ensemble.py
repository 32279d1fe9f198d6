"""A bundle's network on a device: pictures in, probabilities out. Where the device runs out of memory, in smaller
batches, and in the end on the CPU, where the setting leaves the device open.

Enters: a checked `Bundle`, then 8-bit pictures of the bundle's size and the body part of each. Leaves: probabilities.
Never reads a picture's file, never decides: thresholds are the finding's matter.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pacs_agent.analyse.bundle import Bundle
from pacs_agent.analyse.guard import TENSORS, Guard, GuardVerdict, make_guard
from pacs_agent.analyse.network import MEMBERS, GatedEnsemble, Output, build_network
from pacs_agent.analyse.pixels import InputSpec
from pacs_agent.analyse.saliency import combined
from pacs_agent.errors import BundleError, DeviceExhaustedError

# CUDA's own error (of a context above all), cuBLAS' and cuDNN's; torch's allocator has an exception.
_EXHAUSTED = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
MAX_CPU_THREADS = 8  # networks this small gain nothing from more, and a busy machine has other work


@dataclass(frozen=True, slots=True)
class Examination:
    """What an ensemble and its guard say of N pictures.

    Attributes:
        probabilities: (N,) of `abnormal`, 0 to 1; NaN where the network gave none.
        member_probabilities: (N, 3), likewise.
        verdicts: N; None where the bundle has no guard.
        attention: N maps (h, w) float32, 0 and more: what speaks for `abnormal`, on the network's input,
            coarse; none where they were not asked for.
    """

    probabilities: NDArray[np.float32]
    member_probabilities: NDArray[np.float32]
    verdicts: tuple[GuardVerdict | None, ...]
    attention: tuple[NDArray[np.float32], ...]


def is_exhausted(error: RuntimeError) -> bool:
    """Whether a device has too little memory, as torch's allocator says it, or CUDA and its libraries."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _EXHAUSTED)


class Ensemble:
    """A network with its bundle's weights, ready to predict.

    Args:
        bundle: of `load_bundle`.
        device: `auto` (CUDA where there is one, the CPU where that is short of memory), `cpu`, `cuda` or `cuda:N`.

    Raises:
        BundleError: the weights do not fit the architecture, or the device is not there.
        DeviceExhaustedError: the weights do not fit the device's memory.
    """

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.bundle = bundle
        self.device = resolve_device(device)
        self._may_use_cpu = device == "auto" and self.device.type != "cpu"
        self._on_cpu: Ensemble | None = None
        try:
            self._load()
        except RuntimeError as error:
            if not is_exhausted(error):
                raise
            if not self._may_use_cpu:
                raise DeviceExhaustedError(f"{self.device} has not memory enough for the weights") from error
            self.device, self._may_use_cpu = torch.device("cpu"), False
            self._load()

    def _load(self) -> None:
        network, self.guard = _load_network(self.bundle, self.device)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)

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
        examined = self.examine(inputs, body_parts, batch_size)
        return examined.probabilities, examined.member_probabilities

    @torch.inference_mode()
    def examine(
        self,
        inputs: NDArray[np.uint8],
        body_parts: Sequence[str | None],
        batch_size: int,
        *,
        with_maps: bool = False,
    ) -> Examination:
        """As `predict`, with the guard's verdict on each picture, and on demand where the networks looked.

        Raises:
            DeviceExhaustedError: there is not memory enough for one picture, and no other device is allowed.
        """
        done = [Examination(np.zeros(0, np.float32), np.zeros((0, MEMBERS), np.float32), (), ())]
        start = 0
        while start < len(inputs):
            chunk = slice(start, start + batch_size)
            try:
                examined = self._examine(inputs[chunk], body_parts[chunk], with_maps)
            except RuntimeError as error:
                if not is_exhausted(error):
                    raise
                count = len(inputs[chunk])
                if count == 1 and not self._may_use_cpu:
                    raise DeviceExhaustedError(f"{self.device} has not memory enough for one image") from error
                batch_size, examined = max(1, count // 2), None
            if examined is None:  # outside the handler, which holds what did not fit
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                if count > 1:
                    continue
                examined = self._beside().examine(inputs[chunk], body_parts[chunk], 1, with_maps=with_maps)
            done.append(examined)
            start += len(examined.probabilities)
        return Examination(
            np.concatenate([each.probabilities for each in done]),
            np.concatenate([each.member_probabilities for each in done]),
            tuple(verdict for each in done for verdict in each.verdicts),
            tuple(attention for each in done for attention in each.attention),
        )

    def _examine(
        self, inputs: NDArray[np.uint8], body_parts: Sequence[str | None], with_maps: bool
    ) -> Examination:  # fmt: skip
        """One batch."""
        output = self.forward(inputs, body_parts, with_maps=with_maps)
        judged = self.guard.judge(output.pooled, body_parts) if self.guard else None
        attention: list[NDArray[np.float32]] = []
        if output.maps is not None:
            weights = self.network.member_weights(output.member_logits, body_parts)
            attention = list(combined(output.maps, weights).cpu().numpy())
        return Examination(
            torch.softmax(output.logits, dim=-1)[:, 1].cpu().numpy(),
            torch.softmax(output.member_logits, dim=-1)[..., 1].cpu().numpy(),
            tuple(judged if judged is not None else [None] * len(inputs)),
            tuple(attention),
        )

    def _beside(self) -> "Ensemble":
        """The same on the CPU, made when it is first needed and kept: a device that was short once will be again."""
        if self._on_cpu is None:
            self._on_cpu = Ensemble(self.bundle, "cpu")
        return self._on_cpu

    @torch.inference_mode()
    def forward(
        self, inputs: NDArray[np.uint8], body_parts: Sequence[str | None], *, with_maps: bool = False
    ) -> Output:
        """One batch through the network: logits, pooled features and on demand maps, on the device."""
        manifest = self.bundle.manifest
        pictures = normalised(inputs, manifest.input, self.device)
        return describe(self.network, pictures, body_parts, flip=manifest.test_time_flip, with_maps=with_maps)


def describe(
    network: GatedEnsemble,
    pictures: Tensor,
    body_parts: Sequence[str | None] | Tensor,
    *,
    flip: bool,
    reduced: bool = True,
    with_maps: bool = False,
) -> Output:
    """A batch through a network as the daemon does it.

    Args:
        network: on the pictures' device, in evaluation mode.
        pictures: of `normalised`.
        body_parts: of each.
        flip: take the mean with the mirror image's.
        reduced: bfloat16 on CUDA; on a CPU, where it is several times slower than float32, never.
        with_maps: with each member's Grad-CAM; of the mirror image turned back.
    """
    enabled = reduced and pictures.device.type == "cuda"
    with torch.autocast(pictures.device.type, dtype=torch.bfloat16, enabled=enabled):
        output = network.describe(pictures, body_parts, with_maps=with_maps)
        if not flip:
            return output
        mirrored = network.describe(pictures.flip(3), body_parts, with_maps=with_maps)
    member_logits = (output.member_logits + mirrored.member_logits) / 2
    logits = network.combine(member_logits, body_parts)
    maps = None
    if output.maps is not None and mirrored.maps is not None:
        maps = (output.maps + mirrored.maps.flip(3)) / 2
    return Output(logits, member_logits, (output.pooled + mirrored.pooled) / 2, maps)


def normalised(inputs: NDArray[np.uint8], spec: InputSpec, device: torch.device) -> Tensor:
    """(N, size, size) uint8 of `model_input` to (N, channels, size, size) float32 on the device, channels last."""
    grey = torch.from_numpy(np.ascontiguousarray(inputs)).to(device).float().unsqueeze(1)
    return normalise(grey.div_(255), spec)


def normalise(grey: Tensor, spec: InputSpec) -> Tensor:
    """(N, 1, H, W) of 0 to 1 to (N, channels, H, W), normalised, channels last. The argument is used up."""
    scaled = grey.sub_(spec.mean).div_(spec.std)
    return scaled.expand(-1, spec.channels, -1, -1).contiguous(memory_format=torch.channels_last)


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


def configure_torch() -> None:
    """Let torch use the cores that this process may run on, within reason, and all of float32; for the whole process.

    Convolutions on CUDA shorten float32 to TF32 unless told; what is calibrated on one device must hold on another.
    """
    torch.set_num_threads(min(len(os.sched_getaffinity(0)), MAX_CPU_THREADS))
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _load_network(bundle: Bundle, device: torch.device) -> tuple[GatedEnsemble, Guard | None]:
    architecture, settings = bundle.manifest.architecture, bundle.manifest.guard
    try:
        network = build_network(architecture.name, architecture.arguments, gating=bundle.manifest.gating)
        state = load_file(bundle.weights_path)
        tensors = {name: state.pop(name).to(device) for name in TENSORS if settings and name in state}
        network.load_state_dict(state, strict=True)
        guard = make_guard(settings, tensors) if settings else None
    except ModuleNotFoundError as error:
        raise BundleError(f"bundle {bundle.path}: {architecture.name} needs {error.name} (pip install timm)") from error
    except KeyError as error:
        raise BundleError(f"bundle {bundle.path}: {error} is missing") from error
    except TypeError as error:
        raise BundleError(f"bundle {bundle.path}: architecture.arguments: {error}") from error
    except (RuntimeError, SafetensorError, OSError, ValueError) as error:
        # torch tells of every key and shape, a line each; the first is enough to see that it is another network's file.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        what = lines[1] if len(lines) > 1 else lines[0]
        raise BundleError(f"bundle {bundle.path}: weights do not fit {architecture.name}: {what[:200]}") from error
    return network.eval(), guard
