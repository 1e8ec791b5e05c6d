"""A network of one's own is run, and what it does is found: never believed, seldom assumed."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

torch = pytest.importorskip("torch", reason="a network of one's own needs torch")
pytest.importorskip("safetensors", reason="weights need safetensors")

import torch.nn.functional as F  # noqa: E402
from own_networks import Plain, Whole  # noqa: E402
from probed_nets import REQUEST, Net, answers, multiple_of, opened, up  # noqa: E402
from torch import nn  # noqa: E402

from icnet_deploy.errors import CheckFailed, InputError, ModelError  # noqa: E402
from icnet_deploy.networks.blocks import words  # noqa: E402
from icnet_deploy.networks.own.opened import adapt, name_of, open_network  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


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
    assert any("without its last resize" in line for line in checkpoint.info["own"])
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


@pytest.mark.parametrize("multiple", [2, 14, 32, 48, 128])
def test_the_multiple_of_the_sides_is_found_and_named(multiple):
    module = Net(multiple_of(multiple))
    height, width = multiple * (64 // multiple + 2), multiple * (64 // multiple + 3)
    network = opened(module, (height, width)).network
    assert network.side_multiple == multiple
    assert network.min_side >= max(64, multiple)
    wrong = (height + 1, width)
    said = rf"multiples of {multiple}: give {height}x{width}, not {wrong[0]}x{wrong[1]}"
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
    assert any("only 96x160" in line for line in checkpoint.info["own"])
    with pytest.raises(InputError, match=r"several sizes, and at 96x128, it raised RuntimeError"):
        opened(Patches(16, (6, 10)), (96, 128))
    with pytest.raises(InputError, match="takes 224x224, and no other size near it: give its size"):
        opened(Patches(16, (14, 14)))


def test_the_least_side_is_found():
    def end(logits, image):
        return F.pad(logits, (24, 24, 24, 24), mode="reflect")[..., 24:-24, 24:-24]

    network = opened(Net(end)).network
    assert network.min_side == 128
    with pytest.raises(
        InputError, match=r"does not take images of 64x256: .*; its shortest side is"
    ):
        opened(Net(end), (64, 256))


def test_a_multiple_is_found_of_a_network_that_takes_no_small_image():
    def end(logits, image):
        assert min(image.shape[2:]) >= 224
        return multiple_of(32)(logits, image)

    network = opened(Net(end)).network
    assert (network.side_multiple, network.min_side) == (32, 224)
    assert opened(Net(end), (224, 256)).network.min_side == 224


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
    with pytest.raises(InputError, match="aligned-corners was given, but nets:net declares"):
        opened(Plain(3), upsampling="aligned-corners")

    class Wrong(Plain):
        stride = 8

    with pytest.raises(CheckFailed, match="declares the stride 8"):
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
        (lambda z, x: z.permute(0, 2, 3, 1), "its channels differ with the size"),
    ],
)
def test_channels_that_are_last_are_refused_as_such(end, what):
    with pytest.raises(InputError, match=what):
        opened(Net(end), (128, 256))


def test_a_network_that_always_answers_at_one_size_is_taken_at_that_size():
    module = Net(lambda logits, image: F.interpolate(logits, (128, 256), mode="bilinear"))
    network = opened(module, (128, 256)).network
    assert (network.upsampling, network.stride, network.min_side) == ("half-pixel", 4, 128)
    with pytest.raises(InputError, match=r"logits of 128x256 for images of any size"):
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
