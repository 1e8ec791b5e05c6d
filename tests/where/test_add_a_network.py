"""A network of one's own: a class, and `register`. Nothing else is touched."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need torch")
pytest.importorskip("pytorch_lightning", reason="training needs pytorch_lightning")
pytest.importorskip("onnxsim", reason="an export needs onnxsim")
pytest.importorskip("onnxruntime", reason="an export is checked by ONNX Runtime")

import torch.nn.functional as F  # noqa: E402

from icnet_deploy import Predictor  # noqa: E402
from icnet_deploy.images import read_image  # noqa: E402
from icnet_deploy.metadata import read_onnx_metadata  # noqa: E402
from icnet_deploy.networks import (  # noqa: E402
    SegmentationNetwork,
    load_checkpoint,
    register,
    registry,
)

CONFIG = """
architecture = "toy"
depth = 12
preprocessing = "caffe"
steps = 2
batch = 2
crop = [64, 96]
average = 0.5
seed = 1
"""


class Toy(SegmentationNetwork):
    """Two convolutions, and half-pixel centres, as most networks have them."""

    upsampling = "half-pixel"
    min_side = 16

    def __init__(self, num_classes, depth=8):
        super().__init__()
        self.num_classes, self.depth = num_classes, depth
        self.features = torch.nn.Conv2d(3, depth, 5, stride=4, padding=2)
        self.norm = torch.nn.BatchNorm2d(depth)
        self.classifier = torch.nn.Conv2d(depth, num_classes, 1)

    def heads(self, image):
        return [self.classifier(F.silu(self.norm(self.features(image))))]


def half_pixel(logits, size):
    """The classes of C x h x w logits at a size, by torch."""
    dense = F.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear")
    return dense[0].argmax(0).numpy()


def test_a_network_is_added_by_one_call(run, scenes, one_thread, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_NETWORKS", dict(registry._NETWORKS))
    register("toy", Toy)
    weights, out = tmp_path / "toy.safetensors", tmp_path / "toy.onnx"
    (tmp_path / "toy.toml").write_text(CONFIG)
    where = ("--dataset", "scenes", "--data", scenes)
    config = ("--config", tmp_path / "toy.toml")
    done = run("train", *where, "--split", "val", *config, "-o", weights)
    assert done.code == 0, done.err
    network = load_checkpoint(weights).network
    assert network.description() == {"architecture": "toy", "num_classes": 19, "depth": 12}

    done = run("export", "--weights", weights, "--size", "96x128", "-o", out)
    assert done.code == 0, done.err
    metadata = read_onnx_metadata(out)
    assert metadata.network == network.description()
    assert (metadata.upsampling, metadata.min_side) == ("half-pixel", 16)
    assert (metadata.stride, metadata.preprocessing["channels"]) == (4, "bgr")

    image = read_image(next(iter(sorted(scenes.glob("leftImg8bit/val/*/*.png")))))
    checkpoint = load_checkpoint(weights)
    with torch.inference_mode():
        logits = checkpoint.network(checkpoint.preprocessing.tensor(image))[0].numpy()
    wanted = half_pixel(logits, image.shape[:2])
    assert len(np.unique(wanted)) > 1
    with Predictor.open(out, "onnxruntime", "cpu") as predictor:
        assert (predictor.predict(image).labels == wanted).mean() > 0.999

    report = tmp_path / "parity.json"
    argv = ("--runtime", "onnxruntime", "--weights", weights, "--json", report)
    done = run("parity", out, *where, *argv)
    assert done.code == 0, done.err + done.out
    assert json.loads(report.read_text())
