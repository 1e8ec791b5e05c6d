"""`icnet benchmark memory`: what a process holds that labels images, and the files' sizes."""

import argparse
from collections.abc import Sequence
from functools import partial
from os.path import isfile
from pathlib import Path
from typing import Any

from icnet_deploy.benchmarks.arguments import mode_parser, pictures, run_mode, runs_of
from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.measurement_tables import mode_text
from icnet_deploy.benchmarks.processes.fresh import Fresh, measure_fresh
from icnet_deploy.command import command, count
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
                "this system does not say how much memory a process holds: /proc/self/status is "
                "missing, which Linux has"
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
        f"MiB: the most in {setting['rounds']} fresh processes each, in turn, "
        f"that labelled an image of {'x'.join(map(str, setting['size']))} {setting['runs']} times",
        "cold: an empty cache folder, so a model is compiled, and a folder's files are raced; "
        "cached: as the first process left it",
    ]
    return mode_text(measured, header, _cells, notes, left=4)


def _parser() -> argparse.ArgumentParser:
    parser = mode_parser(
        "memory",
        "Starts fresh processes and asks the system how much memory they hold: after importing\n"
        "icnet_deploy.runtime, after loading the model, and at most until some images are\n"
        "labelled; beside it the sizes of the artefact and of the wheel.",
        "icnet benchmark memory icnet-int8.onnx --runtime openvino --json memory.jsonl",
    )
    parser.add_argument(
        "--rounds", type=count, default=3, metavar="N", help="processes of each (default: 3)"
    )
    parser.add_argument(
        "--runs", type=count, default=5, metavar="N", help="label maps in each (default: 5)"
    )
    parser.add_argument(
        "--wheel",
        type=Path,
        metavar="FILE",
        help=f"also report its size (default: the newest of {_BUILT}, if there is one)",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark memory`; returns its exit code."""
    return run_mode(_parser().parse_args(argv), _measure, _text)
