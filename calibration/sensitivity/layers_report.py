"""What `icnet sensitivity --layers` found, as text, HTML and SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

from icnet_deploy.report.html import Html, page, tag
from icnet_deploy.report.svg import (
    WIDTH,
    Scale,
    drawing,
    hover,
    nice_above,
    text,
    upright,
)
from icnet_deploy.report.tables import Table, facts, number, where
from icnet_deploy.runtime.machine import machine, versions

Result = Mapping[str, Any]

_HEADER = ["block", "adds, dB", "after it, dB", "before it, dB", "in 8 bits %"]
_WORDS = (
    "adds: the signal-to-noise ratio of what the block itself adds: its output against that of the "
    "float32 block for the same input",
    "after it: of its output against float32's, with the noise of all blocks up to there; before "
    "it: of its input",
)
_LEAST = 40  # dB at the right edge of a drawing
_ROOM = 1.25  # right of the outputs that are nearest to float32's; what adds next to nothing is cut
_FAITHFUL = 0.999  # of labels: what rounds otherwise here and there

# In units of a drawing's viewBox.
_LETTER, _RIGHT, _ROW, _TOP = 6.6, 40, 26, 64
_LETTERS = 48  # of a block's name
_KINDS = {"added": "first", "after": "second"}
_SAID = {"added": "what the block itself adds", "after": "all noise up to its output"}


def _worst_first(blocks: Sequence[Result]) -> list[Result]:
    """The blocks of a result, the one that adds the most noise first, then those of which it is
    not known how much."""
    return sorted(blocks, key=lambda block: -_rank(block["added"]))


def _rank(noise: Result) -> float:
    if not noise["finite"]:
        return float("inf")
    return -1.0 if noise["noise_share"] is None else float(noise["noise_share"])


def layers_text(result: Result) -> str:
    """A result for the terminal."""
    return "\n".join([_summary(result), _alike(result), "", _table(result).text()])


def layers_page(result: Result) -> str:
    """A result as one HTML document."""
    return page(
        "How far each block's output is from float32's",
        tag("p", f"{_summary(result)}."),
        tag("p", f"{_alike(result).capitalize()}."),
        tag("figure", layers_plot(result)),
        _table(result).html(),
        *(tag("p", words, class_="quiet") for words in [*_WORDS, _returning(result)]),
        tag("h2", "Files"),
        facts(
            {
                "artefact": f"{result['artefact']}, SHA-256 {result['sha256'][:16]}...",
                "reference": f"{result['reference']}, SHA-256 {result['reference_sha256'][:16]}...",
                "images": ", ".join(result["image_names"]),
            }
        ),
        *where(machine() | versions()),
    )


def _summary(result: Result) -> str:
    count = len(result["image_names"])
    return (
        f"{result['artefact']} ({result['precision']}) on {result['runtime']}, "
        f"{result['device']}, against {result['reference']} in float32 on ONNX Runtime: {count} "
        f"image{'s' * (count != 1)} of {result['images']}"
    )


def _alike(result: Result) -> str:
    return f"labels alike with float32: {number(100 * result['labels_alike'])} %"


def _returning(result: Result) -> str:
    """How far the graph that returns more outputs can be trusted to be the file."""
    noise = result["returning_outputs"]
    if noise["noise_share"] == 0:
        return "the copy that returns these outputs answers exactly as the file does"
    words = (
        f"the copy that returns these outputs against the file: {_cell(noise)} dB, "
        f"{number(100 * noise['labels_alike'])} % of labels alike"
    )
    if noise["labels_alike"] < _FAITHFUL:
        words += "; the runtime computes the copy differently: the table does not show everything"
    return words


def _table(result: Result) -> Table:
    rows = [
        [
            block["name"],
            *(_cell(block[name]) for name in ("added", "after", "before")),
            number(100 * block["in_8_bits"], 1) if block["in_8_bits"] is not None else "-",
        ]
        for block in _worst_first(result["blocks"])
    ]
    notes = ["", *_WORDS, _returning(result)]
    if result["missing_tensors"]:
        missing = ", ".join(result["missing_tensors"])
        notes.append(f"not compared, because the artefact has no such tensor: {missing}")
    table = Table(_HEADER, rows, notes=notes)
    return table if any(block["in_8_bits"] for block in result["blocks"]) else _floats(table)


def _floats(table: Table) -> Table:
    return table.without([_HEADER[-1]])


def _cell(noise: Result) -> str:
    if not noise["finite"]:
        return "not finite"
    if noise["noise_share"] == 0:
        return "exact"
    return number(noise["db"], 1)


def layers_plot(result: Result) -> Html:
    """Lines along the graph's order, from above to below: the further left, the more noise.

    What is exact, or so near to it that the axis ends before, lies at the right edge, and what is
    not finite at the left one.

    Args:
        result: of the kind `layers`.
    """
    blocks = result["blocks"]
    bottom = _TOP + _ROW * len(blocks)
    known = {
        name: [block[name]["db"] for block in blocks if block[name]["db"] is not None]
        for name in _KINDS
    }
    most = _ROOM * max([_LEAST, *known["after"]])
    highest = min(max([_LEAST, *known["added"], *known["after"]]), most)
    lowest = min([0, *known["added"], *known["after"]])
    longest = max(len(_short(block["name"])) for block in blocks)
    x = Scale(lowest, nice_above(highest), _LETTER * longest + 24, WIDTH - _RIGHT)
    parts = [text("signal to noise, dB", WIDTH - _RIGHT - 390, 18, "end")]
    for index, (name, kind) in enumerate(_KINDS.items()):
        at = WIDTH - _RIGHT - 375 + 190 * index
        parts += [
            tag("circle", cx=at, cy=14, r=4, class_=kind),
            text(_SAID[name], at + 9, 18, "start"),
        ]
    for tick in x.ticks():
        parts += [
            text(f"{tick:g}", x(tick), _TOP - 14, "middle"),
            upright(x(tick), _TOP - 6, bottom),
        ]
    for index, block in enumerate(blocks):
        parts.append(text(_short(block["name"]), x.start - 10, _middle(index) + 4, "end", "name"))
    for name, kind in _KINDS.items():
        places = [_place(block[name], x) for block in blocks]
        points = [
            f"{place},{_middle(index)}" for index, place in enumerate(places) if place is not None
        ]
        parts.append(tag("polyline", points=" ".join(points), class_=kind))
        for index, (block, place) in enumerate(zip(blocks, places, strict=True)):
            if place is not None:
                colour = kind if block[name]["finite"] else "past"
                dot = tag("circle", cx=place, cy=_middle(index), r=4, class_=colour)
                parts.append(hover(f"{block['name']}, {name}: {_cell(block[name])} dB", dot))
    return drawing("signal to noise of each block's output", (WIDTH, bottom + 12), parts)


def _short(name: str) -> str:
    """The end of a name that is too long for a drawing: there names differ."""
    return name if len(name) <= _LETTERS else f"...{name[3 - _LETTERS :]}"


def _middle(index: int) -> float:
    return _TOP + _ROW * (index + 0.5)


def _place(noise: Result, x: Scale) -> float | None:
    if not noise["finite"]:
        return x.start
    if noise["noise_share"] == 0:
        return x.end
    return None if noise["db"] is None else x(min(noise["db"], x.high))
