"""What the benchmarks ask in the same words, and how they keep what they found."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from icnet_deploy.benchmarks.measurement import Measurement, write_measurements
from icnet_deploy.command import check_outputs
from icnet_deploy.errors import InputError
from icnet_deploy.files import make_folder, write_text


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


def add_score_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--miou`: where the scores of what is timed are."""
    parser.add_argument(
        "--miou",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE.json",
        help="results of icnet evaluate, parity or verify, for a plot of speed against mIoU",
    )


def add_plot_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--miou`, and `--plot`: the plot as a file of its own."""
    add_score_option(parser)
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE.svg",
        help="write the plot of speed against mIoU; needs --miou",
    )


def check_result_options(arguments: argparse.Namespace) -> None:
    """Finds what cannot be read or written before the long work, not after it.

    Raises:
        OutputError: a place that cannot be written.
        InputError: `--miou` names no result, or `--plot` has none.
    """
    from icnet_deploy.benchmarks.plots.known_scores import read_scores

    check_outputs(arguments)
    told = vars(arguments)
    read_scores(told.get("miou", []))
    if told.get("plot"):
        if not arguments.miou:
            raise InputError(
                "--plot draws speed against mIoU: name results of icnet evaluate, parity or verify "
                "with --miou"
            )
        make_folder(arguments.plot.parent)


def keep(arguments: argparse.Namespace, found: Sequence[Measurement]) -> None:
    """Writes what `add_result_options` and `add_plot_options` asked for.

    Raises:
        OutputError: a file cannot be written.
        InputError: the plot would be empty, since `--miou` holds no score of what was timed.
    """
    from icnet_deploy.benchmarks.plots.known_scores import read_scores

    told = vars(arguments)
    if told["json"]:
        write_measurements(told["json"], found)
    scores = read_scores(told.get("miou", []))
    if told["report"]:
        from icnet_deploy.benchmarks.measurement_report import report_page

        write_text(told["report"], report_page({"": found}, scores))
    if told.get("plot"):
        from icnet_deploy.benchmarks.plots.speed import write_plot

        write_plot(told["plot"], found, scores)
