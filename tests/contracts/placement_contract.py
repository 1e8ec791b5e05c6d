"""What every placement of Q/DQ pairs keeps, on a network of seven convolutions.

A placement's suite is a subclass that names it and says where its pairs stand.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.calibration.calibrate import calibrate
from icnet_deploy.calibration.equalize import equalized
from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.placements.registry import PLACEMENTS, cpu_runtime
from icnet_deploy.calibration.quantize import quantize
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import InputError
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.metadata import ArtefactMetadata, write_artefact
from icnet_deploy.precisions import PRECISIONS
from icnet_deploy.runtime.backends.registry import open_backend

SIZE = (64, 96)
CHANNELS = 8
IN_FLOAT = ("conv4", "classifier")
"""By default: what sees the image made smaller, and the last convolution."""


class _Nodes:
    """Makes nodes and constants; each node's output has its name."""

    def __init__(self):
        self.nodes, self.constants = [], []
        self.random = np.random.default_rng(0)

    def node(self, kind, name, *inputs, **attributes):
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def constant(self, name, value):
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def conv(self, name, image, channels, kernel=3, stride=1, outputs=CHANNELS, group=1):
        shape = (outputs, channels // group, kernel, kernel)
        spread = np.sqrt(2 / np.prod(shape[1:]))
        weight = self.random.normal(0, spread, shape).astype(np.float32)
        bias = self.random.normal(0, 0.1, outputs).astype(np.float32)
        constants = [
            self.constant(f"network.{name}.weight", weight),
            self.constant(f"network.{name}.bias", bias),
        ]
        size = {"strides": [stride] * 2, "pads": [kernel // 2] * 4, "group": group}
        return self.node("Conv", name, image, *constants, **size)


@cache
def network(odd=False):
    """A float32 graph as `icnet export` lays it out: a residual sum, a pool, a sum of two branches.

    Args:
        odd: between its convolutions stand operators, too, that no placement knows.
    """
    n = _Nodes()
    mean = n.constant("mean", np.float32([[[[90, 100, 110]]]]))
    scale = n.constant("scale", np.float32(1 / 64))
    pixels = n.node("Cast", "pixels", "image", to=TensorProto.FLOAT)
    centred = n.node("Sub", "centred", pixels, mean)
    planes = n.node("Transpose", "planes", centred, perm=[0, 3, 1, 2])
    half = n.constant("half", np.float32([1, 1, 0.5, 0.5]))
    small = n.node("Resize", "small", planes, "", half, mode="linear")
    relu4 = n.node("Relu", "relu4", n.conv("conv4", small, 3, stride=2))
    relu1 = n.node("Relu", "relu1", n.conv("conv1", planes, 3, stride=2))
    pool = n.node("MaxPool", "pool", relu1, kernel_shape=[2, 2], strides=[2, 2])
    conv2 = n.conv("conv2", pool, CHANNELS)
    if odd:
        conv2 = n.node("Add", "shift", conv2, n.constant("by", np.ones((1, CHANNELS, 1, 1), "f")))
    relu2 = n.node("Relu", "relu2", conv2)
    if odd:
        relu2 = n.node("Tanh", "tanh", relu2)
    sum1 = n.node("Add", "sum1", n.conv("conv3", relu2, CHANNELS, kernel=1), pool)
    relu3 = n.node("Relu", "relu3", sum1)
    if odd:
        relu3 = n.conv("depthwise", relu3, CHANNELS, group=CHANNELS)
        relu4 = n.node("Mul", "mul", relu4, n.node("Sigmoid", "gate", relu4))
    conv5 = n.conv("conv5", relu3, CHANNELS, kernel=1)
    sum2 = n.node("Add", "sum2", conv5, n.conv("conv6", relu4, CHANNELS, kernel=1))
    relu5 = n.node("Relu", "relu5", sum2)
    classifier = n.conv("classifier", relu5, CHANNELS, kernel=1, outputs=len(CITYSCAPES))
    n.node("Mul", "logits", classifier, scale)
    graph = helper.make_graph(
        n.nodes,
        "seven",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *SIZE, 3])],
        [
            helper.make_tensor_value_info(
                "logits", TensorProto.FLOAT, ["N", len(CITYSCAPES), 16, 24]
            )
        ],
        n.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def metadata():
    """What a float32 artefact of it says of itself."""
    return ArtefactMetadata(CITYSCAPES, SIZE, "logits", "fp32", stride=4)


def save_network(path, odd=False):
    """Writes it as a float32 artefact with the head `logits`; returns the file."""
    write_artefact(path, network(odd).SerializeToString(), metadata())
    return path


class Scenes(list):
    """Drawn images that stand for a `CalibrationSet`."""

    hashes = tuple(f"{index:064x}" for index in range(4))

    def first(self, count):
        return self[:count]


@cache
def images():
    return Scenes(draw_scene((3, index), SIZE).image for index in range(4))


@cache
def calibration(odd=False):
    return calibrate(network(odd), images(), "0" * 64)


class PlacementContract:
    """The suite.

    Attributes:
        name: a key of `PLACEMENTS`.
        pairs: tensor -> the nodes that read it through a pair, or None for all, where the layers of
            `IN_FLOAT` stay in float.
        unknown: the operators of the odd network that it does not know, with their number.
    """

    name: str
    pairs: dict
    unknown: ClassVar[dict] = {"Tanh": 1}

    @property
    def placement(self):
        return PLACEMENTS[self.name]

    def quantized(self, odd=False, exclude=None, ranges=None):
        chosen = ranges or calibration(odd).ranges()
        return Graph(quantize(network(odd), chosen, self.name, exclude))

    def answers(self, model, tmp_path):
        """The logits of all images on the runtime that the placement is for."""
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(model, path)
        backend = open_backend(cpu_runtime(self.name), path, "cpu", cached=False)
        return np.concatenate([backend.run({"image": i[None]})["logits"].copy() for i in images()])

    def in_eight_bits(self, graph):
        """Convolution -> the nodes that make its weights and its bias, if they are nodes."""
        made = {n.name: [graph.producers.get(i) for i in n.input[1:]] for n in graph.nodes("Conv")}
        return {name: nodes for name, nodes in made.items() if nodes[0] is not None}

    def test_it_is_named_alike_everywhere(self):
        assert self.placement.name == self.name
        row = PRECISIONS[self.name]
        assert row.bits == 8
        assert row.meant_for(cpu_runtime(self.name))

    def test_pairs_stand_where_it_says(self):
        model = onnx.ModelProto()
        model.CopyFrom(network())
        self.placement.arrange(model)
        graph = Graph(model)
        pairs = self.placement.pairs(graph, graph.weighted(IN_FLOAT))
        assert graph.float_layers() == IN_FLOAT
        assert pairs.readers == self.pairs
        written = {node.name for node in self.quantized().nodes("QuantizeLinear")}
        assert written == {f"{name}_QuantizeLinear" for name in self.pairs}

    def test_what_is_arranged_computes_the_same(self, tmp_path):
        model = onnx.ModelProto()
        model.CopyFrom(network())
        self.placement.arrange(model)
        before, after = (self.answers(m, tmp_path) for m in (network(), model))
        np.testing.assert_allclose(after, before, atol=1e-3 * np.abs(before).max())

    def test_weights_are_int8_by_channel_of_output(self):
        graph = self.quantized()
        exact = Graph(equalized(network(), calibration().ranges().factors))
        eight = self.in_eight_bits(graph)
        convs = {node.name for node in exact.nodes("Conv")}
        assert eight.keys() == convs - set(IN_FLOAT)
        for name, (node, *_) in eight.items():
            whole, steps, zeros = (numpy_helper.to_array(graph.constants[i]) for i in node.input)
            weight = exact.array(f"network.{name}.weight")
            assert (whole.dtype, zeros.any(), steps.shape) == (np.int8, False, (len(weight),))
            assert [a.i for a in node.attribute if a.name == "axis"] == [0]
            wide = steps[:, None, None, None]
            error = np.abs(whole * wide - weight)[np.abs(whole) < 127]
            # Where the image is seen, errors are carried on: each may be twice as large.
            most = np.broadcast_to(wide * (1 if name == "conv1" else 0.5), weight.shape)
            assert (error <= 1.001 * most[np.abs(whole) < 127]).all()

    def test_biases_are_of_the_type_that_it_says(self):
        graph = self.quantized()
        for name, nodes in self.in_eight_bits(graph).items():
            bias = nodes[1]
            assert (bias is not None) == self.placement.integer_bias
            if bias is not None:
                whole, step = (numpy_helper.to_array(graph.constants[i]) for i in bias.input[:2])
                weights = numpy_helper.to_array(graph.constants[nodes[0].input[1]])
                [conv] = [n for n in graph.nodes("Conv") if n.name == name]
                image = graph.producers[conv.input[0]]
                assert whole.dtype == np.int32
                np.testing.assert_array_equal(step, graph.array(image.input[1]) * weights)

    def test_grids_cover_the_ranges(self):
        ranges = calibration().ranges()
        double = {
            name: replace(one, limit=2 * one.limit, low=2 * one.low, high=2 * one.high)
            for name, one in ranges.tensors.items()
        }
        plain, wide = self.quantized(), self.quantized(ranges=replace(ranges, tensors=double))
        for node in plain.nodes("QuantizeLinear"):
            scale, zero = (numpy_helper.to_array(plain.constants[i]) for i in node.input[1:])
            kind = np.iinfo(zero.dtype)
            assert kind.bits == 8
            assert (kind.min < 0) == self.placement.symmetric
            assert zero == 0 or not self.placement.symmetric
            covered = [(end - int(zero)) * float(scale) for end in (kind.min, kind.max)]
            assert any(
                np.allclose(self.placement.span(one), covered, atol=1.01 * float(scale))
                for one in ranges.tensors.values()
            )
            np.testing.assert_allclose(wide.array(node.input[1]), 2 * scale, rtol=1e-6)

    @pytest.mark.parametrize("odd", [False, True])
    def test_it_answers_as_float_does_where_it_is_meant_to_run(self, odd, tmp_path):
        pytest.importorskip(cpu_runtime(self.name))
        ours = self.answers(self.quantized(odd).model, tmp_path)
        exact = self.answers(network(odd), tmp_path)
        assert 0 < np.abs(ours - exact).max() < 0.15 * np.abs(exact).max()
        assert (ours.argmax(1) == exact.argmax(1)).mean() > 0.95

    def test_what_it_does_not_know_stays_in_float_and_is_named(self):
        others = self.placement.unknown(network(True))
        assert others == self.unknown
        assert not self.placement.unknown(network())
        graph = self.quantized(odd=True)
        assert len(graph.nodes("Tanh")) == 1
        assert "depthwise" in self.in_eight_bits(graph)

    def test_layers_that_are_named_stay_in_float(self):
        assert "conv2" in self.in_eight_bits(self.quantized())
        every = {node.name for node in network().graph.node if node.op_type == "Conv"}
        graph = self.quantized(exclude=["conv2", "conv5"])
        assert self.in_eight_bits(graph).keys() == every - {"conv2", "conv5"}
        with pytest.raises(InputError, match="no layer or block 'conv9'; blocks: conv4, conv1"):
            self.quantized(exclude=["conv9"])
