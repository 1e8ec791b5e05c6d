"""A tensor's histogram with the ranges that were chosen of it, as SVG."""

from pathlib import Path

import numpy as np

from icnet_deploy.calibration.calibrate import Calibration
from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.errors import InputError
from icnet_deploy.files import write_text
from icnet_deploy.report.svg import WIDTH, Scale, alone, bar, drawing, text, upright, x_axis

_LEFT, _RIGHT, _UPPER, _LOWER, _HEIGHT, _COLUMNS = 40, 720, 56, 254, 300, 320
_KINDS = (("limit", "second"), ("strong", "name"), ("thin", "third"))  # of lines, and their words


def _tensor(name: str, calibration: Calibration, graph: Graph) -> tuple[str, str]:
    """A calibrated tensor, and its title, by its own name or that of a layer or block.

    Of a layer it is what comes out of it, behind its ReLU; where that is not calibrated, what goes
    into it. Of a block it is that of its last layer.

    Raises:
        InputError: nothing of it was calibrated.
    """
    if name in calibration.statistics:
        return name, name
    for one in reversed(graph.named(name)):
        layer = graph.layer(one.node)
        comes_out = graph.after_relu(str(one.node.output[0]))
        for tensor, words in ((comes_out, "output"), (str(one.node.input[0]), "input")):
            if tensor in calibration.statistics:
                return tensor, f"{tensor}, the {words} of {layer}"
    known = ", ".join(list(calibration.statistics)[:8])
    raise InputError(
        f"--histogram {name}: the calibration has no tensor of it; it has {known}, ..."
    )


def require_named(graph: Graph, name: str) -> None:
    """InputError if a graph has no layer, block or tensor of a name."""
    if name not in graph.producers and name not in graph.readers and not graph.named(name):
        layers = dict.fromkeys(graph.layer(one.node) for one in graph.weighted())
        raise InputError(
            f"--histogram {name}: the graph has no layer, block or tensor of that name; layers: "
            f"{', '.join(list(layers)[:8])}, ..."
        )


def write_histogram(path: Path, calibration: Calibration, graph: Graph, name: str) -> None:
    """Draws how often values occur, on a logarithmic axis, and what each placement's grid covers.

    Args:
        path: the SVG.
        calibration: of the graph.
        graph: the float32 graph.
        name: a tensor, a layer (`conv2_1._3x3`) or a block (`conv2_1`).

    Raises:
        InputError: nothing of it was calibrated.
        OutputError: the file cannot be written.
    """
    tensor, title = _tensor(name, calibration, graph)
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
        text(title, _LEFT, 18, "start", "name"),
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
    write_text(path, alone(drawing(f"the values of {title}", (WIDTH, _HEIGHT), parts)))
