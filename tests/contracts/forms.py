"""Whatever may stand between two convolutions in 8 bits.

A form is a function of a graph in the making, a `RandomGraph`, and of the tensor that comes last;
it returns the next.
"""

import numpy as np
from onnx import helper
from random_graphs import INSIDE

HEIGHT, WIDTH = INSIDE
CHANNELS = 8


def made(g, tensor, channels=None):
    """The tensor, of so many channels from here on."""
    g.to(tensor, channels)
    return tensor


def conv(g, v, outputs=None, kernel=3, group=1, **attributes):
    g.to(v)
    return g.conv(outputs or g.channels, kernel, group=group, **attributes)


def op(kind, *numbers, **attributes):
    """An operator of one tensor and some numbers."""
    return lambda g, v: g.node(kind, v, *map(g.number, numbers), **attributes)


def by_channel(g, low, high, rank=4):
    shape = (1, g.channels, 1, 1)[4 - rank :]
    return g.constant(g.random.uniform(low, high, shape).astype(np.float32))


def with_channels(kind, low, high, rank=4):
    """An operator of a tensor and a constant for each channel."""
    return lambda g, v: g.node(kind, v, by_channel(g, low, high, rank))


def norm(g, v):
    bounds = ((0.5, 2), (-1, 1), (-0.5, 0.5), (0.5, 2))
    given = [by_channel(g, *each, 3) for each in bounds]
    flat = [g.node("Flatten", name, axis=0) for name in given]
    names = [g.node("Squeeze", name, g.sides(0)) for name in flat]
    return g.node("BatchNormalization", v, *names)


def then(*forms):
    """One after the other."""

    def chain(g, v):
        for form in forms:
            v = form(g, v)
        return v

    return chain


def pool(kind, size, stride=1, pad=0, rank=2, **attributes):
    sizes = {"kernel_shape": [size] * rank, "strides": [stride] * rank, "pads": [pad] * 2 * rank}
    if "auto_pad" in attributes:
        del sizes["pads"]
    return lambda g, v: g.node(kind, v, **sizes, **attributes)


def resize(mode, height, width, rule="half_pixel", rounding="round_prefer_floor"):
    def form(g, v):
        sizes = g.sides(1, g.channels, height, width)
        how = {"mode": mode, "coordinate_transformation_mode": rule, "nearest_mode": rounding}
        return g.node("Resize", v, "", "", sizes, **how)

    return form


def two(kind, other, swapped=False):
    """An operator of a tensor and of what a form makes of it."""

    def form(g, v):
        channels = g.channels
        names = [v, other(g, v)]
        g.to(v, channels)
        return g.node(kind, *(names[::-1] if swapped else names))

    return form


def joined(*others, behind=lambda g, v: v):
    """What forms make of a tensor, before that tensor, and a form behind."""

    def form(g, v):
        channels, parts, total = g.channels, [], g.channels
        for other in others:
            parts.append(other(g, v))
            total += g.channels
            g.to(v, channels)
        whole = g.node("Concat", *parts, v, axis=1)
        g.to(whole, total)
        return behind(g, whole)

    return form


def split(count, *order, first=lambda g, v: v):
    """Parts of a tensor, joined again in an order; a form changes the first of them."""

    def form(g, v):
        channels = g.channels // count
        names = [f"part_{len(g.nodes)}_{index}" for index in range(count)]
        g.nodes.append(helper.make_node("Split", [v], names, names[0], axis=1, num_outputs=count))
        g.to(names[0], channels)
        parts = [first(g, names[0]), *names[1:]]
        whole = g.node("Concat", *(parts[i] for i in order), axis=1) if order[1:] else parts[0]
        return made(g, whole, channels * len(order))

    return form


def gathered(count=None, axis=1, repeats=1, backwards=False):
    """Channels in another order: all of them, or so many."""

    def form(g, v):
        along = g.channels if axis in (1, -3) else INSIDE[axis - 2]
        order = np.concatenate([g.random.permutation(along) for _ in range(repeats)])[:count]
        order = np.arange(along)[::-1] if backwards else order
        whole = g.node("Gather", v, g.sides(*order), axis=axis)
        return made(g, whole, len(order) if axis in (1, -3) else None)

    return form


def shuffled(groups):
    def form(g, v):
        sides = g.sides(1, groups, g.channels // groups, *INSIDE)
        turned = g.node("Transpose", g.node("Reshape", v, sides), perm=[0, 2, 1, 3, 4])
        return g.node("Reshape", turned, g.sides(1, g.channels, *INSIDE))

    return form


def last(form):
    """A form of tensors whose channels come last."""

    def turned(g, v):
        rows = g.node("Transpose", v, perm=[0, 2, 3, 1])
        return g.node("Transpose", form(g, rows), perm=[0, 3, 1, 2])

    return turned


def matrix(g, v):
    product = g.node("MatMul", v, g.normal(g.channels, g.channels))
    return g.node("Add", product, g.normal(g.channels))


def sliced(starts, ends, axes, steps=(), channels=None):
    def form(g, v):
        given = [starts, ends, axes, *([steps] if steps else [])]
        return made(g, g.node("Slice", v, *(g.sides(*each) for each in given)), channels)

    return form


def padded(mode="constant", *value, sides=(0, 0, 1, 1, 0, 0, 1, 1)):
    return lambda g, v: g.node("Pad", v, g.sides(*sides), *map(g.number, value), mode=mode)


def wide(kernel=2, pad=0, group=1, more=0):
    """A transposed convolution, and a pool back."""

    def form(g, v):
        parts = group or g.channels
        weight = g.normal(g.channels, g.channels // parts, kernel, kernel)
        sizes = {"strides": [2, 2], "pads": [pad] * 4, "output_padding": [more] * 2}
        bias = g.normal(g.channels, scale=0.3)
        up = g.node("ConvTranspose", v, weight, bias, group=parts, **sizes)
        return g.node("MaxPool", up, kernel_shape=[2, 2], strides=[2, 2])

    return form


def pixels(mode):
    def form(g, v):
        up = conv(g, v, 4 * CHANNELS, 1)
        return made(g, g.node("DepthToSpace", up, blocksize=2, mode=mode), CHANNELS)

    return then(form, pool("MaxPool", 2, 2))


def gate(g, v, sigmoid="HardSigmoid"):
    channels = g.channels
    squeezed = conv(g, g.node("GlobalAveragePool", v), 4, 1)
    factor = g.node(sigmoid, conv(g, g.node("Relu", squeezed), channels, 1))
    return g.node("Mul", v, factor)


def attention(g, v):
    rows = g.node("Reshape", v, g.sides(1, g.channels, HEIGHT * WIDTH))
    scores = g.node("MatMul", rows, g.node("Transpose", rows, perm=[0, 2, 1]))
    mixed = g.node("MatMul", g.node("Softmax", scores, axis=-1), rows)
    return g.node("Reshape", mixed, g.sides(1, g.channels, *INSIDE))


def reshaped(*sides, inside=lambda g, v: v):
    """To a shape and back, and a form of the same sides in between."""

    def form(g, v):
        made = inside(g, g.node("Reshape", v, g.sides(*sides)))
        return g.node("Reshape", made, g.sides(1, -1, *INSIDE))

    return form


NOTHING = then()
RELU, DOWN = op("Relu"), {"strides": [2, 2]}


def thin(g, v):
    return conv(g, v, 4)


def other(g, v):
    return g.node("Relu", conv(g, v))


def depthwise(g, v):
    return conv(g, v, group=g.channels)


FORMS = {
    "nothing": NOTHING,
    "ReLU": RELU,
    "ReLU6": op("Clip", 0, 6),
    "Clip across zero": op("Clip", -1, 1),
    "Clip above zero": op("Clip", 0.2, 1),
    "PReLU": with_channels("PRelu", 0.05, 0.6, 3),
    "PReLU of any slope": with_channels("PRelu", -0.5, 1.5, 3),
    "PReLU of one slope": op("PRelu", 0.25),
    "LeakyReLU": op("LeakyRelu", alpha=0.1),
    "sigmoid": op("Sigmoid"),
    "HardSigmoid": op("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hard swish": op("HardSwish"),
    "SiLU": two("Mul", op("Sigmoid")),
    "tanh": op("Tanh"),
    "softmax": op("Softmax", axis=1),
    "absolute": op("Abs"),
    "batch norm": norm,
    "batch norm, ReLU": then(norm, RELU),
    "layer norm": last(
        lambda g, v: g.node("LayerNormalization", v, g.normal(g.channels), g.normal(g.channels))
    ),
    "times a number": op("Mul", -0.7),
    "times channels": with_channels("Mul", -1, 1),
    "plus a number": op("Add", 0.5),
    "plus channels": with_channels("Add", -1, 1),
    "less a number": op("Sub", 0.5),
    "by channels": with_channels("Div", 0.5, 2),
    "sum": two("Add", conv),
    "sum, ReLU": then(two("Add", conv), RELU),
    "sum, PReLU": then(two("Add", conv), with_channels("PRelu", 0.05, 0.6, 3)),
    "sum of a depthwise one": two("Add", depthwise),
    "sum with itself": two("Add", NOTHING),
    "difference": two("Sub", conv),
    "product": two("Mul", conv),
    "largest of two": two("Max", conv),
    "gate": gate,
    "sigmoid gate": lambda g, v: gate(g, v, "Sigmoid"),
    "plus its mean": two("Add", op("GlobalAveragePool")),
    "mean, resized": then(op("GlobalAveragePool"), resize("linear", *INSIDE)),
    "mean over axes": two("Add", lambda g, v: g.node("ReduceMean", v, g.sides(2, 3))),
    "largest over axes": two("Add", lambda g, v: g.node("ReduceMax", v, g.sides(2, 3))),
    "max pool": pool("MaxPool", 3, 1, 1),
    "max pool, smaller": pool("MaxPool", 3, 2, 1),
    "average pool": pool("AveragePool", 2, 2),
    "average pool, border left out": pool("AveragePool", 3, 1, 1),
    "average pool, border counted": pool("AveragePool", 3, 1, 1, count_include_pad=1),
    "average pool, few pixels": pool("AveragePool", 3, 2, 1, count_include_pad=1),
    "average pool, many taps": pool("AveragePool", 7, 2, 3, count_include_pad=1),
    "average pool, same sides": pool("AveragePool", 3, auto_pad="SAME_UPPER", count_include_pad=1),
    "average pool, resized": then(
        pool("AveragePool", 3, 2, 1, count_include_pad=1), resize("linear", *INSIDE)
    ),
    "average pool of rows": reshaped(
        1, CHANNELS, -1, inside=pool("AveragePool", 3, 1, 1, 1, count_include_pad=1)
    ),
    "average pool of a volume": reshaped(
        1, 2, -1, *INSIDE, inside=pool("AveragePool", 3, 1, 1, 3, count_include_pad=1)
    ),
    "padded, average pool": then(padded(), pool("AveragePool", 3)),
    "padded, dropped out, average pool": then(padded(), op("Dropout"), pool("AveragePool", 3)),
    "padded, max pool": then(padded(), pool("MaxPool", 3)),
    "padded by -1e9, max pool": then(padded("constant", -1e9), pool("MaxPool", 3)),
    "padded by -1e9, joined, max pool": then(
        padded("constant", -1e9), joined(NOTHING), pool("MaxPool", 3)
    ),
    "padded": padded(),
    "padded by ones": padded("constant", 1),
    "padded by reflection": padded("reflect"),
    "padded by its edge": padded("edge"),
    "nearest": then(resize("nearest", 8, 12, "asymmetric", "floor"), pool("MaxPool", 2, 2)),
    "nearest, no whole factor": resize("nearest", 7, 9),
    "bilinear": resize("linear", 8, 12),
    "bilinear, corners": resize("linear", 8, 12, "align_corners"),
    "bilinear, smaller": resize("linear", 2, 3),
    "cubic": resize("cubic", 8, 12),
    "pixel shuffle": pixels("CRD"),
    "depth to space": pixels("DCR"),
    "space to depth": lambda g, v: made(g, g.node("SpaceToDepth", v, blocksize=2), 4 * g.channels),
    "some channels": sliced([1], [7], [1], channels=6),
    "every other channel": sliced([0], [8], [1], [2], channels=4),
    "channels reversed": sliced([-1], [-99], [1], [-1]),
    "some pixels": sliced([1, 0], [3, 5], [2, 3]),
    "every other pixel": sliced([0, 0], [4, 6], [2, 3], [2, 2]),
    "halves swapped": split(2, 1, 0),
    "a half": split(2, 0),
    "a half through a ReLU": split(2, 1, 0, first=RELU),
    "a half through a convolution": split(2, 1, 0, first=conv),
    "a half through a convolution and ReLU": split(2, 1, 0, first=other),
    "quarters turned": split(4, 2, 0, 3, 1),
    "thirds turned": then(lambda g, v: conv(g, v, 12, 1), split(3, 1, 2, 0)),
    "three channels turned": then(lambda g, v: conv(g, v, 3, 1), split(3, 1, 2, 0)),
    "sides turned": lambda g, v: g.node("Transpose", v, perm=[0, 1, 3, 2]),
    "channels last, ReLU": last(RELU),
    "reshaped": reshaped(1, CHANNELS, -1),
    "groups of channels": shuffled(2),
    "groups of two": shuffled(4),
    "channels in another order": gathered(),
    "another order, ReLU": then(gathered(), RELU),
    "another order, batch norm": then(gathered(), norm),
    "another order, plus channels": then(gathered(), with_channels("Add", -1, 1)),
    "another order, PReLU": then(gathered(), with_channels("PRelu", 0.05, 0.6, 3)),
    "another order, max pool": then(gathered(), pool("MaxPool", 3, 1, 1)),
    "another order twice": then(gathered(), gathered()),
    "half of the channels": gathered(4),
    "channels twice": gathered(repeats=2),
    "rows in another order": gathered(axis=2),
    "axis from the last": gathered(axis=-3),
    "repeated": lambda g, v: g.node("Tile", v, g.sides(1, 1, 2, 2)),
    "identity": op("Identity"),
    "join": joined(thin),
    "join, ReLU": joined(thin, behind=RELU),
    "join, ReLU6": joined(thin, behind=op("Clip", 0, 6)),
    "join, PReLU": joined(thin, behind=with_channels("PRelu", 0.05, 0.6, 3)),
    "join, LeakyReLU": joined(thin, behind=op("LeakyRelu", alpha=0.1)),
    "join, hard swish": joined(thin, behind=op("HardSwish")),
    "join, sigmoid": joined(thin, behind=op("Sigmoid")),
    "join, batch norm, ReLU": joined(thin, behind=then(norm, RELU)),
    "join, times channels": joined(thin, behind=with_channels("Mul", 0.5, 2)),
    "join, max pool": joined(thin, behind=pool("MaxPool", 3, 1, 1)),
    "join, average pool": joined(thin, behind=pool("AveragePool", 3, 1, 1, count_include_pad=1)),
    "join, bilinear": joined(thin, behind=resize("linear", 8, 12)),
    "join, nearest": joined(thin, behind=resize("nearest", 8, 12, "asymmetric", "floor")),
    "join, padded": joined(thin, behind=padded()),
    "join, sides turned": joined(
        thin, behind=lambda g, v: g.node("Transpose", v, perm=[0, 1, 3, 2])
    ),
    "join, some channels": joined(thin, behind=sliced([2], [9], [1], channels=7)),
    "join, groups of channels": joined(conv, behind=shuffled(2)),
    "join, another order": joined(conv, behind=gathered()),
    "join, reversed": joined(conv, behind=gathered(backwards=True)),
    "join, split": joined(conv, behind=split(2, 0)),
    "join, sum": joined(thin, behind=two("Add", conv)),
    "join, gate": joined(thin, behind=gate),
    "join, matrix": joined(thin, behind=last(matrix)),
    "join, depth to space": joined(
        conv, behind=lambda g, v: made(g, g.node("DepthToSpace", v, blocksize=2), 4)
    ),
    "join of another order": joined(then(conv, gathered())),
    "join of itself": joined(NOTHING),
    "join of a pool": joined(pool("MaxPool", 3, 1, 1)),
    "join of an average pool": joined(pool("AveragePool", 3, 1, 1, count_include_pad=1)),
    "join of a resize": joined(then(lambda g, v: conv(g, v, 4, **DOWN), resize("linear", *INSIDE))),
    "join of a repetition": joined(
        then(lambda g, v: conv(g, v, 4, **DOWN), resize("nearest", *INSIDE, "asymmetric", "floor"))
    ),
    "join of dilations": joined(lambda g, v: conv(g, v, 4, dilations=[2, 2]), thin),
    "join of joins": joined(other, behind=joined(other, behind=RELU)),
    "transposed convolution": wide(),
    "transposed convolution, ReLU": then(wide(), RELU),
    "transposed convolution, 3": wide(3, 1, 1, 1),
    "transposed convolution, 4": wide(4, 1),
    "transposed convolution in groups": wide(2, 0, 2),
    "transposed convolution, depthwise": wide(4, 1, 0),
    "matrix": last(matrix),
    "matrix, ReLU": last(then(matrix, RELU)),
    "attention": attention,
    "depthwise": depthwise,
    "depthwise, dilated": lambda g, v: conv(g, v, group=g.channels, dilations=[2, 2]),
    "in groups": lambda g, v: conv(g, v, group=2),
    "no bias": lambda g, v: g.node("Conv", v, g.normal(g.channels, g.channels, 3, 3), pads=[1] * 4),
    "padded on one side": lambda g, v: g.node(
        "Conv", v, g.normal(g.channels, g.channels, 3, 3), g.normal(g.channels), pads=[0, 0, 2, 2]
    ),
    "normalized": two("Div", lambda g, v: g.node("ReduceL2", v, g.sides(1))),
}
