"""The networks, defined once for the daemon and for training: the card's ensemble of three residual networks.

Enters: normalised pictures and the body part of each. Leaves: logits. Never reads a file, never picks a device, never
normalises. The names of the parameters are those of the published checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

GATED_PARTS = ("shoulder", "elbow")
"""Parts with a gate of their own; in the state dict they are upper case, as in the published checkpoint."""

MEMBERS = 3

Gating = Literal["by_part", "default"]


class EnhancedBlock(nn.Module):
    """A residual block: two 3×3 convolutions beside a shortcut, ReLU after the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))


class BaseModel(nn.Module):
    """One member: three residual stages, spatial attention, global average, a linear layer. 700,547 parameters."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(EnhancedBlock(16, 32, 2), EnhancedBlock(32, 32))
        self.layer2 = nn.Sequential(EnhancedBlock(32, 64, 2), EnhancedBlock(64, 64))
        self.layer3 = nn.Sequential(EnhancedBlock(64, 128, 2), EnhancedBlock(128, 128))
        self.dropout0 = nn.Dropout(0.3)
        self.dropout1 = nn.Dropout(0.4)
        self.dropout2 = nn.Dropout(0.4)
        self.dropout3 = nn.Dropout(0.5)
        self.attention = nn.Sequential(nn.Conv2d(128, 64, 1), nn.ReLU(), nn.Conv2d(64, 1, 1), nn.Sigmoid())
        self.fc = nn.Linear(128, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The attended feature maps: (N, 3, H, W) to (N, 128, H / 8, W / 8)."""
        x = self.dropout0(torch.relu(self.bn1(self.conv1(x))))
        x = self.dropout1(self.layer1(x))
        x = self.dropout2(self.layer2(x))
        x = self.dropout3(self.layer3(x))
        return cast(Tensor, x * self.attention(x))

    def classify(self, features: Tensor) -> Tensor:
        """Feature maps to logits (N, num_classes), in float32 even under autocast: bfloat16 has three digits."""
        with torch.autocast(features.device.type, enabled=False):
            return cast(Tensor, self.fc(features.float().mean(dim=(2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, num_classes)."""
        return self.classify(self.features(x))


class EnhancedEnsemble(nn.Module):
    """Three members and the weights that combine their logits by body part. 2,102,290 parameters.

    Shoulders and elbows have a gate each, which sees the members' logits; other parts, and samples without one, share
    `default_weights`. Each sample is gated by its own part.

    Args:
        num_classes: logits of each member.
        gating: `by_part`, or `default`: `default_weights` for every part. The published checkpoint needs the latter:
            its gates were never trained, because the data set's names did not match their keys.
    """

    def __init__(self, num_classes: int = 2, *, gating: Gating = "by_part") -> None:
        super().__init__()
        self.gating = gating
        self.model1 = BaseModel(num_classes)
        self.model2 = BaseModel(num_classes)
        self.model3 = BaseModel(num_classes)
        self.part_attention = nn.ModuleDict(
            {
                part.upper(): nn.Sequential(
                    nn.Linear(MEMBERS * num_classes, 32), nn.ReLU(), nn.Linear(32, MEMBERS), nn.Softmax(dim=1)
                )
                for part in GATED_PARTS
            }
        )
        self.default_weights = nn.Parameter(torch.ones(MEMBERS))

    @property
    def members(self) -> tuple[BaseModel, ...]:
        """The three networks."""
        return (self.model1, self.model2, self.model3)

    @staticmethod
    def gate_index(body_parts: Sequence[str | None]) -> Tensor:
        """Which gate each sample takes, int64 (N,): 0 the default weights, then 1 + the place in `GATED_PARTS`."""
        place = {part: index for index, part in enumerate(GATED_PARTS, start=1)}
        return torch.tensor([place.get(part or "", 0) for part in body_parts], dtype=torch.int64)

    def member_weights(self, member_logits: Tensor, body_parts: Sequence[str | None] | Tensor) -> Tensor:
        """What each member counts for each sample.

        Args:
            member_logits: (N, 3, num_classes).
            body_parts: N names (`shoulder`; None or any other name: the default weights), or their `gate_index`.

        Returns:
            (N, 3), each row adding up to 1.
        """
        weights = torch.softmax(self.default_weights, dim=0).expand(len(member_logits), -1)
        if self.gating == "default":
            return weights
        index = body_parts if isinstance(body_parts, Tensor) else self.gate_index(body_parts)
        index = index.to(member_logits.device, non_blocking=True)
        side_by_side = member_logits.flatten(start_dim=1)
        # Every gate sees every sample: they are so small that picking rows would cost more.
        for place, part in enumerate(GATED_PARTS, start=1):
            gate = self.part_attention[part.upper()](side_by_side)
            weights = torch.where((index == place).unsqueeze(1), gate, weights)
        return weights

    def combine(self, member_logits: Tensor, body_parts: Sequence[str | None] | Tensor) -> Tensor:
        """The weighted sum of the members' logits: (N, 3, num_classes) to (N, num_classes)."""
        with torch.autocast(member_logits.device.type, enabled=False):
            member_logits = member_logits.float()
            weights = self.member_weights(member_logits, body_parts)
            return (weights.unsqueeze(2) * member_logits).sum(dim=1)

    def forward(self, x: Tensor, body_parts: Sequence[str | None] | Tensor) -> tuple[Tensor, Tensor]:
        """The logits of the ensemble and of its members.

        Args:
            x: normalised pictures, (N, 3, H, W).
            body_parts: as in `member_weights`.

        Returns:
            (N, num_classes) and (N, 3, num_classes), float32; the last class is `abnormal`.
        """
        member_logits = torch.stack([member(x) for member in self.members], dim=1)
        return self.combine(member_logits, body_parts), member_logits


ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = {"enhanced_ensemble": EnhancedEnsemble}
"""By the name in a bundle's manifest."""


def build_network(name: str, arguments: Mapping[str, Any], *, gating: Gating) -> nn.Module:
    """A network with fresh weights.

    Args:
        name: of `ARCHITECTURES`.
        arguments: of the architecture, as its bundle states them.
        gating: `by_part` or `default`.

    Raises:
        KeyError: no such architecture.
        TypeError: arguments that it does not take.
    """
    return ARCHITECTURES[name](**arguments, gating=gating)
