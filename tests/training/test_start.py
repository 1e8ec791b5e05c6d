"""A run that starts from a checkpoint of other classes: what it keeps, and what it says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")
pytest.importorskip("safetensors", reason="checkpoints need safetensors")

from icnet_deploy.labels import CITYSCAPES, LabelSet  # noqa: E402
from icnet_deploy.networks import registry  # noqa: E402
from icnet_deploy.networks.base import SegmentationNetwork  # noqa: E402
from icnet_deploy.networks.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from icnet_deploy.networks.preprocessing import STREET  # noqa: E402
from icnet_deploy.networks.registry import build_network, completed, register  # noqa: E402
from icnet_deploy.training.config import TrainConfig  # noqa: E402
from icnet_deploy.training.start import new_start, start_from  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def classes(name, *names):
    return LabelSet(name, names, tuple((i, 0, 0) for i in range(len(names))))


FARM = classes("farm", "soil", "car", "track", "person")
BACKWARDS = classes("backwards", *CITYSCAPES.names[::-1])


class Turned(SegmentationNetwork):
    """Its classifier's rows are not its classes in their order, and it counts them elsewhere, too:
    in whole numbers, in a table of pairs, and in a layer of twice as many channels."""

    upsampling, min_side, side_multiple, stride = "half-pixel", 20, 16, 2

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.first = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.wide = torch.nn.Conv2d(8, 2 * num_classes, 1)
        self.last = torch.nn.Conv2d(2 * num_classes, num_classes, 1)
        self.pairs = torch.nn.Parameter(torch.randn(num_classes, num_classes))
        self.register_buffer("order", torch.arange(num_classes).flip(0))

    def heads(self, image):
        logits = self.last(self.wide(self.first(image).sigmoid()))
        return [logits.index_select(1, self.order)]


class Paired(SegmentationNetwork):
    """A classifier, and a gain for each class, which is no layer's."""

    upsampling, min_side, stride = "half-pixel", 16, 2

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.first = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.last = torch.nn.Conv2d(8, num_classes, 1)
        self.gain = torch.nn.Parameter(torch.rand(num_classes, 1, 1))

    def heads(self, image):
        return [self.last(self.first(image).sigmoid()) * self.gain]


@pytest.fixture(autouse=True, scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_NETWORKS", dict(registry._NETWORKS))
        register("turned", Turned)
        register("paired", Paired)
        yield


KINDS = {
    "icnet": {"architecture": "icnet", "width": 0.125},
    "sub4": {"architecture": "icnet", "width": 0.125, "stages": "sub4"},
    "pspnet": {"architecture": "pspnet", "width": 0.125, "downsampling": 32},
    "paired": {"architecture": "paired"},
    "turned": {"architecture": "turned"},
}


@pytest.fixture
def started(tmp_path, lively):
    """A function from a kind and classes to the checkpoint and what a run starts from."""

    def start(kind, label_set, before=CITYSCAPES, info=None):
        path = tmp_path / "before.safetensors"
        network = lively(build_network(KINDS[kind] | {"num_classes": len(before)}))
        save_checkpoint(path, network, before, STREET, info)
        own = {name: value for name, value in KINDS[kind].items() if name != "guidance"}
        config = TrainConfig(network=completed(own))
        return load_checkpoint(path), start_from(path, config, label_set)

    return start


def answers(old, new, same):
    """The logits of some classes of both, of one image."""
    image = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        logits = old.network(image), new.network.eval()(image)
    sets = old.label_set, same
    return [
        value[:, [s.names.index(name) for name in same.names if name in old.label_set.names]]
        for value, s in zip(logits, sets, strict=True)
    ]


@pytest.mark.parametrize(
    ("kind", "new"),
    [
        ("icnet", ["conv6_cls"]),
        ("sub4", ["conv6_sub4"]),
        ("pspnet", ["conv6"]),
        ("paired", ["gain", "last"]),
    ],
)
def test_all_but_the_classifiers_is_kept_and_rows_of_the_same_classes(started, kind, new):
    old, begun = started(kind, FARM)
    assert begun.network.num_classes == 4
    assert begun.network.training
    before, now = old.network.state_dict(), begun.network.state_dict()
    kept = [n for n in before if n.rpartition(".")[0] not in new and n not in new]
    assert all(torch.equal(before[name], now[name]) for name in kept)
    assert sorted(begun.info["classes"]["new_layers"]) == new
    floats = [name for name in kept if before[name].is_floating_point()]
    assert begun.info["classes"]["kept_tensors"] == len(floats)
    assert begun.info["classes"]["kept_rows"] == ["car", "person"]
    theirs, mine = answers(old, begun, FARM)
    assert torch.allclose(theirs, mine, atol=1e-4 * float(theirs.abs().max()))
    [note] = begun.notes
    assert f"{len(floats)} tensors are kept" in note
    assert "its 19 classes of 'cityscapes' become the 4 of 'farm', with new layers" in note
    assert note.endswith("weights of 2 classes with the same name are kept: car, person")


def test_classes_in_another_order_are_found_by_their_names(started):
    old, begun = started("icnet", BACKWARDS)
    theirs, mine = answers(old, begun, BACKWARDS)
    assert torch.allclose(theirs, mine, atol=1e-4 * float(theirs.abs().max()))
    assert (
        "weights of 19 classes with the same name are kept: bicycle, motorcycle" in begun.notes[0]
    )
    assert begun.notes[0].endswith(", ...")


def test_classifiers_of_as_many_other_classes_are_new(started):
    """No shape says that: it is what would change with one class more."""
    others = classes("others", *(f"class {i}" for i in range(19)))
    old, begun = started("icnet", others)
    kernels = [n.network.state_dict()["conv6_cls.weight"] for n in (old, begun)]
    assert kernels[0].shape == kernels[1].shape
    assert not torch.isclose(*kernels).any()
    assert begun.info["classes"]["kept_rows"] == []
    assert begun.notes[0].endswith("no class has the same name")


def test_rows_that_are_not_the_classes_in_their_order_are_not_taken_for_them(started):
    """Nor is a table of whole numbers: it would name rows that are not there."""
    old, begun = started("turned", FARM)
    assert begun.info["classes"]["kept_rows"] == []
    assert begun.network.order.tolist() == [3, 2, 1, 0]
    assert torch.equal(begun.network.first.weight, old.network.first.weight)
    assert begun.network.heads(torch.zeros(1, 3, 32, 32))[0].isfinite().all()
    assert begun.network.training


@pytest.mark.parametrize("count", [1, 2, 254])
def test_any_number_of_classes(started, count):
    many = classes("many", *(f"class {i}" for i in range(count)))
    _, begun = started("icnet", many)
    assert begun.network.eval()(torch.zeros(1, 3, 64, 64)).shape[1] == count


def test_the_same_classes_are_the_same_network_and_nothing_is_said(started):
    renamed = replace(CITYSCAPES, name="mine")
    old, begun = started("icnet", renamed, info={"data": ["x"]})
    now = begun.network.state_dict()
    assert all(torch.equal(v, now[k]) for k, v in old.network.state_dict().items())
    assert begun.notes == ()
    assert begun.info == {"started_from": old.sha256, "parent": {"data": ["x"]}}
    assert {"conv6_sub2.weight", "conv6_sub4.weight"} <= now.keys()


def test_a_configuration_of_another_network_is_not_silently_lost(started):
    old, begun = started("sub4", FARM)
    assert len(begun.notes) == 1
    config = TrainConfig(network=completed({"width": 0.5}))
    first, _ = start_from(old.path, config, FARM).notes
    assert "icnet, sub4, width 0.125, not the configured icnet, sub124, width 0.5" in first


def test_a_new_network_takes_any_preprocessing_by_name():
    config = TrainConfig(network=completed(KINDS["sub4"]), preprocessing="unit")
    begun = new_start(config, FARM)
    assert begun.preprocessing.scale == (1 / 255,) * 3
    assert begun.info == {"started_from": None}
