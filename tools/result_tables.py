"""`python -m tools.result_tables`: writes the README's tables from recorded results.

A table stands between `<!-- results: NAME -->` and `<!-- end -->`, in the README or in the page
that `--readme` names. The results are the files that `icnet evaluate`, `icnet parity` (JSON) and
`icnet benchmark` (JSON Lines) wrote into `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from icnet_deploy.benchmarks.measurement import read_measurements
from icnet_deploy.benchmarks.measurement_tables import device_words, markdown_of, median_ms
from icnet_deploy.benchmarks.paper.tables import markdown as paper_markdown
from icnet_deploy.calibration.sensitivity.report import markdown as sensitivity_markdown
from icnet_deploy.command import command, parser
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.files import write_text
from tools.quantizers import markdown as quantizers_markdown

_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _scores(results: Sequence[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        if result["kind"] == "evaluate":
            p, s = result["protocol"], result["score"]
            classes = p["data_label_set"].split(", ")[-1]
            rows.append(
                [
                    f"{p['dataset']} {p['split']}, {p['images']} images, {classes}",
                    "the image's" if p["model_size"] == "image" else p["model_size"],
                    f"{s['miou_percent']:.1f}",
                    f"{s['pixel_accuracy_percent']:.1f}",
                    f"{s['small_region_accuracy_percent']:.1f}",
                ]
            )
    header = ["scored on", "model size", "mIoU %", "pixels %", "regions below 3,000 pixels %"]
    return _rows(header, rows)


def _parity(results: Sequence[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        if result["kind"] == "parity":
            for r in result["rows"]:
                size = "any" if r["size"] is None else "x".join(map(str, r["size"]))
                rows.append(
                    [
                        f"{r['precision']} {r['head']}, {size}",
                        r["runtime"],
                        f"{r['protocol']['dataset']}, {r['protocol']['images']} images",
                        f"{r['miou_difference_points']:+.3f}",
                        f"{r['agreeing_percent']:.4f}",
                        f"{r['ties']} / {r['flips']}",
                    ]
                )
    header = ["artefact", "runtime", "scored on", "mIoU, points", "pixels alike %", "ties / flips"]
    return _rows(header, rows)


def _speed(results: Sequence[dict[str, Any]]) -> str:
    """What `auto` opens beside all that ran in turn with it, the slowest first."""
    parts = []
    for result in results:
        rows = [
            each
            for each in (result["rows"] if result["kind"] == "measurements" else ())
            if (each.kind, each.scope) == ("latency", "image-to-labels")
        ]
        auto = [each for each in rows if each.subject.get("auto")]
        if not auto or len(rows) < 2:
            continue
        rows.sort(key=median_ms, reverse=True)
        table = [
            [
                f"**{each.name}**" if each in auto else each.name,
                each.subject["precision"],
                device_words(each),
                f"{median_ms(each):.1f}",
                f"{1e3 / median_ms(each):.1f}",
                f"{median_ms(each) / median_ms(auto[0]):.2f}",
            ]
            for each in rows
        ]
        header = ["way", "precision", "on", "ms", "images a second", "times auto's"]
        parts.append(_rows(header, table))
    return "\n".join(parts)


def _measured(kind: str) -> Callable[[Sequence[dict[str, Any]]], str]:
    """The tables of one kind of benchmark, file by file: what was taken in turn stays together."""

    def tables(results: Sequence[dict[str, Any]]) -> str:
        files = [each["rows"] for each in results if each["kind"] == "measurements"]
        return "\n".join(filter(None, (markdown_of(kind, rows) for rows in files)))

    return tables


_BENCHMARKS = ("latency", "throughput", "stages", "start", "memory", "paced")

TABLES: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {
    "scores": _scores,
    "parity": _parity,
    "speed": _speed,
    "paper": paper_markdown,
    "quantizers": quantizers_markdown,
    "sensitivity": sensitivity_markdown,
    **{kind: _measured(kind) for kind in _BENCHMARKS},
}


def with_tables(text: str, results: Sequence[dict[str, Any]]) -> str:
    """The README's text with every table written anew.

    Raises:
        InputError: the text names a table that there is not.
    """

    def table(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise InputError(f"there is no table {match[2]!r}; known: {', '.join(TABLES)}")
        return f"{match[1]}\n{TABLES[match[2]](results)}\n{match[4]}"

    return _BLOCK.sub(table, text)


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.result_tables",
        "Write the README's tables from recorded results.",
        "python -m tools.result_tables --check",
    )
    p.add_argument("--readme", type=Path, default=Path("README.md"))
    p.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    p.add_argument("--check", action="store_true", help="exit with 1 if a table is out of date")
    return p


def _read(folder: Path) -> list[dict[str, Any]]:
    """Every result in order of name; a file of measurements is one of kind `measurements`."""
    results = [json.loads(f.read_text("utf-8")) for f in sorted(folder.glob("[!.]*.json"))]
    lines = sorted(folder.glob("[!.]*.jsonl"))
    return results + [{"kind": "measurements", "rows": read_measurements(f)} for f in lines]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _arguments().parse_args(argv)
    results = _read(args.results)
    if not args.readme.is_file() or not results:
        raise InputError(f"run it in the repository's root: no {args.readme} or no {args.results}")
    text = args.readme.read_text("utf-8")
    fresh = with_tables(text, results)
    if fresh == text:
        return 0
    if args.check:
        raise CheckFailed(f"{args.readme}'s tables are not those of {args.results}: run me")
    write_text(args.readme, fresh)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
