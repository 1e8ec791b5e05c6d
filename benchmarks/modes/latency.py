"""`icnet benchmark latency`: artefacts and peers timed in turn, one image at a time."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from icnet_deploy.benchmarks.arguments import (
    add_rounds,
    mode_parser,
    pictures,
    run_mode,
    runs_of,
)
from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.measurement_tables import text
from icnet_deploy.benchmarks.peers.registry import PEERS, open_peers, peer_names, time_outside
from icnet_deploy.benchmarks.plots import PLOT
from icnet_deploy.benchmarks.subjects import Artefact, open_artefact
from icnet_deploy.command import Goal, command, options
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.float_network import FloatNetwork
from icnet_deploy.evaluation.origins import add_reference_options, choose_reference
from icnet_deploy.evaluation.pairing import Run
from icnet_deploy.runtime.auto.folder import kind_of, read_artefact
from icnet_deploy.timing import WARMUP, measure, summary


def _parser() -> argparse.ArgumentParser:
    parser = mode_parser(
        "latency",
        "Measures how long artefacts take for one image, and compares them with other tools.",
        "icnet benchmark latency icnet.onnx icnet-int8.onnx --peers all --json latency.jsonl",
    )
    add_rounds(parser, 20, "timed runs of each artefact and peer, which take turns")
    options(parser, Goal.RUN).add_argument(
        "--precision",
        action="append",
        metavar="NAME",
        help="choose only among a folder's files of this precision; may be repeated",
    )
    options(parser, "to compare with other tools").add_argument(
        "--peers",
        metavar="NAME,...",
        help=f"also time these peers, or `all`: {', '.join(PEERS)}",
    )
    add_reference_options(
        parser,
        "the shipped checkpoint, if the artefacts were made from it; otherwise a float32 file "
        "with logits among them. The peers run the reference, and those of PyTorch need a "
        "checkpoint or --network",
    )
    plot = options(parser, PLOT)
    plot.add_argument(
        "--miou",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE.json",
        help="results of icnet evaluate, parity or verify, which hold the mIoU",
    )
    plot.add_argument("--plot", type=Path, metavar="FILE.svg", help="write the plot; needs --miou")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark latency`; returns its exit code."""
    return run_mode(_parser().parse_args(argv), _measure, text)


def _measure(arguments: argparse.Namespace) -> list[Measurement]:
    images = pictures(arguments)
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) > 1:
        raise InputError(
            f"the images have {len(sizes)} sizes ({', '.join(f'{h}x{w}' for h, w in sizes)}), and "
            "a latency is measured at one: give images of one size"
        )
    device = "cuda" if arguments.device == "cuda" else "cpu"
    names = [] if arguments.peers is None else peer_names(arguments.peers, device)
    place = (sizes[0], arguments.threads)
    setting = {"size": list(sizes[0]), "batch": 1, "warmup": WARMUP, "rounds": arguments.rounds}
    with ExitStack() as stack:
        opened = list(_artefacts(arguments, stack))
        runs = [run for run, _ in opened]
        outside = time_outside(names, runs, *place)
        network = cache(lambda: _network(arguments, runs))
        peers = open_peers(names, runs, stack, *place, network, device)
        subjects = [*(subject for _, subject in opened), *peers]
        rows = measure(subjects, images, arguments.rounds)
    measured = [
        Measurement(
            "latency",
            row.subject.scope,
            row.subject.facts,
            setting,
            {stage: summary(samples) for stage, samples in row.stages.items()},
        )
        for row in rows
    ]
    return [*measured, *outside]


def _network(arguments: argparse.Namespace, runs: Sequence[Run]) -> FloatNetwork:
    """The network of the artefacts, for the peers; raises as `choose_reference`."""
    paths = dict.fromkeys(run.path for run in runs if kind_of(run.path) == "onnx")
    files = [read_artefact(path, check=False) for path in paths]
    return choose_reference(arguments, files).network


def _artefacts(arguments: argparse.Namespace, stack: ExitStack) -> Iterator[tuple[Run, Artefact]]:
    """Opens files on their runtimes, and what is fastest in each folder, of each precision."""
    runs = [(kind_of(run.path) == "folder", run) for run in runs_of(arguments, choose=False)]
    for folder, run in sorted(runs, key=lambda each: each[0]):
        for precision in (folder and arguments.precision) or [None]:
            opened = open_artefact(run, arguments.threads, precision=precision)
            subject = stack.enter_context(opened)
            file, *place = (subject.facts[name] for name in ("file", "runtime", "device"))
            yield (Run(run.path / file, *place) if folder else run), subject
