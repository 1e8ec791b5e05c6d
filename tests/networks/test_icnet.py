"""ICNet against the released table of layers."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import ClassVar

import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")

import torch.nn.functional as F  # noqa: E402
from network_contract import NetworkContract  # noqa: E402

from icnet_deploy.networks import icnet  # noqa: E402
from icnet_deploy.networks import layers as blocks  # noqa: E402
from icnet_deploy.networks.icnet import ICNet  # noqa: E402
from icnet_deploy.networks.layers import ConvBN, pool_windows  # noqa: E402
from icnet_deploy.networks.registry import cost  # noqa: E402


def _table():
    spec = importlib.util.spec_from_file_location("table", Path(__file__).with_name("table.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("table", module)
    spec.loader.exec_module(module)
    return module


table = _table()
ROWS = table.layers()
SIZE = (1025, 2049)


def released_weights(network):
    """Every weight under its released name: a module's path without its dots."""
    found = {}
    for path, module in network.named_modules():
        if isinstance(module, ConvBN):
            bn = module.bn
            name = path.replace(".", "")
            found[name] = [module.conv.weight]
            found[f"{name}/bn"] = [bn.weight, bn.bias, bn.running_mean, bn.running_var]
        elif isinstance(module, torch.nn.Conv2d) and not path.endswith(".conv"):
            found[path] = [module.weight, module.bias]
    return {name: [t.detach() for t in tensors] for name, tensors in found.items()}


class TestSub124(NetworkContract):
    described: ClassVar = {"architecture": "icnet", "width": 0.125, "stages": "sub124"}
    heads = 3


class TestSub24(NetworkContract):
    described: ClassVar = {"architecture": "icnet", "width": 0.125, "stages": "sub24"}
    heads = 2


class TestSub4(NetworkContract):
    described: ClassVar = {"architecture": "icnet", "width": 0.125, "stages": "sub4"}


class TestPruned(NetworkContract):
    described: ClassVar = {
        "architecture": "icnet",
        "channels": {"conv_sub2": 9, "conv3_sub1_proj": 9},
    }
    heads = 3


@pytest.fixture(scope="module")
def network(lively):
    return lively(ICNet(19))


@pytest.fixture(scope="module")
def truth(network):
    """The image, and the logits that the table gives for it."""
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return image, table.evaluate(ROWS, image, released_weights(network))["conv6_cls"]


def deviation(network, truth) -> float:
    """The largest difference from the table, in standard deviations of the logits."""
    image, logits = truth
    with torch.inference_mode():
        return float((network(image) - logits).abs().max() / logits.std())


def test_every_released_layer_has_its_weights_and_no_other(network):
    wanted = {r["name"] for r in ROWS if r["type"] in ("Convolution", "BN")}
    assert set(released_weights(network)) == wanted


def test_shapes_of_weights_are_those_of_the_table(network):
    weights = released_weights(network)
    for row in ROWS:
        if row["type"] == "Convolution":
            shape = [int(row[k]) for k in ("out_channels", "in_channels", "kernel_h", "kernel_w")]
            assert list(weights[row["name"]][0].shape) == shape, row["name"]


def test_parameters_and_multiplications():
    network = ICNet(19)
    # What the table counts: two of the four values of each batch norm are statistics.
    statistics = sum(int(r["n_params"]) // 2 for r in ROWS if r["type"] == "BN")
    counted = sum(int(r["n_params"] or 0) for r in ROWS if r["type"] != "Scale")
    assert sum(p.numel() for p in network.parameters()) == counted - statistics
    merged = sum(m.weight.numel() for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    merged += sum(m.num_features for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert round(merged / 1e6, 2) == 6.69
    found = cost(network, SIZE)
    assert found.parameters == merged + network.num_classes
    rows = [r for r in ROWS if r["type"] == "Convolution"]
    sizes = ("out_channels", "in_channels", "kernel_h", "kernel_w", "out_h", "out_w")
    assert found.macs == sum(math.prod(int(r[k]) for k in sizes) for r in rows)
    assert round(found.macs / 1e9, 1) == 29.8


def test_full_width_doubles_every_channel():
    with torch.device("meta"):
        network = ICNet(19, width=1.0)
    found = cost(network, SIZE)
    assert (round(found.parameters / 1e6, 1), round(found.macs / 1e9, 1)) == (26.7, 117.5)
    assert network.conv6_cls.out_channels == 19
    assert network.conv5_3._1x1_increase.conv.out_channels == 2048


def test_outputs_are_those_of_the_table(network, truth):
    assert deviation(network, truth) < 1e-3


def test_every_output_size_is_that_of_the_table():
    network, sizes, resizes = ICNet(19).to("meta").eval(), {}, []
    for path, module in network.named_modules():
        if isinstance(module, ConvBN | torch.nn.MaxPool2d):
            name = path.replace(".", "")
            module.register_forward_hook(lambda _m, _i, o, n=name: sizes.update({n: o.shape[1:]}))
    plain = blocks.resize

    def recorded(x, size):
        resizes.append(tuple(size))
        return plain(x, size)

    with pytest.MonkeyPatch.context() as patch:
        for module in (blocks, icnet):
            patch.setattr(module, "resize", recorded)
        network(torch.empty(1, 3, *SIZE, device="meta"))
    for row in ROWS:
        wanted = tuple(int(row[k]) for k in ("out_channels", "out_h", "out_w"))
        if row["name"] in sizes:
            assert tuple(sizes[row["name"]]) == wanted, row["name"]
    interps = [r for r in ROWS if r["type"] == "Interp"][:-1]  # the last one is the label map's
    assert sorted(resizes) == sorted((int(r["out_h"]), int(r["out_w"])) for r in interps)
    assert len(sizes) == sum(r["type"] == "BN" for r in ROWS) + 1


def _dilation(network, patch):
    for block in (network.conv_sub4, network.conv_sub2):
        patch.setattr(block.conv, "dilation", (1, 1))
        patch.setattr(block.conv, "padding", (1, 1))


def _stride(network, patch):
    patch.setattr(network.conv3_1._1x1_reduce.conv, "stride", (1, 1))
    patch.setattr(network.conv3_1._3x3.conv, "stride", (2, 2))


def _corners(network, patch):
    for module in (blocks, icnet):
        patch.setattr(
            module,
            "resize",
            lambda x, size: F.interpolate(x, size, mode="bilinear", align_corners=False),
        )


def _windows(network, patch):
    def adaptive(x):
        size = tuple(x.shape[2:])
        return x + sum(
            blocks.resize(F.adaptive_avg_pool2d(x, bins), size) for bins in blocks.POOL_BINS
        )

    patch.setattr(network.conv5_3_pool, "forward", adaptive)


def _eps(network, patch):
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            patch.setattr(module, "eps", 1e-3)


def _floor(network, patch):
    patch.setattr(network.pool1_3x3_s2, "padding", 0)


def _rgb(network, patch):
    for block in (network.conv1_1_3x3_s2, network.conv1_sub1):
        patch.setattr(block.conv.weight, "data", block.conv.weight.data.flip(1))


def _relu(network, patch):
    for block in (network.conv3_1_sub2_proj, network.conv3_sub1_proj):
        patch.setattr(block, "relu", True)


def _quarter(network, patch):
    """A third pass over a quarter image, in place of conv3_1's halved output."""
    shared = network._run

    def run(names, x):
        if names[0] == "conv3_2":
            x = shared(icnet.BLOCKS[: icnet._SPLIT], network._stem(quarter))
        return shared(names, x)

    def stem(x):
        nonlocal quarter
        quarter = icnet.resize(x, icnet.halved(tuple(x.shape[2:]))) if quarter is None else quarter
        return plain(x)

    quarter, plain = None, network._stem
    patch.setattr(network, "_stem", stem)
    patch.setattr(network, "_run", run)


MISTAKES = {
    _dilation: 2.07,
    _stride: 0.117,
    _corners: 1.0,
    _windows: 0.134,
    _eps: 0.0361,
    _floor: 0.219,
    _rgb: 0.181,
    _relu: 0.0454,
    _quarter: 0.206,
}
"""What each costs, in standard deviations of the logits at the worst pixel. Noise is below 1e-3."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_known_mistake_shows(network, truth, mistake):
    with pytest.MonkeyPatch.context() as patch:
        mistake(network, patch)
        found = deviation(network, truth)
    assert found == pytest.approx(MISTAKES[mistake], rel=0.1)


@pytest.mark.parametrize("side", range(2, 70))
def test_pool_windows_cover_a_side(side):
    for kernel, stride in pool_windows(side):
        bins = (side - kernel) // stride + 1
        assert kernel >= 1
        assert kernel + stride * (bins - 1) == side


def test_pool_windows_are_the_authors():
    assert pool_windows(33) == [(33, 33), (17, 16), (13, 10), (8, 5)]
    assert pool_windows(65) == [(65, 65), (33, 32), (25, 20), (15, 10)]


def test_guidance_heads_are_for_training_only():
    names = {n.split(".")[0] for n, _ in ICNet(19).named_parameters()}
    assert "conv6_cls" in names
    assert not names & {"conv6_sub4", "conv6_sub2"}
    guided = {n.split(".")[0] for n, _ in ICNet(19, guidance=True).named_parameters()}
    assert guided - names == {"conv6_sub4", "conv6_sub2"}


@pytest.mark.parametrize("wrong", [{"stages": "sub12"}, {"width": 0}, {"num_classes": 0}])
def test_refuses_what_is_no_network(wrong):
    with pytest.raises(ValueError, match="got"):
        ICNet(**({"num_classes": 19} | wrong))
