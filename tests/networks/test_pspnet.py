"""PSPNet50 as the ICNet paper takes it: ICNet's trunk, at any downsampling and width."""

from __future__ import annotations

from typing import ClassVar

import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")

from network_contract import NetworkContract  # noqa: E402

from icnet_deploy.networks import icnet  # noqa: E402
from icnet_deploy.networks.icnet import ICNet  # noqa: E402
from icnet_deploy.networks.pspnet import PSPNet  # noqa: E402
from icnet_deploy.networks.registry import build_network, cost  # noqa: E402
from icnet_deploy.networks.resnet import BLOCKS  # noqa: E402


class TestAt8(NetworkContract):
    described: ClassVar = {"architecture": "pspnet", "width": 0.125, "downsampling": 8}
    heads = 2


class TestAt16(NetworkContract):
    described: ClassVar = {"architecture": "pspnet", "width": 0.125, "downsampling": 16}
    heads = 2


class TestAt32(NetworkContract):
    described: ClassVar = {
        "architecture": "pspnet",
        "width": 0.125,
        "downsampling": 32,
        "channels": {"conv2_1_3x3": 3},
    }
    heads = 2
    finest_first = False  # the other stands before conv5, which halves once more


def test_at_8_it_is_icnets_low_branch_on_the_whole_image(lively, monkeypatch):
    """The low branch is held to the released table; without its resizes it is this network."""
    low, net = lively(ICNet(7, width=0.125, stages="sub4")), PSPNet(7, width=0.125).eval()
    net.load_state_dict({k.replace("conv6_sub4", "conv6"): v for k, v in low.state_dict().items()})
    monkeypatch.setattr(icnet, "resize", lambda x, _size: x)
    image = torch.randn(2, 3, 129, 193)
    with torch.inference_mode():
        assert torch.equal(net(image), low(image))
        assert net(image).std() > 0.1


@pytest.mark.parametrize(
    ("downsampling", "strides", "dilations"),
    [
        (8, ["conv3_1"], {"conv4": 2, "conv5": 4}),
        (16, ["conv3_1", "conv4_1"], {"conv5": 2}),
        (32, ["conv3_1", "conv4_1", "conv5_1"], {}),
    ],
)
def test_each_stride_that_is_taken_out_becomes_a_dilation(downsampling, strides, dilations):
    net = PSPNet(19, width=0.125, downsampling=downsampling).to("meta")
    for name in BLOCKS:
        block = getattr(net, name)
        stride = 2 if name in strides else 1
        assert block._1x1_reduce.conv.stride == (stride, stride), name
        if block._1x1_proj is not None:
            assert block._1x1_proj.conv.stride == (stride, stride), name
        dilation = dilations.get(name[:5], 1)
        assert block._3x3.conv.dilation == block._3x3.conv.padding == (dilation, dilation), name
    side = {8: (129, 257), 16: (65, 129), 32: (33, 65)}[downsampling]
    assert net.eval()(torch.empty(1, 3, 1025, 2049, device="meta")).shape == (1, 19, *side)


@pytest.mark.parametrize(
    ("downsampling", "width", "millions", "gmac"),
    [
        (8, 1.0, 24.66, 895.2),
        (8, 0.5, 6.18, 224.1),
        (8, 0.25, 1.55, 56.2),
        (16, 1.0, 24.66, 323.5),
        (32, 1.0, 24.66, 223.7),
    ],
)
def test_parameters_and_multiplications(downsampling, width, millions, gmac):
    with torch.device("meta"):
        found = cost(PSPNet(19, width, downsampling))
    assert (round(found.parameters / 1e6, 2), round(found.macs / 1e9, 1)) == (millions, gmac)


def test_the_auxiliary_head_is_for_training_only():
    with torch.device("meta"):
        plain, guided = PSPNet(5), PSPNet(5, guidance=True)
    extra = {n.split(".")[0] for n in guided.state_dict().keys() - plain.state_dict().keys()}
    assert extra == {"conv4_6_aux", "conv6_aux"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"downsampling": 4}, "one of"),
        ({"width": -1}, "width is a number above 0"),
        ({"architecture": "pspnet101"}, "architecture is one of icnet, pspnet"),
        ({"channels": {"conv2_1": 8}}, "conv2_1"),
        ({"channels": {"conv2_1_3x3": 0}}, "conv2_1_3x3"),
        ({"channels": {"conv2_1_3x3": 8.5}}, "8.5"),
        ({"channels": {"conv2_2_1x1_increase": 8}}, "are summed"),
        ({"channels": {"conv2_1_1x1_proj": 8}}, "are summed"),
    ],
)
def test_refuses_what_is_no_network(wrong, said):
    with pytest.raises(ValueError, match=said):
        build_network({"architecture": "pspnet", "num_classes": 19} | wrong)


def test_description_is_canonical_and_makes_the_same_network():
    """What the width says anyway is not repeated; a description is of JSON values."""
    with torch.device("meta"):
        net = PSPNet(5, 0.5, 16, channels={"conv2_1_3x3": 8, "conv2_2_3x3": 32})
        again = build_network(net.description())
    assert net.description() == again.description()
    assert net.channels == {"conv2_1_3x3": 8}
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (net, again)]
    assert shapes[0] == shapes[1]
    assert shapes[0]["conv2_1._1x1_increase.conv.weight"][1] == 8
