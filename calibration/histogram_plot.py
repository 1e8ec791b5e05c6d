"""A tensor's histogram with the ranges that were chosen of it, as SVG."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from icnet_deploy.calibration.calibrate import Calibration
from icnet_deploy.errors import InputError
from icnet_deploy.files import write_text

_WIDTH, _HEIGHT, _LEFT, _TOP, _COLUMNS = 720, 300, 40, 46, 320


def write_histogram(path: Path, calibration: Calibration, tensor: str, method: str) -> None:
    """Draws how often values occur, on a logarithmic axis, and what the two grids cover.

    Raises:
        InputError: no tensor of that name was calibrated.
        OutputError: the file cannot be written.
    """
    if tensor not in calibration.statistics:
        known = ", ".join(list(calibration.statistics)[:8])
        raise InputError(f"no tensor {tensor!r} was calibrated; known: {known}, ...")
    values, shares = calibration.statistics[tensor].bins()
    chosen = calibration.ranges(method).tensors[tensor]
    low, high = min(values[0], chosen.low, 0.0), max(values[-1], chosen.high)
    span = max(high - low, 1e-12)
    heights, _ = np.histogram(values, _COLUMNS, (low, high), weights=shares)
    top, bottom = np.log10(heights.max()), np.log10(shares[shares > 0].min())
    plot_width, plot_height = _WIDTH - 2 * _LEFT, _HEIGHT - 2 * _TOP
    column = plot_width / _COLUMNS

    def place(value: float) -> float:
        return float(_LEFT + (value - low) / span * plot_width)

    shapes = []
    for index, share in enumerate(heights):
        if share > 0:
            tall = plot_height * (np.log10(share) - bottom + 0.1) / (top - bottom + 0.1)
            x, y = _LEFT + index * column, _TOP + plot_height - tall
            shapes.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{column:.2f}" height="{tall:.1f}"/>'
            )
    for name, ends, colour in (
        ("int8", (-chosen.limit, chosen.limit), "#b4501a"),
        ("int8-ort", (chosen.low, chosen.high), "#1d7a46"),
    ):
        for end in ends:
            if low <= end <= high:
                x = place(end)
                shapes.append(f'<path d="M{x:.1f} {_TOP}V{_TOP + plot_height}" stroke="{colour}"/>')
        row = 18 if name == "int8" else 34
        shapes.append(
            f'<text x="{_WIDTH - _LEFT}" y="{row}" text-anchor="end" fill="{colour}">'
            f"{name}: {ends[0]:.4g} to {ends[1]:.4g}</text>"
        )
    below = _TOP + plot_height + 20
    shapes += [
        f'<text x="{_LEFT}" y="18">{escape(tensor)}, ranges by {escape(method)}</text>',
        f'<text x="{_LEFT}" y="34">share of values, logarithmic, 1e{bottom:.0f} to 1</text>',
        f'<text x="{_LEFT}" y="{below}">{low:.4g}</text>',
        f'<text x="{_WIDTH - _LEFT}" y="{below}" text-anchor="end">{high:.4g}</text>',
    ]
    write_text(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#2457b8">'
        '<rect width="100%" height="100%" fill="#ffffff"/>'
        f"{''.join(shapes)}</svg>\n",
    )
