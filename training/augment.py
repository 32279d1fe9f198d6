"""Decoded pictures in, varied network inputs out, a whole batch at a time and on the batch's own device.

Enters: uint8 pictures of the cache. Leaves: normalised float32. Mirror image, rotation, zoom, shear, shift and grid
distortion are one map of the plane, so that the picture is resampled once. Every random number comes from the generator
that it is handed, on the CPU: the same batch on any device.
"""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from pacs_agent.analyse.pixels import InputSpec
from training.preset import Augmentation

GRID_POINTS = 5  # of the distortion, along a side


def augment(pictures: Tensor, spec: InputSpec, rule: Augmentation, generator: torch.Generator) -> Tensor:
    """Vary a batch and normalise it as the daemon does.

    Args:
        pictures: uint8 (N, size, size).
        spec: of the network.
        rule: how far each may go.
        generator: on the CPU.

    Returns:
        (N, channels, size, size) float32, channels last.
    """
    device, (count, size, _) = pictures.device, pictures.shape
    maps = plane_maps(count, rule, generator)
    bends = grid_bends(count, rule, generator)
    brightness, contrast = (_uniform(generator, 2, count, 1, 1, 1) * _column(rule.brightness, rule.contrast)).to(device)
    places = sampling_places(maps.to(device), bends.to(device), size)
    grey = functional.grid_sample(
        pictures.unsqueeze(1).float(), places, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    # Scaled, spread about the mean, moved, cut to 0 to 1, and normalised: few passes, and in place, because on a CPU
    # fresh memory and waiting for the other threads cost more than the arithmetic.
    spread, mean = 1 + contrast, grey.mean(dim=(1, 2, 3), keepdim=True) / 255
    moved = mean + brightness - mean * spread
    grey.mul_(spread / (255 * spec.std)).add_((moved - spec.mean) / spec.std)
    grey.clamp_(-spec.mean / spec.std, (1 - spec.mean) / spec.std)
    inputs = grey.new_empty(count, size, size, spec.channels)
    for channel in range(spec.channels):
        inputs[..., channel] = grey[:, 0]
    return inputs.permute(0, 3, 1, 2)


def sampling_places(maps: Tensor, bends: Tensor, size: int) -> Tensor:
    """Where in its picture each pixel of a result comes from, (N, size, size, 2), from -1 to 1.

    Affine maps and bends (bicubic between the grid's points) are both sums of products of a function of the row and one
    of the column, so that one small product of matrices makes them all.

    Args:
        maps: (N, 2, 3) of `plane_maps`.
        bends: (N, 2, 5, 5) of `grid_bends`.
        size: of the picture's side.
    """
    basis = _basis(size).to(maps.device)
    weights = maps.new_zeros(len(maps), 2, GRID_POINTS + 2, GRID_POINTS + 2)
    weights[:, :, :GRID_POINTS, :GRID_POINTS] = bends
    weights[:, :, -2, -1], weights[:, :, -1, -2], weights[:, :, -2, -2] = maps.unbind(2)  # by column, by row, constant
    of_columns = (weights.transpose(1, 2) @ basis.T).transpose(2, 3).flatten(start_dim=2)
    return torch.bmm(basis.expand(len(maps), -1, -1), of_columns).view(len(maps), size, size, 2)


@functools.cache
def _basis(size: int) -> Tensor:
    """(size, 7): at each pixel's centre the weights of the five grid points, 1, and the place from -1 to 1."""
    points = torch.eye(GRID_POINTS).view(1, GRID_POINTS, GRID_POINTS, 1)
    splines = functional.interpolate(points, size=(size, 1), mode="bicubic", align_corners=True)[0, :, :, 0].T
    centres = (2 * torch.arange(size) + 1) / size - 1
    return torch.cat([splines, torch.ones(size, 1), centres.unsqueeze(1)], dim=1)


def plane_maps(count: int, rule: Augmentation, generator: torch.Generator) -> Tensor:
    """(N, 2, 3) affine maps from places in the result to places in the picture, both from -1 to 1."""
    drawn = _uniform(generator, count, 5)
    angle, shear = (math.radians(rule.rotation_deg) * drawn[:, 0], math.radians(rule.shear_deg) * drawn[:, 1])
    zoom = 1 / (1 + rule.zoom * drawn[:, 2])
    mirror = torch.where(torch.rand(count, generator=generator) < rule.flip, -1.0, 1.0)
    cosine, sine, lean = angle.cos() * zoom, angle.sin() * zoom, shear.tan()
    shift = 2 * rule.shift * drawn[:, 3:]
    first = torch.stack([mirror * cosine, mirror * (lean * cosine - sine), shift[:, 0]], dim=1)
    second = torch.stack([sine, lean * sine + cosine, shift[:, 1]], dim=1)
    return torch.stack([first, second], dim=1)


def grid_bends(count: int, rule: Augmentation, generator: torch.Generator) -> Tensor:
    """(N, 2, 5, 5) moves of the distortion grid's points, of a side of 2."""
    return _uniform(generator, count, 2, GRID_POINTS, GRID_POINTS) * (2 * rule.grid)


def _column(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1, 1)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """From -1 to 1."""
    return torch.rand(*shape, generator=generator) * 2 - 1
