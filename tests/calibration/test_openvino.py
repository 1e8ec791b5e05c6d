"""What OpenVINO makes of `int8`: it runs the products in 8 bits, whatever stands between them."""

import numpy as np
import pytest
import random_graphs
from random_graphs import SIZE, RandomGraph

from icnet_deploy.calibration.calibrate import calibrate
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.quantize import quantize

openvino = pytest.importorskip("openvino")


class Noise(list):
    """Images that stand for a `CalibrationSet`."""

    hashes = ("0" * 64, "1" * 64)

    def first(self, count):
        return self[:count]


def _transposed(g):
    given = [g.normal(g.channels, 8, 2, 2), g.normal(8)]
    g.to(g.node("ConvTranspose", g.last, *given, strides=[2, 2]), 8)


def _prelu(g):
    g.conv(8, 3)
    g.to(g.node("PRelu", g.last, g.normal(8, 1, 1)))


def _hard_swish(g):
    g.conv(8, 3)
    g.to(g.node("HardSwish", g.last))


def _shared_join(g):
    """Its first part is read in 8 bits on the same grid, and by a node in float."""
    value = g.node("Relu", g.conv(8, 3))
    part = g.conv(8, 3, source=value)
    joined = g.node("Concat", g.node("Relu", part), value, axis=1)
    g.to(joined, 16)
    g.to(g.node("Add", g.node("Tanh", joined), g.conv(16, 3)))


def _matrices(g):
    rows = g.node("Transpose", g.last, perm=[0, 2, 3, 1])
    rows = g.node("MatMul", rows, g.normal(g.channels, 8))
    g.to(g.node("Transpose", g.node("Add", rows, g.normal(8)), perm=[0, 3, 1, 2]), 8)


FORMS = {
    "grouped": random_graphs.PIECES[2],
    "depthwise, dilated": random_graphs.PIECES[1],
    "transposed": _transposed,
    "PReLU": _prelu,
    "hard-swish": _hard_swish,
    "gate": random_graphs.PIECES[5],
    "join": random_graphs.PIECES[6],
    "join of a part that is shared": _shared_join,
    "sum": random_graphs.PIECES[7],
    "matrices": _matrices,
}


def executed(model):
    """Of each node that multiplies by weights: the type that it works in."""
    core = openvino.Core()
    read = core.read_model(model.SerializeToString())
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        notes = node.get_rt_info()
        if notes["layerType"].astype(str) in ("Convolution", "Deconvolution", "FullyConnected"):
            kinds.append(notes["runtimePrecision"].astype(str))
    return kinds


@pytest.mark.parametrize("form", FORMS)
def test_the_products_are_in_8_bits(form):
    made = RandomGraph(0)
    made.to(made.node("Relu", made.last))
    FORMS[form](made)
    made.to(made.node("Relu", made.last))
    made.conv(5)
    model = made.model()
    images = Noise(np.random.default_rng(0).integers(0, 255, (2, *SIZE, 3), np.uint8))
    ranges = calibrate(model, images, "0" * 64).ranges()
    kinds = executed(quantize(model, ranges, "int8", []))
    assert len(kinds) > 2
    assert set(kinds) <= {"i8", "u8"}
    if form == "grouped":  # what is read of 8 bits is not read of float
        assert set(executed(model)) == {"f32"}


def test_a_transposed_convolution_in_groups_stays_in_float_and_is_named():
    made = RandomGraph(0)
    given = [made.normal(8, 4, 2, 2), made.normal(8)]
    made.to(made.node("ConvTranspose", made.last, *given, strides=[2, 2], group=2))
    made.conv(5)
    model = made.model()
    assert PLACEMENTS["int8"].unknown(model) == {"ConvTranspose": 1}
    images = Noise(np.random.default_rng(0).integers(0, 255, (2, *SIZE, 3), np.uint8))
    ranges = calibrate(model, images, "0" * 64).ranges()
    kinds = executed(quantize(model, ranges, "int8", []))
    assert kinds.count("f32") == 1
