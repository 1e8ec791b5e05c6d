"""A tensor's histogram with the ranges that were chosen of it, as SVG."""

from pathlib import Path

import numpy as np

from icnet_deploy.calibration.calibrate import Calibration
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.errors import InputError
from icnet_deploy.files import write_text
from icnet_deploy.report.svg import WIDTH, Scale, alone, bar, drawing, text, upright, x_axis

_LEFT, _RIGHT, _UPPER, _LOWER, _HEIGHT, _COLUMNS = 40, 720, 56, 254, 300, 320
_KINDS = (("limit", "second"), ("strong", "name"), ("thin", "third"))  # of lines, and their words


def write_histogram(path: Path, calibration: Calibration, tensor: str) -> None:
    """Draws how often values occur, on a logarithmic axis, and what each placement's grid covers.

    Raises:
        InputError: no tensor of that name was calibrated.
        OutputError: the file cannot be written.
    """
    if tensor not in calibration.statistics:
        known = ", ".join(list(calibration.statistics)[:8])
        raise InputError(f"no tensor {tensor!r} was calibrated; known: {known}, ...")
    statistics = calibration.statistics[tensor]
    values, shares = statistics.bins()
    spans = {
        name: placement.span(calibration.ranges(calibration.method(name)).tensors[tensor])
        for name, placement in PLACEMENTS.items()
    }
    low = float(min(statistics.minimum, 0.0))
    high = float(max(statistics.maximum, low + 1e-12))
    heights, edges = np.histogram(values, _COLUMNS, (low, high), weights=shares)
    least = float(shares.min())
    x = Scale(low, high, _LEFT, _RIGHT)
    y = Scale(0.8 * least, float(heights.max()), _LOWER, _UPPER, logarithmic=True)
    words = f"share of values, logarithmic, 1e{np.log10(least):.0f} to 1"
    parts = [
        text(tensor, _LEFT, 18, "start", "name"),
        *x_axis(x, [(end, f"{end:.4g}") for end in (low, high)], _LOWER, words),
    ]
    for height, left, right in zip(heights, edges, edges[1:], strict=False):
        if height > 0:
            parts.append(bar((x(left), x(right)), (y(height), _LOWER), "first"))
    for index, (name, ends) in enumerate(spans.items()):
        line, kind = _KINDS[index % len(_KINDS)]
        parts += [upright(x(end), _UPPER, _LOWER, line) for end in ends if low <= end <= high]
        words = f"{name}, by {calibration.method(name)}: {ends[0]:.4g} to {ends[1]:.4g}"
        parts.append(text(words, _RIGHT, 18 + 16 * index, "end", kind))
    write_text(path, alone(drawing(f"the values of {tensor}", (WIDTH, _HEIGHT), parts)))
