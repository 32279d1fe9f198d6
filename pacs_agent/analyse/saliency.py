"""Where in a picture the networks saw what speaks for `abnormal`: Grad-CAM (Selvaraju et al., ICCV 2017).

Enters: a member's last feature maps and its classifier, then what each member counted for. Leaves: coarse maps. What
they show is attention, never where a lesion is. Never runs the network: its maps are those of the inference itself, and
only the classifier behind them is derived, so that a heat map costs next to nothing.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def activation_map(maps: Tensor, classify: Callable[[Tensor], Tensor]) -> Tensor:
    """One member's Grad-CAM for `abnormal` against the other classes.

    Args:
        maps: (N, channels, h, w), the last feature maps; may come from inference mode and from autocast.
        classify: maps to logits (N, num_classes), the last class `abnormal`.

    Returns:
        (N, h, w) float32, 0 and more: how much each place adds to the margin of `abnormal`, up to a common factor of
        the picture's area. Nothing of the caller's is derived or changed.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(maps.device.type, enabled=False):
        # A copy: tensors of inference mode cannot be derived.
        leaf = maps.detach().clone().float().requires_grad_()
        logits = classify(leaf)
        # With two classes the softmax sees nothing but this difference.
        margin = logits[:, -1] - logits[:, :-1].logsumexp(dim=1)
        (gradient,) = torch.autograd.grad(margin.sum(), leaf)
    # Equation 1: a channel's weight is its gradient's mean; times the area, so that the map adds up to logits.
    weights = gradient.sum(dim=(2, 3), keepdim=True)
    return torch.relu((weights * leaf.detach()).sum(dim=1))  # equation 2


def centred(maps: Tensor, stride: int) -> Tensor:
    """Maps whose cells stand for the middle of the pixels they cover: (N, h, w) to the same.

    A 3×3 convolution of stride 2, padded by one, looks at the first of its two pixels, so that cell j of a network of
    stride s is about pixel s·j, not s·j + (s - 1) / 2 as whoever enlarges a map takes it to be.
    """
    share = (stride - 1) / (2 * stride)  # of a cell
    padded = functional.pad(maps[:, None], (0, 1, 0, 1), mode="replicate")[:, 0]
    rows = torch.lerp(padded[:, :-1], padded[:, 1:], share)
    return torch.lerp(rows[:, :, :-1], rows[:, :, 1:], share)


def side_by_side(maps: list[Tensor]) -> Tensor:
    """The members' maps (N, h, w), each of its own size, as one (N, members, h, w) of the finest."""
    size = max(tuple(each.shape[1:]) for each in maps)
    return torch.cat(
        [
            functional.interpolate(each[:, None], size, mode="bilinear", align_corners=False)
            if tuple(each.shape[1:]) != size
            else each[:, None]
            for each in maps
        ],
        dim=1,
    )


def combined(maps: Tensor, weights: Tensor) -> Tensor:
    """The ensemble's maps: (N, members, h, w) by what each member counted for, (N, members), to (N, h, w)."""
    return (maps * weights[:, :, None, None]).sum(dim=1)
