"""What is said of a network of one's own is held against what it does; all else is refused."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="a network of one's own needs torch")
pytest.importorskip("safetensors", reason="weights need safetensors")

import torch.nn.functional as F  # noqa: E402
from probed_nets import Net, answers, classes, multiple_of, opened, up  # noqa: E402
from torch import nn  # noqa: E402

from icnet_deploy.errors import CheckFailed, InputError, LabelSetError  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def test_one_channel_is_two_classes():
    module = Net(up(), classes=1)
    for threshold in (None, 0.5, 0.3):
        network = opened(module, label_set=classes(2), threshold=threshold).network
        image, logits = answers(network)
        assert (network.num_classes, network.threshold) == (2, threshold or 0.5)
        assert network.upsampling == "half-pixel"
        labels = network.upsample(logits, image.shape[2:]).argmax(1)
        sure = module.eval()(image)[:, 0].sigmoid()
        assert ((labels == 1) == (sure > (threshold or 0.5))).float().mean() > 0.9999
    with pytest.raises(LabelSetError, match=r"1 channel, which is 2 classes, .* has 3"):
        opened(module)
    for end in (
        lambda z, x: up()(z, x).sigmoid(),
        lambda z, x: up()(z.sigmoid(), x),
        lambda z, x: up(mode="nearest", align_corners=None)(torch.special.expit(z), x),
        lambda z, x: F.hardsigmoid(up()(z, x))[..., :, :],
    ):
        with pytest.raises(InputError, match="sigmoid of its one channel"):
            opened(Net(end, classes=1), label_set=classes(2))


NO_LOGITS = {
    "labels": (lambda z, x: z.argmax(1), r"torch.int64 of \(1, .*\), which are not logits"),
    "flat": (lambda z, x: z.mean((2, 3)), r"a tensor of \(1, 3\), which is not N x C x h x w"),
    "dict": (lambda z, x: {"a": z, "b": z}, "returned a dict of a, b, without 'out'"),
    "nothing": (lambda z, x: None, "returned a value of NoneType"),
    "large": (lambda z, x: F.interpolate(z, scale_factor=8), "larger than the image"),
    "error": (lambda z, x: x.nothing, "raised AttributeError: 'Tensor' object has no attribute"),
    "alone": (
        lambda z, x: z[0].reshape(1, *z.shape[1:]),
        "takes only one image at a time: with two",
    ),
}


@pytest.mark.parametrize("kind", NO_LOGITS)
def test_an_answer_that_is_no_logits_is_said(kind):
    end, message = NO_LOGITS[kind]
    with pytest.raises(InputError, match=message):
        opened(Net(end))


class Writing(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, image):
        self.seen += 1
        return super().forward(image)


UNSTEADY = {
    "dropout": (Net(lambda z, x: F.dropout(z, 0.5)), "different answers for the same image"),
    "batch": (Net(lambda z, x: z - z.mean((0, 2, 3), keepdim=True)), "the other images of the ba"),
    "state": (Writing(), r"changes its own state in eval mode \(seen\)"),
    "infinite": (Net(lambda z, x: z / 0), "infinite or not numbers for an image of noise"),
}


@pytest.mark.parametrize("kind", UNSTEADY)
def test_an_answer_that_is_not_one_and_the_same_is_refused(kind):
    module, message = UNSTEADY[kind]
    with pytest.raises(CheckFailed, match=message):
        opened(module)


SAID_WRONGLY = {
    "rule": (
        Net(up(False)),
        {"upsampling": "aligned-corners"},
        r"aligned-corners was given, but nets:net upsamples its logits by half-pixel: .*False",
    ),
    "whole": (
        Net(lambda z, x: up()(z, x).softmax(1)),
        {"upsampling": "half-pixel"},
        "half-pixel was given, but the logits of nets:net have the image's size",
    ),
    "small": (
        Net(),
        {"upsampling": "none"},
        "none was given, but the logits of nets:net for 512x1024 pixels are 128x256, not the "
        "image's size: leave it out, or give half-pixel",
    ),
    "stride": (
        Net(up(False), steps=3),
        {"stride": 4},
        "the stride 4 was given, but .* for 512x1024 pixels are 64x128: a stride of 8",
    ),
    "multiple": (
        Net(multiple_of(32)),
        {"side_multiple": 8},
        "the side multiple 8 was given, but nets:net takes sides that are multiples of 32",
    ),
}


@pytest.mark.parametrize("kind", SAID_WRONGLY)
def test_what_was_said_wrongly_is_refused_and_names_the_cause(kind):
    module, said, message = SAID_WRONGLY[kind]
    with pytest.raises(InputError, match=message):
        opened(module, **said)


def test_what_was_said_is_taken_where_nothing_contradicts_it():
    said = opened(Net(), upsampling="aligned-corners", stride=4, side_multiple=32)
    network = said.network
    assert (network.upsampling, network.stride) == ("aligned-corners", 4)
    assert network.side_multiple == 32
    assert "upsampling: aligned-corners (given)" in said.info["own"]
    whole = opened(Net(up()), upsampling="none").network
    assert (whole.upsampling, whole.stride) == ("none", 1)
    assert any("(assumed: PyTorch's default" in line for line in opened(Net()).info["own"])
    inner = Net(lambda z, x: up(True)(z, x[..., ::2, ::2]))
    assert any("also, give aligned-corners" in line for line in opened(inner).info["own"])


def test_off_any_grid_the_rule_must_be_said():
    module = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.Conv2d(8, 3, 5, 2))
    with pytest.raises(InputError, match="the logits of nets:net match no stride"):
        opened(module)
    assert opened(module, upsampling="half-pixel").network.stride is None


def test_the_label_set_and_the_threshold_are_held_against_the_channels():
    with pytest.raises(LabelSetError, match=r"logits of 3 channels, and the label set 'own' has 5"):
        opened(Net(), label_set=classes(5))
    with pytest.raises(InputError, match=r"threshold 0.4 is for one channel.* has 3"):
        opened(Net(), threshold=0.4)
    for missing, option in [("label_set", "--label-set"), ("preprocessing", "--preprocessing")]:
        with pytest.raises(InputError, match=option):
            opened(Net(), **{missing: None})


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("part", [False, True])
def test_torchscript_is_refused_as_such(part):
    script = torch.jit.script(nn.Conv2d(3, 3, 1))
    with pytest.raises(InputError, match=r"is TorchScript.*state_dict\(\).*as the weights"):
        opened(nn.Sequential(script) if part else script)


def test_lazy_layers_are_refused_as_such():
    with pytest.raises(InputError, match=r"has lazy layers.*run it once"):
        opened(nn.Sequential(nn.LazyConv2d(3, 1)))
