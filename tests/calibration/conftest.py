"""The shipped checkpoint at a small size, drawn photos to calibrate it on, and what that gives."""

from __future__ import annotations

import pytest

for package in ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime"):
    pytest.importorskip(package, reason=f"an artefact to quantize needs {package}")

from icnet_deploy.export.to_onnx import export  # noqa: E402

SIZE = (97, 161)


@pytest.fixture(scope="session")
def size():
    return SIZE


@pytest.fixture(scope="session")
def float_file(tmp_path_factory):
    """The float32 artefact with the head `logits`."""
    path = tmp_path_factory.mktemp("float") / "icnet-fp32.onnx"
    export(path, size=SIZE)
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
    from icnet_deploy.calibration import choose, image_files

    return choose(image_files(dataset / "leftImg8bit" / "train"), SIZE)


@pytest.fixture(scope="session")
def calibration(float_file, images):
    import onnx

    from icnet_deploy.calibration.calibrate import calibrate
    from icnet_deploy.files import sha256

    return calibrate(onnx.load(float_file), images, sha256(float_file))


@pytest.fixture(scope="session")
def quantized(float_file, calibration):
    """Returns the 8-bit graph of a placement, made when it is first asked for."""
    import onnx

    from icnet_deploy.calibration.quantize import quantize

    made = {}

    def get(placement):
        if placement not in made:
            ranges = calibration.ranges("percentile")
            made[placement] = quantize(onnx.load(float_file), ranges, placement)
        return made[placement]

    return get
