"""The parity gate in small: every precision on every runtime that it is meant for."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest

from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import pip_install
from icnet_deploy.evaluation.pairing import ROUNDED
from icnet_deploy.files import sha256
from icnet_deploy.images import write_image
from icnet_deploy.integrity import KEY
from icnet_deploy.metadata import ArtefactMetadata, stamped

SIZE = (96, 128)  # of the artefact


def write(path, model, **fields):

    (entry,) = [e for e in model.metadata_props if e.key == KEY]
    metadata = dataclasses.replace(ArtefactMetadata.from_json(entry.value), **fields)
    path.write_bytes(stamped(model.SerializeToString(), metadata))
    return path


@pytest.fixture(scope="module")
def precisions(artefact, tmp_path_factory):
    """Precision -> file. INT8 is what `icnet quantize` makes, which would not keep it: the network
    is random, and 8 bits move more of its labels than the command allows.
    """
    import onnx

    from icnet_deploy.calibration import choose
    from icnet_deploy.calibration.calibrate import calibrate
    from icnet_deploy.calibration.quantize import quantize
    from icnet_deploy.data import image_files
    from icnet_deploy.export.passes import to_half

    folder = tmp_path_factory.mktemp("precisions")
    model = onnx.load(artefact)
    half = copy.deepcopy(model)
    to_half(half)
    made = {
        "fp32": write(folder / "a-fp32.onnx", model),
        "fp16": write(folder / "a-fp16.onnx", half, precision="fp16"),
    }
    photos = folder / "photos"
    photos.mkdir()
    for index in range(8):
        write_image(photos / f"{index}.png", draw_scene((1, index), SIZE).image)
    found = calibrate(model, choose(image_files(photos), SIZE), sha256(artefact))
    for precision in ("int8", "int8-ort"):
        made[precision] = write(
            folder / f"a-{precision}.onnx",
            quantize(model, found.ranges("percentile"), precision),
            precision=precision,
            calibration_images=tuple(found.images),
        )
    return made


@pytest.fixture
def gate(run, precisions, scenes, checkpoint, tmp_path):
    """A function that holds the four files together: exit code, output, JSON."""

    def gate(*arguments, files=None, data=scenes):
        told = ["--dataset", "scenes", "--data", data, "--weights", checkpoint]
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
        ("int8-ort", "openvino"),
    ]
    assert len(told["left_out"]) == 1
    assert "not compared: a-int8.onnx on onnxruntime: int8 is meant for openvino" in done.out
    assert told["budgets"]["int8"]["miou_points"] == 3
    assert told["budgets"]["fp16"]["miou_points"] == 0.02
    # Coarser arithmetic moves more labels, and rounding is what the CPU leaves out.
    differing = [row["differing_pixels"] for row in rows.values()]
    assert max(differing[:2]) < min(differing[2:5]) < max(differing[2:5]) < min(differing[5:])
    for row in rows.values():
        assert row["differing_pixels"] == row["ties"] + row["flips"]
        assert row["small_region_difference_points"] is not None


def test_the_limits_of_int8_are_the_callers_and_those_of_floats_are_not(gate, precisions):
    limits = ("--max-miou-drop", "0", "--max-class-drop", "0")
    files = [precisions["fp32"], precisions["int8-ort"]]
    done, told = gate(*limits, "--runtime", "onnxruntime", "--undecided", "fail", files=files)
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.endswith("1 of 2 are undecided (--undecided fail): a-int8-ort.onnx on onnxruntime")
    assert [row["verdict"] for row in told["rows"]] == ["within", "undecided"]
    assert "limits of fp32: mIoU at most 0.01 points lower or higher" in done.out
    assert "limits of int8-ort: mIoU at most 0 points lower, each class at most 0 " in done.out


def test_a_broken_scale_is_caught(gate, precisions, dozen, tmp_path):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(precisions["int8-ort"])
    last = [n.input[1] for n in model.graph.node if n.op_type == "QuantizeLinear"][-1]
    (scale,) = [t for t in model.graph.initializer if t.name == last]
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) / 8, scale.name))
    path = write(tmp_path / "broken.onnx", model)
    done, _ = gate("--max-miou-drop", "1", files=[path], data=dozen.root)
    assert done.code == 1
    assert "broken.onnx on onnxruntime: past its budget: " in done.out


def test_named_runtimes_get_every_file_that_can_work_there(gate, precisions):
    done, told = gate("--runtime", "openvino", *LOOSE)
    assert done.code == 0, done
    assert [(row["precision"], row["runtime"]) for row in told["rows"]] == [
        (precision, "openvino") for precision in precisions
    ]


@pytest.mark.parametrize(
    ("precision", "arguments", "said"),
    [
        ("int8-ort", ("--runtime", "tensorrt"), "TensorRT's parser refuses it"),
        ("int8", ("--runtime", "onnxruntime", "--device", "cuda"), "no integer convolution"),
        ("fp32", ("--runtime", ROUNDED), "it is fp32, but rounded takes only fp16"),
    ],
)
def test_what_cannot_work_is_refused(gate, precisions, precision, arguments, said):
    done, told = gate(*arguments, files=[precisions[precision]])
    assert done.code == 2
    assert said in done.err
    assert told is None


def test_an_int8_file_without_its_runtime_is_refused(gate, precisions, uninstall):
    uninstall("openvino")
    done, _ = gate(files=[precisions["fp32"], precisions["int8"]])
    assert done.code == 2
    assert pip_install("openvino") in done.err


@pytest.mark.parametrize("gate_of", ["parity", "verify", "evaluate"])
def test_a_gate_takes_nothing_that_was_compiled_before(
    run, artefact, scenes, checkpoint, tmp_path, monkeypatch, gate_of
):
    monkeypatch.setenv("ICNET_CACHE", str(tmp_path / "cache"))
    release = tmp_path / "release"
    release.mkdir()
    shutil.copy(artefact, release / "a.onnx")
    shutil.copy(checkpoint, release)
    data = ("--dataset", "scenes", "--data", scenes)
    arguments = {
        "parity": (release / "a.onnx", *data, "--weights", checkpoint),
        "verify": (release, *data),
        "evaluate": (release / "a.onnx", *data, "--runtime", "openvino"),
    }[gate_of]
    done = run(gate_of, *arguments)
    assert done.code == 0, done
    assert not (tmp_path / "cache" / "openvino").exists()


def test_a_reader_that_closes_the_pipe_loses_no_result(precisions, scenes, checkpoint, tmp_path):
    out = tmp_path / "gate.json"
    command = [sys.executable, "-m", "icnet_deploy", "parity", precisions["fp32"], "--json", out]
    told = ["--dataset", "scenes", "--data", scenes, "--weights", checkpoint]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*command, *told], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
    assert json.loads(out.read_text())["rows"]
