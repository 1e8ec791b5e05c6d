"""A backbone that begins as an image classifier's: what is taken computes what it did there."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")
safetensors = pytest.importorskip("safetensors.torch", reason="checkpoints need safetensors")

from plain_resnet import PlainResNet  # noqa: E402
from torch import nn  # noqa: E402

from icnet_deploy.cli import main  # noqa: E402
from icnet_deploy.errors import InputError, ModelError  # noqa: E402
from icnet_deploy.files import sha256  # noqa: E402
from icnet_deploy.labels import CITYSCAPES  # noqa: E402
from icnet_deploy.networks import registry  # noqa: E402
from icnet_deploy.networks.backbone import BackbonePart  # noqa: E402
from icnet_deploy.networks.base import SegmentationNetwork  # noqa: E402
from icnet_deploy.networks.checkpoint import load_checkpoint  # noqa: E402
from icnet_deploy.networks.registry import build_network, completed, register  # noqa: E402
from icnet_deploy.networks.resnet import BLOCKS  # noqa: E402
from icnet_deploy.training.backbone import take_backbone  # noqa: E402
from icnet_deploy.training.compress.prune import channel_groups, prune  # noqa: E402
from icnet_deploy.training.config import TrainConfig  # noqa: E402
from icnet_deploy.training.start import new_start  # noqa: E402
from icnet_deploy.training.train import train  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

ICNET, PSPNET = {"architecture": "icnet"}, {"architecture": "pspnet"}
ALL = 275


def new(width=0.125, seed=5, **kind):
    torch.manual_seed(seed)
    return build_network({"num_classes": 3, "width": width, **(kind or ICNET)}).eval()


def norms_of(state):
    return {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}


@pytest.fixture(autouse=True, scope="module")
def groups_found_once():
    """Finding a network's groups of channels takes most of the time."""
    known = {}

    def groups(network):
        key = str(network.description())
        return known[key] if key in known else known.setdefault(key, channel_groups(network))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("icnet_deploy.training.backbone.channel_groups", groups)
        yield


@pytest.fixture
def written(tmp_path, lively):
    """A function that writes a classifier's state, and gives it and the file."""

    def write(name="net.pth", wrap=lambda state: state, seed=0, **settings):
        resnet = lively(PlainResNet(**settings), seed)
        path = tmp_path / name
        state = wrap(resnet.state_dict())
        (safetensors.save_file if path.suffix == ".safetensors" else torch.save)(state, path)
        return resnet, path

    return write


def last_features(network, image):
    """What the last bottleneck of a network of the kit makes of an image."""
    seen = []
    handle = getattr(network, BLOCKS[-1]).register_forward_hook(lambda *a: seen.append(a[2]))
    with torch.inference_mode():
        network(image)
    handle.remove()
    return seen[0]


def image_of(side=128):
    return torch.randn(1, 3, side, side + 32, generator=torch.Generator().manual_seed(1))


def alike(mine, theirs):
    assert mine.shape == theirs.shape
    assert theirs.std() > 0.05
    return torch.allclose(mine, theirs, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize(
    ("stem", "cout", "kind"),
    [
        ("timm", 16, ICNET),
        ("timm", 8, ICNET),
        ("mmsegmentation", 16, ICNET),
        ("semseg", 16, PSPNET),
    ],
)
def test_a_stem_of_three_convolutions_computes_what_it_did(written, stem, cout, kind):
    """All of it does. Of a wider stem nothing reads the channels that are new."""
    resnet, path = written(stem=stem, cout=cout, pooled=stem == "timm")
    network = new(**kind)
    taken = take_backbone(network, path)
    with torch.inference_mode():
        theirs = resnet.features(image_of(), halve=kind is ICNET)
    assert alike(last_features(network, image_of()), theirs)
    assert taken.info["tensors"] == taken.info["of"] == ALL
    assert taken.info["new"] == []
    assert taken.reads_image
    assert ("channels that the file does not have are new" in taken.info["change"]) is (cout == 8)
    assert taken.notes[-1] == "not used from net.pth: 2 tensors, of fc"


def test_a_stem_of_one_7x7_stays_new_and_is_named(written):
    """The bottlenecks compute what they did, of what a stem gives them."""
    resnet, path = written()
    fresh, network = new(**PSPNET), new(**PSPNET)
    taken = take_backbone(network, path)
    x = torch.rand(1, 16, 24, 40, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert alike(network._run(BLOCKS, x), resnet.stages(x[:, :8], halve=False))
    before, now = fresh.state_dict(), network.state_dict()
    same = [name for name in norms_of(now) if torch.equal(now[name], before[name])]
    assert {name.partition(".")[0] for name in same} == {
        *("conv1_1_3x3_s2", "conv1_2_3x3", "conv1_3_3x3", "conv5_4_k1", "conv6")
    }
    assert not taken.reads_image
    first, second, third = taken.notes
    assert first.startswith("backbone: 260 of its 275 tensors come from net.pth; ")
    assert second == (
        "new: stem (its conv1.weight is 8x3x7x7, the network's "
        "conv1_1_3x3_s2.conv.weight 8x3x3x3); the 7 tensors outside the backbone"
    )
    assert third == "not used from net.pth: 7 tensors, of conv1, bn1, fc"


def test_half_the_width_is_what_pruning_the_whole_gives(written):
    _, path = written(base=16, stem="semseg")
    whole, half = new(width=0.25), new(width=0.125)
    assert take_backbone(whole, path).info["change"] == ""
    note = take_backbone(half, path).notes[0]
    assert note.endswith("the filters with the largest L1 norm are kept")
    pruned, own = prune(whole, 0.5).state_dict(), half.state_dict()
    names = [name for part in half.backbone() for name in part.layouts[0]]
    assert len(names) == ALL
    assert all(torch.equal(own[name], pruned[name]) for name in names)


def spread(state, generator):
    """A state of twice the channels, of which every second on average makes nothing but zeros.

    A residual chain has its channels in the same places in every layer of it.
    """
    places = {}

    def place(key, count):
        if key not in places:
            chosen = torch.randperm(2 * count, generator=generator)[:count]
            places[key] = chosen.sort().values
        return places[key]

    wide = {}
    for name, value in state.items():
        parts = name.split(".")
        if value.ndim == 0 or parts[0] == "fc":
            wide[name] = value
            continue
        block, layer = ".".join(parts[:2]), parts[-2] if parts[0].startswith("layer") else parts[0]
        number = layer[-1]
        if parts[0].startswith("layer"):
            chain = "downsample" in parts or number == "3"
            out = parts[0] if chain else f"{block}.{number}"
            stage, index = int(parts[0][-1]), int(parts[1])
            before = parts[0] if index else (f"layer{stage - 1}" if stage > 1 else "stem3")
            read = (
                before if number == "1" or "downsample" in parts else f"{block}.{int(number) - 1}"
            )
        else:
            out, read = f"stem{number}", f"stem{int(number) - 1}"
        sides = [2 * side if axis < 2 else side for axis, side in enumerate(value.shape)]
        if value.ndim == 4 and value.shape[1] == 3:
            sides[1] = 3
        grown = torch.zeros(sides)
        rows = place(out, value.shape[0])
        if value.ndim == 1:
            grown[rows] = value
            if name.endswith("running_var"):
                grown[grown == 0] = 1
        else:
            columns = torch.arange(3) if sides[1] == 3 else place(read, value.shape[1])
            grown[rows[:, None], columns] = value
        wide[name] = grown
    return wide


def test_pruning_cuts_every_layer_of_a_chain_alike(written):
    """Filters of zeros go, wherever they stand, and what is left computes the same."""
    generator = torch.Generator().manual_seed(3)
    narrow, path = written(stem="semseg", wrap=lambda state: spread(state, generator))
    network = new()
    take_backbone(network, path)
    with torch.inference_mode():
        theirs = narrow.features(image_of(), halve=True)
    assert alike(last_features(network, image_of()), theirs)


WRAPPINGS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {
        "state_dict": state,
        "epoch": 3,
        "optimizer": {"x": torch.ones(2)},
    },
    "model": lambda state: {"model": state, "args": None},
    "module": lambda state: {f"module.{name}": value for name, value in state.items()},
    "both": lambda state: {"state_dict": {f"module.{n}": v for n, v in state.items()}},
    "backbone": lambda state: {f"backbone.{n}": v for n, v in state.items()},
    "half": lambda state: {n: v.half() if v.is_floating_point() else v for n, v in state.items()},
    "average": lambda state: {
        "state_dict": {n: v * 3 for n, v in state.items()},
        "state_dict_ema": state,
    },
}


@pytest.mark.parametrize(
    ("wrapping", "ending"),
    [*((name, ".pth") for name in WRAPPINGS), ("plain", ".safetensors"), ("half", ".safetensors")],
)
def test_a_file_is_read_however_it_is_wrapped(written, wrapping, ending):
    resnet, path = written(f"net{ending}", WRAPPINGS[wrapping])
    network = new(**PSPNET)
    taken = take_backbone(network, path)
    assert taken.info["tensors"] == 260
    own = network.state_dict()[f"{BLOCKS[0]}._3x3.conv.weight"]
    theirs = resnet.state_dict()["layer1.0.conv2.weight"]
    assert torch.allclose(own, theirs, rtol=2e-3)
    assert taken.info["sha256"] == sha256(path)


def twice(scale):
    """A file with the same under two prefixes."""
    return lambda state: {
        f"{prefix}.{n}": (v * scale if prefix == "b" else v)
        for prefix in "ab"
        for n, v in state.items()
    }


def test_two_backbones_in_one_file_are_refused_unless_they_are_alike(written):
    _, path = written(wrap=twice(1))
    assert "without the prefix 'a.'" in take_backbone(new(**PSPNET), path).notes[0]
    _, path = written(wrap=twice(2))
    with pytest.raises(
        ModelError, match=r"more than once, under 'a\.', 'b\.': write a file with only"
    ):
        take_backbone(new(**PSPNET), path)


def without(*prefixes):
    return lambda state: {n: v for n, v in state.items() if not n.startswith(prefixes)}


def test_what_the_file_lacks_stays_as_initialised(written):
    _, path = written(wrap=without("layer4", "layer2.1.bn3"))
    fresh, network = new(**PSPNET), new(**PSPNET)
    taken = take_backbone(network, path)
    assert taken.info["new"] == ["stem", "conv3_2", "conv5_1", "conv5_2", "conv5_3"]
    now, before = network.state_dict(), fresh.state_dict()
    names = [n for n in now if n.startswith(("conv3_2.", "conv5_"))]
    assert all(torch.equal(now[name], before[name]) for name in names)
    text = taken.notes[1]
    assert "conv3_2 (it has no layer2.1.bn3.weight)" in text
    assert text.endswith("; 1 more parts; the 7 tensors outside the backbone")
    assert "layer2.1 worked among the tensors that are taken" in taken.notes[2]


@pytest.mark.parametrize("wrapping", ["plain", "module", "both", "backbone"])
def test_a_deeper_file_says_what_is_left_within(written, wrapping):
    _, path = written("net.pth", WRAPPINGS[wrapping], depths=(3, 4, 8, 3))
    taken = take_backbone(new(**PSPNET), path)
    assert taken.info["tensors"] == 260
    assert "layer3.6, layer3.7, conv1, bn1 and 1 more" in taken.notes[-1]
    assert "layer3.6, layer3.7 worked among the tensors that are taken" in taken.notes[-1]


def test_a_network_without_such_a_backbone_says_so(tmp_path):
    network = build_network({"architecture": "bisenetv2", "num_classes": 2, "width": 0.25})
    with pytest.raises(
        InputError, match=r"bisenetv2 does not have the backbone .* leave --init-backbone out"
    ):
        take_backbone(network, tmp_path / "net.pth")


class Tiny(SegmentationNetwork):
    """Says where its backbone lies, and cannot be pruned."""

    def __init__(self, num_classes: int, wide: int = 8) -> None:
        super().__init__()
        self.num_classes, self.wide = num_classes, wide
        self.first = nn.Conv2d(3, wide, 7, 2, 3, bias=False)
        self.last = nn.Conv2d(wide, num_classes, 1)

    def heads(self, image):
        return [self.last(self.first(image).relu())]

    def backbone(self):
        return [BackbonePart("first", ({"first.weight": "conv1.weight"},))]


def test_a_network_of_ones_own_names_its_backbone_itself(written):
    resnet, path = written()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_NETWORKS", dict(registry._NETWORKS))
        register("tiny", Tiny)
        network = Tiny(2)
        assert take_backbone(network, path).info["tensors"] == 1
        assert torch.equal(network.first.weight, resnet.conv1.weight)
        with pytest.raises(ModelError, match=r"is 8x3x7x7, the network's first.weight 4x3x7x7"):
            take_backbone(Tiny(2, 4), path)


@pytest.mark.parametrize(
    ("stem", "preprocessing", "said"),
    [("7x7", "caffe", False), ("timm", "caffe", True), ("timm", "street", False)],
)
def test_a_preprocessing_that_the_stem_did_not_see_is_noted(written, stem, preprocessing, said):
    """It stays as configured; where the stem is new, it may be any."""
    _, path = written(stem=stem)
    config = TrainConfig(network=completed({"width": 0.125}), preprocessing=preprocessing)
    start = new_start(config, CITYSCAPES, path)
    assert (start.preprocessing.channels == "bgr") is (preprocessing == "caffe")
    assert start.notes[-1].startswith("the configuration has the preprocessing 'caffe'") is said
    assert start.network.training


def test_a_checkpoint_is_not_mixed_with_a_backbone(tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(InputError, match="leave one of them out"):
        train([], CITYSCAPES, TrainConfig(), path, tmp_path / "run", init=path, backbone=path)
    assert not (tmp_path / "run").exists()


def test_a_run_begins_with_it_and_its_checkpoint_says_so(written, tmp_path, capsys):
    pytest.importorskip("pytorch_lightning", reason="training needs pytorch_lightning")
    from icnet_deploy.data.scenes import write_scenes

    write_scenes(tmp_path / "scenes", 2, (65, 97), 1, "train", progress=False)
    config = tmp_path / "c.toml"
    config.write_text("width = 0.125\nsteps = 1\nbatch = 2\ncrop = [65, 65]\nrate = 1e-9\n")
    out = tmp_path / "out.safetensors"
    request = [
        *("train", "--dataset", "scenes", "--data", str(tmp_path / "scenes"), "-o", str(out)),
        *("--config", str(config), "--validate", "none", "--init-backbone"),
    ]
    assert main([*request, str(tmp_path / "none.pth")]) == 2
    assert not out.exists()
    assert "none.pth: there is no such file" in capsys.readouterr().err
    resnet, path = written(stem="semseg")
    assert main([*request, str(path)]) == 0
    assert "backbone: 275 of its 275 tensors come from net.pth" in capsys.readouterr().out
    read = load_checkpoint(out)
    assert read.info["backbone"] == {
        "file": "net.pth",
        "sha256": sha256(path),
        "tensors": 275,
        "of": 275,
        "new": [],
        "change": "",
    }
    assert read.info["source"] == f"the backbone began as net.pth, SHA-256 {sha256(path)}"
    own = read.network.state_dict()[f"{BLOCKS[-1]}._3x3.conv.weight"]
    assert torch.allclose(own, resnet.layer4[2].conv2.weight, rtol=1e-3, atol=1e-6)
