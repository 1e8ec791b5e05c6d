"""The parity gate in small: every precision on every runtime that it is meant for."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from icnet_deploy.benchmarks.pairing import ROUNDED
from icnet_deploy.data import content_hash
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.metadata import KEY, ArtefactMetadata

CALIBRATION = [draw_scene((1, index), (96, 128)).image for index in range(4)]


def write(path, model, **fields):
    import onnx

    model = copy.deepcopy(model)
    (entry,) = [e for e in model.metadata_props if e.key == KEY]
    metadata = dataclasses.replace(ArtefactMetadata.from_json(entry.value), **fields)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    onnx.save(model, path)
    return path


class Images:
    """What ONNX Runtime's quantizer reads its calibration images from."""

    def __init__(self):
        self.left = iter(CALIBRATION)

    def get_next(self):
        image = next(self.left, None)
        return None if image is None else {"image": image[None]}


@pytest.fixture(scope="module")
def precisions(artefact, tmp_path_factory):
    """Precision -> file; INT8 by ONNX Runtime's own quantizer."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    from icnet_deploy.export.passes import to_half

    folder = tmp_path_factory.mktemp("precisions")
    model = onnx.load(artefact)
    half = copy.deepcopy(model)
    to_half(half)
    made = {
        "fp32": write(folder / "a-fp32.onnx", model),
        "fp16": write(folder / "a-fp16.onnx", half, precision="fp16"),
    }
    seen = tuple(map(content_hash, CALIBRATION))
    for precision, activations in (("int8", QuantType.QInt8), ("int8-ort", QuantType.QUInt8)):
        quantize_static(
            str(artefact),
            str(folder / "plain.onnx"),
            Images(),
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"] if precision == "int8" else None,
            extra_options={"ActivationSymmetric": precision == "int8"},
        )
        plain = onnx.load(folder / "plain.onnx")
        if not plain.metadata_props:
            plain.metadata_props.extend(model.metadata_props)
        path = folder / f"a-{precision}.onnx"
        made[precision] = write(path, plain, precision=precision, calibration_images=seen)
    return made


@pytest.fixture
def gate(run, precisions, scenes, checkpoint, tmp_path):
    """A function that holds the four files together: exit code, output, JSON."""

    def gate(*arguments, files=None):
        told = ["--dataset", "scenes", "--data", scenes, "--weights", checkpoint]
        out = tmp_path / "gate.json"
        done = run("parity", *(files or precisions.values()), *told, "--json", out, *arguments)
        return done, json.loads(out.read_text()) if out.is_file() else None

    return gate


LOOSE = ("--max-miou-drop", "3", "--max-class-drop", "20")


def test_every_precision_goes_where_it_is_meant_to(gate):
    done, told = gate(*LOOSE)
    assert done.code == 0, done
    rows = {(row["precision"], row["runtime"]): row for row in told["rows"]}
    assert list(rows) == [
        ("fp32", "onnxruntime"),
        ("fp32", "openvino"),
        ("fp16", "onnxruntime"),
        ("fp16", "openvino"),
        ("fp16", ROUNDED),
        ("int8", "openvino"),
        ("int8-ort", "onnxruntime"),
    ]
    assert len(told["left_out"]) == 2
    assert "not compared: a-int8.onnx on onnxruntime: int8 is placed for openvino" in done.out
    assert "not compared: a-int8-ort.onnx on openvino" in done.out
    assert told["budgets"]["int8"]["miou_points"] == 3
    assert told["budgets"]["fp16"]["miou_points"] == 0.02
    # Coarser arithmetic moves more labels, and rounding is what the CPU leaves out.
    differing = [row["differing_pixels"] for row in rows.values()]
    assert max(differing[:2]) < min(differing[2:5]) < max(differing[2:5]) < min(differing[5:])
    for row in rows.values():
        assert row["differing_pixels"] == row["ties"] + row["flips"]
        assert row["small_region_difference_points"] is not None


def test_the_limits_of_int8_are_the_callers_and_those_of_floats_are_not(gate, precisions):
    done, told = gate("--max-miou-drop", "0", "--max-class-drop", "0")
    assert done.code == 1
    verdicts = {row["precision"]: row["verdict"] for row in told["rows"]}
    assert verdicts == {"fp32": "pass", "fp16": "pass", "int8": "fail", "int8-ort": "fail"}
    assert "budget of int8: mIoU within 0 points, every class within 0" in done.out


def test_a_broken_scale_is_caught(gate, precisions, tmp_path):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(precisions["int8-ort"])
    scales = [t for t in model.graph.initializer if t.name.endswith("_scale")]
    (scale,) = [t for t in scales if t.name.startswith("logits")]
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) / 8, scale.name))
    path = write(tmp_path / "broken.onnx", model)
    done, _ = gate(*LOOSE, files=[path])
    assert done.code == 1
    assert "past budget: broken.onnx" in done.out


def test_named_runtimes_get_every_file_that_can_work_there(gate, precisions):
    done, told = gate("--runtime", "openvino", *LOOSE)
    assert done.code == 0, done
    assert [(row["precision"], row["runtime"]) for row in told["rows"]] == [
        (precision, "openvino") for precision in precisions
    ]


@pytest.mark.parametrize(
    ("precision", "arguments", "said"),
    [
        ("int8-ort", ("--runtime", "tensorrt"), "TensorRT's parser refuses int8-ort"),
        ("int8", ("--runtime", "onnxruntime", "--device", "cuda"), "no integer convolution"),
        ("fp32", ("--runtime", ROUNDED), "it is fp32, not fp16"),
    ],
)
def test_what_cannot_work_is_refused(gate, precisions, precision, arguments, said):
    done, told = gate(*arguments, files=[precisions[precision]])
    assert done.code == 2
    assert said in done.err
    assert told is None


def test_an_int8_file_without_its_runtime_is_refused(gate, precisions, monkeypatch):
    from icnet_deploy.runtime import backends

    real = backends._installed
    monkeypatch.setattr(backends, "_installed", lambda name: name != "openvino" and real(name))
    done, _ = gate(files=[precisions["fp32"], precisions["int8"]])
    assert done.code == 2
    assert 'pip install "icnet-deploy[openvino]"' in done.err
