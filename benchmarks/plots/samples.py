"""Raw samples as SVG: every run of every subject, and the box that sums them up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.measurement_tables import device_words
from icnet_deploy.benchmarks.plots.speed import nice_step
from icnet_deploy.report.html import Html, svg, svg_text, tag

_STYLE = """
svg.samples { display: block; width: 760px; min-width: 30rem; max-width: 100%; height: auto;
  font-family: system-ui, "Segoe UI", Roboto, sans-serif; }
.samples .ground { fill: var(--card, #ffffff); }
.samples text { fill: var(--quiet, #5d6670); font-size: 12px; }
.samples text.name { fill: var(--ink, #1d2126); }
.samples line { stroke: var(--line, #dde1e5); }
.samples line.whisker { stroke: var(--quiet, #5d6670); }
.samples line.median { stroke: var(--ink, #1d2126); stroke-width: 2; }
.samples rect.box { fill: var(--mark, #2457b8); opacity: .22; }
.samples circle { fill: var(--mark, #2457b8); opacity: .55; }
""".replace('"', "'")

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 760, 12, 740, 14, 58  # in units of the viewBox
_STRIP, _BOX = 9, 7  # half the heights of the cloud of samples and of the box


def sample_plot(rows: Sequence[Measurement]) -> Html:
    """The pooled totals of each row on one logarithmic axis of milliseconds.

    A box from the lower to the upper quartile, whiskers to p10 and p90, a line at the median, and
    every sample, from the first above to the last below.

    Args:
        rows: latencies, at least one.
    """
    samples = [np.asarray(row.values["total"]["samples_ms"]) for row in rows]
    low, high, ticks = _reach(np.concatenate(samples))

    def x(milliseconds: float) -> float:
        share = math.log(max(milliseconds, low) / low) / math.log(high / low)
        return round(_LEFT + (_RIGHT - _LEFT) * share, 1)

    bottom = _TOP + _ROW * len(rows)
    parts: list[Html] = []
    for tick in ticks:
        parts.append(tag("line", x1=x(tick), x2=x(tick), y1=_TOP, y2=bottom, class_="grid"))
        parts.append(svg_text(f"{tick:g}", x(tick), bottom + 16, "middle"))
    words = "ms a run, logarithmic; box: quartiles, whiskers: p10 to p90, line: median"
    parts.append(svg_text(words, (_LEFT + _RIGHT) / 2, bottom + 36, "middle"))
    for index, (row, taken) in enumerate(zip(rows, samples, strict=True)):
        top = _TOP + _ROW * index
        name = f"{row.name}, {device_words(row)}"
        parts.append(svg_text(name, _LEFT + 4, top + 14, "start", "name"))
        marks = [(x(value), value) for value in taken.tolist()]
        p10, q1, median, q3, p90 = np.percentile(taken, [10, 25, 50, 75, 90]).tolist()
        told = f"{name}: median {median:.2f} ms, p10 {p10:.2f}, p90 {p90:.2f}, {len(taken)} runs"
        middle = top + 36
        box = _box(middle, x(p10), x(q1), x(median), x(q3), x(p90))
        parts.append(tag("g", tag("title", told), box, _cloud(marks, middle)))
    height = bottom + 48
    return svg("samples", "every run's time", (_WIDTH, height), _STYLE, parts)


def _box(
    middle: float, p10: float, lower: float, median: float, upper: float, p90: float
) -> Iterator[Html]:
    yield tag("line", class_="whisker", x1=p10, x2=p90, y1=middle, y2=middle)
    width = max(1.0, round(upper - lower, 1))
    yield tag("rect", class_="box", x=lower, y=middle - _BOX, width=width, height=2 * _BOX)
    ends = {"y1": middle - _BOX - 2, "y2": middle + _BOX + 2}
    yield tag("line", class_="median", x1=median, x2=median, **ends)


def _cloud(marks: Sequence[tuple[float, float]], middle: float) -> Iterator[Html]:
    """Samples from above to below in the order taken, so that a drift is seen as a slant."""
    for number, (x, _) in enumerate(marks):
        share = (number + 0.5) / len(marks)
        y = round(middle + _STRIP * (2 * share - 1), 1)
        yield tag("circle", cx=x, cy=y, r=1.8)


def _reach(samples: npt.NDArray[np.float64]) -> tuple[float, float, list[float]]:
    """The ends of the axis and its ticks: 1, 2, 5 times powers of ten; where few, a nice step."""
    low, high = max(float(samples.min()) / 1.06, 1e-3), float(samples.max()) * 1.06
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [n * 10.0**power for power in powers for n in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) < 3:
        step = nice_step(high - low)
        ticks = [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return low, high, ticks
