"""The networks are the card's, and each sample is gated by its own part."""

import pytest
import torch
from torch import nn

from pacs_agent.analyse.network import BaseModel, Dropout, EnhancedBlock, EnhancedEnsemble, build_network


@pytest.fixture
def ensemble() -> EnhancedEnsemble:
    """An ensemble whose three kinds of weights differ, in evaluation mode."""
    torch.manual_seed(3)
    network = EnhancedEnsemble().eval()
    with torch.no_grad():
        network.default_weights.copy_(torch.tensor([0.0, 1.0, 2.0]))
        for gate in network.part_attention.values():
            for parameter in gate.parameters():
                parameter.normal_()
    return network


def pictures(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts_are_the_published_ones() -> None:
    """A member has 700,547 parameters and the ensemble 2,102,290."""
    assert parameter_count(BaseModel()) == 700_547
    assert parameter_count(EnhancedEnsemble()) == 2_102_290


def expected_member_keys() -> dict[str, tuple[int, ...]]:
    keys: dict[str, tuple[int, ...]] = {}

    def conv(name: str, channels_in: int, channels_out: int, side: int) -> None:
        keys[f"{name}.weight"] = (channels_out, channels_in, side, side)
        keys[f"{name}.bias"] = (channels_out,)

    def norm(name: str, channels: int) -> None:
        keys.update({f"{name}.{key}": (channels,) for key in ("weight", "bias", "running_mean", "running_var")})
        keys[f"{name}.num_batches_tracked"] = ()

    conv("conv1", 3, 16, 3)
    norm("bn1", 16)
    before = 16
    for layer, channels in (("layer1", 32), ("layer2", 64), ("layer3", 128)):
        for block, channels_in in ((f"{layer}.0", before), (f"{layer}.1", channels)):
            conv(f"{block}.conv1", channels_in, channels, 3)
            norm(f"{block}.bn1", channels)
            conv(f"{block}.conv2", channels, channels, 3)
            norm(f"{block}.bn2", channels)
        conv(f"{layer}.0.shortcut.0", before, channels, 1)
        norm(f"{layer}.0.shortcut.1", channels)
        before = channels
    conv("attention.0", 128, 64, 1)
    conv("attention.2", 64, 1, 1)
    keys["fc.weight"], keys["fc.bias"] = (2, 128), (2,)
    return keys


def test_state_dict_has_the_published_keys_and_shapes() -> None:
    """A published checkpoint's parameters load strictly: same names, same shapes, nothing more."""
    expected = {f"model{n}.{key}": shape for n in (1, 2, 3) for key, shape in expected_member_keys().items()}
    for part in ("SHOULDER", "ELBOW"):
        expected[f"part_attention.{part}.0.weight"] = (32, 6)
        expected[f"part_attention.{part}.0.bias"] = (32,)
        expected[f"part_attention.{part}.2.weight"] = (3, 32)
        expected[f"part_attention.{part}.2.bias"] = (3,)
    expected["default_weights"] = (3,)

    assert {key: tuple(value.shape) for key, value in EnhancedEnsemble().state_dict().items()} == expected


def test_dropouts_are_the_published_ones() -> None:
    """A member drops .3 after the first convolution, then .4, .4 and .5 after the stages."""
    assert [module.p for module in BaseModel().modules() if isinstance(module, nn.Dropout)] == [0.3, 0.4, 0.4, 0.5]


def test_block_without_change_of_shape_has_a_plain_shortcut() -> None:
    """With convolutions that give nothing, such a block is ReLU of its input."""
    block = EnhancedBlock(4, 4).eval()
    with torch.no_grad():
        block.conv2.weight.zero_()
        assert block.conv2.bias is not None
        block.conv2.bias.zero_()
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(block(x), torch.relu(x))


def test_member_reduces_by_eight() -> None:
    """Feature maps are an eighth of the picture's side, with 128 channels, whatever its size."""
    assert BaseModel().eval().features(torch.zeros(1, 3, 160, 96)).shape == (1, 128, 20, 12)


def test_each_sample_is_gated_by_its_own_part(ensemble: EnhancedEnsemble) -> None:
    """In a mixed batch each sample gets the logits that it gets alone, in any order."""
    parts = ["wrist", "shoulder", "elbow", None, "shoulder", "hand"]
    x = pictures(len(parts))
    with torch.inference_mode():
        together, _ = ensemble(x, parts)
        alone = torch.cat([ensemble(x[n : n + 1], parts[n : n + 1])[0] for n in range(len(parts))])
        backwards, _ = ensemble(x.flip(0), parts[::-1])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, backwards.flip(0), rtol=1e-4, atol=1e-5)


def test_logits_are_the_weighted_sum_of_the_members(ensemble: EnhancedEnsemble) -> None:
    """Default parts take softmax(default_weights), gated ones their gate's output of the six logits side by side."""
    x = pictures(2)
    with torch.inference_mode():
        logits, members = ensemble(x, ["finger", "shoulder"])
        default = torch.tensor([0.0, 1.0, 2.0]).softmax(0)
        gate = ensemble.part_attention["SHOULDER"](members[1].reshape(1, 6))[0]
        torch.testing.assert_close(members[:, 1], ensemble.model2(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits[0], (default[:, None] * members[0]).sum(0))
    torch.testing.assert_close(logits[1], (gate[:, None] * members[1]).sum(0))
    assert not torch.allclose(gate, default, atol=0.01)


def test_index_tensor_stands_for_the_names(ensemble: EnhancedEnsemble) -> None:
    """Training may give the gates' indices once instead of names each time."""
    parts = ["elbow", "wrist", "shoulder"]
    x = pictures(3)
    with torch.inference_mode():
        by_name, _ = ensemble(x, parts)
        by_index, _ = ensemble(x, ensemble.gate_index(parts))
    assert torch.equal(by_name, by_index)


def test_default_gating_ignores_the_parts(ensemble: EnhancedEnsemble) -> None:
    """With the gating that a published checkpoint needs, a shoulder is weighted as any other part."""
    ensemble.gating = "default"
    x = pictures(2)
    with torch.inference_mode():
        named, _ = ensemble(x, ["shoulder", "elbow"])
        unnamed, _ = ensemble(x, [None, None])
    assert torch.equal(named, unnamed)


def test_only_the_gate_of_the_part_learns(ensemble: EnhancedEnsemble) -> None:
    """A batch of shoulders moves the shoulder gate, not the elbow's and not the default weights."""
    logits, _ = ensemble(pictures(2), ["shoulder", "shoulder"])
    logits[:, 1].sum().backward()
    shoulder, elbow = (ensemble.part_attention[part][2].weight.grad for part in ("SHOULDER", "ELBOW"))
    assert shoulder is not None
    assert elbow is not None
    assert ensemble.default_weights.grad is not None
    assert shoulder.abs().sum() > 0
    assert elbow.abs().sum() == 0
    assert ensemble.default_weights.grad.abs().sum() == 0


def test_logits_are_float32_under_autocast(ensemble: EnhancedEnsemble) -> None:
    """Heads and gates keep float32 where the convolutions run in bfloat16."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert ensemble.model1.features(pictures(1)).dtype == torch.bfloat16
        logits, members = ensemble(pictures(1), ["elbow"])
    assert (logits.dtype, members.dtype) == (torch.float32, torch.float32)


def test_build_network_refuses_what_it_does_not_know() -> None:
    """An unknown name is a KeyError, unknown arguments are a TypeError."""
    assert isinstance(build_network("enhanced_ensemble", {"num_classes": 2}, gating="default"), EnhancedEnsemble)
    with pytest.raises(KeyError):
        build_network("resnet", {}, gating="default")
    with pytest.raises(TypeError):
        build_network("enhanced_ensemble", {"depth": 3}, gating="default")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("probability", [0.3, 0.5])
def test_dropout_keeps_the_mean_and_the_layout(memory_format: torch.memory_format, probability: float) -> None:
    """Its share of elements is zero, each by itself, the rest scaled so that the mean stays; a seed decides which."""
    x = torch.ones(8, 16, 50, 50).contiguous(memory_format=memory_format)
    dropout = Dropout(probability)
    torch.manual_seed(1)
    dropped = dropout(x)
    torch.manual_seed(1)
    assert torch.equal(dropped, dropout(x))
    assert dropped.is_contiguous(memory_format=memory_format)
    for dim in range(4):
        others = [index for index in range(4) if index != dim]
        share = (dropped == 0).float().mean(dim=others)
        torch.testing.assert_close(share, torch.full_like(share, probability), atol=0.02, rtol=0)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert dropout.eval()(x) is x


def test_pooled_features_are_the_stages_means() -> None:
    """`describe` gives the logits of `forward`, and 240 means a member: 16, 32, 64 and the 128 that are classified."""
    torch.manual_seed(1)
    ensemble = EnhancedEnsemble().eval()
    with torch.inference_mode():
        output = ensemble.describe(pictures(2), ["hand", "elbow"])
        logits, member_logits = ensemble(pictures(2), ["hand", "elbow"])
        stages = ensemble.model2.stages(pictures(2))
    assert output.pooled.shape == (2, 3 * 240)
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.member_logits, member_logits)
    torch.testing.assert_close(
        output.pooled[:, 240:480], torch.cat([stage.mean(dim=(2, 3)) for stage in stages], dim=1)
    )
