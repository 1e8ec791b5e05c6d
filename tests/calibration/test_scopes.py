"""The blocks of a network of one's own are the scopes of its layers, in whichever words."""

from __future__ import annotations

import json
from dataclasses import replace

import onnx
import placement_contract as small
import pytest
from onnx import TensorProto, helper

from icnet_deploy.calibration.calibrate import calibrate
from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.quantize import quantize
from icnet_deploy.calibration.sensitivity.search import blocks_of, modules_of
from icnet_deploy.data.scenes import write_scenes
from icnet_deploy.errors import InputError
from icnet_deploy.labels import CAMVID
from icnet_deploy.metadata import read_onnx_metadata, write_artefact
from icnet_deploy.networks.blocks import scope_blocks

OWN = {"architecture": "mine:network"}

NAMES = {
    "conv4": "small.0",
    "conv1": "backbone.stem.conv1",
    "conv2": "backbone.layer1.0.conv1",
    "conv3": "backbone.layer1.0.conv2",
    "conv5": "head.fuse.0",
    "conv6": "head.fuse.1",
    "classifier": "head.classifier",
}
"""Of the convolutions of `placement_contract.network`, as if it were a module of one's own."""


def renamed(name_of):
    """That network, the weights and bias of each convolution renamed."""
    model = onnx.ModelProto.FromString(small.network().SerializeToString())
    graph = model.graph
    for node in graph.node:
        if node.op_type == "Conv":
            node.name, weights = name_of(node.name)
            new = dict(zip(node.input[1:], (weights, f"{weights}_bias"), strict=True))
            for tensor in graph.initializer:
                tensor.name = new.get(tensor.name, tensor.name)
            node.input[1:] = list(new.values())
    return model


def exported(name):
    """As `icnet export` names what it has traced: weights by their path, nodes by numbers."""
    return f"node_{name}", f"network.module.{NAMES[name]}.weight"


def folded(name):
    """As the older exporter names what it has folded a batch norm into: nodes by their path."""
    return (
        f"/network/module/{NAMES[name].replace('.', '/')}/Conv",
        f"onnx::Conv_{list(NAMES).index(name)}",
    )


def layers_of(model):
    graph = Graph(model)
    return [graph.layer(node.node) for node in graph.weighted()], graph.float_layers()


@pytest.mark.parametrize("name_of", [exported, folded])
def test_layers_are_called_what_the_module_calls_them(name_of):
    layers, kept = layers_of(renamed(name_of))
    assert sorted(layers) == sorted(NAMES.values())
    assert sorted(kept) == sorted(NAMES[name] for name in small.IN_FLOAT)


@pytest.mark.parametrize(
    ("node", "weights", "layer"),
    [
        ("node_Conv_7", "network.module.encoder.conv1.weight", "encoder.conv1"),
        ("node_Conv_7", "network.conv2_1._3x3.conv.weight", "conv2_1._3x3"),
        ("/backbone/layer1/layer1.0/conv1/Conv", "onnx::Conv_512", "backbone.layer1.0.conv1"),
        ("/features/features.3/features.3.1/Conv_2", "onnx::Conv_9", "features.3.1"),
        ("/network/module/head/Conv", "_v_144", "head"),
        ("node_Conv_450", "_v_144", "node_Conv_450"),
        ("node_Conv_450", "val_12", "node_Conv_450"),
        ("", "onnx::Conv_512", "onnx::Conv_512"),
        ("/stem/Conv", "stem.kernel", "stem.kernel"),
    ],
)
def test_the_name_of_a_layer(node, weights, layer):
    conv = helper.make_node("Conv", ["x", weights], ["y"], node)
    constant = helper.make_tensor(weights, TensorProto.FLOAT, [1, 1, 1, 1], [1.0])
    model = helper.make_model(helper.make_graph([conv], "one", [], [], [constant]))
    assert Graph(model).layer(conv) == layer


def test_both_exporters_lead_to_the_same_names(one_thread):
    for package in ("torch", "onnxscript", "onnxsim"):
        pytest.importorskip(package, reason=f"export needs {package}")
    from torch import nn

    from icnet_deploy.export import graph
    from icnet_deploy.export.deployed import Deployed
    from icnet_deploy.networks.own.opened import adapt
    from icnet_deploy.networks.own.request import NetworkRequest

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4))
            self.head = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Conv2d(4, 11, 1)))

        def forward(self, image):
            return self.head(self.stem(image))

    module = Own()
    module.stem[1].running_mean.fill_(0.5)  # one that changes nothing would be left out
    request = NetworkRequest("mine:network", label_set=CAMVID, preprocessing="imagenet")
    found = adapt(module.eval(), request, (64, 96))
    deployed = Deployed(found.network, found.preprocessing, "logits").eval()
    for exporter in (graph._by_dynamo, graph._by_torchscript):
        model = graph.finished(exporter(deployed, (64, 96), False), graph._REWRITES)
        assert layers_of(model)[0] == ["stem.0", "head.1.0"]


@pytest.mark.parametrize("name_of", [exported, folded])
def test_a_scope_of_any_depth_stays_in_float(name_of):
    model = renamed(name_of)
    ranges = calibrate(model, small.images(), "0" * 64).ranges()
    for scope in ("backbone", "backbone.layer1", "backbone.layer1.0", "backbone.layer1.0.conv2"):
        written = Graph(quantize(model, ranges, "int8", [scope]))
        in_float = {written.layer(one.node) for one in written.weighted()}
        assert in_float == {n for n in NAMES.values() if f"{n}.".startswith(f"{scope}.")}
    known = "small, backbone, head, small.0, backbone.stem, backbone.layer1, head.fuse, "
    with pytest.raises(InputError, match=f"no layer or block 'layer1'; blocks: {known}"):
        quantize(model, ranges, "int8", ["layer1"])


def test_a_block_that_is_kept_in_part_is_named_by_what_is_left():
    layers, kept = layers_of(renamed(exported))
    blocks = blocks_of([*layers, "head.extra"], [*kept, "head.fuse.1"], OWN)
    assert sum(block.convolutions for block in blocks) == len(layers) + 1
    kept = {block.name for block in blocks if block.kept}
    assert kept == {"small", "head.classifier", "head.fuse.1"}
    assert sorted(modules_of(blocks)) == sorted({*modules_of(blocks)})


def names(*counts):
    """Layers in scopes of so many: `a.0.conv`, `a.1.conv`, ..., `b.0.conv`, ..."""
    return [f"{chr(97 + i)}.{k}.conv" for i, count in enumerate(counts) for k in range(count)]


@pytest.mark.parametrize(
    "layers",
    [
        names(40),
        names(3, 3, 60),
        names(20, 20, 20, 20),
        [f"features.{i}" for i in range(53)],
        [f"m.body.{i // 6}.{i % 6}.conv" for i in range(96)] + ["m.head"],
        [f"a.b.c.d.e{i}" for i in range(9)],
        ["only"],
        ["x.conv1", "x.conv2", "x"],
    ],
)
def test_blocks_are_scopes_of_about_an_eighth_at_most(layers):
    blocks = scope_blocks(layers)
    assert [layer for own in blocks.values() for layer in own] == layers
    assert max(map(len, blocks.values())) <= max(1, len(layers) // 8)
    assert len(blocks) <= 26  # about 24
    for name, own in blocks.items():
        first, _, last = name.partition(" to ")
        assert f"{own[0]}.".startswith(f"{first}.")
        assert f"{own[-1]}.".startswith(f"{last or first}.")
    assert scope_blocks(layers) == blocks


def test_a_scope_is_split_no_further_than_it_must_be():
    backbone = [f"backbone.layer{i}.{k}.conv{c}" for i in (1, 2, 3) for k in (0, 1) for c in (1, 2)]
    layers = ["stem.conv", *backbone, *[f"head.{i}" for i in range(12)]]
    assert list(scope_blocks(layers)) == [
        "stem",
        *(f"backbone.layer{i}.{k}" for i in (1, 2, 3) for k in (0, 1)),
        *(f"head.{i}" for i in range(12)),
    ]
    wide = [*backbone, *[f"neck.{i}.conv" for i in range(30)]]
    assert list(scope_blocks(wide))[:3] == ["backbone.layer1", "backbone.layer2", "backbone.layer3"]


def test_sensitivity_speaks_of_the_scopes(run, tmp_path):
    path, scenes = tmp_path / "own.onnx", tmp_path / "scenes"
    metadata = replace(small.metadata(), network=OWN)
    write_artefact(path, renamed(exported).SerializeToString(), metadata)
    write_scenes(scenes, 8, small.SIZE, 1, "train", progress=False)
    write_scenes(scenes, 2, small.SIZE, 2, "val", progress=False)
    data = ["--dataset", "scenes", "--data", scenes]
    out = tmp_path / "s.json"
    done = run("sensitivity", path, *data, "--placement", "int8-ort", "--json", out)
    assert done.code == 0, done.err
    blocks = json.loads(out.read_text())["blocks"]
    assert [block["name"] for block in blocks if block["kept"]] == ["small", "head.classifier"]
    assert {block["name"] for block in blocks} == {
        "small",
        "backbone.stem",
        "backbone.layer1.0.conv1",
        "backbone.layer1.0.conv2",
        "head.fuse.0",
        "head.fuse.1",
        "head.classifier",
    }
    eight = tmp_path / "own-int8.onnx"
    done = run("quantize", path, *data, "--placement", "int8", "--float", "backbone", "-o", eight)
    assert done.code == 0, done.err
    assert "backbone" in read_onnx_metadata(eight).tools["float"]
