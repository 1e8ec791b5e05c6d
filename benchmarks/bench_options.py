"""What the benchmarks ask in the same words, and how they keep what they found."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from icnet_deploy.benchmarks.measurement import Measurement, write_measurements
from icnet_deploy.benchmarks.options import check_outputs
from icnet_deploy.files import write_text

__all__ = ["add_result_options", "check_result_options", "keep"]


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--json` and `--report`: where results go."""
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE.jsonl",
        help="write the measurements as JSON Lines, raw samples included",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE.html", help="write a self-contained HTML report"
    )


def check_result_options(arguments: argparse.Namespace) -> None:
    """Finds a place that cannot be written before the long work, not after it (OutputError)."""
    check_outputs(arguments)


def keep(arguments: argparse.Namespace, found: Sequence[Measurement]) -> None:
    """Writes what `add_result_options` asked for.

    Raises:
        OutputError: a file cannot be written.
    """
    if arguments.json:
        write_measurements(arguments.json, found)
    if arguments.report:
        from icnet_deploy.benchmarks.bench_report import report_page

        write_text(arguments.report, report_page(found))
