"""Which way of choosing ranges is taken: the one that leaves more of float32's labels.

Neither of two ways wins everywhere. One that covers all but the last values is kind to tensors
whose tails carry the answer; the least squared error is kinder to those without a bound, as a
PReLU leaves them, whose few far values would cost all others half their steps. No statistic of a
tensor alone tells which it is, so both graphs are made, run on images that ranges were taken from,
and their labels compared with the float32 graph's. Nothing else of an image is looked at: images
that models are scored on have no part in it.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
from tqdm import tqdm

from icnet_deploy.calibration.agreement import other_labels
from icnet_deploy.calibration.artefact import Compared, Recipe
from icnet_deploy.calibration.ranges import AUTO, METHOD
from icnet_deploy.calibration.selection import FEWEST, CalibrationSet
from icnet_deploy.metadata import ArtefactMetadata

Float = npt.NDArray[np.float64]

_METHODS = (METHOD, "mse")
"""That are compared; the first is taken unless the other is better by more than chance."""

_ERRORS = 2
"""Standard errors that are taken for chance."""

_PIXELS = 1 << 22
"""Of all images together, at most, as long as there are `FEWEST`."""


def settled(
    recipe: Recipe, model: onnx.ModelProto, metadata: ArtefactMetadata, images: CalibrationSet
) -> Recipe:
    """The recipe with a method in place of `AUTO`; one that has a method is left as it is.

    The same images give the same method. Three graphs are run, on images of 4 Mi pixels together
    (24 of 360x480), or 8 where that is more, or all of them where these are fewer.

    Args:
        recipe: whose calibration is of the graph.
        model: the float32 graph.
        metadata: of it.
        images: those that it is calibrated on.

    Raises:
        NotFinite: logits of a graph are infinite or not numbers.
        CheckFailed: a number in an 8-bit graph is not finite.
    """
    if recipe.method != AUTO:
        return recipe
    height, width = metadata.size or (1, 1)
    some = images.first(max(FEWEST, _PIXELS // (height * width)))
    graphs = {one: replace(recipe, method=one).graph(model) for one in _METHODS}
    words = f"ranges of {recipe.placement}"
    shown = tqdm(some, total=len(some), desc=words, unit="image", disable=None)
    differ = other_labels(model, graphs, shown, metadata)
    first, other = _METHODS
    taken = other if _fewer(differ[other], differ[first]) else first
    alike = {name: 1 - float(each.mean()) for name, each in differ.items()}
    return replace(recipe, method=taken, compared=Compared(len(some), alike))


def _fewer(a: Float, b: Float) -> bool:
    """Whether `a` is less than `b`, image by image, by more than chance.

    The mean of the differences is below zero by more than `_ERRORS` of its standard errors.
    """
    difference = a - b
    error = difference.std(ddof=1) / np.sqrt(difference.size)
    return bool(difference.mean() < -_ERRORS * error)
