"""`icnet benchmark paper`: the tables of the ICNet paper, measured on this machine."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from icnet_deploy.benchmarks.paper.measure import Plan, measure
from icnet_deploy.benchmarks.paper.networks import (
    NETWORKS,
    fitting_checkpoint,
    networks_of,
    tables_of,
)
from icnet_deploy.benchmarks.paper.tables import paper_page, paper_text
from icnet_deploy.benchmarks.peers.pytorch import torch_device
from icnet_deploy.command import check_outputs, command, count, parser, size
from icnet_deploy.data.options import add_data_options, open_data
from icnet_deploy.errors import InputError, require
from icnet_deploy.files import write_json, write_text
from icnet_deploy.runtime.backends.onnxruntime.session import require_cuda
from icnet_deploy.runtime.backends.registry import RUNTIMES, check_available, choose


def _parser() -> argparse.ArgumentParser:
    options = parser(
        "icnet benchmark paper",
        "Measures the networks of the ICNet paper's tables: time, frames a second, speed-up,\n"
        "memory, parameters and multiply-adds, each beside the paper's figure.\n"
        f"networks: {', '.join(NETWORKS)}",
        "icnet benchmark paper --table 4 --runtime onnxruntime --json paper.json",
    )
    options.add_argument(
        "--table",
        type=int,
        nargs="+",
        default=[1, 2, 3, 4],
        metavar="N",
        help="1: downsampling of PSPNet50, 2: its width, 3 and 4: ICNet's branches (default: all)",
    )
    options.add_argument(
        "--runtime",
        default="auto",
        metavar="NAME",
        help="auto, onnxruntime, openvino or pytorch (default: auto)",
    )
    options.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda")
    options.add_argument(
        "--size", type=size, default=(1024, 2048), metavar="HxW", help="(default: 1024x2048)"
    )
    options.add_argument(
        "--head",
        default="logits",
        choices=("logits", "labels"),
        help="where a run ends: at the network's logits, or at the label map, upsampled in the "
        "graph (default: %(default)s)",
    )
    options.add_argument(
        "--runs", type=count, default=10, metavar="N", help="of each network (default: 10)"
    )
    options.add_argument(
        "--threads", type=count, metavar="N", help="CPU threads a run (default: the runtime's)"
    )
    options.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="NETWORK=FILE",
        help="a trained checkpoint of a network, which is measured in place of random weights, "
        "and scored on --dataset; may be repeated",
    )
    add_data_options(options, required=False)
    options.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    options.add_argument(
        "--report", type=Path, metavar="FILE", help="write a self-contained HTML report"
    )
    return options


def _checkpoints(texts: list[str], names: list[str]) -> dict[str, Path]:
    """Reads `NETWORK=FILE`, and each file, so that a wrong one ends the command at its start."""
    files: dict[str, Path] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if name not in NETWORKS or not equals or not file:
            raise InputError(
                f"--checkpoint {text}: expected NETWORK=FILE with one of {', '.join(NETWORKS)}"
            )
        if name not in names or name in files:
            why = "is given twice" if name in files else "is in none of the tables asked for"
            raise InputError(f"--checkpoint {text}: the network {name} {why}")
        files[name] = Path(file)
        fitting_checkpoint(name, files[name])
    return files


def _choose(runtime: str, device: str) -> tuple[str, str]:
    """What `auto` means, and a refusal of what is not there before any work is done."""
    if runtime == "pytorch":
        return runtime, torch_device(device)
    if runtime not in ("auto", *RUNTIMES):
        known = ", ".join(("auto", "pytorch", *RUNTIMES))
        raise InputError(f"unknown runtime {runtime!r}; known: {known}")
    runtime, device = choose(runtime, device)
    check_available(runtime, device)
    if device == "cuda":
        require_cuda()
    return runtime, device


def _plan(arguments: argparse.Namespace) -> Plan:
    tables = tables_of(arguments.table)
    names = networks_of(tables)
    if bool(arguments.dataset) != bool(arguments.data):
        raise InputError("--dataset and --data are given together: the layout and its folder")
    if arguments.dataset and not arguments.checkpoint:
        raise InputError("--dataset scores checkpoints, and there is no --checkpoint NETWORK=FILE")
    packages = ("torch", "safetensors", "onnx", "onnxscript", "onnxsim")
    require("building the networks of the paper", "export", *packages)
    runtime, device = _choose(arguments.runtime, arguments.device)
    return Plan(
        tables=tuple(sorted(n for table in tables for n in table.numbers)),
        names=tuple(names),
        runtime=runtime,
        device=device,
        threads=arguments.threads,
        size=arguments.size,
        head=arguments.head,
        runs=arguments.runs,
        checkpoints=_checkpoints(arguments.checkpoint, names),
        dataset=open_data(arguments) if arguments.dataset else None,
    )


def run(argv: Sequence[str] | None, measure_all: Callable[..., dict[str, Any]] = measure) -> int:
    """Does what `main` says; see `measure` for what measures."""
    arguments = _parser().parse_args(argv)
    check_outputs(arguments)
    plan = _plan(arguments)
    with tqdm(total=plan.steps, desc="paper", unit="step", disable=None) as bar:
        result = measure_all(plan, bar)
    print(paper_text(result))
    if arguments.json:
        write_json(arguments.json, result)
    if arguments.report:
        write_text(arguments.report, paper_page(result))
    return 0


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark paper`; returns its exit code."""
    return run(argv)
