"""A network whose numbers are not finite is not exported, and a `labels` graph that meets some at
run time writes 255."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, numpy_helper

from icnet_deploy.cli import main
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import CheckFailed, ModelError
from icnet_deploy.export import check as verification
from icnet_deploy.export.deployed import labels_of, lowest_argmax
from icnet_deploy.export.engine.graph import read_graph
from icnet_deploy.export.passes import finite_check
from icnet_deploy.metadata import read_onnx_metadata, stamped
from icnet_deploy.networks.checkpoint import SHIPPED, load_checkpoint
from icnet_deploy.runtime.backends.openvino.backend import core
from icnet_deploy.runtime.backends.openvino.graph import prepare

SIZE = (97, 161)
NOT_FINITE = [np.nan, np.inf, -np.inf]
LABELS = ["labels", "half-labels", "free-labels", "int8-labels", "int8-ort-labels"]
RUNTIMES = ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(SHIPPED)


def spoiled(source, out, changes):
    """A checkpoint with some tensors changed, as another program would write it."""
    with safetensors.safe_open(source, framework="pt") as file:
        told = {"icnet_deploy": file.metadata()["icnet_deploy"]}  # without a digest
    tensors = {k: v.float() for k, v in safetensors.torch.load_file(source).items()}
    for name, change in changes.items():
        change(tensors[name])
    safetensors.torch.save_file(tensors, out, told)
    return out


def export(tmp_path, changes, *how, source=SHIPPED):
    weights = spoiled(source, tmp_path / "bad.safetensors", changes)
    argv = ["export", "--weights", str(weights), "--size", "97x161", *how]
    code = main([*argv, "-o", str(tmp_path / "bad.onnx")])
    assert [p.name for p in tmp_path.iterdir()] == ["bad.safetensors"]
    return code


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize(
    "name", ["conv6_cls.bias", "conv1_1_3x3_s2.conv.weight", "conv4_2._3x3.bn.running_var"]
)
@pytest.mark.parametrize("how", [[], ["--head", "labels"], ["--precision", "fp16"]], ids=str)
def test_a_checkpoint_that_is_not_finite_is_refused(tmp_path, capsys, name, value, how):
    assert export(tmp_path, {name: lambda t: t.view(-1)[3:4].fill_(value)}, *how) == 2
    assert f"{name} (1 of" in capsys.readouterr().err


def test_weights_that_overflow_when_they_are_folded_are_refused(tmp_path, capsys, own_weights):
    changes = {f"{layer}.weight": lambda t: t.mul_(1e30) for layer in ("first", "norm")}
    assert export(tmp_path, changes, source=own_weights("plain")) == 1
    assert "in network.first.weight (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (["--head", "labels"], "bad.safetensors in float32 are not finite for an image"),
        (["--precision", "fp16"], "is not finite even in float32"),
    ],
    ids=str,
)
def test_weights_that_overflow_when_they_are_run_are_refused(
    tmp_path, capsys, own_weights, how, said
):
    changes = {"last.weight": lambda t: t.mul_(1e38)}
    assert export(tmp_path, changes, *how, source=own_weights("plain")) == 1
    assert said in capsys.readouterr().err


def test_a_graph_that_fails_where_its_checkpoint_does_not_is_refused(artefact, checkpoint, scene):
    """Also where only its labels say so; and a label beyond the classes, or another shape."""
    for head in ("logits", "labels"):
        bad = edited(artefact(head), "conv6_cls.bias", lambda v: v.__setitem__(3, np.nan))
        with pytest.raises(CheckFailed, match=r"not finite|infinite or not numbers"):
            verify(bad, checkpoint, head, scene)
    few = replace(checkpoint, label_set=replace(checkpoint.label_set, **first_classes(3)))
    with pytest.raises(CheckFailed, match="label map holds"):
        verify(onnx.load(artefact("labels")), few, "labels", scene)
    turned = onnx.load(artefact("labels"))
    turned.graph.node[-1].output[0] = "upright"
    turned.graph.node.append(
        onnx.helper.make_node("Transpose", ["upright"], ["labels"], perm=[0, 2, 1])
    )
    del turned.graph.output[0].type.tensor_type.shape.dim[:]
    with pytest.raises(CheckFailed, match=r"gives labels of .*161, 97.*, not .*97, 161"):
        verify(turned, checkpoint, "labels", scene)


def first_classes(count):
    label_set = load_checkpoint(SHIPPED).label_set
    return {k: getattr(label_set, k)[:count] for k in ("names", "palette", "label_ids")}


def verify(model, checkpoint, head, scene):
    verification.verify(model.SerializeToString(), checkpoint, head, "fp32", [[scene]])


@pytest.mark.parametrize("name", ["logits", "half-labels", "int8-labels"])
def test_no_engine_is_built_of_weights_that_are_not_finite(form, tmp_path, name):
    """An old file may hold some."""
    read_graph(form(name))
    for value in NOT_FINITE:
        bad = edited(form(name), "conv6_cls.bias", lambda v, value=value: v.__setitem__(3, value))
        path = tmp_path / "bad.onnx"
        path.write_bytes(stamped(bad.SerializeToString(), read_onnx_metadata(form(name))))
        with pytest.raises(ModelError, match=r"conv6_cls.bias.* \(1 of 19 values\)"):
            read_graph(path)


def test_the_label_of_a_pixel_is_255_where_there_is_none():
    logits = torch.randint(0, 3, (3, 7, 20, 20)).float()
    logits[1, 2, 3, 4], logits[2, :, 5, 6] = float("-inf"), float("nan")
    labels = lowest_argmax(logits, labels_of(logits))
    assert torch.equal(labels[0].long(), torch.from_numpy(logits[0].numpy().argmax(0)))
    assert (labels[1:] == 255).all()
    finite = labels_of(torch.zeros(1, 7, 2, 2))
    assert lowest_argmax(logits, finite)[2, 5, 6] == 255


def edited(source, name, change):
    """An artefact with one of its float constants changed."""
    model = onnx.load(source)
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
    found = [t for t in model.graph.initializer if name in t.name and t.data_type in kinds]
    values = numpy_helper.to_array(found[0]).copy()
    with np.errstate(over="ignore"):
        change(values)
    found[0].CopyFrom(numpy_helper.from_array(values, found[0].name))
    return model


def answer(model, runtime, images):
    """The graph's own answer, as the runtime gives it."""
    content = model.SerializeToString()
    if runtime == "onnxruntime":
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options)
        return session.run(None, {"image": images})[0]
    read, _ = prepare(core().read_model(content))
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    return core().compile_model(read, "CPU", hints)([images])[0]


def without_check(model):
    """The same graph as it was before it looked at its logits."""
    names = {node.name: node for node in model.graph.node}
    [choice] = [n for n in model.graph.node if names[finite_check(model)[-1]].output[0] in n.input]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in choice.output:
                node.input[index] = choice.input[1]
    return model


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", LABELS)
def test_of_a_sound_graph_the_check_changes_no_label(form, name, runtime):
    images = np.stack([draw_scene(seed, SIZE).image for seed in (5, 6)])
    ours = answer(onnx.load(form(name)), runtime, images)
    plain = answer(without_check(onnx.load(form(name))), runtime, images)
    assert ours.tobytes() == plain.tobytes()
    assert len(np.unique(ours)) > 5
    assert ours.max() < 19


BAD = {
    "a bias": ("conv6_cls.bias", lambda v: v.__setitem__(3, np.nan)),
    "an infinite bias": ("conv6_cls.bias", lambda v: v.__setitem__(3, np.inf)),
    "a negative infinite bias": ("conv6_cls.bias", lambda v: v.__setitem__(3, -np.inf)),
    "a weight": ("conv6_cls.weight", lambda v: v.__setitem__((3, 0), np.nan)),
    "weights that overflow, or are infinite as float16": (
        "conv6_cls.weight",
        lambda v: v.__imul__(v.dtype.type(1e38)),
    ),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", LABELS)
def test_a_graph_with_logits_that_are_not_finite_writes_255(form, scene, name, runtime, what):
    bad = edited(form(name), *BAD[what])
    assert (answer(bad, runtime, scene[None]) == 255).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layer", ["conv1_sub1.conv", "conv1_1_3x3_s2", "conv5_4_k1.conv"])
@pytest.mark.parametrize("name", ["labels", "half-labels", "free-labels"])
def test_on_onnx_runtime_one_early_weight_is_enough(form, scene, name, layer, value):
    """OpenVINO's ReLU makes a zero of NaN: there nothing of it is left at the logits."""
    bad = edited(form(name), layer, lambda v: v.reshape(-1).__setitem__(3, value))
    assert (answer(bad, "onnxruntime", scene[None]) == 255).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", LABELS)
def test_one_bad_image_does_not_blank_the_others(form, name, runtime):
    """Two images whose logits, scaled alike, are too large for float32 in one of them."""
    images = np.stack([draw_scene(seed, SIZE).image for seed in (5, 6)])
    model = onnx.load(form(name))
    total, _, less = finite_check(model)
    names = {node.name: node for node in model.graph.node}
    [limit] = [t for t in model.graph.initializer if t.name == names[less].input[1]]
    read = names[total].output[0]
    watched = onnx.load(form(name))
    watched.graph.output.append(onnx.helper.make_tensor_value_info(read, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(watched.SerializeToString())
    sums = np.abs(session.run([read], {"image": images})[0]).ravel()
    between = np.array(sums.mean(), np.float32)
    limit.CopyFrom(numpy_helper.from_array(between, limit.name))
    labels = answer(model, runtime, images)
    sound = answer(onnx.load(form(name)), runtime, images)
    bad = int(sums.argmax())
    assert (labels[bad] == 255).all()
    assert (labels[1 - bad] == sound[1 - bad]).all()


@pytest.mark.parametrize("name", LABELS)
def test_the_check_is_made_in_float32(form, name):
    """A sum of logits is beyond float16 in any network."""
    model = onnx.shape_inference.infer_shapes(onnx.load(form(name)))
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    types |= {t.name: t.data_type for t in model.graph.initializer}
    names = {node.name: node for node in model.graph.node}
    total, absolute, less = (names[n] for n in finite_check(model))
    assert [n.op_type for n in (total, absolute, less)] == ["ReduceSum", "Abs", "Less"]
    for tensor in (total.input[0], total.output[0], *less.input):
        assert types[tensor] == TensorProto.FLOAT
    [limit] = [t for t in model.graph.initializer if t.name == less.input[1]]
    assert numpy_helper.to_array(limit) == np.float32(3e38)
    makers = {o: n for n in model.graph.node for o in n.output}
    source = total.input[0]
    while makers[source].op_type in ("Cast", "DequantizeLinear", "QuantizeLinear"):
        source = makers[source].input[0]
    assert makers[source].op_type == "Resize"  # the logits at their own size
    assert finite_check(onnx.load(form("logits"))) == ()
