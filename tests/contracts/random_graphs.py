"""Random small graphs of the operators that networks hold, for properties of every one of them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

SIZE = (8, 12)
INSIDE = (4, 6)


class RandomGraph:
    """A graph in the making, of channels first, 4 x 6 inside.

    Attributes:
        last: the tensor that comes next.
        channels: how many it has.
    """

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants = [], []
        pixels = self.node("Cast", "image", to=TensorProto.FLOAT)
        scaled = self.node("Mul", self.node("Sub", pixels, self.number(120)), self.number(1 / 60))
        self.last, self.channels = self.node("Transpose", scaled, perm=[0, 3, 1, 2]), 3
        self.conv(8, 3, strides=[2, 2])

    def node(self, kind, *inputs, **attributes):
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, value):
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def number(self, value):
        return self.constant(np.float32(value))

    def sides(self, *values):
        return self.constant(np.int64(values))

    def normal(self, *shape, scale=None):
        scale = scale or 1.4 / np.sqrt(max(np.prod(shape[1:]), 1))
        return self.constant(self.random.normal(0, scale, shape).astype(np.float32))

    def to(self, tensor, channels=None):
        self.last, self.channels = tensor, channels or self.channels

    def conv(self, outputs, kernel=1, source=None, **attributes):
        inputs = self.channels // attributes.get("group", 1)
        given = [self.normal(outputs, inputs, kernel, kernel), self.normal(outputs, scale=0.3)]
        pads = [attributes.get("dilations", [1])[0] * (kernel // 2)] * 4
        self.to(self.node("Conv", source or self.last, *given, pads=pads, **attributes), outputs)
        return self.last

    def model(self):
        self.nodes.append(helper.make_node("Identity", [self.last], ["logits"], "logits"))
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *SIZE, 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None] * 4)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def _dense(g):
    g.conv(int(g.random.choice([4, 8, 12])), 3)


def _depthwise(g):
    g.conv(g.channels, 3, group=g.channels, dilations=[2, 2])
    g.conv(8)


def _grouped(g):
    g.conv(g.channels, 3, group=2)


def _transposed(g):
    group = int(g.random.choice([1, 2, g.channels]))
    given = [g.normal(g.channels, g.channels // group, 2, 2), g.normal(g.channels, scale=0.3)]
    wide = g.node("ConvTranspose", g.last, *given, strides=[2, 2], group=group)
    g.to(g.node("MaxPool", wide, kernel_shape=[2, 2], strides=[2, 2]))


def _activation(g):
    kind = str(g.random.choice(["Relu", "PRelu", "HardSwish", "Clip", "Tanh"]))
    slope = [g.normal(g.channels, 1, 1, scale=0.3)] if kind == "PRelu" else []
    ends = [g.number(0), g.number(6)] if kind == "Clip" else []
    g.to(g.node(kind, g.last, *slope, *ends))


def _gate(g):
    value, channels = g.last, g.channels
    g.conv(4, source=g.node("GlobalAveragePool", value))
    g.to(g.node("Relu", g.last))
    g.conv(channels)
    g.to(g.node("Mul", value, g.node("HardSigmoid", g.last)))


def _join(g):
    value, channels = g.last, g.channels
    part = g.conv(4, 3)
    g.to(g.node("Concat", g.node("Relu", part), value, part, axis=1), channels + 8)
    if g.random.integers(2):
        g.to(g.node("Relu", g.last))


def _sum(g):
    value = g.last
    g.to(g.node("Relu", g.node("Add", g.conv(g.channels, 3), value)))


def _shuffle(g):
    g.conv(16)
    g.to(g.node("DepthToSpace", g.last, blocksize=2), 4)
    g.to(g.node("AveragePool", g.last, kernel_shape=[2, 2], strides=[2, 2]))


def _pyramid(g):
    value, channels = g.last, g.channels
    g.conv(channels, source=g.node("ReduceMean", value, g.sides(2, 3)))
    wide = g.node("Resize", g.last, "", "", g.sides(1, channels, *INSIDE), mode="linear")
    g.to(g.node("Concat", wide, value, axis=1), 2 * channels)


def _attention(g):
    count, area = g.channels, INSIDE[0] * INSIDE[1]
    flat = g.node("Reshape", g.last, g.sides(1, count, area))
    rows = g.node("Transpose", flat, perm=[0, 2, 1])
    rows = g.node("LayerNormalization", rows, g.normal(count, scale=1.0), g.normal(count))
    query, key, value = (g.node("MatMul", rows, g.normal(count, count)) for _ in range(3))
    value = g.node("Add", value, g.normal(count, scale=0.3))
    scores = g.node("MatMul", query, g.node("Transpose", key, perm=[0, 2, 1]))
    mixed = g.node("MatMul", g.node("Softmax", scores, axis=-1), value)
    back = g.node("Transpose", g.node("Add", mixed, rows), perm=[0, 2, 1])
    g.to(g.node("Reshape", back, g.sides(1, count, *INSIDE)))


def _split(g):
    """One half is joined, behind a ReLU, to what a convolution makes of the other."""
    count = g.channels // 2
    names = [f"half_{len(g.nodes)}_{i}" for i in range(2)]
    g.nodes.append(helper.make_node("Split", [g.last], names, names[0], axis=1, num_outputs=2))
    g.to(names[0], count)
    joined = g.node("Concat", names[1], g.conv(4, source=names[0]), axis=1)
    g.to(g.node("Relu", joined), count + 4)


def _halves(g):
    names = [f"half_{len(g.nodes)}_{i}" for i in range(2)]
    g.nodes.append(helper.make_node("Split", [g.last], names, names[0], axis=1, num_outputs=2))
    g.to(g.node("Concat", names[1], g.node("LeakyRelu", names[0]), axis=1))


PIECES = (
    *(_dense, _depthwise, _grouped, _transposed, _activation, _gate, _join, _sum),
    *(_shuffle, _pyramid, _attention, _split, _halves),
)


def random_graph(seed, pieces, classifier):
    """A float32 graph that sees an image of `SIZE` and gives logits of `INSIDE`."""
    made = RandomGraph(seed)
    for piece in pieces:
        piece(made)
    if classifier:
        made.conv(5)
    return made.model()
