"""A convolution's weights in 8 bits, and what the rounding does to the mean of its output."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]

_FRACTIONS = np.linspace(0.6, 1.0, 41)


def quantized_weights(weight: Float32, flat: bool = False) -> tuple[Int8, Float32]:
    """Rounds weights to symmetric grids of -127..127, one a channel of output.

    Each grid's step is the one of least squared error, which may clip a channel's largest weights.

    Args:
        weight: float32, O x I x kh x kw.
        flat: for an input that is much the same in all channels and over a whole kernel, as an
            image is in its sky. There the errors of a filter's weights add up, so each is carried
            into the rounding of the next, and their sum stays below half a step.

    Returns:
        int8 of the same shape, and the steps, float32 of O: weight is about int8 * step.
    """
    rows = weight.reshape(weight.shape[0], -1).astype(np.float64)
    highest = np.maximum(np.abs(rows).max(axis=1), 1e-12)
    best = np.full(rows.shape[0], np.inf)
    steps = highest / 127
    for fraction in _FRACTIONS:
        tried = (highest * fraction / 127)[:, None]
        error = np.square(np.clip(np.rint(rows / tried), -127, 127) * tried - rows).sum(axis=1)
        steps = np.where(error < best, tried[:, 0], steps)
        best = np.minimum(error, best)
    steps32 = steps.astype(np.float32)
    wanted = rows / steps32[:, None]
    places = np.clip(np.rint(wanted), -127, 127)
    if flat:
        # Tap by tap, and of each tap channel by channel: those are the most alike.
        order = np.arange(rows.shape[1]).reshape(weight.shape[1], -1).T.ravel()
        carried = np.zeros(len(rows))
        for column in order:
            carried = carried + wanted[:, column]
            places[:, column] = np.clip(np.rint(carried), -127, 127)
            carried = carried - places[:, column]
    return places.astype(np.int8).reshape(weight.shape), steps32


def bias_shift(weight: Float32, places: Int8, steps: Float32, means: Float) -> Float:
    """What rounding the weights takes from the mean of each channel of output, to be given back.

    The error of a mean is the errors of the weights times the mean of the input, which after a
    ReLU is not zero: M. Nagel et al., "Data-free quantization through weight equalization and bias
    correction", ICCV 2019, section 4.2, with means that were measured.

    Args:
        weight: float32, O x I x kh x kw.
        places, steps: what `quantized_weights` made of it.
        means: float64 of I, the mean of each channel of input.

    Returns:
        float64 of O.
    """
    error = weight.astype(np.float64) - places * steps.astype(np.float64)[:, None, None, None]
    return np.asarray(error.sum(axis=(2, 3)) @ means)
