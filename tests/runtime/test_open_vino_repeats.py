"""Copies of rows and columns are a nearest resize on OpenVINO, and every value stays."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed")

import openvino
from openvino import opset13 as ops

from icnet_deploy.runtime.backends.openvino.backend import core
from icnet_deploy.runtime.backends.openvino.graph import prepare
from icnet_deploy.runtime.backends.openvino.repeats import resize_repeated

CHANNELS, HEIGHT, WIDTH = 4, 5, 6
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def twice(side):
    return np.repeat(np.arange(side), 2)


TALL, WIDE = twice(HEIGHT), twice(WIDTH)


def built(rows=TALL, columns=WIDE, *, axes=(2, 1), to=(0, 2, 3, 1), scaled=True, more=False):
    """A tensor of uint8, its rows and columns copied; read in float32 by a convolution."""
    image = ops.parameter([1, CHANNELS, HEIGHT, WIDTH], np.float32, name="image")
    ends = [np.float32(end) for end in (-3, 3, 0, 255)]
    whole = ops.convert(ops.fake_quantize(image, *map(ops.constant, ends), 256), "u8")
    turned = ops.transpose(whole, np.array(to))
    wide = ops.gather(turned, columns, np.int64(axes[0]))
    tall = ops.gather(wide, rows, np.int64(axes[1]))
    back = ops.transpose(tall, np.array([0, 3, 1, 2]))
    zeros = ops.convert(ops.constant(np.uint8(128)), "f32")
    at = ops.subtract(ops.convert(back, "f32"), zeros)
    if scaled:
        at = ops.multiply(at, np.float32(6 / 255))
    weights = (
        np.random.default_rng(0)
        .normal(size=(3, at.get_output_shape(0)[1], 3, 3))
        .astype(np.float32)
    )
    made = ops.convolution(at, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    results = [made, ops.convert(tall, "f32")] if more else [made]
    return openvino.Model(results, [image])


def kinds(model):
    return [node.get_type_name() for node in model.get_ordered_ops()]


def answer(model):
    image = np.random.default_rng(1).normal(size=(1, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    return core().compile_model(model, "CPU", EXACT)([image])[0]


@pytest.mark.parametrize("columns", [WIDE, np.repeat(np.arange(WIDTH), 3)])
def test_copies_are_a_resize(columns):
    model = built(columns=columns)
    before = answer(model.clone())
    assert resize_repeated(model) == 1
    assert not {"Gather", "Transpose"}.intersection(kinds(model))
    np.testing.assert_allclose(answer(model), before, rtol=1e-4, atol=1e-4)
    assert np.std(before) > 1


@pytest.mark.parametrize(
    "told",
    [
        {"rows": np.arange(HEIGHT)[::-1].copy()},
        {"columns": np.tile(np.arange(WIDTH), 2)},
        {"columns": np.arange(WIDTH - 1)},
        {"to": (0, 1, 2, 3), "axes": (2, 1), "rows": twice(CHANNELS), "columns": twice(HEIGHT)},
        {"scaled": False},
        {"more": True},
    ],
)
def test_what_is_not_known_is_left(told):
    model = built(**told)
    before = kinds(model)
    assert resize_repeated(model) == 0
    assert kinds(model) == before


def test_a_model_is_prepared_so():
    model, _ = prepare(built())
    assert "Interpolate" in kinds(model)
