"""A network that export has not seen: its rule of upsampling, its least side, its own input."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from own_networks import Plain

from icnet_deploy.errors import CheckFailed
from icnet_deploy.export.deployed import Deployed, stride_of
from icnet_deploy.export.engine.builder import build
from icnet_deploy.export.engine.graph import read_graph
from icnet_deploy.export.engine.options import BuildOptions
from icnet_deploy.export.to_onnx import export
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.networks.checkpoint import load_checkpoint
from icnet_deploy.networks.preprocessing import CAFFE, Preprocessing
from icnet_deploy.runtime.predictor import Predictor

SIZE = (97, 161)  # no multiple of the stride


FORMS = {
    "logits": {},
    "labels": {"head": "labels"},
    "half-labels": {"head": "labels", "precision": "fp16"},
    "free-labels": {"head": "labels", "dynamic_size": True},
}
EACH = [*(("plain", form) for form in FORMS), ("whole", "logits"), ("whole", "labels")]


@pytest.fixture(scope="session")
def own(own_weights, tmp_path_factory):
    """Returns a network's checkpoint, and the file of one of its forms, made when first asked for.

    `export` itself compares the file with PyTorch.
    """
    folder = tmp_path_factory.mktemp("own")

    def get(name, form):
        out = folder / f"{name}-{form}.onnx"
        if not out.exists():
            # Two classes of a network that is not trained are nearly tied more often.
            least = 0.95 if "half" in form else 0.999
            export(out, own_weights(name), SIZE, **FORMS[form], agreement=least)
        return load_checkpoint(own_weights(name)), out

    return get


def reference(checkpoint, image):
    """uint8 H x W of PyTorch, by the network's own rule."""
    with torch.inference_mode():
        logits = checkpoint.network(checkpoint.preprocessing.tensor(image))
        return checkpoint.network.upsample(logits, image.shape[:2]).argmax(1)[0].numpy()


@pytest.mark.parametrize(("name", "form"), EACH)
def test_scale_and_order_are_in_the_convolution_and_the_mean_before_it(own, name, form):
    """Though the network says nothing of what reads the image."""
    _, out = own(name, form)
    kinds = [n.op_type for n in onnx.load(out).graph.node if n.op_type != "Shape"]
    turn = ["Transpose", "Sub"] if "free" in form else ["Sub", "Transpose"]
    assert kinds[: kinds.index("Conv")] == ["Cast", *turn]


@pytest.mark.parametrize(("name", "form"), EACH)
def test_the_file_says_what_the_network_says(own, name, form):
    _, out = own(name, form)
    metadata = read_onnx_metadata(out)
    assert (metadata.upsampling, metadata.stride) == (
        ("half-pixel", 4) if name == "plain" else ("none", 1)
    )
    assert (metadata.min_side, metadata.network["architecture"]) == (32, f"test-{name}")
    resizes = [n for n in onnx.load(out).graph.node if n.op_type == "Resize"]
    assert len(resizes) == (name == "whole" or "labels" in form)
    for node in resizes:
        assert bool(node.input[2]) == ("free" not in form)  # scales where the size is known


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("name", "form"), [each for each in EACH if "half" not in each[1]])
def test_its_labels_are_pytorchs_on_every_runtime(own, scene, name, form, runtime):
    checkpoint, out = own(name, form)
    images = [scene, scene[:64, :96]] if "free" in form else [scene]
    with Predictor.open(out, runtime, "cpu") as predictor:
        for image in images:
            image = np.ascontiguousarray(image)
            labels = predictor.predict(image).labels
            assert len(np.unique(labels)) > 5
            assert (labels == reference(checkpoint, image)).mean() > 0.999


@pytest.mark.parametrize(("name", "form"), EACH)
def test_tensorrt_rtx_builds_it(own, name, form):
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    sizes = ((64, 64), SIZE, (128, 192)) if "free" in form else None
    options = BuildOptions((1, 1, 2), sizes, targets=("SM86",))
    assert build(trt, read_graph(own(name, form)[1]), options).plan[:4] == b"vtrt"


SCALED = Preprocessing((100.0, 110.0, 120.0), (0.02, 0.01, 0.03), "bgr")


@pytest.mark.parametrize("rule", [SCALED, CAFFE, Preprocessing((1.0, 2.0, 3.0))], ids=str)
def test_preprocessing_in_the_graph_is_exact(rule):
    network = Plain(4).eval()
    image = torch.randint(0, 256, (1, 97, 129, 3), dtype=torch.uint8)
    with torch.inference_mode():
        plain = network(rule.normalise(image))
        deployed = Deployed(network, rule, "logits")
        assert torch.allclose(deployed(image), plain, atol=1e-4 * float(plain.std()))
    assert (deployed.scale is None) == (rule is not SCALED)
    assert (deployed.order is None) == (rule.channels == "rgb")


class Wrong(Plain):
    stride = 8


class Small(Plain):
    upsampling = "none"


def test_a_stride_or_a_rule_that_is_not_true_is_refused_by_name():
    assert stride_of(Plain(4), [(97, 161), (96, 128)]) == 4
    with pytest.raises(
        CheckFailed, match=r"its stride is 8 .* 25x41, as with a stride of 4: correct"
    ):
        stride_of(Wrong(4), [(97, 161)])
    with pytest.raises(CheckFailed, match=r"upsampling 'none'.* logits of 97x161; they are 25x41"):
        stride_of(Small(4), [(97, 161)])
