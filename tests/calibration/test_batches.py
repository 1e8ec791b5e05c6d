"""A batch, and several streams, give the label maps that images give one by one, to the byte."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from icnet_deploy.calibration import choose
from icnet_deploy.calibration.artefact import Recipe, write_quantized
from icnet_deploy.calibration.calibrate import calibrate
from icnet_deploy.data import image_files
from icnet_deploy.export.passes import to_half
from icnet_deploy.export.to_onnx import export
from icnet_deploy.files import sha256
from icnet_deploy.images import read_image
from icnet_deploy.metadata import read_onnx_metadata, write_artefact
from icnet_deploy.precisions import PRECISIONS
from icnet_deploy.runtime import Predictor

pytest.importorskip("openvino", reason="OpenVINO is not installed")

SIZE = (128, 192)
"""At a size such as this OpenVINO's `int8` hangs on whether the graph's batch is free."""


@pytest.fixture(scope="module")
def artefacts(dataset, tmp_path_factory):
    """The shipped network in every precision, with the head `logits`: precision -> file."""
    folder = tmp_path_factory.mktemp("precisions")
    files = {name: folder / f"{name}.onnx" for name in ("fp32", "fp16", "int8", "int8-ort")}
    export(files["fp32"], size=SIZE)
    half = onnx.load(files["fp32"])
    to_half(half)  # as an export does, which takes as long as all the rest here
    metadata = replace(read_onnx_metadata(files["fp32"]), precision="fp16")
    write_artefact(files["fp16"], half.SerializeToString(), metadata)
    images = choose(image_files(dataset / "leftImg8bit" / "train"), SIZE)
    calibration = calibrate(onnx.load(files["fp32"]), images, sha256(files["fp32"]))
    grey = np.full((*SIZE, 3), 128, np.uint8)
    for placement in ("int8", "int8-ort"):
        out = files[placement]
        write_quantized(files["fp32"], out, Recipe(calibration, placement), [grey])
    return files


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-ort"])
def test_a_batch_and_streams_are_image_by_image_to_the_byte(artefacts, dataset, precision, runtime):
    pictures = [read_image(file) for file in image_files(dataset / "leftImg8bit")]
    path = artefacts[precision]
    with Predictor.from_onnx(path, runtime, "cpu") as predictor:
        wanted = [predictor.predict(picture).labels for picture in pictures]
        together = predictor.predict_batch(pictures)
    assert len({labels.tobytes() for labels in wanted}) == len(pictures) == 16
    with Predictor.from_onnx(path, runtime, "cpu", threads=2, streams=2) as predictor:
        streamed = list(predictor.stream(pictures))
    for how, found in (("batch", together), ("streams", streamed)):
        pairs = zip(found, wanted, strict=True)
        same = [float((one.labels == labels).mean()) for one, labels in pairs]
        if PRECISIONS[precision].meant_for(runtime) or runtime == "openvino":
            assert set(same) == {1}, how
        else:  # int8 on ONNX Runtime: float sums, whose order hangs on how threads share them
            assert min(same) > 0.999, how
