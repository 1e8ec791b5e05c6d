"""Imported weights at 1025x2049, against an evaluation of the published table of layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from icnet_deploy.cli import main
from icnet_deploy.networks.checkpoint import load_checkpoint

SIZE = (1025, 2049)
BGR_MEAN = (103.939, 116.779, 123.68)
FACTORS = np.array([0.9, 1.0, 1.2], np.float32)  # data_sub1's, blue first


@pytest.fixture(scope="module")
def image():
    """uint8 H x W x 3, RGB: smooth colours and noise, so that every channel differs."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] / 200
    smooth = np.stack([np.sin(y + x), np.cos(2 * x), np.sin(y * 3 - x)], -1) * 90 + 128
    return np.clip(smooth + rng.normal(0, 30, smooth.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def weights(writers, rows):
    return writers.weights(rows)


@pytest.fixture(scope="module")
def truth(table, rows, weights, image):
    """Stages -> logits by the table, for the authors' input.

    That is BGR, minus the mean, times data_sub1's factors. The coarser stages' classifiers are
    no rows of the table: 1x1 convolutions of two of its layers.
    """
    bgr = (image[..., ::-1].astype(np.float64) - BGR_MEAN) * FACTORS
    data = torch.from_numpy(bgr.transpose(2, 0, 1)[None].astype(np.float32))
    tensors = {name: [torch.from_numpy(a) for a in found] for name, found in weights.items()}
    tensors |= {n: [t.reshape(-1) for t in v] for n, v in tensors.items() if n.endswith("/bn")}
    with torch.inference_mode():
        values = table.evaluate(rows, data, tensors)
        sub4 = F.conv2d(values["conv5_4_interp"], *tensors["conv6_sub4"])
        sub24 = F.conv2d(values["sub24_sum_interp"], *tensors["conv6_sub2"])
    logits = {"sub4": sub4, "sub24": sub24, "sub124": values["conv6_cls"]}
    return {stages: found.numpy() for stages, found in logits.items()}


def deviation(logits, wanted) -> float:
    """The largest difference, in the smallest standard deviation that a class's logits have."""
    return float(np.abs(logits - wanted).max() / wanted.std((0, 2, 3)).min())


def imported(writers, arrays, file, out, stages="sub124"):
    layers = [("data_sub1", "Scale", [FACTORS]), *writers.as_layers(arrays)]
    path = file(writers.caffe(layers))
    assert main(["import-weights", str(path), "-o", str(out), "--stages", stages]) == 0
    return out


def run(path, image):
    checkpoint = load_checkpoint(path)
    with torch.inference_mode():
        return checkpoint.network(checkpoint.preprocessing.tensor(image)).numpy()


def test_merged(writers, weights, truth, image, file, tmp_path):
    out = imported(writers, writers.merged(weights), file, tmp_path / "merged.safetensors")
    assert deviation(run(out, image), truth["sub124"]) < 1e-3
    assert deviation(run(out, image[..., ::-1]), truth["sub124"]) > 1  # red and blue interchanged


@pytest.mark.parametrize("stages", ["sub4", "sub24"])
def test_coarser_stages(writers, weights, truth, image, file, tmp_path, stages):
    out = imported(writers, weights, file, tmp_path / "coarse.safetensors", stages)
    assert deviation(run(out, image), truth[stages]) < 1e-3


def test_with_batch_norm_and_as_onnx(writers, weights, truth, image, file, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxsim")
    from icnet_deploy.export.deployed import Deployed
    from icnet_deploy.export.graph import trace

    out = imported(writers, weights, file, tmp_path / "bn.safetensors")
    assert deviation(run(out, image), truth["sub124"]) < 1e-3
    checkpoint = load_checkpoint(out)
    model = trace(Deployed(checkpoint.network, checkpoint.preprocessing, "logits"), SIZE).model
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": image[None]})
    assert deviation(logits, truth["sub124"]) < 1e-3
