"""`icnet benchmark start`: from the start of a process to its first label map."""

import argparse
from collections.abc import Sequence
from typing import Any

from icnet_deploy.benchmarks.arguments import mode_parser, pictures, run_mode, runs_of
from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.measurement_tables import mode_text, p90
from icnet_deploy.benchmarks.processes.fresh import STAGES, Fresh, measure_fresh
from icnet_deploy.command import command, count
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
        "libraries and the file are in the system's memory already",
        "cold: an empty cache folder, so a model is compiled, and a folder's files are raced; "
        "cached: as the first process left it",
        "python: the interpreter; image: its array read from the disk, since a process begins "
        "with none",
    ]
    return mode_text(measured, header, _cells, notes, left=4)


def _parser() -> argparse.ArgumentParser:
    parser = mode_parser(
        "start",
        "Starts fresh processes and times them from the moment they are asked for to the first\n"
        "label map: the interpreter, the import of icnet_deploy.runtime, loading the model, the\n"
        "first image; with an empty cache folder, and with what a first process left in it.",
        "icnet benchmark start icnet-int8.onnx --runtime openvino --json start.jsonl",
    )
    parser.add_argument(
        "--rounds", type=count, default=10, metavar="N", help="processes of each (default: 10)"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark start`; returns its exit code."""
    return run_mode(_parser().parse_args(argv), _measure, _text)
