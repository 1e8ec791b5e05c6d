"""A network that says of itself only what it must."""

from __future__ import annotations

from typing import ClassVar

import pytest

torch = pytest.importorskip("torch", reason="networks need torch")

from network_contract import NetworkContract  # noqa: E402

from icnet_deploy.errors import InputError  # noqa: E402
from icnet_deploy.networks import registry  # noqa: E402
from icnet_deploy.networks.base import SegmentationNetwork  # noqa: E402
from icnet_deploy.networks.registry import build_network, register  # noqa: E402
from icnet_deploy.training.compress.prune import prune  # noqa: E402


class Toy(SegmentationNetwork):
    """Two convolutions, a buffer of whole numbers and one that no checkpoint holds.

    Its logits lie at half-pixel centres, as most networks' do.
    """

    upsampling = "half-pixel"
    min_side = 8
    stride = 2

    def __init__(self, num_classes: int, depth: int = 8) -> None:
        super().__init__()
        self.num_classes, self.depth = num_classes, depth
        self.first = torch.nn.Conv2d(3, depth, 3, stride=2, padding=1)
        self.classifier = torch.nn.Conv2d(depth, num_classes, 1)
        self.register_buffer("order", torch.arange(num_classes).flip(0))
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)

    def heads(self, image):
        logits = self.classifier(self.first(image).sigmoid() * self.scale)
        return [logits.index_select(1, self.order)]


@pytest.fixture(autouse=True, scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_NETWORKS", dict(registry._NETWORKS))
        register("toy", Toy)
        yield


class TestToy(NetworkContract):
    described: ClassVar = {"architecture": "toy"}


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="another network is registered as 'icnet'"):
        register("icnet", Toy)
    register("toy", Toy)
    assert Toy.architecture == "toy"


def test_its_modules_are_its_blocks():
    assert Toy(3).blocks() == {"first": ["first"], "classifier": ["classifier"]}


def test_margins_grow_with_its_logits():
    small, large = (Toy(3).tie_margins(size) for size in (16.0, 64.0))
    assert {bits: 4 * margin for bits, margin in small.items()} == large


def test_it_is_not_pruned():
    with pytest.raises(InputError, match="toy cannot be pruned"):
        prune(build_network({"architecture": "toy", "num_classes": 3}), 0.5)
