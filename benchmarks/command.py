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
        "artefacts timed in turn on every runtime",
    ),
    "throughput": (
        "icnet_deploy.benchmarks.modes.throughput",
        "images a second: streams, batches, and files through `icnet predict`",
    ),
    "stages": ("icnet_deploy.benchmarks.modes.stages", "where the time of one image goes"),
    "start": (
        "icnet_deploy.benchmarks.modes.start",
        "from a process's start to its first label map",
    ),
    "memory": (
        "icnet_deploy.benchmarks.modes.memory",
        "what a process holds, and the files' sizes",
    ),
    "paced": (
        "icnet_deploy.benchmarks.modes.paced",
        "frames at a fixed rate: what is dropped or late",
    ),
    "compare": (
        "icnet_deploy.benchmarks.regression",
        "two files of measurements, and what their samples tell",
    ),
    "report": ("icnet_deploy.benchmarks.measurement_report", "measurements as an HTML page"),
    "paper": ("icnet_deploy.benchmarks.paper.command", "the ICNet paper's tables, measured here"),
}
"""Name -> the module whose `main` runs it, and what it is."""


def _usage() -> str:
    rows = "\n".join(f"  {name:<10} {what}" for name, (_, what) in BENCHMARKS.items())
    return (
        "usage: icnet benchmark NAME ...\n\n"
        "Measures time and memory, and says with every number what it covers.\n\n"
        f"benchmarks:\n{rows}\n\n"
        "  icnet benchmark NAME --help   what a benchmark takes\n\n"
        "example:\n  icnet benchmark paper --table 4 --runtime onnxruntime --json paper.json\n"
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
        raise InputError("no benchmark was named: name one of those above")
    if arguments[0] in ("-h", "--help"):
        print(_usage(), end="")
        return 0
    name = "compare" if arguments[0] == "--compare" else arguments[0]
    if name not in BENCHMARKS:
        raise InputError(f"there is no benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    module = import_module(BENCHMARKS[name][0])
    return cast(int, module.main(arguments[1:]))
