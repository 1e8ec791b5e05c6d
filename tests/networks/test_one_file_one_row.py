"""A network that joins the kit by one file and one row: trained, exported, and held to itself."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need torch")
pytest.importorskip("safetensors", reason="checkpoints need safetensors")

from network_contract import NetworkContract  # noqa: E402

from icnet_deploy.data import open_dataset  # noqa: E402
from icnet_deploy.documents import parse  # noqa: E402
from icnet_deploy.metadata import read_onnx_metadata  # noqa: E402
from icnet_deploy.networks import registry  # noqa: E402
from icnet_deploy.networks.checkpoint import load_checkpoint  # noqa: E402
from icnet_deploy.runtime.predictor import Predictor  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread", "registered")

FILE = '''
"""A small encoder and decoder whose logits are a quarter of the image's size."""

from torch import Tensor, nn

from icnet_deploy.networks.base import SegmentationNetwork


class TinyNet(SegmentationNetwork):
    """Three convolutions down, one across, one classifier.

    Args:
        num_classes: classes of the output.
        depth: channels of the first layer.
    """

    upsampling = "half-pixel"
    min_side = 32
    stride = 4

    def __init__(self, num_classes: int, depth: int = 8) -> None:
        super().__init__()
        self.num_classes, self.depth = num_classes, depth
        self.stem = self._layer(3, depth, 2)
        self.down = self._layer(depth, 2 * depth, 2)
        self.across = self._layer(2 * depth, 2 * depth, 1)
        self.classifier = nn.Conv2d(2 * depth, num_classes, 1)

    @staticmethod
    def _layer(cin: int, cout: int, stride: int) -> nn.Module:
        convolution = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(cout), nn.ReLU())

    def image_convolutions(self) -> list[nn.Conv2d]:
        return [self.stem[0]]

    def heads(self, image: Tensor) -> list[Tensor]:
        x = self.down(self.stem(image))
        return [self.classifier(x + self.across(x))]
'''

ROW = 'register("tiny", TinyNet)'


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """The file where it is imported from, and the row; both are gone afterwards."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "tinynet.py").write_text(FILE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(registry, "_NETWORKS", dict(registry._NETWORKS))
        network = importlib.import_module("tinynet").TinyNet
        exec(ROW, {"register": registry.register, "TinyNet": network})
        yield


@pytest.fixture(scope="module")
def made(registered, scenes, tmp_path_factory):
    """Trained for two steps on drawn scenes, and exported, by the commands."""
    from icnet_deploy.cli import main

    folder = tmp_path_factory.mktemp("tiny")
    config = 'architecture = "tiny"\ndepth = 12\nbatch = 2\ncrop = [64, 96]\nrate = 1e-2\n'
    (folder / "tiny.toml").write_text(config, encoding="utf-8")
    weights, model = folder / "tiny.safetensors", folder / "tiny.onnx"
    data = ["--dataset", "scenes", "--data", str(scenes), "--split", "val", "--validate", "none"]
    settings = ["--config", str(folder / "tiny.toml"), "--steps", "2"]
    assert main(["train", *data, *settings, "-o", str(weights)]) == 0
    assert main(["export", "--weights", str(weights), "--size", "96x128", "-o", str(model)]) == 0
    return SimpleNamespace(folder=folder, weights=weights, model=model)


class TestTinyNet(NetworkContract):
    described: ClassVar = {"architecture": "tiny", "depth": 12}


def test_it_is_trained_saved_and_read_again(made):
    read = load_checkpoint(made.weights)
    assert read.network.description() == {"architecture": "tiny", "num_classes": 19, "depth": 12}
    assert read.info["steps"] == 2
    assert read.info["config"]["architecture"] == "tiny"


def test_its_artefact_says_what_it_is(made):
    metadata = read_onnx_metadata(made.model)
    assert metadata.network == {"architecture": "tiny", "num_classes": 19, "depth": 12}
    assert (metadata.upsampling, metadata.stride, metadata.min_side) == ("half-pixel", 4, 32)


def test_its_artefact_is_the_network(made, scenes, run):
    pytest.importorskip("onnxruntime", reason="parity runs the artefact")
    report = made.folder / "parity.json"
    data = ["--dataset", "scenes", "--data", scenes, "--json", report]
    answer = run("parity", made.model, "--weights", made.weights, "--runtime", "onnxruntime", *data)
    assert answer.code == 0, answer.err
    [row] = parse(report.read_text(encoding="utf-8"))["rows"]
    assert (row["verdict"], row["flips"], row["pixels"]) == ("within", 0, 3 * 96 * 128)
    with Predictor.open(made.model) as predictor:
        labels = predictor.predict(open_dataset("scenes", scenes)[0].image).labels
    assert len(np.unique(labels)) > 1  # a map of one class would prove nothing
