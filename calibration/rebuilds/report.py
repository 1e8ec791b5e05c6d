"""What rebuilds found, as text, HTML and Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from icnet_deploy.evaluation.confidence.differences import Interval
from icnet_deploy.evaluation.interval_plot import Bar, interval_plot
from icnet_deploy.evaluation.score import Protocol
from icnet_deploy.report.html import page, tag
from icnet_deploy.report.tables import Table, bounded, facts, number, signed, where
from icnet_deploy.runtime.machine import machine, versions

Result = Mapping[str, Any]

_MUCH = 50  # percent of their images that two draws share
_MARK = "*"
_HARDLY = 0.005  # points, which a table rounds to 0
_MARK_WORDS = f"{_MARK} these images show too little of this class to say anything about it"


def rebuilds_text(result: Result) -> str:
    """A result for the terminal."""
    lines = [_basis(result), _summary(result)]
    for row in result["placements"]:
        lines += [
            "",
            _name(row),
            *_sentences(row),
            "",
            _builds(row).text(),
            "",
            _classes(row).text(),
        ]
    return "\n".join([*lines, "", *_notes(result)])


def rebuilds_page(result: Result) -> str:
    """A result as one HTML document."""
    parts = []
    for row in result["placements"]:
        bars = [
            Bar(f"seed {build['seed']}", Interval(**build["miou_difference_points"]), None)
            for build in row["builds"]
        ]
        title = "mIoU of each build minus float32's"
        lowest = "IoU of each class minus float32's, in the build where it is lowest"
        parts += [
            tag("h2", _name(row)),
            *(tag("p", sentence) for sentence in _sentences(row)),
            tag("figure", interval_plot(bars, None, unit="points", title=title)),
            _builds(row).html(),
            tag("figure", interval_plot(_lowest(row), None, unit="points", title=lowest)),
            _classes(row).html(),
            *(tag("p", note, class_="quiet") for note in _classes(row).notes),
        ]
    return page(
        "How much builds differ",
        tag("p", _basis(result)),
        tag("p", _summary(result)),
        *parts,
        *(tag("p", note, class_="quiet") for note in _notes(result)),
        tag("h2", "Protocol"),
        facts(Protocol.from_dict(result["protocol"]).to_words()),
        *where(machine() | versions()),
    )


def markdown(results: Sequence[Result]) -> str:
    """The table of recorded results: a row for each placement."""
    header = [
        "placement",
        "builds",
        "mIoU, points",
        "class that moves most",
        "two builds alike %",
        "ms",
    ]
    rows = []
    for result in results:
        if result["kind"] != "rebuilds":
            continue
        for row in result["placements"]:
            spread = row["spread"]
            name, most = _moves_most(row)
            points, alike, times = spread["miou_points"], spread["alike"], spread["latency_ms"]
            rows.append(
                [
                    _name(row),
                    str(len(row["builds"])),
                    _from_to(points, 2, signed),
                    f"{name}, {_from_to(most, 2, signed)}",
                    f"{number(100 * alike['median'])}, at least {number(100 * alike['lowest'])}",
                    _from_to(times, 1, number),
                ]
            )
    return Table(header, rows).markdown()


def _basis(result: Result) -> str:
    """What the intervals rest on: those of the build that rests on least."""
    builds = [build for row in result["placements"] for build in row["builds"]]
    least = min(builds, key=lambda each: each["miou_difference_points"]["effective_images"])
    return str(least["basis"])


def _summary(result: Result) -> str:
    builds, shared = result["draws"], result["shared_percent"]
    seeds = ", ".join(str(each["seed"]) for each in builds)
    more = ", so builds on entirely different images would differ more" if shared > _MUCH else ""
    return (
        f"{len(builds)} builds of {result['artefact']}, each calibrated on {result['count']} "
        f"images that its seed draws (seeds {seeds}); two draws share {number(shared, 0)} % of "
        f"their images{more}; all are measured on {result['measured']['words']}, on which no build "
        "is calibrated"
    )


def _name(row: Result) -> str:
    return f"{row['placement']} on {row['runtime']}"


def _from_to(spread: Mapping[str, float], digits: int, words: Any) -> str:
    return f"{words(spread['lowest'], digits)} to {words(spread['highest'], digits)}"


def _moves_most(row: Result) -> tuple[str, Mapping[str, float]]:
    """The class that moves most, of those that were seen enough if any was."""
    classes: Mapping[str, Mapping[str, float]] = row["spread"]["iou_points"]
    enough = {k: v for k, v in classes.items() if k not in row["seen_too_little"]} or classes
    return next(iter(enough.items()))


def _sentences(row: Result) -> list[str]:
    """What a user sees who builds again."""
    spread = row["spread"]
    points, alike, times = spread["miou_points"], spread["alike"], spread["latency_ms"]
    name, most = _moves_most(row)
    return [
        f"labels: two builds give {number(100 * alike['median'], 3)} % of the pixels the same "
        f"label (median of all pairs; lowest: {number(100 * alike['lowest'], 3)} %)",
        f"mIoU: differs by up to {number(points['range'])} points between builds; "
        f"{_from_to(points, 2, signed)} points against float32 (median "
        f"{signed(points['median'], 2)})",
        f"classes: {name} differs most, by up to {number(most['range'])} points; "
        f"{_from_to(most, 2, signed)} points against float32",
        f"time: {_from_to(times, 2, number)} ms for an image; the builds differ by "
        f"{number(100 * times['range'] / times['median'], 1)} %",
    ]


def _builds(row: Result) -> Table:
    header = ["build", "ranges by", "mIoU - float32's, points", "pixels alike with float32 %", "ms"]
    rows = [["float32", "", "", "", number(row["float32"]["latency"]["median_ms"])]]
    for build in row["builds"]:
        miou = build["miou_difference_points"]
        cells = [
            build["ranges"],
            bounded(miou["value"], miou["low"], miou["high"], 2),
            number(100 * build["agreement"]["value"], 3),
            number(build["latency"]["median_ms"]),
        ]
        rows.append([f"seed {build['seed']}", *cells])
    return Table(header, rows)


def _classes(row: Result) -> Table:
    """The classes that move, the one that moves most first."""
    little, classes = row["seen_too_little"], row["spread"]["iou_points"]
    moved = {name: each for name, each in classes.items() if each["range"] >= _HARDLY}
    rows = [
        [
            f"{name} {_MARK}" if name in little else name,
            *(signed(each[key], 2) for key in ("lowest", "median", "highest")),
            number(each["range"]),
        ]
        for name, each in moved.items()
    ]
    header = ["IoU - float32's, points", "lowest", "median", "highest", "differs by"]
    still = len(classes) - len(moved)
    notes = [f"{still} other classes differ by less than {_HARDLY:g} points"] if still else []
    return Table(header, rows, notes=[_MARK_WORDS, *notes] if set(little) & set(moved) else notes)


def _lowest(row: Result) -> list[Bar]:
    """Of each class the build in which it is lowest, the class that moves most first."""
    bars = []
    for name in row["spread"]["iou_points"]:
        found = [(build["iou_difference_points"][name], build["seed"]) for build in row["builds"]]
        lowest, seed = min(found, key=lambda one: one[0]["value"])
        mark = f" {_MARK}" if name in row["seen_too_little"] else ""
        bars.append(Bar(f"{name}{mark}, seed {seed}", Interval(**lowest), None))
    return bars


def _notes(result: Result) -> list[str]:
    truth = (
        ""
        if result["measured"]["labelled"]
        else "mIoU is measured against float32's own label map; "
    )
    return [
        f"{truth}float32 runs on the same runtime as the builds",
        f"time: {result['time']}; {result['rounds']} rounds",
    ]
