"""Cross-layer equalization: channels of one tensor scaled to like ranges, the function unchanged.

One 8-bit grid serves all channels of a tensor, so a quiet channel beside a loud one is left with
few steps. What treats each channel alone and commutes with a positive factor (`channels.py`) lets
the channels that it connects share one: divided by it where weights make them, multiplied by it
where weights read them.

M. Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV
2019, section 4.1, weigh the weights of two layers against one another; here the ranges are those
that the activations took. Equal ranges would leave the weights that read them as unlike as the
ranges were, and those are rounded, too: so a factor is the square root of what would make ranges
equal. A depthwise convolution has a grid for each channel that it reads, so that where no other
weights read a channel, ranges are made equal.
"""

from collections.abc import Mapping

import numpy as np
import onnx

from icnet_deploy.calibration.channels import Channels
from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.histogram import Float, TensorStatistics

Factors = Mapping[str, Float]
"""The first tensor that holds channels -> a positive factor for each of its channels."""

_STRENGTH = 0.5
_QUIETEST = 1 / 16  # a channel below this share of the loudest is taken to be this loud


def factors_of(
    model: onnx.ModelProto,
    statistics: Mapping[str, TensorStatistics],
    normalized: bool = False,
) -> dict[str, Float]:
    """Chooses the factors of all channels that only weights make and read.

    Args:
        model: a float32 graph.
        statistics: what its tensors did; a channel of none of them is left as it is.
        normalized: whether those that a LayerNormalization makes get factors, too.
    """
    channels = Channels(Graph(model))
    count = len(channels.alive(normalized))
    total, seen = np.zeros(count), np.zeros(count)
    free = channels.alive(normalized)
    for name, places in channels.tensors.items():
        if name not in statistics or statistics[name].highest.size != places.size:
            continue
        ranges = statistics[name].highest
        roots = channels.roots(places)
        if ranges.max() <= 0:
            free[roots] = False
            continue
        np.add.at(total, roots, np.log(np.maximum(ranges / ranges.max(), _QUIETEST)))
        np.add.at(seen, roots, 1)
    strength = np.where(channels.read_apart(), 1.0, _STRENGTH)
    free &= seen > 0
    factor = np.where(free, np.exp(strength * total / np.maximum(seen, 1)), 1.0)
    chosen: dict[str, Float] = {}
    for name, places in channels.tensors.items():
        roots = channels.roots(places)
        if free[roots].any():
            chosen[name] = factor[roots]
            free[roots] = False
    return chosen


def equalized(model: onnx.ModelProto, factors: Factors) -> onnx.ModelProto:
    """A copy with scaled weights and biases, which computes the same.

    Raises:
        ValueError: the factors are those of another graph.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if not factors:
        return result
    graph = Graph(result)
    channels = Channels(graph)
    alive = channels.alive(normalized=True)
    uses = [(use, channels.roots(use.places)) for use in channels.uses]
    # One after another: a weight that two of them scale is rounded twice, in this order.
    for name, chosen in factors.items():
        places = channels.roots(channels.tensors.get(name, np.zeros(0, np.int64)))
        scale = np.ones(alive.size)
        fitting = places.size == chosen.size
        if fitting:
            scale[places] = chosen
            fitting = bool((scale[places] == chosen).all() and (alive | (scale == 1)).all())
        if not fitting:
            raise ValueError(f"the factors of {name} belong to another graph")
        for use, roots in uses:
            by = scale[roots]
            if (by != 1).any():
                value = graph.array(use.constant)
                wide = use.spread(1 / by if use.makes else by, value.shape)
                graph.add_constant(use.constant, (value * wide).astype(np.float32))
    return result
