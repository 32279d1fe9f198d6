"""Augmentation moves a picture as far as its rule says, and not at all where the rule says nothing."""

import pytest
import torch

from pacs_agent.analyse.ensemble import normalised
from pacs_agent.analyse.pixels import InputSpec
from training.augment import augment, plane_maps
from training.preset import Augmentation, read_preset

SPEC = InputSpec(size=48, fit="stretch", source_longest_side=512, channels=3, mean=0.485, std=0.229)


def pictures(count: int = 6) -> torch.Tensor:
    return torch.randint(0, 256, (count, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_no_rule_is_what_the_daemon_feeds() -> None:
    """Without any augmentation the batch is the daemon's, channels last."""
    inputs = augment(pictures(), SPEC, Augmentation(), generator())
    torch.testing.assert_close(inputs, normalised(pictures().numpy(), SPEC, torch.device("cpu")), atol=1e-4, rtol=0)
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_a_certain_flip_is_the_mirror_image() -> None:
    """Pictures that are flipped are the mirror images."""
    inputs = augment(pictures(64), SPEC, Augmentation(flip=0.999_999), generator())
    expected = normalised(pictures(64).numpy(), SPEC, torch.device("cpu")).flip(3)
    torch.testing.assert_close(inputs, expected, atol=1e-4, rtol=0)


def test_a_generator_decides() -> None:
    """The same generator gives the same batch, another one another; the caller's random state is left alone."""
    rule = read_preset("card").members[0].augment
    state = torch.get_rng_state()
    first, again, other = (augment(pictures(), SPEC, rule, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_maps_stay_within_their_rule() -> None:
    """Rotation, zoom and shift of many draws reach their bounds nearly, and never pass them."""
    maps = plane_maps(4000, Augmentation(rotation_deg=20, zoom=0.1, shift=0.05), generator())
    angles = torch.rad2deg(torch.atan2(maps[:, 1, 0], maps[:, 1, 1]))
    zooms = 1 / torch.linalg.det(maps[:, :, :2]).sqrt()
    for values, bound in ((angles, 20.0), (zooms - 1, 0.1), (maps[:, :, 2] / 2, 0.05)):
        assert bound * 0.97 < float(values.max()) <= bound * 1.0001
        assert bound * 0.97 < -float(values.min()) <= bound * 1.0001


def test_tones_change_grey_alone() -> None:
    """Brightness and contrast keep the order of greys, and move the mean by no more than the brightness."""
    ramp = torch.linspace(60, 190, 48).to(torch.uint8).expand(32, 48, 48).contiguous()
    inputs = augment(ramp, SPEC, Augmentation(brightness=0.1, contrast=0.2), generator()) * SPEC.std + SPEC.mean
    assert (inputs.diff(dim=3) >= -1e-6).all()
    moved = inputs.mean(dim=(1, 2, 3)) - float(ramp[0].float().mean()) / 255
    assert 0.05 < float(moved.abs().max()) <= 0.1001


@pytest.mark.parametrize("grid", [0.02, 0.05])
def test_the_grid_bends_a_straight_line(grid: float) -> None:
    """Grid distortion moves an edge by at most its share of the side (and the spline's overshoot), and does move it."""
    edge = torch.zeros(16, 48, 48, dtype=torch.uint8)
    edge[:, :, 24:] = 255
    inputs = augment(edge, SPEC, Augmentation(grid=grid), generator()) * SPEC.std + SPEC.mean
    inner = inputs[:, 0, 6:42, 6:42]
    places = (inner < 0.5).sum(dim=2).float()
    assert float((places - 18).abs().max()) <= 48 * grid * 1.6 + 1
    assert float(places.std(dim=1).max()) > 0.2
