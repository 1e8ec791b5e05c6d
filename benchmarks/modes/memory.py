"""`icnet benchmark memory`: what a process holds that labels images, and the files' sizes."""

import argparse
from collections.abc import Sequence
from functools import partial
from os.path import isfile
from pathlib import Path
from typing import Any

from icnet_deploy.benchmarks.arguments import add_rounds, mode_parser, pictures, run_mode, runs_of
from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.measurement_tables import mode_text
from icnet_deploy.benchmarks.processes.fresh import CACHE_WORDS, Fresh, measure_fresh
from icnet_deploy.command import Goal, command, count, options
from icnet_deploy.errors import InputError, UnavailableError
from icnet_deploy.report.tables import number

_HELD = ("import", "load", "peak")
_BUILT = Path("build/wheel")


def _values(wheel: Path | None, processes: Sequence[Fresh]) -> dict[str, Any]:
    """The most that any of the processes held."""
    values: dict[str, Any] = {}
    for stage in _HELD:
        held = [one.resident[stage] for one in processes]
        if None in held:
            raise UnavailableError(
                "this system does not report the memory of a process: it has no "
                "/proc/self/status; run this benchmark on Linux"
            )
        values[f"{stage}_bytes"] = max(one for one in held if one is not None)
    values["file_bytes"] = processes[-1].file.stat().st_size
    if wheel is not None:
        values["wheel_bytes"] = wheel.stat().st_size
    return values


def _measure(arguments: argparse.Namespace) -> list[Measurement]:
    values = partial(_values, _wheel(arguments.wheel))
    runs, image = runs_of(arguments, choose=False), pictures(arguments)[0]
    return measure_fresh(
        "memory", runs, image, values, arguments.rounds, arguments.threads, arguments.runs
    )


def _wheel(named: Path | None) -> Path | None:
    """The wheel that was named, or the newest that `make` built; None if there is none."""
    if named is not None:
        if not isfile(named):
            raise InputError(f"there is no wheel {named}: build one with `python -m build --wheel`")
        return named
    return max(_BUILT.glob("*.whl"), key=lambda file: file.stat().st_mtime, default=None)


def _cells(each: Measurement) -> list[str]:
    sizes = [each.values.get(f"{name}_bytes") for name in (*_HELD, "file", "wheel")]
    return [each.setting["cache"], *(number(None if s is None else s / 2**20, 1) for s in sizes)]


def _text(measured: Sequence[Measurement]) -> str:
    header = ["cache", "after import", "after load", "peak", "file", "wheel"]
    setting = measured[0].setting
    notes = [
        f"the largest MiB of {setting['rounds']} fresh processes each, in turn; each process "
        f"labelled an image of {'x'.join(map(str, setting['size']))} {setting['runs']} times",
        CACHE_WORDS,
    ]
    return mode_text(measured, header, _cells, notes, left=4)


def _parser() -> argparse.ArgumentParser:
    parser = mode_parser(
        "memory",
        "Measures how much memory a fresh process holds after import, after load and at its peak.",
        "icnet benchmark memory icnet-int8.onnx --runtime openvino --json memory.jsonl",
    )
    add_rounds(parser, 3, "processes of each artefact, which take turns, for each cache state")
    options(parser, Goal.RUN).add_argument(
        "--runs",
        type=count,
        default=5,
        metavar="N",
        help="images that each process labels (default: 5)",
    )
    options(parser, Goal.RESULTS).add_argument(
        "--wheel",
        type=Path,
        metavar="FILE",
        help=f"also show the size of this wheel (default: the newest in {_BUILT}, if there is one)",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark memory`; returns its exit code."""
    return run_mode(_parser().parse_args(argv), _measure, _text)
