"""Heat maps: what Grad-CAM is, weighted as the decision was, of the picture as it lies; the same on CUDA."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pacs_agent.analyse.bundle import load_bundle
from pacs_agent.analyse.ensemble import Ensemble, describe
from pacs_agent.analyse.network import BackboneEnsemble, EnhancedEnsemble
from pacs_agent.analyse.pixels import model_input
from pacs_agent.analyse.saliency import activation_map, centred, combined, side_by_side
from pacs_agent.phantom.radiograph import radiograph

PARTS = ["shoulder", "elbow", "wrist"]


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    """The shipped bundle's, on the CPU."""
    return Ensemble(load_bundle("demonstration"), "cpu")


def pictures(count: int, size: int = 64) -> Tensor:
    """Noise that is normalised."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def test_it_is_the_weighted_sum_of_the_maps(ensemble: Ensemble) -> None:
    """Behind a global average and a linear layer the gradient is the layer's weights: ReLU of their sum of maps."""
    member = ensemble.network.model1
    with torch.inference_mode():
        features, _ = member.extract(pictures(2))
        seen = activation_map(features, member.classify)
    weights = (member.fc.weight[1] - member.fc.weight[0]).detach()
    expected = torch.relu(torch.einsum("c,nchw->nhw", weights, features.clone()))
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-3)
    assert expected.max() > 0


def test_the_margin_of_more_than_two_classes() -> None:
    """The last class is `abnormal`; what speaks for another class is not shown."""

    def classify(maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))

    maps = torch.zeros(1, 3, 4, 4)
    maps[0, 2, 1, 1], maps[0, 0, 2, 2] = 50.0, 80.0
    seen = activation_map(maps, classify)
    assert seen[0, 1, 1] > 0
    assert seen[0, 2, 2] == 0


def test_nothing_of_the_network_is_derived_or_changed(ensemble: Ensemble) -> None:
    """No gradient is left in the weights, the probabilities are those without maps."""
    inputs = np.random.default_rng(1).integers(0, 255, (3, 160, 160), np.uint8)
    plain = ensemble.examine(inputs, PARTS, 2)
    mapped = ensemble.examine(inputs, PARTS, 2, with_maps=True)
    np.testing.assert_array_equal(plain.probabilities, mapped.probabilities)
    assert plain.attention == ()
    assert [each.shape for each in mapped.attention] == [(20, 20)] * 3
    assert all(parameter.grad is None for parameter in ensemble.network.parameters())


def test_members_count_as_they_did_for_the_decision(ensemble: Ensemble) -> None:
    """Each picture's map is its members' maps by the weights of the gate of its part."""
    inputs = np.random.default_rng(2).integers(0, 255, (3, 160, 160), np.uint8)
    found = ensemble.examine(inputs, PARTS, 3, with_maps=True)
    output = ensemble.forward(inputs, PARTS, with_maps=True)
    assert output.maps is not None
    with torch.inference_mode():
        weights = ensemble.network.member_weights(output.member_logits, PARTS)
    for place, attention in enumerate(found.attention):
        expected = sum(weights[place, member] * output.maps[place, member] for member in range(3))
        np.testing.assert_allclose(attention, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(weights[0], weights[2])
    torch.testing.assert_close(combined(output.maps, weights)[1], torch.tensor(found.attention[1]))


def test_batch_size_does_not_matter(ensemble: Ensemble) -> None:
    """One at a time or all at once: the same maps, in order."""
    inputs = np.random.default_rng(4).integers(0, 255, (3, 160, 160), np.uint8)
    whole = ensemble.examine(inputs, PARTS, 3, with_maps=True).attention
    for one, other in zip(whole, ensemble.examine(inputs, PARTS, 1, with_maps=True).attention, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_of_the_mirror_image_it_is_turned_back() -> None:
    """With the test-time flip a picture and its mirror image have mirrored maps."""
    torch.manual_seed(0)
    network = EnhancedEnsemble().eval()
    x = pictures(2)
    with torch.inference_mode():
        straight = describe(network, x, ["hand", "elbow"], flip=True, with_maps=True).maps
        mirrored = describe(network, x.flip(3), ["hand", "elbow"], flip=True, with_maps=True).maps
        plain = describe(network, x, ["hand", "elbow"], flip=False, with_maps=True).maps
    assert straight is not None
    assert mirrored is not None
    assert plain is not None
    torch.testing.assert_close(straight, mirrored.flip(3))
    assert not torch.allclose(straight, plain)


def test_a_cell_stands_for_the_middle_of_its_pixels() -> None:
    """Convolutions of stride 2 look at the first of two pixels: the map of a spot has its centre where the spot is."""
    layers = [nn.Conv2d(1, 1, 3, 2, padding=1, bias=False) for _ in range(3)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / 9)
    network = nn.Sequential(*layers)
    rows = torch.arange(160.0)
    spot = torch.exp(-((rows - 75.5) ** 2) / 200)
    with torch.inference_mode():
        maps = network((spot[:, None] * spot[None, :])[None, None])[:, 0]
        for seen, tolerance in ((centred(maps, 8), 0.3), (maps, 4.0)):
            profile = seen[0].sum(dim=1)
            # As whoever enlarges the map takes it: cell j in the middle of pixels 8j to 8j + 7.
            centre = (profile * (torch.arange(len(profile)) * 8 + 3.5)).sum() / profile.sum()
            assert abs(centre - 75.5) < tolerance
    assert abs(centre - 75.5) > 3  # uncorrected it lies beside


def test_members_of_different_grids() -> None:
    """The finest grid wins; a coarser member is enlarged to it and keeps its values."""
    maps = side_by_side([torch.ones(2, 4, 4), torch.full((2, 8, 8), 3.0)])
    assert maps.shape == (2, 2, 8, 8)
    assert (maps[:, 0] == 1).all()
    assert (maps[:, 1] == 3).all()


def test_backbones_of_timm_have_maps_too() -> None:
    """Any backbone with feature maps: one for each picture, of the features' grid."""
    pytest.importorskip("timm")
    network = BackboneEnsemble(["resnet10t", "regnetx_002", "resnet10t"]).eval()
    with torch.inference_mode():
        output = network.describe(pictures(2), ["hand", "elbow"], with_maps=True)
        plain = network.describe(pictures(2), ["hand", "elbow"])
    assert output.maps is not None
    assert output.maps.shape == (2, 3, 2, 2)
    torch.testing.assert_close(output.logits, plain.logits)
    assert plain.maps is None


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_backbone_without_feature_maps_is_refused(name: str) -> None:
    """A transformer's tokens are no maps: it is refused when it is built, not when a heat map is wanted."""
    pytest.importorskip("timm")
    with pytest.raises(TypeError, match="has no feature maps"):
        BackboneEnsemble([name] * 3)


def _lesions(ensemble: Ensemble, seeds: range) -> tuple[float, float]:
    """Mean share of the maps' mass in the lesions' boxes, and of the pictures that the boxes cover."""
    made = [
        radiograph(part, abnormal=True, seed=seed, lesion=kind, severity=0.8, longest_side=320)
        for seed in seeds
        for part, kind in (("forearm", "displaced fracture"), ("humerus", "plate"), ("wrist", "transverse fracture"))
    ]
    spec = ensemble.bundle.manifest.input
    inputs: NDArray[np.uint8] = np.stack([model_input((each.picture * 255).astype(np.uint8), spec) for each in made])
    found = ensemble.examine(inputs, [each.body_part for each in made], 8, with_maps=True)
    mass, area = [], []
    for picture, attention in zip(made, found.attention, strict=True):
        rows, columns = picture.picture.shape
        top, left, bottom, right = picture.lesion_box or (0, 0, 0, 0)
        inside = np.zeros((rows, columns), bool)
        inside[top:bottom, left:right] = True
        # Each pixel has the value of its cell.
        cells = attention[np.ix_(np.arange(rows) * 20 // rows, np.arange(columns) * 20 // columns)]
        mass.append(float(cells[inside].sum() / max(cells.sum(), 1e-6)))
        area.append(float(inside.mean()))
    return float(np.mean(mass)), float(np.mean(area))


def test_it_lies_on_lesions_and_only_because_of_what_was_learned(ensemble: Ensemble) -> None:
    """The maps' mass in the box of a known lesion is three times chance; with weights drawn anew it is not."""
    mass, area = _lesions(ensemble, range(7000, 7006))
    assert mass > 3 * area
    torch.manual_seed(1)
    fresh = Ensemble(ensemble.bundle, "cpu")
    for module in fresh.network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            module.reset_parameters()
    mass, area = _lesions(fresh, range(7000, 7006))
    assert mass < 1.5 * area


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees_with_the_cpu(ensemble: Ensemble) -> None:
    """bfloat16 on CUDA gives the CPU's maps but for a twentieth of their height."""
    inputs = np.random.default_rng(5).integers(0, 255, (3, 160, 160), np.uint8)
    on_cuda = Ensemble(ensemble.bundle, "cuda").examine(inputs, PARTS, 8, with_maps=True)
    for ours, theirs in zip(
        ensemble.examine(inputs, PARTS, 8, with_maps=True).attention, on_cuda.attention, strict=True
    ):
        np.testing.assert_allclose(theirs, ours, atol=0.05 * float(ours.max()))
