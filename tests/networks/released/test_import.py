"""`icnet import-weights` on small nets: what is matched, what is told, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from icnet_deploy.cli import main
from icnet_deploy.errors import ModelError
from icnet_deploy.files import sha256
from icnet_deploy.labels import CAMVID, CITYSCAPES
from icnet_deploy.networks.checkpoint import load_checkpoint
from icnet_deploy.networks.layers import ConvBN
from icnet_deploy.networks.released.importer import read_released, save_released
from icnet_deploy.networks.released.layer import Layer
from icnet_deploy.networks.released.mapping import match

WIDTH = 0.125


@pytest.fixture
def net(writers, rows):
    """Name -> arrays of a narrow net with batch norm; a test may change it."""
    return writers.weights(rows, WIDTH)


@pytest.fixture
def read(writers, file, tmp_path):
    """Imports a net that was written as a Caffe file, and reads the checkpoint."""

    def go(net, stages="sub124", label_set=CITYSCAPES, **options):
        path = file(writers.caffe(writers.as_layers(net), **options))
        released = read_released(path, stages)
        save_released(released, tmp_path / "out.safetensors", label_set)
        return released, load_checkpoint(tmp_path / "out.safetensors")

    return go


def state(checkpoint):
    return checkpoint.network.state_dict()


def test_every_tensor_arrives(net, read):
    released, checkpoint = read(net)
    found = state(checkpoint)
    assert released.match.problems == ()
    for name, arrays in net.items():
        if name in ("conv6_sub4", "conv6_sub2"):
            continue
        path = name.removesuffix("/bn").replace("_1x1", "._1x1").replace("_3x3", "._3x3")
        if name.startswith("conv1_"):  # the stem has no blocks
            path = name.removesuffix("/bn")
        if name.endswith("/bn"):
            keys = [f"{path}.bn.{k}" for k in ("weight", "bias", "running_mean", "running_var")]
        elif name == "conv6_cls":
            keys = ["conv6_cls.weight", "conv6_cls.bias"]
        else:
            keys = [f"{path}.conv.weight"]
        for key, array in zip(keys, arrays, strict=True):
            wanted = array.reshape(-1) if name.endswith("/bn") else array
            np.testing.assert_array_equal(found[key].numpy(), wanted, err_msg=key)


def test_the_checkpoint_says_where_it_comes_from(net, read, tmp_path):
    released, checkpoint = read(net)
    assert checkpoint.info["imported"] == {
        "file": "net.caffemodel",
        "sha256": sha256(tmp_path / "net.caffemodel"),
        "form": "caffe",
        "batch_norm": "kept",
    }
    assert "Zhao" in checkpoint.info["source"]
    assert checkpoint.label_set == CITYSCAPES
    assert checkpoint.preprocessing.channels == "bgr"
    assert checkpoint.preprocessing.mean == (103.939, 116.779, 123.68)
    assert checkpoint.preprocessing.scale == (1.0, 1.0, 1.0)
    assert {t.dtype for k, t in released.match.tensors.items()} == {torch.float32}


@pytest.mark.parametrize(("form", "old"), [("kept", True), ("merged", False)])
def test_both_forms_are_one_network(writers, net, read, file, tmp_path, form, old):
    net = writers.merged(net) if form == "merged" else net
    released, caffe = read(net, old=old)
    path = file(writers.npy(writers.as_dict(net), python2=True, old_numpy=True), "net.npy")
    save_released(read_released(path), tmp_path / "numpy.safetensors", CITYSCAPES)
    numpy = load_checkpoint(tmp_path / "numpy.safetensors")
    assert released.match.batch_norm == form
    assert numpy.info["imported"] | {"form": "caffe"} == {
        "file": "net.npy",
        "sha256": sha256(path),
        "form": "caffe",
        "batch_norm": form,
    }
    assert state(caffe).keys() == state(numpy).keys()
    for key, tensor in state(caffe).items():
        assert torch.equal(tensor, state(numpy)[key]), key


def test_slashes_of_the_numpy_form_may_be_kept(writers, net, file):
    dictionary = {n.replace("_bn", "/bn"): v for n, v in writers.as_dict(net).items()}
    assert "conv6_cls" in dictionary
    assert "conv_sub4/bn" in dictionary
    assert read_released(file(writers.npy(dictionary))).match.problems == ()


def test_a_merged_batch_norm_adds_its_bias_and_nothing_else(writers, net, read):
    _, checkpoint = read(writers.merged(net))
    x = torch.randn(1, 8, 40, 40, generator=torch.Generator().manual_seed(0)) * 1000
    block = checkpoint.network.conv2_1._3x3
    assert isinstance(block, ConvBN)
    variance, eps = block.bn.running_var, np.float32(block.bn.eps)
    assert (variance.numpy() + eps == np.float32(1)).all()
    with torch.inference_mode():
        assert torch.equal(block.bn(x), x + block.bn.bias[:, None, None])


def test_one_layer_may_be_merged_and_another_not(writers, net, read):
    merged = writers.merged(net)
    net["conv_sub4"] = merged["conv_sub4"]
    del net["conv_sub4/bn"]
    released, checkpoint = read(net)
    assert released.match.batch_norm == "mixed"
    bias = checkpoint.network.conv_sub4.bn.bias.detach().numpy()
    np.testing.assert_array_equal(bias, merged["conv_sub4"][1])


def test_a_bias_before_a_batch_norm_is_taken_off_its_mean(net, read):
    bias = np.linspace(-2, 2, net["conv_sub4"][0].shape[0]).astype(np.float32)
    mean = net["conv_sub4/bn"][2].reshape(-1)
    net["conv_sub4"].append(bias)
    _, checkpoint = read(net)
    np.testing.assert_array_equal(state(checkpoint)["conv_sub4.bn.running_mean"], mean - bias)


def test_factors_of_the_input_become_preprocessing(net, read):
    net["data_sub1"] = [np.array([0.5, 1, 2], np.float32)]
    _, checkpoint = read(net)
    assert checkpoint.preprocessing.scale == (0.5, 1.0, 2.0)
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    blue_first = checkpoint.preprocessing.tensor(red)[0, :, 0, 0].tolist()
    assert blue_first == pytest.approx([-103.939 * 0.5, -116.779, (255 - 123.68) * 2])


@pytest.mark.parametrize(
    ("stages", "head", "gone"),
    [("sub24", "conv6_sub2", "conv1_sub1"), ("sub4", "conv6_sub4", "conv_sub4")],
)
def test_fewer_stages_end_in_the_released_guidance_heads(net, read, stages, head, gone):
    released, checkpoint = read(net, stages)
    weight = getattr(checkpoint.network, head).weight.detach().numpy()
    np.testing.assert_array_equal(weight, net[head][0])
    left = {
        row.layer for row in released.match.rows if row.where == f"left out: not a part of {stages}"
    }
    assert {gone, f"{gone}/bn", "conv6_cls"} <= left


@pytest.mark.parametrize("width", [0.25, 0.5, 1.0])
def test_width_and_classes_are_the_files(writers, rows, width):
    shapes = writers.shapes(rows, width, classes=11)
    layers = [
        Layer(name, {str(i): np.zeros(shape, np.float32) for i, shape in enumerate(wanted)})
        for name, wanted in shapes.items()
    ]
    found = match(layers)
    assert (found.problems, found.width, found.num_classes) == ((), width, 11)


def test_all_that_is_missing_or_misshapen_is_named(net, read):
    del net["conv_sub2"], net["conv5_4_k1/bn"]
    net["conv6_cls"][1] = np.zeros(5, np.float32)
    net["conv2_1_3x3"] = [net["conv2_1_3x3"][0][:, :4]]
    net["conv1_sub1/bn"] = net["conv1_sub1/bn"][:3]
    net["conv3_sub1/bn"].append(np.zeros(1, np.float32))
    net["conv3_2_3x3"][0][0, 0, 0, 0] = np.nan
    net["conv3_3_3x3/bn"][3] *= -1
    with pytest.raises(ModelError) as error:
        read(net)
    text = str(error.value)
    assert "8 tensors are missing or wrong" in text
    for words in (
        "conv_sub2, blob 0 (weights): expected 32x32x3x3, missing",
        "conv5_4_k1, blob 1 (biases): expected 64, missing, and so is the layer conv5_4_k1/bn",
        "conv6_cls, blob 1 (biases): expected 19, found 5",
        "conv2_1_3x3, blob 0 (weights): expected 8x8x3x3, found 8x4x3x3",
        "conv1_sub1/bn, blob 3 (variance): expected 8, missing",
        "conv3_sub1/bn, blob 4: an unexpected tensor, 1",
        "conv3_2_3x3, blob 0 (weights): expected 16x16x3x3, found NaN",
        "conv3_3_3x3/bn, blob 3 (variance): expected 16, found a negative variance",
    ):
        assert words in text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["caffe", "numpy", "merged"])
def test_no_number_that_is_not_finite_is_imported(
    writers, net, file, tmp_path, capsys, form, value
):
    """Every kind of tensor, in each form; also what becomes infinite as float32."""
    net = writers.merged(net) if form == "merged" else net
    out = tmp_path / "out.safetensors"
    spots = [("conv6_cls", 0), ("conv6_cls", 1), ("conv1_1_3x3_s2", 0)]
    if form == "caffe":
        net["data_sub1"] = [np.array([0.5, 1, 2], np.float32)]
        spots.append(("data_sub1", 0))
    spots += [("conv2_1_3x3", 1)] if form == "merged" else [("conv2_1_3x3/bn", i) for i in range(4)]
    for name, blob in spots:
        kept = net[name][blob]
        net[name][blob] = kept.astype(np.float64)
        net[name][blob].reshape(-1)[1] = value if form != "caffe" else np.sign(value) * 1e300
        if form == "caffe":
            content = writers.caffe(writers.as_layers(net), double=True)
        else:
            content = writers.npy(writers.as_dict(net))
        assert main(["import-weights", str(file(content)), "-o", str(out)]) == 2
        said = capsys.readouterr().err
        assert "1 tensors are missing or wrong" in said
        assert f"{name}, blob {blob} (" in said.replace("_bn,", "/bn,")
        assert "found NaN or infinite numbers" in said
        assert not out.exists()
        net[name][blob] = kept


def test_no_mean_that_becomes_infinite_is_imported(writers, net, file, tmp_path, capsys):
    """The bias is taken off it, and both are finite."""
    net["conv_sub4"].append(np.full(net["conv_sub4"][0].shape[0], -3e38, np.float32))
    net["conv_sub4/bn"][2] = np.full_like(net["conv_sub4/bn"][2], 3e38)
    path, out = file(writers.caffe(writers.as_layers(net))), tmp_path / "out.safetensors"
    assert main(["import-weights", str(path), "-o", str(out)]) == 2
    assert "conv_sub4.bn.running_mean (32 of 32 values)" in capsys.readouterr().err
    assert not out.exists()


def test_the_table_accounts_for_every_tensor(writers, net, file, tmp_path, capsys):
    net["loss/aux"] = [np.zeros((2, 3), np.float32), np.zeros(2, np.float32)]
    path, out = file(writers.caffe(writers.as_layers(net))), tmp_path / "out.safetensors"
    assert main(["import-weights", str(path), "-o", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(maxsplit=3) for line in lines]
    assert rows[0] == ["layer", "blob", "shape", "where it went"]
    told = {(row[0], row[1]): row[2:] for row in rows[2:-3]}
    assert set(told) == {(name, str(i)) for name, a in net.items() for i in range(len(a))}
    assert told["conv2_1_1x1_reduce", "0"] == ["8x16x1x1", "conv2_1._1x1_reduce.conv.weight"]
    assert told["conv2_1_1x1_reduce/bn", "3"] == [
        "1x8x1x1",
        "conv2_1._1x1_reduce.bn.running_var",
    ]
    assert told["conv6_sub2", "1"] == ["19", "left out: guidance head, for training only"]
    assert told["loss/aux", "0"] == ["2x3", "skipped: unknown layer"]
    total = sum(map(len, net.values()))
    assert lines[-3] == f"{total} tensors: {total - 6} taken, 4 left out, 2 skipped, 0 wrong"
    assert "width 0.125 with 19 classes" in lines[-2]
    assert json.loads(json.dumps(load_checkpoint(out).info))["size"] == [1025, 2049]


def test_a_file_that_fails_is_told_in_the_table_and_leaves_nothing(
    writers, net, file, tmp_path, capsys
):
    net["conv6_cls"][1] = np.zeros(5, np.float32)
    path, out = file(writers.caffe(writers.as_layers(net))), tmp_path / "out.safetensors"
    assert main(["import-weights", str(path), "-o", str(out)]) == 2
    told, err = capsys.readouterr()
    assert "WRONG: found 5, expected 19" in told
    assert "1 tensors are missing or wrong" in err
    assert not out.exists()


def test_other_classes_need_a_label_set(writers, rows, file, tmp_path, capsys):
    net = writers.weights(rows, WIDTH, classes=11)
    argv = ["import-weights", str(file(writers.caffe(writers.as_layers(net))))]
    argv += ["-o", str(tmp_path / "out.safetensors")]
    assert main(argv) == 2
    assert "11 classes" in capsys.readouterr().err
    assert main([*argv, "--label-set", "cityscapes"]) == 2
    assert "11 classes, cityscapes has 19" in capsys.readouterr().err
    assert main([*argv, "--label-set", "camvid"]) == 0
    assert load_checkpoint(tmp_path / "out.safetensors").label_set == CAMVID


def test_another_net_is_refused(writers, file, tmp_path):
    path = file(writers.caffe([("fc6", "InnerProduct", [np.zeros((4, 4), np.float32)])]))
    released = read_released(path)
    assert [row.where for row in released.match.rows] == ["skipped: unknown layer"]
    with pytest.raises(ModelError, match="does not hold ICNet"):
        save_released(released, tmp_path / "out.safetensors", CITYSCAPES)


def test_a_wrong_name_for_the_checkpoint_is_refused(tmp_path, capsys):
    assert main(["import-weights", "x.caffemodel", "-o", str(tmp_path / "x.onnx")]) == 2
    assert "x.onnx: it does not end in .safetensors" in capsys.readouterr().err
