"""Which channels can be scaled together, and that scaling them changes no answer."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.calibration.calibrate import collect, open_session
from icnet_deploy.calibration.channels import Channels
from icnet_deploy.calibration.equalize import equalized, factors_of
from icnet_deploy.calibration.graph import Graph

SIZE = (8, 12)
CHANNELS = 8


class Made:
    """A graph in the making: an image, float of 4 channels; each node's output has its name."""

    def __init__(self):
        self.nodes, self.constants = [], []
        self.random = np.random.default_rng(0)
        pixels = self.node("Cast", "pixels", "image", to=TensorProto.FLOAT)
        self.node("Transpose", "planes", pixels, perm=[0, 3, 1, 2])

    def node(self, kind, name, *inputs, **attributes):
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def constant(self, name, *shape, value=None):
        value = self.random.normal(0, 0.5, shape) if value is None else value
        value = np.asarray(value, np.float32 if np.asarray(value).dtype == float else np.int64)
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def conv(self, name, image, inputs=CHANNELS, outputs=CHANNELS, kernel=1, **attributes):
        shape = (outputs, inputs // attributes.get("group", 1), kernel, kernel)
        weight = (
            self.random.normal(0, 0.5, shape) * np.geomspace(1, 4, outputs)[:, None, None, None]
        )
        self.constant(f"{name}.weight", value=weight)
        self.constant(f"{name}.bias", outputs)
        pads = [kernel // 2] * 4
        inputs = (image, f"{name}.weight", f"{name}.bias")
        return self.node("Conv", name, *inputs, pads=pads, **attributes)

    def model(self):
        """With a last convolution as the output."""
        graph = helper.make_graph(
            self.nodes,
            "made",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *SIZE, 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def _prelu(m, x):
    return m.node(
        "PRelu", "y", x, m.constant("slope", value=m.random.normal(0, 1, (CHANNELS, 1, 1)))
    )


def _gate(m, x):
    mean = m.node("GlobalAveragePool", "mean", x)
    gate = m.node("Sigmoid", "gate", m.conv("squeeze", mean))
    return m.node("Mul", "y", x, gate)


def _shift(m, x):
    return m.node("Add", "y", x, m.constant("shift", 1, CHANNELS, 1, 1))


def _norm(m, x):
    given = [m.constant(n, CHANNELS) for n in ("gamma", "beta", "mean")]
    given.append(m.constant("variance", value=m.random.uniform(0.5, 2, CHANNELS)))
    return m.node("BatchNormalization", "y", x, *given)


def _matrix(m, x):
    """To channels last, through a matrix, and back."""
    rows = m.node("Reshape", "rows", x, m.constant("flat", value=[1, CHANNELS, -1]))
    rows = m.node("Transpose", "turned", rows, perm=[0, 2, 1])
    made = m.node("MatMul", "made", rows, m.constant("matrix", CHANNELS, CHANNELS))
    made = m.node("Add", "added", made, m.constant("added.bias", CHANNELS))
    back = m.node("Transpose", "back", made, perm=[0, 2, 1])
    return m.node("Reshape", "y", back, m.constant("wide", value=[1, CHANNELS, *SIZE]))


def _layer_norm(m, x):
    last = m.node("Transpose", "last", x, perm=[0, 2, 3, 1])
    given = [m.constant(n, CHANNELS) for n in ("gain", "shift")]
    return m.node(
        "Transpose", "y", m.node("LayerNormalization", "n", last, *given), perm=[0, 3, 1, 2]
    )


def _concat(m, x):
    """With channels of the image, which stay as they are."""
    return m.node("Concat", "y", x, "planes", m.conv("other", "planes", 3, 5), axis=1)


def _split(m, x):
    m.nodes.append(
        helper.make_node("Split", [x], ["left", "right"], "split", axis=1, num_outputs=2)
    )
    return m.node("Concat", "y", "right", m.node("Abs", "positive", "left"), axis=1)


# form -> (what stands between two convolutions, channels behind it, numbers that are free)
FORMS = {
    "relu": (lambda m, x: m.node("Relu", "y", x), CHANNELS, 8),
    "leaky": (lambda m, x: m.node("LeakyRelu", "y", x, alpha=-0.2), CHANNELS, 8),
    "prelu": (_prelu, CHANNELS, 8),
    "sum": (lambda m, x: m.node("Add", "y", x, m.conv("skip", "planes", 3)), CHANNELS, 8),
    "shift": (_shift, CHANNELS, 8),
    "norm": (_norm, CHANNELS, 16),
    "mean": (lambda m, x: m.node("ReduceMean", "y", x, m.constant("a", value=[2, 3])), CHANNELS, 8),
    "gate": (_gate, CHANNELS, 8),
    "depthwise": (lambda m, x: m.conv("y", x, kernel=3, group=CHANNELS), CHANNELS, 16),
    "groups": (lambda m, x: m.conv("y", x, kernel=3, group=2), CHANNELS, 16),
    "concat": (_concat, CHANNELS + 8, 13),
    "split": (_split, CHANNELS, 8),
    "shuffle": (lambda m, x: m.node("DepthToSpace", "y", x, blocksize=2), CHANNELS // 4, 2),
    "shuffle of CRD": (
        lambda m, x: m.node("DepthToSpace", "y", x, blocksize=2, mode="CRD"),
        CHANNELS // 4,
        2,
    ),
    "matrix": (_matrix, CHANNELS, 16),
    "layer norm": (_layer_norm, CHANNELS, 0),
    "hard-swish": (lambda m, x: m.node("HardSwish", "y", x), CHANNELS, 0),
    "clip": (lambda m, x: m.node("Clip", "y", x, m.constant("low", value=0.0)), CHANNELS, 8),
    "negative": (lambda m, x: m.node("Sub", "y", x, m.conv("b", "planes", 3)), CHANNELS, 8),
}


def made(form):
    between, channels, _ = FORMS[form]
    m = Made()
    m.conv("logits", between(m, m.conv("first", "planes", 3)), channels, 4)
    return m.model()


def answers(model, images):
    session = open_session(model)
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


@pytest.fixture(scope="module")
def images():
    return list(np.random.default_rng(1).integers(0, 255, (2, *SIZE, 3), np.uint8))


@pytest.mark.parametrize("form", FORMS)
def test_scaled_channels_change_no_answer(form, images):
    model = made(form)
    channels = Channels(Graph(model))
    free = channels.alive(normalized=False)
    roots = {int(r) for places in channels.tensors.values() for r in channels.roots(places)}
    assert sum(free[root] for root in roots) == FORMS[form][2]
    factors = factors_of(model, collect(model, images), normalized=True)
    changed = equalized(model, factors)
    before, after = answers(model, images), answers(changed, images)
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max())
    assert (changed != model) == (FORMS[form][2] > 0 or form == "layer norm")


def test_a_layer_norm_gets_factors_where_that_is_asked_for(images):
    model = made("layer norm")
    statistics = collect(model, images)
    assert not factors_of(model, statistics)
    assert list(factors_of(model, statistics, normalized=True)) == ["n"]


def test_ranges_are_made_equal_where_only_a_depthwise_convolution_reads_them(images):
    model = made("depthwise")
    statistics = collect(model, images)
    after = collect(equalized(model, factors_of(model, statistics)), images)

    def spread(found):
        return found.highest.max() / found.highest.min()

    assert spread(after["first"]) < 1.001 < 3 < spread(statistics["first"])
    assert 1.2 < spread(after["y"]) < spread(statistics["y"])


def test_parts_of_a_concat_come_to_like_ranges_and_the_image_in_it_stays(images):
    model = made("concat")
    statistics = collect(model, images)
    factors = factors_of(model, statistics)
    assert list(factors) == ["first", "other"]
    after = collect(equalized(model, factors), images)["y"].highest
    np.testing.assert_allclose(after[8:11], statistics["y"].highest[8:11], rtol=1e-5)
    assert after.max() / after.min() < statistics["y"].highest.max() / statistics["y"].highest.min()


def test_factors_of_another_graph_are_refused(images):
    model = made("relu")
    factors = factors_of(model, collect(model, images))
    for other in ("hard-swish", "shuffle"):
        with pytest.raises(ValueError, match="the factors of first belong to another graph"):
            equalized(made(other), factors)
    assert equalized(onnx.ModelProto.FromString(model.SerializeToString()), {}) == model
