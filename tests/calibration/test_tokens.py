"""Between images and tokens channels stay last: the same numbers, without copies."""

import numpy as np
import onnxruntime
import pytest
from random_graphs import INSIDE, SIZE, RandomGraph

from icnet_deploy.calibration.calibrate import calibrate
from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.placements.tokens import channels_between
from icnet_deploy.calibration.quantize import quantize
from icnet_deploy.calibration.sensitivity.handovers import of_one_form, places

AREA = INSIDE[0] * INSIDE[1]


def tokens_and_back(batch=1, outputs=()):
    """An image as tokens, a matrix on them, and an image again with its sides swapped."""
    made = RandomGraph(0)
    count = made.channels
    flat = made.node("Reshape", made.last, made.sides(batch, count, AREA))
    rows = made.node("Transpose", flat, perm=[0, 2, 1])
    wide = made.node("MatMul", rows, made.normal(count, count))
    back = made.node("Transpose", wide, perm=[0, 2, 1])
    made.to(made.node("Reshape", back, made.sides(batch, count, *INSIDE[::-1])))
    made.conv(4, 3)
    model = made.model()
    for name in outputs:
        model.graph.output.add().name = {"flat": flat, "back": back}[name]
    return model


def answers(model):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    image = np.random.default_rng(1).integers(0, 256, (1, *SIZE, 3), np.uint8)
    return session.run(None, {"image": image})


def form(model):
    kinds = [node.op_type for node in model.graph.node]
    start = kinds.index("Conv") + 1
    return kinds[start : start + 5]


@pytest.mark.parametrize("batch", [1, 0, -1])
def test_images_become_tokens_with_channels_last_in_between(batch):
    model = tokens_and_back(batch)
    wanted = answers(model)
    assert channels_between(Graph(model))
    assert form(model) == ["Transpose", "Reshape", "MatMul", "Reshape", "Transpose"]
    for found, each in zip(answers(model), wanted, strict=True):
        np.testing.assert_array_equal(found, each)
    assert not channels_between(Graph(model))


@pytest.mark.parametrize(
    ("outputs", "kept"),
    [(["flat"], ["Reshape", "Transpose"]), (["back"], ["Transpose", "Reshape"])],
)
def test_what_something_else_reads_stays(outputs, kept):
    model = tokens_and_back(outputs=outputs)
    wanted = answers(model)
    channels_between(Graph(model))
    assert (form(model)[:2] if outputs == ["flat"] else form(model)[3:]) == kept
    for found, each in zip(answers(model), wanted, strict=True):
        np.testing.assert_array_equal(found, each)


def test_pixels_that_are_not_swapped_with_channels_stay():
    made = RandomGraph(0)
    flat = made.node("Reshape", made.last, made.sides(1, 2, 4 * AREA))
    rows = made.node("Transpose", flat, perm=[0, 2, 1])
    made.to(made.node("Reshape", rows, made.sides(1, 8, *INSIDE)))
    model = made.model()
    assert not channels_between(Graph(model))
    assert form(model)[:3] == ["Reshape", "Transpose", "Reshape"]


class Images(list):
    """Noise, which stands for a `CalibrationSet`."""

    hashes = ("0" * 64,)

    def first(self, count):
        return self[:count]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_graphs_in_8_bits_have_that_form(placement):
    model = tokens_and_back()
    images = Images([np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)])
    made = quantize(model, calibrate(model, images, "0" * 64).ranges("minmax"), placement, [])
    orders = [
        list(node.attribute[0].ints) for node in made.graph.node if node.op_type == "Transpose"
    ]
    assert [0, 2, 3, 1] in orders
    assert [0, 2, 1] not in orders


def test_what_has_other_axes_in_8_bits_is_not_compared_with_float32():
    model = tokens_and_back()
    turned = type(model).FromString(model.SerializeToString())
    channels_between(Graph(turned))
    names = [node.output[0] for node in model.graph.node[-6:-1]]
    assert [*places(turned, names)] == names
    alike = of_one_form(places(turned, names), model, turned)
    kinds = [node.op_type for node in model.graph.node if node.output[0] in alike]
    assert kinds == ["Transpose", "MatMul", "Reshape", "Conv"]  # of five
