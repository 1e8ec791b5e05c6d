"""The shipped checkpoint, exported once a session at a small size in every form."""

from __future__ import annotations

from dataclasses import replace

import pytest

for package in ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime"):
    pytest.importorskip(package, reason=f"export needs {package}")

from icnet_deploy.export.headroom import measure  # noqa: E402
from icnet_deploy.export.passes import to_half  # noqa: E402
from icnet_deploy.export.to_onnx import export  # noqa: E402
from icnet_deploy.metadata import read_onnx_metadata, stamped  # noqa: E402

SIZE = (97, 161)

FORMS = {
    "logits": {},
    "labels": {"head": "labels"},
    "half": {"precision": "fp16"},
    "free": {"dynamic_size": True},
    "free-labels": {"head": "labels", "dynamic_size": True},
}


@pytest.fixture(scope="session")
def artefact(tmp_path_factory):
    """Returns a form's file, exported when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("artefacts"), {}

    def get(form: str):
        if form not in made:
            made[form] = folder / f"{form}.onnx"
            export(made[form], size=SIZE, **FORMS[form])
        return made[form]

    return get


@pytest.fixture(scope="session")
def form(artefact, scene, tmp_path_factory):
    """Returns an exported form's file, or one made of it: smaller, or of one image a run."""
    import onnx

    folder = tmp_path_factory.mktemp("made")

    def get(name):
        if name in FORMS:
            return artefact(name)
        out = folder / f"{name}.onnx"
        if not out.exists():
            if name == "static":
                model = onnx.load(artefact("logits"))
                model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
                save(model, read_onnx_metadata(artefact("logits")), out)
            elif name == "half-labels":
                model = onnx.load(artefact("labels"))
                to_half(model, [node.node for node in measure(model, [[scene]]).kept])
                save(model, replace(read_onnx_metadata(artefact("labels")), precision="fp16"), out)
            else:
                quantize(artefact("labels" if "labels" in name else "logits"), out, name, scene)
        return out

    return get


def save(model, metadata, out):
    """Writes a model with these metadata, stamped."""
    out.write_bytes(stamped(model.SerializeToString(), metadata))


def quantize(source, out, name, scene):
    """An 8-bit artefact as `icnet quantize` writes it, calibrated on one scene."""
    import onnx

    from icnet_deploy.calibration.artefact import Recipe, write_quantized
    from icnet_deploy.calibration.calibrate import calibrate
    from icnet_deploy.calibration.selection import CalibrationSet
    from icnet_deploy.files import sha256
    from icnet_deploy.images import write_image

    image = out.with_suffix(".png")
    write_image(image, scene)
    images = CalibrationSet((image,), ("a scene",), SIZE)
    found = calibrate(onnx.load(source), images, sha256(source))
    placement = name.removesuffix("-labels")
    write_quantized(source, out, Recipe(found, placement), [scene])


@pytest.fixture(scope="session")
def scene():
    """A drawn scene at the artefacts' size, uint8 H x W x 3."""
    from icnet_deploy.data.scenes import draw_scene

    return draw_scene(5, SIZE).image


@pytest.fixture(scope="session")
def settled(scene):
    """Builds a random network all of whose classes occur in the scene."""
    import numpy as np
    import torch
    from torch.nn import BatchNorm2d, Conv2d

    from icnet_deploy.networks.preprocessing import CAFFE
    from icnet_deploy.networks.registry import build_network

    def make(description, rule=CAFFE):
        torch.manual_seed(0)
        network = build_network(description).train()
        kinds = {
            k: [m for m in network.modules() if isinstance(m, k)] for k in (BatchNorm2d, Conv2d)
        }
        for norm in kinds[BatchNorm2d]:
            norm.momentum = 1.0  # one look at the scene is enough
        images = rule.tensor(np.stack([scene, scene[:, ::-1]]))
        with torch.no_grad():
            network(images)
            logits = network.eval()(images)
            [head] = [conv for conv in kinds[Conv2d] if conv.bias is not None]
            deviation = logits.std((0, 2, 3))
            head.bias.copy_(-logits.mean((0, 2, 3)) / deviation)
            head.weight /= deviation[:, None, None, None]
        return network

    return make


@pytest.fixture(scope="session")
def own_weights(tmp_path_factory, settled):
    """Returns the checkpoint of one of `own_networks`, made when it is first asked for."""
    import own_networks  # noqa: F401  (it registers them)

    from icnet_deploy.labels import CITYSCAPES
    from icnet_deploy.networks.checkpoint import save_checkpoint
    from icnet_deploy.networks.preprocessing import Preprocessing

    folder = tmp_path_factory.mktemp("own-weights")
    rule = Preprocessing((100.0, 110.0, 120.0), (0.02, 0.01, 0.03), "bgr")

    def get(name):
        path = folder / f"{name}.safetensors"
        if not path.exists():
            network = settled({"num_classes": 19, "architecture": f"test-{name}"}, rule)
            save_checkpoint(path, network, CITYSCAPES, rule)
        return path

    return get
