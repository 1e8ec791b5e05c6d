"""A network of one's own is run, and what it does is found: never believed, seldom assumed."""

from __future__ import annotations

import dataclasses
import pickle
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch", reason="a network of one's own needs torch")
pytest.importorskip("safetensors", reason="weights need safetensors")

import torch.nn.functional as F  # noqa: E402
from own_networks import Plain, Whole  # noqa: E402
from torch import nn  # noqa: E402

from icnet_deploy.errors import CheckFailed, InputError, LabelSetError, ModelError  # noqa: E402
from icnet_deploy.labels import LabelSet  # noqa: E402
from icnet_deploy.networks.blocks import words  # noqa: E402
from icnet_deploy.networks.own.opened import adapt, name_of, open_network  # noqa: E402
from icnet_deploy.networks.own.request import NetworkRequest  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

COLOURS = [(i, 255 - i, 7 * i % 256) for i in range(9)]


def classes(count):
    return LabelSet("own", tuple(f"c{i}" for i in range(count)), tuple(COLOURS[:count]))


REQUEST = NetworkRequest("nets:net", label_set=classes(3), preprocessing="imagenet")


def opened(module, size=None, **said):
    """`adapt`, with what is said of the network."""
    return adapt(module, dataclasses.replace(REQUEST, **said), size)


class Net(nn.Module):
    """Convolutions of stride 2, and what `end` makes of (logits, image)."""

    def __init__(self, end=lambda logits, image: logits, steps=2, classes=3):
        super().__init__()
        torch.manual_seed(0)
        widths = [3, *[8] * steps]
        self.steps = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.norm, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, classes, 1)
        self.end = end

    def forward(self, image):
        x = image
        for step in self.steps:
            x = step(x).relu()
        return self.end(self.head(self.norm(x)), image)


def up(aligned=None, **more):
    """The last resize, to the image's size."""

    def end(logits, image):
        how = {"mode": "bilinear", "align_corners": aligned} | more
        return F.interpolate(logits, image.shape[2:], **how)

    return end


def answers(network, size=(128, 160)):
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        return image, network(image)


class Answer:
    def __init__(self, logits):
        self.logits = logits


FORMS = {
    "tensor": lambda logits, _: logits,
    "tuple": lambda logits, _: (logits, logits[:, :1]),
    "list": lambda logits, _: [logits],
    "out": lambda logits, _: {"out": logits, "aux": logits[:, :1]},
    "logits": lambda logits, _: {"loss": None, "logits": logits},
    "dict of one": lambda logits, _: {"semantic": logits},
    "object": lambda logits, _: Answer(logits),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_logits_are_found_in_each_form_of_answer(form):
    network = opened(Net(FORMS[form])).network
    assert answers(network)[1].shape == (2, 3, 32, 40)
    assert (network.upsampling, network.stride) == ("half-pixel", 4)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5])
def test_the_stride_is_found(steps):
    network = opened(Net(steps=steps) if steps else nn.Conv2d(3, 3, 3, 1, 1)).network
    assert (network.stride, network.side_multiple) == (2**steps, 1)
    assert network.upsampling == ("half-pixel" if steps else "none")


SIZES = [(128, 160), (129, 131)]


@pytest.mark.parametrize(
    ("end", "rule"),
    [
        (up(False), "half-pixel"),
        (up(), "half-pixel"),
        (up(True), "aligned-corners"),
        (lambda z, x: {"out": up()(z, x), "aux": up()(z[:, :1], x)}, "half-pixel"),
        (lambda z, x: nn.Identity()(F.dropout(up()(z, x), 0.5, False)), "half-pixel"),
        (lambda z, x: up(True)(up(False)(z, x[..., ::2, ::2]), x), "aligned-corners"),
    ],
)
def test_the_last_upsampling_is_taken_off_where_it_is_exact(end, rule):
    module = Net(end)
    checkpoint = opened(module)
    network = checkpoint.network
    assert network.upsampling == rule
    assert network.stride in (2, 4)
    assert any("taken off" in line for line in checkpoint.info["own"])
    for size in SIZES:
        image, small = answers(network, size)
        whole = module.eval()(image)
        whole = whole["out"] if isinstance(whole, dict) else whole
        assert small.shape[2] <= -(-size[0] // 2)
        assert torch.allclose(network.upsample(small, size), whole, atol=1e-5)


def test_it_stays_off_in_an_exported_graph():
    network = opened(Net(up(True))).network
    size = torch.export.Dim("H", min=64, max=512)
    program = torch.export.export(
        network, (torch.zeros(2, 3, 96, 128),), dynamic_shapes=({2: size},)
    )
    assert not any("upsample" in str(node.target) for node in program.graph.nodes)


@pytest.mark.parametrize(
    "end",
    [
        lambda z, x: up()(z, x).softmax(1),
        lambda z, x: up()(z, x).relu_(),
        lambda z, x: up()(z, x) + x.mean(1, keepdim=True),
        lambda z, x: up(mode="nearest", align_corners=None)(z, x),
        lambda z, x: up(mode="bicubic")(z, x),
        lambda z, x: up(antialias=True)(z, x),
        lambda z, x: F.interpolate(z, scale_factor=4.0, mode="bilinear")[
            ..., : x.shape[2], : x.shape[3]
        ],
    ],
)
def test_an_upsampling_that_is_not_the_last_or_not_exact_stays(end):
    module = Net(end)
    network = opened(module).network
    assert (network.upsampling, network.stride) == ("none", 1)
    image, logits = answers(network)
    assert torch.allclose(logits, module.eval()(image), atol=1e-6)


def multiple_of(multiple, end=lambda z, x: z):
    def check(logits, image):
        assert not any(side % multiple for side in image.shape[2:]), f"not by {multiple}"
        return end(logits, image)

    return check


@pytest.mark.parametrize("multiple", [2, 14, 32, 48, 128])
def test_the_multiple_of_the_sides_is_found_and_named(multiple):
    module = Net(multiple_of(multiple))
    height, width = multiple * (64 // multiple + 2), multiple * (64 // multiple + 3)
    network = opened(module, (height, width)).network
    assert network.side_multiple == multiple
    assert network.min_side >= max(64, multiple)
    wrong = (height + 1, width)
    said = rf"multiples of {multiple}: {height}x{width}, not {wrong[0]}x{wrong[1]}"
    with pytest.raises(InputError, match=said):
        opened(module, wrong)


class Patches(nn.Module):
    """As a vision transformer: what is no whole patch is cut off."""

    def __init__(self, side, only=None):
        super().__init__()
        self.patches = nn.Conv2d(3, 3, side, side)
        self.places = None if only is None else nn.Parameter(torch.randn(1, 3, *only))

    def forward(self, image):
        x = self.patches(image)
        return x if self.places is None else x + self.places


@pytest.mark.parametrize("side", [14, 16])
def test_sizes_whose_logits_no_stride_places_are_not_taken(side):
    network = opened(Patches(side)).network
    assert (network.stride, network.side_multiple) == (side, side)
    with pytest.raises(InputError, match=f"multiples of {side}"):
        opened(Patches(side), (100, 100))


def test_what_is_upsampled_inside_is_right_at_sizes_that_no_stride_places():
    class Whole(Patches):
        def forward(self, image):
            return F.interpolate(super().forward(image), image.shape[2:], mode="bilinear")

    network = opened(Whole(16), (100, 150)).network
    assert (network.upsampling, network.stride, network.side_multiple) == ("half-pixel", None, 1)
    assert opened(Whole(16), (96, 160)).network.stride == 16


def test_a_network_of_one_size_is_taken_at_that_size():
    checkpoint = opened(Patches(16, (6, 10)), (96, 160))
    assert (checkpoint.network.stride, checkpoint.network.side_multiple) == (16, 32)
    assert any("96x160 alone" in line for line in checkpoint.info["own"])
    with pytest.raises(InputError, match=r"several sizes, and at 96x128, it raised RuntimeError"):
        opened(Patches(16, (6, 10)), (96, 128))
    with pytest.raises(InputError, match="takes 224x224, and no other size near it: name its size"):
        opened(Patches(16, (14, 14)))


def test_the_least_side_is_found():
    def end(logits, image):
        return F.pad(logits, (24, 24, 24, 24), mode="reflect")[..., 24:-24, 24:-24]

    network = opened(Net(end)).network
    assert network.min_side == 128
    with pytest.raises(
        InputError, match=r"does not take images of 64x256: .*; it takes sides from"
    ):
        opened(Net(end), (64, 256))


def test_a_multiple_is_found_of_a_network_that_takes_no_small_image():
    def end(logits, image):
        assert min(image.shape[2:]) >= 224
        return multiple_of(32)(logits, image)

    network = opened(Net(end)).network
    assert (network.side_multiple, network.min_side) == (32, 224)
    assert opened(Net(end), (224, 256)).network.min_side == 224


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
    "labels": (lambda z, x: z.argmax(1), r"torch.int64 of \(1, .*\), which are no logits"),
    "flat": (lambda z, x: z.mean((2, 3)), r"a tensor of \(1, 3\), which is not N x C x h x w"),
    "dict": (lambda z, x: {"a": z, "b": z}, "answered with a dict of a, b, of which none is 'out'"),
    "nothing": (lambda z, x: None, "answered with a value of NoneType"),
    "large": (lambda z, x: F.interpolate(z, scale_factor=8), "larger than the image"),
    "error": (lambda z, x: x.nothing, "raised AttributeError: 'Tensor' object has no attribute"),
    "alone": (lambda z, x: z[0].reshape(1, *z.shape[1:]), "takes one image at a time: of two"),
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
    "dropout": (Net(lambda z, x: F.dropout(z, 0.5)), "another answer to the same image each time"),
    "batch": (Net(lambda z, x: z - z.mean((0, 2, 3), keepdim=True)), "the other images of the ba"),
    "state": (Writing(), r"writes its own state in eval mode \(seen\)"),
    "infinite": (Net(lambda z, x: z / 0), "infinite or not numbers, of noise alone"),
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
        r"aligned-corners was said, but nets:net upsamples its logits by half-pixel: .*False",
    ),
    "whole": (
        Net(lambda z, x: up()(z, x).softmax(1)),
        {"upsampling": "half-pixel"},
        "half-pixel was said, but the logits of nets:net have the image's size",
    ),
    "small": (
        Net(),
        {"upsampling": "none"},
        "none was said, but the logits of nets:net for 512x1024 pixels are 128x256, not the image",
    ),
    "stride": (
        Net(up(False), steps=3),
        {"stride": 4},
        "--stride 4 was said, but .* for 512x1024 pixels are 64x128: stride 8",
    ),
    "multiple": (
        Net(multiple_of(32)),
        {"side_multiple": 8},
        "--side-multiple 8 was said, but nets:net takes sides that are multiples of 32",
    ),
}


@pytest.mark.parametrize("kind", SAID_WRONGLY)
def test_what_was_said_wrongly_fails_and_names_the_cause(kind):
    module, said, message = SAID_WRONGLY[kind]
    with pytest.raises(CheckFailed, match=message):
        opened(module, **said)


def test_what_was_said_is_taken_where_nothing_contradicts_it():
    said = opened(Net(), upsampling="aligned-corners", stride=4, side_multiple=32)
    network = said.network
    assert (network.upsampling, network.stride) == ("aligned-corners", 4)
    assert network.side_multiple == 32
    assert "upsampling: aligned-corners (said)" in said.info["own"]
    whole = opened(Net(up()), upsampling="none").network
    assert (whole.upsampling, whole.stride) == ("none", 1)
    assert any("(assumed, PyTorch's default" in line for line in opened(Net()).info["own"])
    inner = Net(lambda z, x: up(True)(z, x[..., ::2, ::2]))
    assert any("align corners: say" in line for line in opened(inner).info["own"])


def test_off_any_grid_the_rule_must_be_said():
    module = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.Conv2d(8, 3, 5, 2))
    with pytest.raises(InputError, match="no stride places the logits of nets:net"):
        opened(module)
    assert opened(module, upsampling="half-pixel").network.stride is None


def test_the_label_set_and_the_threshold_are_held_against_the_channels():
    with pytest.raises(LabelSetError, match=r"logits of 3 channels, and the label set 'own' has 5"):
        opened(Net(), label_set=classes(5))
    with pytest.raises(InputError, match=r"--threshold 0.4 is about one channel.* gives 3"):
        opened(Net(), threshold=0.4)
    for missing, option in [("label_set", "--label-set"), ("preprocessing", "--preprocessing")]:
        with pytest.raises(InputError, match=option):
            opened(Net(), **{missing: None})


def test_the_digest_is_the_weights_and_not_the_files(tmp_path, monkeypatch):
    import safetensors.torch

    import_from = f"{__name__}:Net"
    module = Net().half()
    state = module.state_dict()
    torch.save({"state_dict": dict(reversed(state.items()))}, tmp_path / "a.pth")
    plain = {k: v for k, v in state.items() if "batches" not in k}
    safetensors.torch.save_file(plain, tmp_path / "a.safetensors")
    request = dataclasses.replace(REQUEST, factory=import_from)
    digests = {adapt(module, request).sha256}
    for name in ("a.pth", "a.safetensors"):
        checkpoint = open_network(dataclasses.replace(request, weights=tmp_path / name))
        assert checkpoint.path == tmp_path / name
        assert all(p.dtype == torch.float32 for p in checkpoint.network.parameters())
        digests.add(checkpoint.sha256)
    assert len(digests) == 1
    assert module.head.weight.dtype == torch.float16  # the user's own stays as it was
    assert adapt(Net(steps=3), request).sha256 not in digests


def test_weights_that_are_not_finite_are_refused_in_a_module_too():
    module = Net()
    module.norm.running_var[1] = float("inf")
    with pytest.raises(ModelError, match=r"norm.running_var \(1 of 8 values\)"):
        opened(module)


def test_it_says_what_it_is():
    checkpoint = opened(Net(), factory="", arguments={"depth": 3, "num_classes": 3})
    network = checkpoint.network
    assert str(checkpoint.path) == str(name_of(Net()))
    assert network.description() == {
        "architecture": str(checkpoint.path),
        "arguments": {"depth": 3, "num_classes": 3},
        "num_classes": 3,
    }
    assert words(network.description()) == f"{checkpoint.path}, depth 3"
    assert network.blocks() == {"steps": ["module.steps"], "head": ["module.head"]}
    assert network.tie_margins(32.0) == Plain(4).tie_margins(32.0)
    pickle.dumps(checkpoint.info)


def test_a_network_of_the_kits_own_kind_is_taken_as_it_is():
    checkpoint = opened(Plain(3))
    assert isinstance(checkpoint.network, Plain)
    assert opened(Whole(3), upsampling="none").network.stride == 1
    with pytest.raises(CheckFailed, match="aligned-corners was said, but nets:net says of itself"):
        opened(Plain(3), upsampling="aligned-corners")

    class Wrong(Plain):
        stride = 8

    with pytest.raises(CheckFailed, match="says of itself that its stride is 8"):
        opened(Wrong(3))


def test_what_it_was_wrapped_in_is_taken_off():
    class Compiled(nn.Module):  # as torch.compile gives it
        def __init__(self, module):
            super().__init__()
            self._orig_mod = module

    module = Net(up())
    for wrap in (nn.DataParallel, Compiled):
        assert opened(wrap(module)).sha256 == opened(module).sha256


@pytest.mark.parametrize(
    ("end", "what"),
    [
        (lambda z, x: up()(z, x).permute(0, 2, 3, 1), r"channels are last: permute\(0, 3, 1, 2\)"),
        (lambda z, x: z.permute(0, 2, 3, 1), "other channels at each size"),
    ],
)
def test_channels_that_are_last_are_refused_as_such(end, what):
    with pytest.raises(InputError, match=what):
        opened(Net(end), (128, 256))


def test_a_network_that_always_answers_at_one_size_is_taken_at_that_size():
    module = Net(lambda logits, image: F.interpolate(logits, (128, 256), mode="bilinear"))
    network = opened(module, (128, 256)).network
    assert (network.upsampling, network.stride, network.min_side) == ("half-pixel", 4, 128)
    with pytest.raises(InputError, match=r"logits of 128x256, whatever the image's size"):
        opened(module)


def test_a_pool_that_is_said_as_a_resize_where_it_is_exported_changes_nothing(monkeypatch):
    def end(logits, image):
        pooled = logits.mean((2, 3), keepdim=True)
        if torch.onnx.is_in_onnx_export():
            pooled = F.interpolate(logits, (1, 1), mode="area")
        return up()(logits + pooled, image)

    network = opened(Net(end)).network
    image, logits = answers(network)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    with torch.no_grad():
        assert network(image).shape == logits.shape
