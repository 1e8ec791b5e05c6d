"""`icnet benchmark latency`: artefacts and peers timed in turn, one image at a time."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from icnet_deploy.benchmarks.arguments import add_plot_options, check_result_options, keep
from icnet_deploy.benchmarks.asked import mode_parser, pairs_of, pictures
from icnet_deploy.benchmarks.measurement import SCOPES, Measurement
from icnet_deploy.benchmarks.measurement_tables import text
from icnet_deploy.benchmarks.subjects import open_artefact, open_folder
from icnet_deploy.command import command, count
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.pairing import Pair
from icnet_deploy.timing import WARMUP, Latency, Subject, measure, summary

if TYPE_CHECKING:
    from icnet_deploy.benchmarks.peers.chosen import ChosenPeers

UInt8 = npt.NDArray[np.uint8]


def measurements(rows: Sequence[Latency], size: tuple[int, int]) -> list[Measurement]:
    """What is kept of them.

    Args:
        rows: as `measure` returns them.
        size: (height, width) of the images, in pixels.
    """
    return [
        Measurement(
            "latency",
            row.subject.scope,
            dict(row.subject.facts),
            {
                "size": list(size),
                "batch": 1,
                "warmup": WARMUP,
                "rounds": len(row.stages["total"]),
            },
            {stage: summary(samples) for stage, samples in row.stages.items()},
        )
        for row in rows
    ]


def _parser() -> argparse.ArgumentParser:
    parser = mode_parser(
        "latency",
        "Times artefacts, and others' ways to run them, in turn, A B A B, one image at a time.\n"
        "A folder that icnet verify passed stands for what is fastest in it, as in from_folder.\n"
        f"Scope of an artefact's row: {SCOPES['image-to-labels']}.",
        "icnet benchmark latency icnet.onnx icnet-int8.onnx --peers all --json latency.jsonl",
    )
    parser.add_argument("--rounds", type=count, default=20, metavar="N", help="(default: 20)")
    parser.add_argument(
        "--precision",
        action="append",
        metavar="NAME",
        help="of a folder: choose among its files of this precision only; may be repeated",
    )
    parser.add_argument(
        "--peers",
        metavar="NAME,...",
        help="others' ways to time beside them, e.g. pytorch,onnxruntime, or `all`; a name that "
        "there is not is answered by those there are",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="the checkpoint of the artefacts, for the peers (default: the shipped one)",
    )
    add_plot_options(parser)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark latency`; returns its exit code."""
    arguments = _parser().parse_args(argv)
    check_result_options(arguments)
    images = pictures(arguments)
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        told = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise InputError(
            f"the images are of {len(sizes)} sizes ({told}), and a latency is of one: give images "
            "of one size"
        )
    size = sizes.pop()
    peers = None if arguments.peers is None else _peers(arguments, size)
    with ExitStack() as stack:
        pairs, subjects = _artefacts(arguments, stack)
        outside = peers.outside(pairs) if peers else []
        if peers:
            subjects += peers.open(pairs, stack)
        rows = measure(subjects, images, arguments.rounds)
    found = [*measurements(rows, size), *outside]
    print(text(found))
    keep(arguments, found)
    return 0


def _artefacts(arguments: argparse.Namespace, stack: ExitStack) -> tuple[list[Pair], list[Subject]]:
    """Opens files on their runtimes, and what is fastest in each folder."""
    folders = [path for path in arguments.artefacts if path.is_dir()]
    arguments.artefacts = [path for path in arguments.artefacts if path not in folders]
    pairs = pairs_of(arguments) if arguments.artefacts else []
    found = [stack.enter_context(open_artefact(each, arguments.threads)) for each in pairs]
    for folder in folders:
        for opened in _from_folder(folder, arguments):
            chosen = stack.enter_context(opened)
            told = chosen.facts
            pairs.append(Pair(folder / told["file"], told["runtime"], told["device"]))
            found.append(chosen)
    return pairs, found


def _from_folder(
    folder: Path, arguments: argparse.Namespace
) -> Iterator[AbstractContextManager[Subject]]:
    """A row for each runtime and precision that was named."""
    for runtime in arguments.runtime or ["auto"]:
        for precision in arguments.precision or [None]:
            yield open_folder(folder, runtime, arguments.device, arguments.threads, precision)


def _peers(arguments: argparse.Namespace, size: tuple[int, int]) -> ChosenPeers:
    from icnet_deploy.benchmarks.peers.chosen import ChosenPeers  # they know of torch

    return ChosenPeers.from_text(arguments.peers, size, arguments.threads, arguments.weights)
