"""A few convolutions and the shipped checkpoint, and drawn photos to calibrate them on."""

from __future__ import annotations

import pytest

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package, reason=f"quantizing needs {package}")

import placement_contract as small  # noqa: E402


@pytest.fixture(scope="session")
def size():
    """Of `float_file`."""
    return small.SIZE


@pytest.fixture(scope="session")
def float_file(tmp_path_factory):
    """The float32 artefact of a few convolutions, with the head `logits`."""
    return small.save_network(tmp_path_factory.mktemp("float") / "small-fp32.onnx")


@pytest.fixture(scope="session")
def shipped(tmp_path_factory):
    """The shipped checkpoint as a float32 artefact with the head `logits`."""
    for package in ("torch", "onnxscript", "onnxsim"):
        pytest.importorskip(package, reason=f"export needs {package}")
    from icnet_deploy.export.to_onnx import export

    path = tmp_path_factory.mktemp("shipped") / "icnet-fp32.onnx"
    export(path, size=(97, 161))
    return path


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Drawn scenes: 12 in train, 4 in val."""
    from icnet_deploy.data.scenes.dataset import main

    root = tmp_path_factory.mktemp("scenes")
    for split, count in (("train", "12"), ("val", "4")):
        seed = count  # two seeds share no scene
        arguments = [str(root), "--split", split, "--count", count, "--seed", seed]
        arguments += ["--size", "128x192"]
        assert main(arguments) == 0
    return root


@pytest.fixture(scope="session")
def images(dataset):
    """Of the size of `shipped`."""
    from icnet_deploy.calibration import choose
    from icnet_deploy.data import image_files

    return choose(image_files(dataset / "leftImg8bit" / "train"), (97, 161))


@pytest.fixture(scope="session")
def calibration(shipped, images):
    """Of `shipped`."""
    import onnx

    from icnet_deploy.calibration.calibrate import calibrate
    from icnet_deploy.files import sha256

    return calibrate(onnx.load(shipped), images, sha256(shipped))


@pytest.fixture(scope="session")
def quantized(shipped, calibration):
    """Returns the 8-bit graph of `shipped` in a placement, made when it is first asked for."""
    import onnx

    from icnet_deploy.calibration.quantize import quantize

    made = {}

    def get(placement):
        if placement not in made:
            ranges = calibration.ranges("percentile")
            made[placement] = quantize(onnx.load(shipped), ranges, placement)
        return made[placement]

    return get
