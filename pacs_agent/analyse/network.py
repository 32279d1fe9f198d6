"""The networks, defined once for the daemon and for training: ensembles whose members are weighted by body part.

Two architectures: the card's three residual networks, with the parameter names of the published checkpoint, and
backbones of timm. Enters: normalised pictures and the body part of each. Leaves: logits, and the pooled features that
the guard looks at. Never reads a file, never picks a device, never normalises, never fetches weights unless asked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from pacs_agent.analyse.saliency import activation_map, centred, side_by_side

GATED_PARTS = ("shoulder", "elbow")
"""Parts with a gate of their own; in the state dict they are upper case, as in the published checkpoint."""

MEMBERS = 3
DROPOUT = (0.3, 0.4, 0.4, 0.5)  # the published model's

Gating = Literal["by_part", "default"]


@dataclass(frozen=True, slots=True)
class Output:
    """What an ensemble says of N pictures, float32.

    Attributes:
        logits: (N, num_classes) of the ensemble; the last class is `abnormal`.
        member_logits: (N, members, num_classes).
        pooled: (N, features), of all members side by side.
        maps: (N, members, h, w), each member's Grad-CAM; None where it was not asked for.
    """

    logits: Tensor
    member_logits: Tensor
    pooled: Tensor
    maps: Tensor | None = None


class Dropout(nn.Dropout):
    """nn.Dropout, on a CPU with masks made of whole bytes of random bits: there torch's own costs a fifth of a step.

    The probability is then a multiple of 1/256 (0.3 becomes 0.3008), and what is kept is scaled by just that.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Zero elements at random while training; the identity otherwise."""
        dropped = round(self.p * 256)
        if not self.training or x.device.type != "cpu" or not 0 < dropped < 256:
            return super().forward(x)
        # The mask lies in memory as the picture does: (N, H, W, C) under channels_last.
        last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        shape = x.permute(0, 2, 3, 1).shape if last else x.shape
        bits = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
        mask = (bits[: x.numel()] >= dropped).view(shape).to(x.dtype).mul_(256 / (256 - dropped))
        return x * (mask.permute(0, 3, 1, 2) if last else mask)


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


class Member(nn.Module):
    """One network of an ensemble: feature maps, and a classifier of them.

    Attributes:
        stride: of the last feature maps, where their cells look at the first pixel of it; 0: not known to.
    """

    stride = 0

    def extract(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) to the last feature maps (N, channels, h, w) and pooled features (N, features), float32."""
        raise NotImplementedError

    def classify(self, features: Tensor) -> Tensor:
        """The last feature maps to logits (N, num_classes), float32."""
        raise NotImplementedError

    def describe(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) to logits (N, num_classes) and pooled features (N, features), float32."""
        features, pooled = self.extract(x)
        return self.classify(features), pooled

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, num_classes)."""
        return self.describe(x)[0]


class BaseModel(Member):
    """One member: three residual stages, spatial attention, global average, a linear layer. 700,547 parameters.

    Args:
        num_classes: logits.
        dropout: after the first convolution and after each stage; it matters in training only.
    """

    stride = 8

    def __init__(self, num_classes: int = 2, dropout: Sequence[float] = DROPOUT) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(EnhancedBlock(16, 32, 2), EnhancedBlock(32, 32))
        self.layer2 = nn.Sequential(EnhancedBlock(32, 64, 2), EnhancedBlock(64, 64))
        self.layer3 = nn.Sequential(EnhancedBlock(64, 128, 2), EnhancedBlock(128, 128))
        self.dropout0, self.dropout1, self.dropout2, self.dropout3 = map(Dropout, dropout)
        self.attention = nn.Sequential(nn.Conv2d(128, 64, 1), nn.ReLU(), nn.Conv2d(64, 1, 1), nn.Sigmoid())
        self.fc = nn.Linear(128, num_classes)

    def stages(self, x: Tensor) -> tuple[Tensor, ...]:
        """The maps of each stage, the last one attended: 16, 32, 64 and 128 channels at 1, 1/2, 1/4 and 1/8 size."""
        first = self.dropout0(torch.relu(self.bn1(self.conv1(x))))
        second = self.dropout1(self.layer1(first))
        third = self.dropout2(self.layer2(second))
        fourth = self.dropout3(self.layer3(third))
        return first, second, third, fourth * self.attention(fourth)

    def features(self, x: Tensor) -> Tensor:
        """The attended feature maps: (N, 3, H, W) to (N, 128, H / 8, W / 8)."""
        return self.stages(x)[-1]

    def extract(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The attended maps, and every stage's maps averaged over the picture: (N, 240), float32.

        The early stages tell texture, which no label asks for: they are what betrays a picture from elsewhere.
        """
        stages = self.stages(x)
        with torch.autocast(x.device.type, enabled=False):
            pooled = torch.cat([stage.float().mean(dim=(2, 3)) for stage in stages], dim=1)
        return stages[-1], pooled

    def classify(self, features: Tensor) -> Tensor:
        """Feature maps to logits (N, num_classes), in float32 even under autocast: bfloat16 has three digits."""
        with torch.autocast(features.device.type, enabled=False):
            return cast(Tensor, self.fc(features.float().mean(dim=(2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, num_classes)."""
        return self.classify(self.features(x))


class Backbone(Member):
    """One member of timm: a convolutional network's features, global average pool, dropout, a linear layer."""

    def __init__(self, name: str, num_classes: int, *, dropout: float = 0.0, pretrained: bool = False) -> None:
        super().__init__()
        import timm  # noqa: PLC0415 - only for bundles of this architecture; the card's run without it

        body: Any = timm.create_model(name, pretrained=pretrained, num_classes=0)
        if getattr(body, "output_fmt", "NCHW") != "NCHW" or hasattr(body, "pos_embed"):
            raise TypeError(f"{name} has no feature maps, as convolutional networks have, for a heat map")
        self.body = body
        self.dropout = Dropout(dropout)
        self.fc = nn.Linear(body.num_features, num_classes)

    def extract(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """timm's unpooled features, and as its head pools them, float32."""
        features = self.body.forward_features(x)
        return features, self.body.forward_head(features).float()

    def classify(self, features: Tensor) -> Tensor:
        """Unpooled features to logits (N, num_classes), in float32 even under autocast."""
        with torch.autocast(features.device.type, enabled=False):
            return cast(Tensor, self.fc(self.dropout(self.body.forward_head(features.float()))))


class GatedEnsemble(nn.Module):
    """Three members and the weights that combine their logits by body part.

    Shoulders and elbows have a gate each, which sees the members' logits; other parts, and samples without one, share
    `default_weights`. Each sample is gated by its own part.

    Args:
        members: three networks with `describe`.
        num_classes: logits of each member.
        gating: `by_part`, or `default`: `default_weights` for every part. The published checkpoint needs the latter:
            its gates were never trained, because the data set's names did not match their keys.
    """

    def __init__(self, members: Sequence[Member], num_classes: int, *, gating: Gating) -> None:
        super().__init__()
        self.gating = gating
        self.model1: Member
        self.model2: Member
        self.model3: Member
        self.model1, self.model2, self.model3 = members
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
    def members(self) -> tuple[Member, ...]:
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
        output = self.describe(x, body_parts)
        return output.logits, output.member_logits

    def describe(self, x: Tensor, body_parts: Sequence[str | None] | Tensor, *, with_maps: bool = False) -> Output:
        """As `forward`, with the members' pooled features side by side, and on demand with their Grad-CAM."""
        logits, pooled, maps = [], [], []
        for member in self.members:  # one by one: of feature maps, one member's are held at a time
            features, averaged = member.extract(x)
            logits.append(member.classify(features))
            pooled.append(averaged)
            if with_maps:
                seen = activation_map(features, member.classify)
                maps.append(centred(seen, member.stride) if member.stride else seen)
        member_logits = torch.stack(logits, dim=1).float()
        return Output(
            self.combine(member_logits, body_parts),
            member_logits,
            torch.cat(pooled, dim=1),
            side_by_side(maps) if maps else None,
        )


class EnhancedEnsemble(GatedEnsemble):
    """The card's: three `BaseModel`. 2,102,290 parameters.

    Args:
        num_classes: logits of each member.
        gating: as in `GatedEnsemble`.
    """

    model1: BaseModel
    model2: BaseModel
    model3: BaseModel

    def __init__(self, num_classes: int = 2, *, gating: Gating = "by_part") -> None:
        super().__init__([BaseModel(num_classes) for _ in range(MEMBERS)], num_classes, gating=gating)


class BackboneEnsemble(GatedEnsemble):
    """Three backbones of timm.

    Args:
        backbones: three names of timm.
        num_classes: logits of each member.
        gating: as in `GatedEnsemble`.

    Raises:
        ModuleNotFoundError: timm is not installed.
    """

    def __init__(self, backbones: Sequence[str], num_classes: int = 2, *, gating: Gating = "by_part") -> None:
        if len(backbones) != MEMBERS:
            raise TypeError(f"backbones must be {MEMBERS} names of timm")
        super().__init__([Backbone(name, num_classes) for name in backbones], num_classes, gating=gating)


ARCHITECTURES: Mapping[str, Callable[..., GatedEnsemble]] = {
    "enhanced_ensemble": EnhancedEnsemble,
    "backbone_ensemble": BackboneEnsemble,
}
"""By the name in a bundle's manifest."""


def build_network(name: str, arguments: Mapping[str, Any], *, gating: Gating) -> GatedEnsemble:
    """A network with fresh weights.

    Args:
        name: of `ARCHITECTURES`.
        arguments: of the architecture, as its bundle states them.
        gating: `by_part` or `default`.

    Raises:
        KeyError: no such architecture.
        TypeError: arguments that it does not take.
        ModuleNotFoundError: it is of timm, which is not installed.
        RuntimeError: timm has no backbone of that name.
    """
    return ARCHITECTURES[name](**arguments, gating=gating)
