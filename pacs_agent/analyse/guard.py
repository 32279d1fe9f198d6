"""Pooled features in, a word on each picture out: is it of the part that the header names, and like the training data?

Enters: the features that the ensemble's members pooled, and the header's body parts. Leaves: a `GuardVerdict` each. A
linear head names the part seen; a Mahalanobis distance to the nearest class of the training data (one shared, shrunk
covariance: Lee et al., NeurIPS 2018) tells strangers. Never changes a probability; what is made of a verdict is the
finding's matter.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pacs_agent.analyse.bundle import GuardSettings

TENSORS = ("guard.mean", "guard.whiten", "guard.centres", "guard.head.weight", "guard.head.bias")
UNLIKE = "the picture is unlike those that the model was trained on"


@dataclass(frozen=True, slots=True)
class GuardVerdict:
    """What the guard says of one picture.

    Attributes:
        seen_part: the part that it looks like.
        part_probability: of that part, 0 to 1.
        distance: to the nearest class of the training data; the bundle's threshold is on this scale. NaN: not judged.
        reason: why no finding may rest on it, for a person; None: nothing against it.
    """

    seen_part: str
    part_probability: float
    distance: float
    reason: str | None

    @property
    def flagged(self) -> bool:
        """Whether no finding may rest on the picture."""
        return self.reason is not None


@dataclass(frozen=True, slots=True)
class Guard:
    """A bundle's guard, ready to judge.

    Attributes:
        settings: parts and thresholds.
        mean: (D,) of the training features.
        whiten: (D, K), to a space where the shared covariance is the identity.
        centres: (C, K), the classes of the training data in that space.
        head_weight: (parts, D), on features less their mean.
        head_bias: (parts,).
    """

    settings: GuardSettings
    mean: Tensor
    whiten: Tensor
    centres: Tensor
    head_weight: Tensor
    head_bias: Tensor

    def measure(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) features to (N, parts) probabilities of the part seen and (N,) distances."""
        centred = pooled.float() - self.mean
        probabilities = torch.softmax(centred @ self.head_weight.T + self.head_bias, dim=1)
        # The root of the mean square over K: about 1 for the training data, whatever K is.
        distances = torch.cdist(centred @ self.whiten, self.centres).amin(dim=1) / math.sqrt(self.whiten.shape[1])
        return probabilities, distances

    def judge(self, pooled: Tensor, body_parts: Sequence[str | None]) -> list[GuardVerdict]:
        """A verdict for each of N pictures.

        Args:
            pooled: (N, D) on the guard's device.
            body_parts: of the headers; None: nothing to compare with.
        """
        probabilities, distances = self.measure(pooled)
        best, seen = probabilities.max(dim=1)
        return [
            self._verdict(self.settings.parts[place], probability, distance, stated)
            for place, probability, distance, stated in zip(
                seen.tolist(), best.tolist(), distances.tolist(), body_parts, strict=True
            )
        ]

    def _verdict(self, seen: str, probability: float, distance: float, stated: str | None) -> GuardVerdict:
        reason = None
        # Not "greater than": a distance that is no number must not pass.
        if not distance <= self.settings.distance_threshold:
            reason = UNLIKE
        elif stated is not None and seen != stated and probability > self.settings.part_threshold:
            reason = f"header says {stated}, picture looks like {seen}, {math.floor(probability * 100) / 100:.2f}"
        return GuardVerdict(seen, probability, distance, reason)


def make_guard(settings: GuardSettings, tensors: Mapping[str, Tensor]) -> Guard:
    """A guard of a bundle's tensors.

    Args:
        settings: of the manifest.
        tensors: those of `TENSORS`, all on one device.

    Raises:
        KeyError: one is missing.
        ValueError: their shapes do not go together.
    """
    mean, whiten, centres, weight, bias = (tensors[name].float() for name in TENSORS)
    features, parts = mean.numel(), len(settings.parts)
    wanted = ((features,), (features, whiten.shape[-1]), (len(centres), whiten.shape[-1]), (parts, features), (parts,))
    for name, tensor, shape in zip(TENSORS, (mean, whiten, centres, weight, bias), wanted, strict=True):
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {shape}")
    return Guard(settings, mean, whiten, centres, weight, bias)
