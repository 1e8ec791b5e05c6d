"""`icnet benchmark start`: from the start of a process to its first label map."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from icnet_deploy.benchmarks.asked import (
    mode_parser,
    p90,
    pairs_of,
    pictures,
    run_mode,
    tell_how,
    who,
)
from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.processes.fresh import CACHES, STAGES, Fresh, in_fresh_processes
from icnet_deploy.command import command, count
from icnet_deploy.report.tables import number, text_table
from icnet_deploy.timing import summary


def _values(processes: Sequence[Fresh]) -> dict[str, Any]:
    return {
        stage: summary([one.seconds[stage] for one in processes]) for stage in (*STAGES, "total")
    }


def _measure(arguments: argparse.Namespace) -> list[Measurement]:
    pairs, image = pairs_of(arguments, choose=False), pictures(arguments)[0]
    told = in_fresh_processes(pairs, image, arguments.rounds, arguments.threads)
    setting = {"size": list(image.shape[:2]), "batch": 1, "warmup": 0, "rounds": arguments.rounds}
    return [
        Measurement("start", "process", row, setting | {"cache": cache}, _values(processes[cache]))
        for row, processes in told
        for cache in CACHES
    ]


def _print(found: Sequence[Measurement]) -> None:
    heads = ["artefact", "precision", "on", "cache", *(s.replace("_", " ") for s in STAGES)]
    rows = []
    for each in found:
        values = each.values
        cells = [*who(each), each.setting["cache"]]
        cells += [number(values[stage]["median_ms"], 0) for stage in STAGES]
        cells += [number(values["total"]["median_ms"], 0), p90(values["total"], 0)]
        rows.append(cells)
    print(text_table([*heads, "total", "p90"], rows, left=4))
    lines = [
        f"medians in ms of {found[0].setting['rounds']} fresh processes each, in turn; the "
        "libraries and the file are in the system's memory already",
        "cold: an empty cache folder, so a model is compiled, and a folder's files are raced; "
        "cached: as the first process left it",
        "python: the interpreter; image: its array read from the disk, since a process begins "
        "with none",
    ]
    tell_how(found, lines)


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
    return run_mode(_parser().parse_args(argv), _measure, _print)
