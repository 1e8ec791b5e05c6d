"""The build on a fake of each release: what it asks of TensorRT, refuses, reports and stops."""

from __future__ import annotations

import ctypes
import json
import os
import signal

import numpy as np
import onnx
import pytest

from icnet_deploy.errors import (
    BackendError,
    CheckFailed,
    DeviceError,
    InputError,
    ModelError,
    UnavailableError,
)
from icnet_deploy.export.engine import builder
from icnet_deploy.export.engine.graph import read_graph
from icnet_deploy.export.engine.options import BuildOptions
from icnet_deploy.export.engine.report import inspect, make_log, read_report

make = onnx.helper.make_node


def build(trt, path, options, **how):
    return builder.build(trt, read_graph(path), options, **how)


def test_what_is_asked_of_tensorrt(trt, artefact):
    options = BuildOptions(batch=(1, 2, 4), workspace=64, level=5)
    built = build(trt, artefact(), options)
    [asked] = trt.machine.builds
    assert asked["strongly_typed"]
    assert asked["flags"] == []
    assert asked["builder_optimization_level"] == 5
    assert asked["pools"] == {"WORKSPACE": 64 << 20}
    assert asked["profiling_verbosity"] == "DETAILED"
    assert built.profile == {"image": tuple((n, 8, 16, 3) for n in (1, 2, 4))}
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(built.plan)
    assert [s[0] for s in engine.get_tensor_profile_shape("image", 0)] == [1, 2, 4]


def test_what_is_only_done_when_asked(trt, artefact):
    options = BuildOptions(tf32=True, hardware="ampere-plus", version_compatible=True)
    assert build(trt, artefact(), options).report is not None
    [asked] = trt.machine.builds
    assert sorted(asked["flags"]) == ["TF32", "VERSION_COMPATIBLE"]
    assert asked["hardware_compatibility_level"] == "AMPERE_PLUS"
    build(trt, artefact(), BuildOptions(hardware="same-compute-capability"))
    assert trt.machine.builds[-1]["hardware_compatibility_level"] == "SAME_COMPUTE_CAPABILITY"


def test_one_shape_needs_no_profile(trt, artefact):
    assert build(trt, artefact(batch=1), BuildOptions()).profile is None


def test_a_free_size_needs_sizes(trt, artefact):
    free = artefact(size=("H", "W"))
    with pytest.raises(InputError, match=r"give --sizes"):
        build(trt, free, BuildOptions())
    built = build(trt, free, BuildOptions(sizes=((8, 8), (8, 16), (16, 16))))
    assert built.profile == {"image": ((1, 8, 8, 3), (1, 8, 16, 3), (1, 16, 16, 3))}


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ({}, {"batch": (2, 1, 4)}, "not a range"),
        ({}, {"batch": (0, 1, 1)}, "not a range"),
        ({"batch": 1}, {"batch": (1, 1, 2)}, "takes 1 image"),
        ({}, {"sizes": ((8, 16),) * 3}, "8x16 only"),
        ({"size": ("H", "W")}, {"sizes": ((8, 16), (8, 8), (8, 16))}, "not a range"),
        ({}, {"targets": ("SM86",)}, "leave --target out"),
        ({}, {"targets": ("SM99",)}, "'SM99'"),
        ({}, {"level": 6}, "level is one of"),
        ({}, {"hardware": "all"}, "level is one of"),
    ],
)
def test_options_that_do_not_fit_are_refused(trt, artefact, model, options, message):
    with pytest.raises(InputError, match=message):
        build(trt, artefact(**model), BuildOptions(**options))
    assert trt.machine.builds == []


REFUSED = {
    "it is int8-ort": ({"precision": "int8-ort"}, "icnet quantize"),
    "it is another program's": ({"metadata": False}, "not one that icnet-deploy wrote"),
    "a Transpose comes before the Cast": (
        {
            "body": [
                make("Transpose", ["image"], ["t"], "early", perm=[0, 3, 1, 2]),
                make("Cast", ["t"], ["x"], "cast", to=1),
                make("Conv", ["x", "w"], ["logits"], "conv"),
            ]
        },
        "feeds the Transpose 'early'",
    ),
    "the input is not read": (
        {"body": [make("Identity", ["w"], ["logits"], "identity")]},
        "feeds nothing",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_file_is_refused_before_tensorrt_sees_it_when(trt, artefact, why):
    model, message = REFUSED[why]
    with pytest.raises(ModelError, match=message):
        build(trt, artefact(**model), BuildOptions())


def test_what_onnx_runtime_optimized_is_refused(trt, artefact, tmp_path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(artefact(), options, providers=["CPUExecutionProvider"])
    with pytest.raises(ModelError, match="optimized by ONNX Runtime"):
        build(trt, tmp_path / "optimized.onnx", BuildOptions())


def test_weights_in_another_file_are_refused(trt, artefact, tmp_path):
    model = onnx.load(artefact())
    onnx.save(
        model, tmp_path / "split.onnx", save_as_external_data=True, size_threshold=0, location="w"
    )
    with pytest.raises(ModelError, match="in another file"):
        build(trt, tmp_path / "split.onnx", BuildOptions())


def test_every_node_that_the_parser_refuses_is_named(trt, artefact):
    body = [
        make("Cast", ["image"], ["f"], "cast", to=1),
        make("Einsum", ["f"], ["g"], "first", equation="nhwc->nchw"),
        make("Det", ["g"], ["logits"], "second"),
    ]
    with pytest.raises(ModelError, match=r"Einsum 'first' .*; Det 'second' "):
        build(trt, artefact(body=body), BuildOptions())


def test_no_gpu_is_a_device_error(trt, artefact):
    trt.machine.compute = None
    with pytest.raises(DeviceError, match="for want of a GPU"):
        build(trt, artefact(), BuildOptions())


def test_an_old_tensorrt_is_refused(trt, artefact, monkeypatch):
    monkeypatch.setattr(trt, "__version__", "10.11.0.33")
    with pytest.raises(UnavailableError, match=r"TensorRT 10.11.0.33 is installed"):
        build(trt, artefact(), BuildOptions())


def test_a_failed_build_says_what_tensorrt_said(trt, artefact, monkeypatch):
    monkeypatch.setattr(trt.IBuilderConfig, "add_optimization_profile", lambda *_: 0)
    with pytest.raises(BackendError, match="no optimization profile has been defined"):
        build(trt, artefact(), BuildOptions())


def test_ctrl_c_stops_the_build(trt, artefact):
    steps, told = [], []

    def on_step(step):
        steps.append(step)
        if step == 0:
            os.kill(os.getpid(), signal.SIGINT)
            told.append(trt.machine.monitor.stop.wait(5))  # the main thread wakes by itself

    trt.machine.on_step = on_step
    with pytest.raises(KeyboardInterrupt):
        build(trt, artefact(), BuildOptions())
    assert (steps, told) == ([0], [True])
    assert trt.machine.builds == []


def test_the_bar_shows_the_phases(trt, artefact, capsys):
    build(trt, artefact(), BuildOptions(), quiet=False)
    assert "Building" in capsys.readouterr().err
    build(trt, artefact(), BuildOptions(), quiet=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({}, {"fp32": 2, "unknown": 1}),
        ({"half": True}, {"fp16": 2, "unknown": 1}),
        ({"quantized": True}, {"int8": 1, "fp32": 1, "unknown": 1}),
    ],
)
def test_the_report_counts_precisions(trt, artefact, model, expected):
    report = build(trt, artefact(**model), BuildOptions()).report
    assert report.counts() == expected
    [conv] = [layer for layer in report.layers if "conv" in layer.origins]
    assert conv.precision in expected


@pytest.mark.parametrize(
    ("model", "kind"), [({"half": True}, "fp16"), ({"quantized": True}, "int8")]
)
def test_a_layer_in_another_precision_is_an_error(trt, artefact, model, kind):
    trt.machine.float_layers = frozenset(("conv",))
    with pytest.raises(CheckFailed, match=f"conv is {kind} in the graph, but runs in fp32"):
        build(trt, artefact(**model), BuildOptions())


def test_an_engine_for_this_gpu_must_load_and_one_for_others_need_not(trt, artefact):
    plan, log = build(trt, artefact(), BuildOptions()).plan, make_log(trt)
    trt.machine.compute = (9, 0)
    with pytest.raises(BackendError, match="cannot load the engine that it built"):
        inspect(trt, plan, read_graph(artefact()), loads=True, host_code=False, log=log)
    assert inspect(trt, plan, read_graph(artefact()), loads=False, host_code=False, log=log) is None


# As engines of 8.5 to 11 have been reported by their users and by NVIDIA's documentation.
FORMATS = {
    "Int8": "int8",
    "Half": "fp16",
    "Float": "fp32",
    "Row major linear FP16 format": "fp16",
    "Row major linear FP32": "fp32",
    "Thirty-two wide channel vectorized row major Int8 format": "int8",
    "Channel major FP16 format where channel % 8 == 0": "fp16",
    "N/A due to dynamic shapes": "unknown",
    "UInt8": "unknown",
    "BFloat16": "unknown",
}


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("key", ["Format/Datatype", "DataType", "Format"])
def test_a_layer_s_type_is_read(text, key):
    layer = {"Name": "a + b", "Inputs": [{"Name": "x", key: text}]}
    [read] = read_report(json.dumps({"Layers": [layer]})).layers
    assert (read.precision, read.origins) == (FORMATS[text], {"a", "b"})


def test_weights_tell_more_than_inputs_and_metadata_more_than_names():
    layer = {
        "Name": "myelin_7",
        "Inputs": [{"Format/Datatype": "N/A due to dynamic shapes"}],
        "Weights": {"Type": "Half", "Count": 9},
        "Metadata": "[ONNX Layer: /a/Conv]\x1f[ONNX Layer: /a/Relu]\x1e[ONNX Layer: b]",
    }
    [read] = read_report(
        json.dumps(
            {
                "Layers": [
                    layer,
                ]
            }
        )
    ).layers
    assert read.precision == "fp16"
    assert read.origins == {"/a/Conv", "/a/Relu", "b"}


@pytest.mark.parametrize("text", ["", "{}", "[]", "null"])
def test_what_is_no_report_is_an_error(text):
    with pytest.raises(BackendError, match="report cannot be read"):
        read_report(text)


def test_the_plan_computes_what_the_file_says(trt, artefact):
    plan = build(trt, artefact(), BuildOptions()).plan
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    room = (ctypes.c_ubyte * 8192)()
    start = ctypes.addressof(room) + -ctypes.addressof(room) % 256
    ctypes.memset(start, 12, 8 * 16 * 3)
    context.set_input_shape("image", (1, 8, 16, 3))
    context.set_tensor_address("image", start)
    context.set_tensor_address("logits", start + 1024)
    assert context.execute_async_v3(1)
    logits = np.ctypeslib.as_array((ctypes.c_float * 512).from_address(start + 1024))
    np.testing.assert_allclose(logits.reshape(4, -1)[:, 0], [3, 12, 21, 30], rtol=1e-5)
