"""BiSeNet V2: what every network does, and what its paper counts."""

from __future__ import annotations

import functools
from typing import ClassVar

import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")

from network_contract import NetworkContract  # noqa: E402

from icnet_deploy.networks.bisenetv2 import BiSeNetV2  # noqa: E402
from icnet_deploy.networks.registry import build_network, cost  # noqa: E402

SIZE = (512, 1024)
"""The paper resizes Cityscapes' images to it before its network, and counts there."""


class TestBiSeNetV2(NetworkContract):
    described: ClassVar = {
        "architecture": "bisenetv2",
        "width": 0.125,
        "ratio": 0.5,
        "expansion": 3,
        "head_channels": 128,
    }
    heads = 5
    finest_first = False  # the stem's is at 1/4, the deployed one at 1/8


@functools.cache
def counted(expansion):
    with torch.device("meta"):
        return cost(BiSeNetV2(19, expansion=expansion), SIZE)


def test_parameters_and_multiplications():
    found = counted(6)
    # The paper's 21.15 G are of this size; of what they count it leaves the classifier's inner
    # channels open, and says nothing of batch norm, pools and resizes.
    assert (round(found.parameters / 1e6, 2), round(found.macs / 1e9, 2)) == (5.14, 20.26)
    assert found.macs / 21.15e9 == pytest.approx(1, abs=0.05)


def test_a_gather_and_expansion_layer_expands_in_its_3x3():
    """The paper's text; the paper's table of expansions has 1.35 G between 4 and 6."""
    four, six = (counted(expansion).macs / 1e9 for expansion in (4, 6))
    with torch.device("meta"):
        gather = BiSeNetV2(19).semantic4[1].layers
    assert round(six - four, 1) == 1.3
    assert (gather[0].conv.weight.shape, gather[1].conv.groups) == ((384, 64, 3, 3), 384)


def test_each_setting_reaches_its_layers():
    described = {"architecture": "bisenetv2", "num_classes": 7, "width": 0.5, "ratio": 0.5}
    with torch.device("meta"):
        network = build_network(described | {"depth": 2, "expansion": 2, "head_channels": 64})
    assert (network.detail3.first.cout, network.stem.fused.cout) == (64, 16)
    assert [len(s) for s in (network.semantic3, network.semantic4, network.semantic5)] == [4, 4, 8]
    assert network.semantic3[1].layers[0].cout == 2 * 32
    assert network.classifier[0].cout == 32


@pytest.mark.parametrize("gated", ["semantic_kept", "semantic_grown"])
def test_the_semantic_branch_gates_the_detail(gated, lively):
    """Where a gate is shut, what it lets through is gone."""
    network = lively(BiSeNetV2(5, width=0.125))
    aggregation = network.aggregation
    shut = getattr(aggregation, gated)
    last = shut[-1] if gated == "semantic_kept" else shut.bn
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, -1e4)
    through = "detail_halved" if gated == "semantic_kept" else "detail_kept"
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        before = network(image)
        setattr(aggregation, through, torch.nn.Sequential(getattr(aggregation, through), Shift()))
        assert torch.equal(network(image), before)


class Shift(torch.nn.Module):
    """Other values in place of what was there."""

    def forward(self, x):
        return 3 - x


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"width": 0}, "width is a number above 0 and up to 16; got 0"),
        ({"ratio": "half"}, "ratio is a number above 0"),
        ({"depth": 1.5}, "depth is a whole number from 1 on; got 1.5"),
        ({"expansion": 0}, "expansion is a whole number from 1 on"),
        ({"head_channels": 0}, "head_channels is a whole number from 1 on"),
        ({"num_classes": 0}, "num_classes is a whole number from 1 on"),
    ],
)
def test_refuses_what_is_no_network(wrong, said):
    with pytest.raises(ValueError, match=said):
        build_network({"architecture": "bisenetv2", "num_classes": 19} | wrong)
