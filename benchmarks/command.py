"""`icnet benchmark`: finds the benchmark that was asked for and hands the arguments on."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import cast

from icnet_deploy.command import command
from icnet_deploy.errors import InputError

BENCHMARKS = {
    "latency": (
        "icnet_deploy.benchmarks.modes.latency",
        "how long one image takes, on every runtime",
    ),
    "throughput": (
        "icnet_deploy.benchmarks.modes.throughput",
        "images a second: by streams, by batches, and from file to file",
    ),
    "stages": (
        "icnet_deploy.benchmarks.modes.stages",
        "how long each stage takes for one image file",
    ),
    "start": (
        "icnet_deploy.benchmarks.modes.start",
        "how long a fresh process takes to its first label map",
    ),
    "memory": (
        "icnet_deploy.benchmarks.modes.memory",
        "memory of a fresh process, and the size of the file",
    ),
    "paced": (
        "icnet_deploy.benchmarks.modes.paced",
        "dropped and late frames at a fixed rate",
    ),
    "compare": (
        "icnet_deploy.benchmarks.regression",
        "whether the second of two recorded files is slower or faster",
    ),
    "report": (
        "icnet_deploy.benchmarks.measurement_report",
        "recorded measurements as one HTML page",
    ),
    "paper": (
        "icnet_deploy.benchmarks.paper.command",
        "the networks of the ICNet paper's tables on this machine",
    ),
}
"""Name -> the module whose `main` runs it, and what it measures, in words."""


def _usage() -> str:
    rows = "\n".join(f"  {name:<10} {what}" for name, (_, what) in BENCHMARKS.items())
    return (
        "usage: icnet benchmark NAME ...\n\n"
        "Measures the time and the memory of artefacts, and states what every number covers.\n\n"
        f"benchmarks:\n{rows}\n\n"
        "  icnet benchmark NAME --help   shows the options of a benchmark\n\n"
        "example:\n  icnet benchmark latency icnet-int8.onnx --json latency.jsonl\n"
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark`; returns its exit code.

    Raises:
        InputError: there is no benchmark of that name.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(_usage(), end="", file=sys.stderr)
        raise InputError("no benchmark was named: give one of the names above")
    if arguments[0] in ("-h", "--help"):
        print(_usage(), end="")
        return 0
    name = "compare" if arguments[0] == "--compare" else arguments[0]
    if name not in BENCHMARKS:
        raise InputError(f"there is no benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    module = import_module(BENCHMARKS[name][0])
    return cast(int, module.main(arguments[1:]))
