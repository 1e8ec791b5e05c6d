"""What is changed for OpenVINO gives what the graph gave, and leaves what it does not know."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed")

import openvino
from openvino import opset13 as ops

from icnet_deploy.runtime.backends.openvino.backend import OpenVinoBackend, compile_for, core
from icnet_deploy.runtime.backends.openvino.graph import halve_in_pairs, prepare

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
MEAN = np.array([3.0, 50.0, 120.0], np.float32)
TO_FIRST = np.array([0, 3, 1, 2])


def small(size=(12, 20), *, halve=2, before=None, after=None, twice=False, aligned=True):
    """Image -> mean, channels first, half the size, mean, convolution."""
    draw = np.random.default_rng(0)
    image = ops.parameter([-1, *size, 3], np.uint8, name="image")
    image.output(0).get_tensor().set_names({"image"})
    at = ops.convert(image, "f32")
    if before is not None:
        at = ops.subtract(at, before)
    at = ops.transpose(at, TO_FIRST)
    sizes = np.array([-(-side // halve) for side in size])
    mode = "align_corners" if aligned else "half_pixel"
    at = resized = ops.interpolate(
        at,
        sizes,
        "linear_onnx",
        "sizes",
        coordinate_transformation_mode=mode,
        axes=np.array([2, 3]),
    )
    if after is not None:
        at = ops.subtract(at, after)
    weights = ops.constant(draw.normal(size=(5, 3, 3, 3)).astype(np.float32))
    made = ops.convolution(at, weights, [2, 2], [1, 0], [0, 1], [1, 1])
    made.output(0).get_tensor().set_names({"logits"})
    results = [made, resized] if twice else [made]
    return openvino.Model(results, [image])


def answer(model, images):
    compiled = core().compile_model(model, "CPU", EXACT)
    return compiled([images])[0]


def kinds(model):
    return {node.get_type_name() for node in model.get_ops()}


def images_of(size, count=2):
    return np.random.default_rng(1).integers(0, 256, (count, *size, 3), np.uint8)


@pytest.mark.parametrize("size", [(12, 20), (4, 4), (50, 34)])
@pytest.mark.parametrize(
    "means",
    [
        {},
        {"before": MEAN},
        {"before": np.broadcast_to(MEAN, (1, 1, 1, 3)).copy()},
        {"after": MEAN.reshape(1, 3, 1, 1)},
        {"before": np.float32(7).reshape(1), "after": MEAN.reshape(3, 1, 1)},
    ],
)
def test_pairs_are_the_resize(size, means):
    model = small(size, **means)
    images = images_of(size)
    expected = answer(model.clone(), images)
    assert halve_in_pairs(model)
    assert "Interpolate" not in kinds(model)
    np.testing.assert_allclose(answer(model, images), expected, rtol=1e-4, atol=2e-2)
    assert np.std(expected) > 50


def test_pairs_are_weighted_exactly():
    """Against float64, where Interpolate in float32 is off by more."""
    size = (8, 2048)
    model = small(size)
    images = images_of(size, 1)
    wide = images[0].astype(np.float64).transpose(2, 0, 1)
    for axis, side in ((1, size[0]), (2, size[1])):
        far = np.arange(side // 2) / (side // 2 - 1)
        far = far[:, None] if axis == 1 else far
        even, odd = (np.take(wide, np.arange(start, side, 2), axis) for start in (0, 1))
        wide = even * (1 - far) + odd * far
    (convolution,) = (n for n in model.get_ops() if n.get_type_name() == "Convolution")
    weights = convolution.input_value(1).get_node().data.astype(np.float64)
    padded = np.pad(wide, ((0, 0), (1, 0), (0, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    expected = np.einsum("cyxij,ocij->oyx", windows, weights)
    assert halve_in_pairs(model)
    np.testing.assert_allclose(answer(model, images)[0], expected, atol=1e-3)


@pytest.mark.parametrize(
    "told",
    [
        {"size": (13, 20)},
        {"size": (12, 21)},
        {"halve": 4},
        {"twice": True},
        {"aligned": False},
        {"before": np.arange(60, dtype=np.float32).reshape(1, 1, 20, 3)},
        {"after": np.arange(60, dtype=np.float32).reshape(1, 1, 6, 10)},
    ],
)
def test_what_is_not_known_is_left(told):
    model = small(**told)
    before = [node.get_friendly_name() for node in model.get_ordered_ops()]
    assert not halve_in_pairs(model)
    assert [node.get_friendly_name() for node in model.get_ordered_ops()] == before


def test_a_free_size_is_left():
    assert not halve_in_pairs(small((-1, -1), halve=1))


def test_outputs_are_turned_and_turned_back():
    model = small(before=MEAN)
    images = images_of((12, 20), 3)
    expected = answer(model.clone(), images)
    prepared, turned = prepare(model)
    assert turned == [0]
    assert prepared.outputs[0].partial_shape[3].get_length() == 5
    assert "Interpolate" in kinds(model)  # what was read is as it was
    backend = OpenVinoBackend(
        *compile_for(model, lambda each: core().compile_model(each, "CPU", EXACT))
    )
    assert str(backend.outputs[0]) == "logits: float32 ? x 5 x 3 x 5"
    for batch in (images, images[:1]):
        logits = backend.run({"image": batch})["logits"]
        np.testing.assert_allclose(logits, expected[: len(batch)], rtol=1e-4, atol=2e-2)
        assert logits.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize(("shape", "dtype"), [([1, 4, 6], np.float32), ([1, 2, 4, 6], np.uint8)])
def test_other_outputs_are_not_turned(shape, dtype):
    given = ops.parameter(shape, dtype)
    _, turned = prepare(openvino.Model([ops.relu(given)], [given]))
    assert turned == []
