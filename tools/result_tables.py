"""`python -m tools.result_tables`: writes the README's tables from recorded results.

A table stands between `<!-- results: NAME -->` and `<!-- end -->`, in the README or in the page
that `--readme` names. The results are the files that `icnet evaluate`, `icnet parity` (JSON) and
`icnet benchmark` (JSON Lines) wrote into `benchmarks/results/`. Under a table with a result of a
checkpoint that was shipped once, and is no more, a line says so.
"""

import argparse
import lzma
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os.path import isfile
from pathlib import Path
from typing import Any

from icnet_deploy.benchmarks.measurement import Measurement, read_measurements
from icnet_deploy.benchmarks.measurement_tables import KINDS, device_words, markdown_of, median_ms
from icnet_deploy.benchmarks.paper.tables import markdown as paper_markdown
from icnet_deploy.calibration.rebuilds.report import markdown as rebuilds_markdown
from icnet_deploy.calibration.sensitivity.report import markdown as sensitivity_markdown
from icnet_deploy.command import command, parser
from icnet_deploy.documents import parse
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.confidence.differences import Differences, Interval, own_scores
from icnet_deploy.evaluation.diagnose.report import markdown as diagnose_markdown
from icnet_deploy.evaluation.evaluate.records import RECORDS
from icnet_deploy.files import write_text
from icnet_deploy.report.tables import Table, bounded
from tools.coverage import markdown as coverage_markdown
from tools.fuzz.record import markdown as fuzz_markdown
from tools.int8_networks import markdown as int8_networks_markdown
from tools.own_networks import markdown as own_networks_markdown
from tools.quantizers.tables import markdown as quantizers_markdown
from tools.tiles import markdown as tiles_markdown
from tools.yardstick.steps import markdown as steps_markdown

_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

_EARLIER = {
    "059347712be24e6167135936a79ae25963a23b55fa1ca5d88cabadc6203be514": "until 30 November 2026"
}
"""SHA-256 of each checkpoint that was shipped -> when."""

_Results = Sequence[dict[str, Any]]


def _scores(results: _Results) -> str:
    header = ["scored on", "model size", "mIoU %", "pixels %", "regions below 3,000 pixels %"]
    rows = [
        [
            f"{p['dataset']} {p['split']}, {p['images']} images, "
            f"{p['data_label_set'].split(', ')[-1]}",
            _model_size(p),
            _share(own.miou if own else r["score"]["miou_percent"]),
            _share(own.pixel_accuracy if own else r["score"]["pixel_accuracy_percent"]),
            _share(own.small_regions if own else r["score"]["small_region_accuracy_percent"]),
        ]
        for r in results
        if r["kind"] == "evaluate"
        for p, own in [(r["protocol"], _own_scores(r))]
    ]
    return Table(header, rows).markdown()


def _classes(results: _Results) -> str:
    """IoU of each class at each size, a table for each data set."""
    scored: dict[str, dict[str, Differences]] = {}
    for r in results:
        if r["kind"] == "evaluate" and (own := _own_scores(r)):
            p = r["protocol"]
            scored.setdefault(f"{p['dataset']} {p['split']}", {})[_model_size(p)] = own
    parts = []
    for name, sizes in scored.items():
        classes = list(next(iter(sizes.values())).classes)
        rows = [[one, *(_share(own.classes[one]) for own in sizes.values())] for one in classes]
        parts.append(Table([f"{name}: IoU %", *sizes], rows).markdown())
    return "\n".join(parts)


def _model_size(protocol: Mapping[str, Any]) -> str:
    own = protocol["model_size"] == "image"
    return protocol["label_sizes"][0] if own else str(protocol["model_size"])


def _own_scores(result: Mapping[str, Any]) -> Differences | None:
    """With intervals; None of a result of version 0.1, which has no counts of each image."""
    if "images" not in result:
        return None
    counts = [ImageCounts.from_dict(one) for one in result["images"]]
    return own_scores(counts, list(result["score"]["iou_percent"]))


def _share(of: Interval | float | None) -> str:
    """In percent, with the part of its interval that a share can be in."""
    if isinstance(of, Interval):
        return f"{of.value:.1f} [{max(of.low, 0):.1f}, {min(of.high, 100):.1f}]"
    return "-" if of is None else f"{of:.1f}"


def _parity(results: _Results) -> str:
    header = ["artefact", "runtime", "scored on", "mIoU, points", "pixels alike %", "ties / flips"]
    rows = [
        [
            f"{r['precision']} {r['head']}, {'x'.join(map(str, r['size'] or ['any']))}",
            r["runtime"],
            f"{r['protocol']['dataset']}, {r['protocol']['images']} images",
            _difference(r["miou_difference_points"]) if result.get("labelled", True) else "-",
            f"{r['agreeing_percent']:.4f}",
            f"{r['ties']} / {r['flips']}",
        ]
        for result in results
        if result["kind"] == "parity"
        for r in result["rows"]
    ]
    return Table(header, rows).markdown()


def _difference(points: float | Mapping[str, float]) -> str:
    """A recorded difference, with its interval if it has one, as those of schema 2 on do."""
    if isinstance(points, Mapping):
        return bounded(points["value"], points["low"], points["high"])
    return f"{points:+.3f}"


def _speed(results: _Results) -> str:
    """What `auto` opens beside what ran in turn with it, the slowest first, where most did."""
    header = ["way", "precision", "runs on", "ms", "images a second", "ratio to auto"]
    most: list[list[str]] = []
    for measured in _measurements(results):
        rows = [e for e in measured if (e.kind, e.scope) == ("latency", "image-to-labels")]
        auto = [each for each in rows if each.subject.get("auto")]
        if auto and len(rows) > 1:
            table = [
                [
                    f"**{each.name}**" if each in auto else each.name,
                    each.subject["precision"],
                    device_words(each),
                    f"{median_ms(each):.1f}",
                    f"{1e3 / median_ms(each):.1f}",
                    f"{median_ms(each) / median_ms(auto[0]):.2f}",
                ]
                for each in sorted(rows, key=median_ms, reverse=True)
            ]
            most = max(most, table, key=len)
    return Table(header, most).markdown() if most else ""


def _measurements(results: _Results) -> list[list[Measurement]]:
    """File by file, since what was taken in turn stays together."""
    return [each["rows"] for each in results if each["kind"] == "measurements"]


def _measured(kind: str, results: _Results) -> str:
    """The tables of one kind of benchmark."""
    return "\n".join(filter(None, (markdown_of(kind, each) for each in _measurements(results))))


_TABLES: dict[str, Callable[[_Results], str]] = {
    "scores": _scores,
    "classes": _classes,
    "parity": _parity,
    "speed": _speed,
    "paper": paper_markdown,
    "quantizers": quantizers_markdown,
    "sensitivity": sensitivity_markdown,
    "rebuilds": rebuilds_markdown,
    "coverage": coverage_markdown,
    "fuzz": fuzz_markdown,
    "tiles": tiles_markdown,
    "steps": steps_markdown,
    "own_networks": own_networks_markdown,
    "int8_networks": int8_networks_markdown,
    "diagnose": diagnose_markdown,
}


def with_tables(text: str, results: _Results) -> str:
    """The README's text with every table written anew.

    Raises:
        InputError: the text names a table that there is not.
    """

    tables = _TABLES | {kind: partial(_measured, kind) for kind in KINDS}

    def table(match: re.Match[str]) -> str:
        if match[2] not in tables:
            raise InputError(f"there is no table {match[2]!r}; known: {', '.join(tables)}")
        of = tables[match[2]]
        return f"{match[1]}\n{of(results)}\n{_measured_earlier(of, results)}{match[4]}"

    return _BLOCK.sub(table, text)


def _measured_earlier(table: Callable[[_Results], str], results: _Results) -> str:
    """A line on what of a table was measured with a checkpoint that is no longer shipped."""
    for digest, when in _EARLIER.items():
        kept = [each for each in results if not _names(each, digest)]
        if len(kept) < len(results) and table(kept) != table(results):
            return f"Some or all of these rows are of the checkpoint that was shipped {when}.\n\n"
    return ""


def _names(value: object, digest: str) -> bool:
    """Whether a result names a file of this SHA-256 anywhere."""
    if isinstance(value, Measurement):
        return _names(value.subject, digest)
    if isinstance(value, Mapping):
        return any(_names(each, digest) for each in value.values())
    if isinstance(value, list):
        return any(_names(each, digest) for each in value)
    return value == digest


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.result_tables",
        "Writes the tables of a page from recorded results.",
        "python -m tools.result_tables --check",
    )
    p.add_argument(
        "--readme", type=Path, default=Path("README.md"), help="the page (default: %(default)s)"
    )
    p.add_argument(
        "--results",
        type=Path,
        default=Path("benchmarks/results"),
        help="folder of the results (default: %(default)s)",
    )
    p.add_argument("--check", action="store_true", help="exit with 1 if a table is out of date")
    return p


def _read(folder: Path) -> list[dict[str, Any]]:
    """Every result in order of name; a file of measurements is one of kind `measurements`."""
    results = [
        {"file": f.name.partition(".")[0], **parse(_text(f))}
        for f in sorted((*folder.glob("[!.]*.json"), *folder.glob("[!.]*.json.xz")))
    ]
    lines = [f for f in sorted(folder.glob("[!.]*.jsonl")) if f.name != RECORDS.name]
    return results + [{"kind": "measurements", "rows": read_measurements(f)} for f in lines]


def _text(file: Path) -> str:
    content = file.read_bytes()
    return (lzma.decompress(content) if file.suffix == ".xz" else content).decode()


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _arguments().parse_args(argv)
    results = _read(args.results)
    if not isfile(args.readme) or not results:
        raise InputError(f"run it in the repository's root: no {args.readme} or no {args.results}")
    text = args.readme.read_text("utf-8")
    fresh = with_tables(text, results)
    if fresh == text:
        return 0
    if args.check:
        raise CheckFailed(
            f"{args.readme}'s tables do not match {args.results}: run this command without --check"
        )
    write_text(args.readme, fresh)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
