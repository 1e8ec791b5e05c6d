"""Second moments of what nodes read, in one pass over the images: all that rounding needs of them.

The output of a node is its weights W times a patch x of its input. With other weights V it changes
by (V - W) x, in the mean of the squares by (V - W) E[x x^T] (V - W)^T: whatever V is, that takes
E[x x^T] alone and no image any more.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt
import onnx

from icnet_deploy.calibration.calibrate import open_session
from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.ladder.patches import Float32, Patches, matrices
from icnet_deploy.calibration.weighted import Weighted
from icnet_deploy.images import UInt8

Float = npt.NDArray[np.float64]

_PLACES = (4096, 16384)
"""The least and the most places of a node's output that are seen, over all images."""

_PLACES_PER_WEIGHT = 4
"""Places for each weight of a row, between those two."""


@dataclass
class Moments:
    """What one node read, at all places so far.

    Attributes:
        mean: float64, G x K: the mean of a patch, see `matrices`; the correction of the bias takes
            care of it.
        total: float64, G x K x K: the sum of x x^T, where x is a patch less its mean.
        places: how many are in the sum.
    """

    mean: Float
    total: Float
    places: int = 0

    def add(self, patches: Float32) -> None:
        """Adds patches, G x n x K."""
        centred = patches - self.mean[:, None].astype(np.float32)
        self.total += centred.transpose(0, 2, 1) @ centred
        self.places += patches.shape[1]

    def change(self, difference: Float) -> Float:
        """The mean squared change of each channel of output, G x O.

        Args:
            difference: of the weights, G x O x K.
        """
        squares = np.einsum("gok,gok->go", difference @ self.total, difference)
        return np.asarray(squares / max(self.places, 1))


def take_moments(
    model: onnx.ModelProto,
    nodes: Sequence[Weighted],
    means: Mapping[str, Float],
    images: Iterable[UInt8],
    count: int,
) -> list[Moments]:
    """Runs the graph on every image, and adds some patches of each node's input to its moments.

    One image and its activations are in memory at a time, beside the moments. Which places are
    seen is drawn with a seed of its own for each image and node, whatever other nodes there are.

    Args:
        model: a float32 graph.
        nodes: of the graph.
        means: tensor of the graph -> float64 of C, the mean of each channel.
        images: uint8 H x W x 3, RGB, of the graph's size.
        count: of the images.

    Raises:
        MissingPackage: ONNX Runtime is not installed.
    """
    graph = Graph(model)
    weights = [graph.array(one.weight) for one in nodes]
    moments = []
    for one, weight in zip(nodes, weights, strict=True):
        mean = _mean(graph, one, weight, means)
        moments.append(Moments(mean, np.zeros((*mean.shape, mean.shape[1]))))
    names = list(dict.fromkeys(one.data for one in nodes))
    session = open_session(model, names)
    for number, image in enumerate(images):
        values = dict(zip(names, session.run(names, {"image": image[None]}), strict=True))
        for one, weight, sums in zip(nodes, weights, moments, strict=True):
            patches = Patches(one, weight.shape, values[one.data].shape)
            least, most = _PLACES
            wanted = min(max(_PLACES_PER_WEIGHT * sums.mean.shape[1], least), most)
            some = min(-(-wanted // count), patches.places)
            random = np.random.default_rng((number, crc32(one.weight.encode())))
            places = np.sort(random.choice(patches.places, some, replace=False))
            sums.add(patches.take(values[one.data], places))
    return moments


def _mean(graph: Graph, one: Weighted, weight: Float32, means: Mapping[str, Float]) -> Float:
    """The mean of a patch far from the border, G x K, as `Weighted.mean_of_output` has it.

    Zero where nothing corrects the mean of what a node makes: it adds no bias, and nor does a sum.
    """
    add = graph.only_reader(one.output)
    summed = (
        add is not None
        and add.op_type == "Add"
        and not graph.constants.keys().isdisjoint(add.input)
    )
    each = means[one.data]
    if each.size != one.inputs(weight.shape) or not (one.takes_bias or summed):
        each = np.zeros(one.inputs(weight.shape))
    spread = np.broadcast_to(one.of_input(each, weight.shape) / one.phases, weight.shape)
    return matrices(one, spread)[:, 0].astype(np.float64)
