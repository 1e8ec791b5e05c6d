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
from icnet_deploy.command import (
    Goal,
    check_outputs,
    command,
    count,
    options,
    parser,
    size,
)
from icnet_deploy.data.options import add_data_options, open_data
from icnet_deploy.errors import InputError, require
from icnet_deploy.files import write_json, write_text
from icnet_deploy.runtime.backends.onnxruntime.session import require_cuda
from icnet_deploy.runtime.backends.registry import RUNTIMES, check_available, choose


def _parser() -> argparse.ArgumentParser:
    paper = parser(
        "icnet benchmark paper",
        "Measures the networks of the ICNet paper's tables beside the paper's figures.",
        "icnet benchmark paper --table 4 --runtime onnxruntime --json paper.json",
    )
    networks = options(paper, "to choose the networks")
    networks.add_argument(
        "--table",
        type=int,
        nargs="+",
        default=[1, 2, 3, 4],
        metavar="N",
        help="measure the networks of these tables; 1: PSPNet50 by downsampling; 2: PSPNet50 by "
        "width; 3 and 4: ICNet's branches (default: all)",
    )
    networks.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="NETWORK=FILE",
        help="measure a trained checkpoint in place of random weights, and score it on --dataset; "
        f"may be repeated; networks: {', '.join(NETWORKS)}",
    )
    networks.add_argument(
        "--head",
        default="logits",
        choices=("logits", "labels"),
        help="what a run ends with: the network's logits, or the label map, with the upsampling "
        "in the graph (default: %(default)s)",
    )
    networks.add_argument(
        "--size",
        type=size,
        default=(1024, 2048),
        metavar="HxW",
        help="height and width of the image (default: 1024x2048)",
    )
    _add_run_options(paper)
    add_data_options(paper, required=False)
    results = options(paper, Goal.RESULTS)
    results.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    results.add_argument(
        "--report", type=Path, metavar="FILE", help="write an HTML report in one file"
    )
    return paper


def _add_run_options(paper: argparse.ArgumentParser) -> None:
    run = options(paper, Goal.RUN)
    run.add_argument(
        "--runtime",
        default="auto",
        metavar="NAME",
        help="auto, onnxruntime, openvino or pytorch (default: auto)",
    )
    run.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda (default: auto)"
    )
    run.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help="CPU threads of each run (default: the runtime chooses)",
    )
    run.add_argument(
        "--runs",
        type=count,
        default=10,
        metavar="N",
        help="timed runs of each network (default: 10)",
    )


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
            why = (
                "is given twice: give one file"
                if name in files
                else "is in no table that is measured: leave it out, or add its table to --table"
            )
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
        raise InputError("--dataset and --data need each other: give the layout and its folder")
    if arguments.dataset and not arguments.checkpoint:
        raise InputError(
            f"--dataset {arguments.dataset} scores checkpoints only: give --checkpoint "
            "NETWORK=FILE, or leave out --dataset and --data"
        )
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
