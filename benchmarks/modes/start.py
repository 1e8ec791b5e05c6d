"""`icnet benchmark start`: from the start of a process to its first label map."""

import argparse
from collections.abc import Sequence
from typing import Any

from icnet_deploy.benchmarks.arguments import add_rounds, mode_parser, pictures, run_mode, runs_of
from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.measurement_tables import mode_text, p90
from icnet_deploy.benchmarks.processes.fresh import CACHE_WORDS, STAGES, Fresh, measure_fresh
from icnet_deploy.command import command
from icnet_deploy.report.tables import number
from icnet_deploy.timing import summary


def _values(processes: Sequence[Fresh]) -> dict[str, Any]:
    return {
        stage: summary([one.seconds[stage] for one in processes]) for stage in (*STAGES, "total")
    }


def _measure(arguments: argparse.Namespace) -> list[Measurement]:
    runs, image = runs_of(arguments, choose=False), pictures(arguments)[0]
    return measure_fresh("start", runs, image, _values, arguments.rounds, arguments.threads)


def _cells(each: Measurement) -> list[str]:
    medians = [number(each.values[name]["median_ms"], 0) for name in (*STAGES, "total")]
    return [each.setting["cache"], *medians, p90(each.values["total"], 0)]


def _text(measured: Sequence[Measurement]) -> str:
    header = ["cache", *(stage.replace("_", " ") for stage in STAGES), "total", "p90"]
    notes = [
        f"medians in ms of {measured[0].setting['rounds']} fresh processes each, in turn; the "
        "libraries and the file are already in the system's file cache",
        CACHE_WORDS,
        "python: the start of the interpreter; image: reading the image's array from the disk",
    ]
    return mode_text(measured, header, _cells, notes, left=4)


def _parser() -> argparse.ArgumentParser:
    parser = mode_parser(
        "start",
        "Measures how long a fresh process takes from its start to its first label map.",
        "icnet benchmark start icnet-int8.onnx --runtime openvino --json start.jsonl",
    )
    add_rounds(parser, 10, "processes of each artefact, which take turns, for each cache state")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark start`; returns its exit code."""
    return run_mode(_parser().parse_args(argv), _measure, _text)
