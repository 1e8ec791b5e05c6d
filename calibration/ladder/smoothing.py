"""SmoothQuant: loud channels behind a LayerNorm are divided by a factor that its weights undo.

A LayerNorm gives some channels a hundred times the range of others, and one grid serves them all.
Its own scale and bias can make any channel quieter, and the weights of the matrices that read it
louder by as much: G. Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization
for Large Language Models", ICML 2023, equation 4: max|X_j|^a / max|W_j|^(1 - a) for channel j.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from tqdm import tqdm

from icnet_deploy.calibration.calibrate import Calibration, collect
from icnet_deploy.calibration.channels import Channels
from icnet_deploy.calibration.equalize import equalized
from icnet_deploy.calibration.graph import Graph, plain
from icnet_deploy.calibration.histogram import Float, TensorStatistics
from icnet_deploy.calibration.selection import CalibrationSet

STRENGTH = 0.5
"""The paper's a: how much of a channel's range its weights take over."""

_LEAST = 1e-5  # of the loudest, for channels and weights that are next to nothing


def smoothing_factors(
    model: onnx.ModelProto, statistics: Mapping[str, TensorStatistics]
) -> dict[str, Float]:
    """Chooses a factor for each channel that a LayerNormalization makes and only weights read.

    Args:
        model: a float32 graph.
        statistics: what its tensors did.

    Returns:
        As `equalized` takes them; none where there is no such channel.
    """
    graph = Graph(model)
    channels = Channels(graph)
    free = channels.alive(normalized=True) & ~channels.alive(normalized=False)
    loud, heavy = np.zeros(free.size), np.zeros(free.size)
    for name, places in channels.tensors.items():
        if name in statistics and statistics[name].highest.size == places.size:
            np.maximum.at(loud, channels.roots(places), statistics[name].highest)
    for use in channels.uses:
        if not use.makes:
            weight = np.abs(graph.array(use.constant))
            index = use.spread(channels.roots(use.places).astype(np.float64), weight.shape)
            np.maximum.at(heavy, np.broadcast_to(index, weight.shape).astype(np.int64), weight)
    free &= (loud > 0) & (heavy > 0)
    chosen: dict[str, Float] = {}
    for name, places in channels.tensors.items():
        roots = channels.roots(places)
        if roots.size and free[roots].all():
            spans = (np.maximum(v[roots], _LEAST * v[roots].max()) for v in (loud, heavy))
            ranges, weights = spans
            factor = ranges**STRENGTH / weights ** (1 - STRENGTH)
            chosen[name] = factor / np.exp(
                np.mean(np.log(factor))
            )  # near 1, as nothing else counts
            free[roots] = False
    return chosen


def smoothed(
    model: onnx.ModelProto, calibration: Calibration, images: CalibrationSet
) -> Calibration | None:
    """The calibration with smoothed channels, its statistics taken again. Shows progress.

    Args:
        model: the float32 graph that the calibration is of.
        calibration: its factors stay beside the new ones.
        images: the calibration set.

    Returns:
        None where the graph has no channel that can be smoothed.

    Raises:
        ImageError: an image can no longer be read.
        MissingPackage: ONNX Runtime is not installed.
    """
    model = plain(model)
    scaled = equalized(model, calibration.factors)
    factors = smoothing_factors(scaled, calibration.statistics)
    if not factors:
        return None
    shown = tqdm(images, total=len(images), desc="smooth", unit="image", disable=None)
    statistics = collect(equalized(scaled, factors), shown)
    both = {**calibration.factors, **factors}
    return Calibration(calibration.parent_sha256, calibration.images, both, statistics)
