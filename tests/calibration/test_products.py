"""Multiply-adds are counted right, and those that 8 bits multiply are told from the others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from placement_contract import IN_FLOAT, calibration, network

from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.products import Multiplied, Products, products
from icnet_deploy.calibration.quantize import quantize

SEVEN = {
    "conv1": 32 * 48 * 8 * 27,
    "conv2": 16 * 24 * 8 * 72,
    "conv3": 16 * 24 * 8 * 8,
    "conv4": 16 * 24 * 8 * 27,
    "conv5": 16 * 24 * 8 * 8,
    "conv6": 16 * 24 * 8 * 8,
    "classifier": 16 * 24 * 8 * 19,
}
"""Of the network of seven convolutions, by hand: outputs times weights of each."""


def graph_of(nodes, shape, constants, batch="N"):
    """A graph whose input is `x` and whose output is that of its last node."""
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(
        nodes,
        "counted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def node(kind, name, *inputs, **attributes):
    return helper.make_node(kind, list(inputs), [name], name, **attributes)


def ones(*shape):
    return np.ones(shape, np.float32)


def test_a_float_graph_has_none_in_8_bits():
    counted = products(network())
    assert counted.float_layers() == dict(sorted(SEVEN.items(), key=lambda one: -one[1]))
    assert (counted.total, counted.in_8_bits, counted.share) == (sum(SEVEN.values()), 0, 0)
    assert counted.float_operators() == {"Conv": sum(SEVEN.values())}
    assert str(counted) == "0.0 % of 768 k multiply-adds in 8 bits"


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_of_an_8_bit_graph_the_layers_in_float_are_named_largest_first(placement):
    ranges = calibration().ranges()
    counted = products(quantize(network(), ranges, placement))
    assert counted.float_layers() == {name: SEVEN[name] for name in IN_FLOAT}
    assert counted.total == sum(SEVEN.values())
    in_float = sum(SEVEN[name] for name in IN_FLOAT)
    assert counted.share == pytest.approx(1 - in_float / sum(SEVEN.values()))
    assert str(counted) == (
        "81.6 % of 768 k multiply-adds in 8 bits; in float: conv4 (10.8 %), classifier (7.6 %)"
    )


@pytest.mark.parametrize(
    ("nodes", "shape", "constants", "operator", "count"),
    [
        (
            [node("Conv", "y", "x", "w", group=4, pads=[1, 1, 1, 1], dilations=[1, 1])],
            (8, 6, 10),
            {"w": ones(12, 2, 3, 3)},
            "Conv",
            12 * 6 * 10 * 2 * 9,
        ),
        (
            [node("ConvTranspose", "y", "x", "w", group=2, strides=[2, 2])],
            (8, 6, 10),
            {"w": ones(8, 3, 2, 2)},
            "ConvTranspose",
            8 * 6 * 10 * 3 * 4,
        ),
        (
            [node("Flatten", "f", "x"), node("Gemm", "y", "f", "w", transB=1)],
            (4, 5),
            {"w": ones(7, 20)},
            "Gemm",
            20 * 7,
        ),
        (
            [node("Transpose", "t", "x", perm=[1, 0]), node("Gemm", "y", "t", "w", transA=1)],
            (20,),
            {"w": ones(20, 7)},
            "Gemm",
            20 * 7,
        ),
        ([node("MatMul", "y", "x", "w")], (3, 6, 5), {"w": ones(5, 2)}, "MatMul", 3 * 6 * 5 * 2),
        (
            [node("Transpose", "t", "x", perm=[0, 1, 3, 2]), node("MatMul", "y", "x", "t")],
            (3, 6, 5),
            {},
            "MatMul",
            3 * 6 * 5 * 6,
        ),
    ],
)
@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_each_operator_is_counted_for_one_image(nodes, shape, constants, operator, count, batch):
    counted = products(graph_of(nodes, shape, constants, batch))
    assert counted.total == count
    assert counted.float_operators() == {operator: count}


def test_both_factors_must_be_in_8_bits_and_what_moves_them_is_looked_through():
    def pair(name, of=TensorProto.UINT8):
        zero = "zero" if of == TensorProto.UINT8 else "zero16"
        made = [node("QuantizeLinear", f"{name}_q", name, "step", zero)]
        return [*made, node("DequantizeLinear", f"{name}_dq", f"{name}_q", "step", zero)]

    def counted(*nodes):
        constants = {"step": np.float32(1), "zero": np.uint8(0), "zero16": np.uint16(0)}
        constants["turned"] = np.array([0, 5, 6], np.int64)
        graph = graph_of(nodes, (6, 5), constants)
        graph.opset_import[0].version = 21
        graph.ir_version = 10
        return products(graph).share

    turn = node("Transpose", "t", "x_dq", perm=[0, 2, 1])
    assert counted(*pair("x"), turn, node("MatMul", "y", "x_dq", "t")) == 1
    back = node("Reshape", "t", "x_dq", "turned")
    assert counted(*pair("x"), back, node("MatMul", "y", "x_dq", "t")) == 1
    assert counted(*pair("x"), turn, node("MatMul", "y", "x", "t")) == 0
    changed = node("Sigmoid", "s", "t")
    assert counted(*pair("x"), turn, changed, node("MatMul", "y", "x_dq", "s")) == 0
    assert counted(*pair("x", TensorProto.UINT16), turn, node("MatMul", "y", "x_dq", "t")) == 0


def test_a_layer_without_a_name_of_its_own_has_that_of_its_scope():
    inner = node("MatMul", "/encoder/attention/MatMul", "x", "w")
    inner.input[1] = "onnx::MatMul_123"
    counted = products(graph_of([inner], (6, 5), {"onnx::MatMul_123": ones(5, 2)}))
    assert list(counted.float_layers()) == ["encoder.attention"]


def test_what_multiplies_two_activations_has_the_name_of_its_node():
    turn = node("Transpose", "t", "x", perm=[0, 2, 1])
    counted = products(graph_of([turn, node("MatMul", "scores", "x", "t")], (6, 5), {}))
    assert list(counted.float_layers()) == ["scores"]
    turn = node("Transpose", "t", "a.weight", perm=[1, 0])
    counted = products(
        graph_of([turn, node("MatMul", "y", "x", "t")], (5,), {"a.weight": ones(7, 5)})
    )
    assert list(counted.float_layers()) == ["a"]


def test_what_cannot_be_counted_is_said_and_raises_nothing():
    free = network()
    free = onnx.ModelProto.FromString(free.SerializeToString())
    free.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "H"
    counted = products(free)
    assert (counted.total, counted.share) == (0, 0)
    assert str(counted) == (
        "the share of multiply-adds in 8 bits is not known: the shapes around Conv 'conv4' are not "
        "known"
    )
    einsum = node("Einsum", "y", "x", "x", equation="nij,nkj->nik")
    assert str(products(graph_of([einsum], (6, 5), {}))).endswith("1 Einsum, which is not counted")
    broken = graph_of([node("MatMul", "y", "x", "w")], (6, 5), {"w": ones(4, 4)})
    assert products(broken).unknown
    unknown = graph_of([node("Own", "o", "x"), node("MatMul", "y", "o", "w")], (6,), {"w": ones(6)})
    assert products(unknown).unknown


def test_the_line_stays_short_and_rounds_nothing_to_all_or_none():
    few = [Multiplied(f"layer{i}", "Conv", "y", 10 + i, False) for i in range(6)]
    counted = Products((*few, Multiplied("large", "Conv", "y", 5_200_000_000, True)))
    named = ", ".join(f"layer{i} (< 0.1 %)" for i in (5, 4, 3, 2))
    assert str(counted) == (
        f"99.9 % of 5.2 G multiply-adds in 8 bits; in float: {named}, 2 others (< 0.1 %)"
    )
    all_of_it = Products((Multiplied("large", "Conv", "y", 142_400_000, True),))
    assert str(all_of_it) == "100.0 % of 142 M multiply-adds in 8 bits"
    assert str(Products(())) == "0.0 % of 0 multiply-adds in 8 bits"
