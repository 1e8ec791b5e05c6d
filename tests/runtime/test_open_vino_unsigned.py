"""Int8 that holds nothing below zero is uint8 on OpenVINO, and every value stays."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed")

import openvino
from openvino import opset13 as ops

from icnet_deploy.runtime.backends.openvino.backend import core
from icnet_deploy.runtime.backends.openvino.graph import prepare
from icnet_deploy.runtime.backends.openvino.unsigned import unsigned_where_positive

STEP, ENDS = 0.05, (-128, 127)
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def whole(at, step=STEP, zero=0, channels=1):
    """A QuantizeLinear, as OpenVINO reads it from an ONNX file."""
    shape = (1, channels, 1, 1) if channels > 1 else ()
    ends = [np.full(shape, step * (end - zero), np.float32) for end in (-128, 127)]
    places = [np.float32(-128), np.float32(127)]
    rounded = ops.fake_quantize(at, *map(ops.constant, [*ends, *places]), 256)
    return ops.convert(rounded, "i8")


def value(at, step=STEP, zero=0):
    """A DequantizeLinear."""
    zeros = ops.convert(ops.constant(np.int8(zero)), "f32")
    return ops.multiply(ops.subtract(ops.convert(at, "f32"), zeros), np.float32(step))


def convolution(at, channels=4, kernel=3):
    draw = np.random.default_rng(channels)
    w = draw.integers(-127, 128, (channels, at.get_output_shape(0)[1], kernel, kernel))
    weights = ops.multiply(ops.convert(w.astype(np.int8), "f32"), np.float32(2e-3))
    pad = [kernel // 2] * 2
    return ops.convolution(at, weights, [1, 1], pad, pad, [1, 1])


def built(make):
    image = ops.parameter([1, 4, 9, 10], np.float32, name="image")
    made = make(ops.relu(convolution(image)))
    return openvino.Model([made], [image])


def types(model):
    """The types of the whole numbers of tensors; weights are constants."""
    nodes = [node for node in model.get_ops() if node.get_type_name() not in ("Constant", "Result")]
    kinds = [node.get_output_element_type(0).to_string() for node in nodes]
    return sorted(kind for kind in kinds if kind in ("i8", "u8"))


def answer(model):
    images = np.random.default_rng(1).normal(size=(1, 4, 9, 10)).astype(np.float32)
    return core().compile_model(model, "CPU", EXACT)([images])[0]


POOL = {"strides": [2, 2], "dilations": [1, 1], "pads_begin": [0, 0], "pads_end": [0, 0]}


def pooled(at):
    pool = ops.max_pool(value(whole(at)), **POOL, kernel_shape=[2, 2])
    return convolution(value(whole(pool.output(0))))


def joined(at):
    parts = [whole(at), whole(ops.sigmoid(convolution(at)))]
    return convolution(value(ops.concat(parts, 1)))


def summed(at):
    gate = ops.multiply(at, ops.sigmoid(at))
    return convolution(value(whole(ops.add(gate, at))))


def moved(at):
    turned = ops.transpose(whole(at), np.array([0, 1, 3, 2]))
    return convolution(value(turned))


def resized(mode):
    """Behind a resize, which makes numbers below zero of others if it is cubic."""

    def make(at):
        sizes = np.array([7, 15])
        return convolution(
            value(whole(ops.interpolate(at, sizes, mode, "sizes", axes=np.array([2, 3]))))
        )

    return make


@pytest.mark.parametrize(
    ("make", "count", "tensors"),
    [
        (lambda at: convolution(value(whole(at))), 1, 1),
        (lambda at: convolution(value(whole(ops.clamp(at, 0.0, 6.0)))), 1, 1),
        (pooled, 2, 2),
        (joined, 2, 3),
        (summed, 1, 1),
        (moved, 1, 2),
        (resized("linear_onnx"), 1, 1),
        (lambda at: convolution(value(whole(ops.softmax(convolution(at), 1)))), 1, 1),
        (lambda at: convolution(value(whole(on_grid(at, -1, 127 / 128, -1, 127 / 128)))), 1, 1),
    ],
)
def test_what_holds_nothing_below_zero_is_unsigned(make, count, tensors):
    model = built(make)
    before = answer(model.clone())
    assert unsigned_where_positive(model) == count
    assert types(model) == ["u8"] * tensors
    after = answer(model)
    assert np.std(before) > 0.01
    # Beside ties of rounding, which fall either way.
    np.testing.assert_allclose(after, before, atol=2 * STEP * 0.254)
    assert np.mean(np.abs(after - before) > 1e-3) < 0.1


def test_what_lies_beyond_the_grid_is_cut_off_as_before():
    model = built(lambda at: convolution(value(whole(at, 0.002), 0.002)))
    before = answer(model.clone())
    assert unsigned_where_positive(model) == 1
    np.testing.assert_allclose(answer(model), before, atol=2e-3)


def on_grid(at, *ends, levels=256):
    """A FakeQuantize as other tools have it: of float32 alone, its zero perhaps between places."""
    return ops.fake_quantize(at, *(ops.constant(np.float32(end)) for end in ends), levels)


def mixed(at):
    """Of a join of two one part holds numbers below zero."""
    parts = [whole(at), whole(convolution(at))]
    return convolution(value(ops.concat(parts, 1)))


def sliced(at):
    """Read by an operator of which nothing is known."""
    part = ops.slice(whole(at), np.array([0]), np.array([2]), np.array([1]), np.array([1]))
    return convolution(value(part))


@pytest.mark.parametrize(
    "make",
    [
        lambda at: convolution(value(whole(convolution(at)))),
        lambda at: convolution(value(whole(ops.subtract(at, np.float32(1))))),
        lambda at: convolution(value(whole(ops.clamp(at, -1.0, 6.0)))),
        lambda at: convolution(value(whole(at, zero=-128), zero=-128)),
        lambda at: convolution(value(whole(value(whole(at, zero=3), zero=3), zero=1), zero=1)),
        lambda at: convolution(value(whole(at, channels=4))),
        lambda at: convolution(value(whole(on_grid(at, -1, 1.1, -1, 1.1)))),
        lambda at: convolution(
            value(ops.convert(on_grid(at, -128, 127, -128, 127, levels=16), "i8"))
        ),
        lambda at: convolution(value(whole(ops.convert(ops.convert(at, "i8"), "f32")))),
        mixed,
        sliced,
        resized("cubic"),
    ],
)
def test_what_is_not_known_is_left(make):
    model = built(make)
    before = [node.get_friendly_name() for node in model.get_ordered_ops()]
    assert unsigned_where_positive(model) == 0
    assert [node.get_friendly_name() for node in model.get_ordered_ops()] == before


def test_a_model_is_prepared_so():
    model, _ = prepare(built(lambda at: convolution(value(whole(at)))))
    assert types(model) == ["u8"]


MANY = 1200
"""Nodes one behind the other: more than Python calls functions inside one another."""


def doubled(at):
    """Sums of a tensor and itself: there are 2**60 ways back through them."""
    for _ in range(60):
        at = ops.add(at, at)
    return convolution(value(whole(at)))


def deep(at):
    for _ in range(MANY):
        at = ops.add(at, np.float32(1))
    return convolution(value(whole(at)))


def moved_often(at):
    at = whole(at)
    for _ in range(MANY):
        at = ops.transpose(at, np.array([0, 1, 3, 2]))
    return convolution(value(at))


def joined_often(at):
    """As a DenseNet: each join takes the one before. The first part of all is signed."""
    joined = whole(convolution(at))
    for _ in range(MANY // 4):
        joined = ops.concat([joined, whole(at)], 1)
    return convolution(value(joined))


@pytest.mark.parametrize(
    ("make", "count"), [(doubled, 1), (deep, 1), (moved_often, 1), (joined_often, 0)]
)
def test_graphs_of_many_ways_and_nodes_are_looked_through(make, count):
    model = built(make)
    assert unsigned_where_positive(model) == count
