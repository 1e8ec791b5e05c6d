"""Whatever operators stand in a row: a graph in 8 bits answers nearly as it does in float."""

from functools import cache, partial

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import PIECES, SIZE, random_graph

from icnet_deploy.calibration.calibrate import calibrate, open_session
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.products import products
from icnet_deploy.calibration.quantize import quantize

LEAST = 10 ** (15 / 20)
"""The least that an answer may be larger than what 8 bits change of it: 15 dB."""


class Images(list):
    """Squares of colours with noise, which stand for a `CalibrationSet`."""

    hashes = tuple(f"{index:064x}" for index in range(3))

    def first(self, count):
        return self[:count]


@cache
def images():
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (3, 2, 3, 3)).repeat(4, 1).repeat(4, 2)
    noisy = coarse + random.normal(0, 15, (3, *SIZE, 3))
    return Images(noisy.clip(0, 255).astype(np.uint8))


def on_onnxruntime(model):
    session = open_session(model)
    return np.stack([session.run(None, {"image": image[None]})[0] for image in images()])


def on_openvino(model):
    import openvino

    core = openvino.Core()
    read = core.read_model(model.SerializeToString())
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.stack([compiled(image[None])[0].copy() for image in images()])


def near(answer, exact):
    return np.linalg.norm(exact) > LEAST * np.linalg.norm(answer - exact)


rows = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4)


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.__name__)
def test_of_each_piece_alone_all_is_near(piece):
    model = random_graph(0, [piece], True)
    exact = on_onnxruntime(model)
    ranges = calibrate(model, images(), "0" * 64).ranges("minmax")
    for placement in PLACEMENTS:
        assert near(on_onnxruntime(quantize(model, ranges, placement, [])), exact), placement


def dead_filters(g, least):
    """A convolution half of whose filters are next to nothing beside their bias, and another."""
    size = np.where(np.arange(8) % 2, 1, least).reshape(8, 1, 1, 1)
    weight = g.random.normal(0, 0.2, (8, g.channels, 3, 3)) * size
    given = [g.constant(weight.astype(np.float32)), g.constant(np.linspace(-2, 2, 8, dtype="f"))]
    g.to(g.node("Conv", g.last, *given, pads=[1] * 4), 8)
    g.conv(5, 3)


def flat_gate(g):
    """A gate that is the same number everywhere."""
    g.to(g.node("HardSigmoid", g.conv(8), alpha=0.0, beta=0.5))
    g.conv(5, 3)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    "piece",
    [partial(dead_filters, least=0), partial(dead_filters, least=1e-12), flat_gate],
    ids=["no weights", "small weights", "flat gate"],
)
def test_what_a_trained_network_seldom_holds_is_near(piece, placement):
    """ONNX Runtime makes an int32 of a bias of float32, and cuts it off where weights are small."""
    model = random_graph(0, [piece], False)
    ranges = calibrate(model, images(), "0" * 64).ranges("minmax")
    ours = quantize(model, ranges, placement, [])
    assert near(on_onnxruntime(ours), on_onnxruntime(model))


@settings(max_examples=7, deadline=None, derandomize=True)
@given(st.integers(0, 999), rows, st.booleans(), st.sampled_from(sorted(PLACEMENTS)))
def test_it_answers_nearly_as_in_float(seed, pieces, classifier, placement):
    model = random_graph(seed, pieces, classifier)
    exact = on_onnxruntime(model)
    ranges = calibrate(model, images(), "0" * 64).ranges("minmax")
    for exclude in (None, []):
        graph = quantize(model, ranges, placement, exclude)
        onnx.checker.check_model(graph, full_check=True)
        assert near(on_onnxruntime(graph), exact), [p.__name__ for p in pieces]
    assert products(graph).in_8_bits > 0


@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.integers(0, 999), rows, st.sampled_from(sorted(PLACEMENTS)))
def test_openvino_answers_so_too(seed, pieces, placement):
    pytest.importorskip("openvino")
    model = random_graph(seed, pieces, True)
    graph = quantize(model, calibrate(model, images(), "0" * 64).ranges("minmax"), placement)
    assert near(on_openvino(graph), on_onnxruntime(model)), [p.__name__ for p in pieces]
