"""What the benchmarks of artefacts ask in the same words: what is measured, on what, and how."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.benchmarks.arguments import add_result_options, check_result_options, keep
from icnet_deploy.benchmarks.busy import Timed, timed
from icnet_deploy.benchmarks.measurement import SCOPES, Measurement
from icnet_deploy.command import count
from icnet_deploy.command import parser as make_parser
from icnet_deploy.command import size as read_size
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.pairing import ROUNDED, Pair, pair
from icnet_deploy.images import read_image
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.report.tables import number
from icnet_deploy.runtime.auto.folder import ENGINE_SUFFIXES
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import tellable

UInt8 = npt.NDArray[np.uint8]

_SCENES, _SEED = 3, 7


def mode_parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser with what all of them take: artefacts, where they run, images, and results."""
    parser = make_parser(f"icnet benchmark {name}", description, example)
    parser.add_argument(
        "artefacts",
        nargs="+",
        type=Path,
        metavar="ARTEFACT",
        help="an ONNX file, an engine, or a folder that icnet verify passed, for what is fastest "
        "in it",
    )
    parser.add_argument(
        "--runtime",
        action="append",
        metavar="NAME",
        help="may be repeated (default: those installed that the artefact is meant for)",
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda")
    parser.add_argument(
        "--threads", type=count, metavar="N", help="CPU threads a run (default: the runtime's)"
    )
    parser.add_argument(
        "--image", type=Path, action="append", metavar="FILE", help="(default: drawn scenes)"
    )
    parser.add_argument(
        "--size",
        type=read_size,
        default=(1024, 2048),
        metavar="HxW",
        help="of drawn scenes (default: 1024x2048)",
    )
    add_result_options(parser)
    return parser


def run_mode(
    arguments: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Sequence[Measurement]],
    show: Callable[[Sequence[Measurement]], None],
) -> int:
    """What each of them does: looks where results go, measures, shows, and keeps what it found.

    Returns:
        The exit code.
    """
    check_result_options(arguments)
    found = measure(arguments)
    show(found)
    keep(arguments, found)
    return 0


def numbers(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """An argument type: values of a kind with commas between them, each once, in order."""

    def read(text: str) -> list[Any]:
        return list(dict.fromkeys(kind(part.strip()) for part in text.split(",")))

    return read


def pairs_of(arguments: argparse.Namespace, choose: bool = True) -> list[Pair]:
    """Which file goes to which runtime; see `pairing.pair`.

    Args:
        arguments: of `mode_parser`.
        choose: put what `Predictor.from_folder` opens in a folder's place; otherwise the folder
            itself is in its pair, which a fresh process chooses from.

    Raises:
        InputError: a file is missing, or none is left to be measured.
        ModelError, UnavailableError: as `Predictor.from_folder`.
    """
    missing = [str(path) for path in arguments.artefacts if not path.exists()]
    if missing:
        raise InputError(f"there is no {', '.join(missing)}")
    folders = [path for path in dict.fromkeys(arguments.artefacts) if path.is_dir()]
    named = list(dict.fromkeys(arguments.runtime or ["auto"]))
    pairs = [Pair(path, runtime, arguments.device) for path in folders for runtime in named]
    if choose:
        pairs = [_choose(each, arguments.threads) for each in pairs]
    files = [path for path in arguments.artefacts if path not in folders]
    if files:
        pairing = pair(files, arguments.runtime, arguments.device)
        pairs += [each for each in pairing.pairs if each.runtime != ROUNDED]  # it is a stand-in
        for why in pairing.without.values():
            if not pairs:
                raise why
            print(f"icnet: left out: {why}", file=sys.stderr)
    return pairs


def _choose(each: Pair, threads: int | None) -> Pair:
    with Predictor.from_folder(each.path, each.runtime, each.device, threads) as predictor:
        if predictor.choice is None:
            raise RuntimeError("from_folder has made no choice")
        chosen = predictor.choice.winner
        return Pair(each.path / chosen.file, chosen.runtime, chosen.device)


def pictures(arguments: argparse.Namespace) -> list[UInt8]:
    """The images that were named, or drawn scenes: uint8 H x W x 3, RGB.

    Raises:
        ImageError: a file is missing, or is no image.
    """
    if arguments.image:
        return [read_image(path) for path in arguments.image]
    return [draw_scene((_SEED, number), arguments.size).image for number in range(_SCENES)]


@contextmanager
def open_chosen(each: Pair, threads: int | None, streams: int = 1) -> Iterator[Predictor]:
    """Opens an artefact on its runtime.

    Args:
        each: the file and the runtime.
        threads: CPU threads a run; None leaves it to the runtime.
        streams: how many images are worked on at once.

    Raises:
        ModelError, InputError, UnavailableError: as `Predictor.from_onnx` and `from_engine`.
    """
    if each.path.suffix in ENGINE_SUFFIXES:
        if threads is not None or streams != 1:
            raise InputError(
                f"{each.path} is an engine, which runs on the GPU one image after the other: leave "
                "--threads and --streams away"
            )
        opened = Predictor.from_engine(each.path, each.runtime)
    else:
        opened = Predictor.from_onnx(each.path, each.runtime, each.device, threads, streams=streams)
    with opened as predictor:
        yield predictor


@contextmanager
def open_timed(
    each: Pair, threads: int | None, streams: int = 1
) -> Iterator[tuple[Predictor, Timed]]:
    """The same, with what notes when its network is at work."""
    with open_chosen(each, threads, streams) as plain:
        network = timed(plain._open_backend())
        predictor = Predictor(
            network,
            plain.metadata,
            runtime=plain.runtime,
            device=plain.device,
            threads=threads,
            streams=streams,
        )
        yield predictor, network


def facts(
    each: Pair, predictor: Predictor, threads: int | None, streams: int = 1
) -> dict[str, Any]:
    """See `Measurement.subject`."""
    return {
        "name": each.path.stem,
        "file": each.path.name,
        "sha256": artefact_sha256(each.path),
        "precision": predictor.metadata.precision,
        "runtime": predictor.runtime,
        "device": predictor.device,
        "threads": threads,
        "streams": streams,
    }


def who(each: Measurement) -> list[str]:
    """The first cells of its row: the artefact, its precision, and what ran it."""
    row = each.subject
    return [row["name"], row["precision"], f"{row['runtime']}, {row['device']}"]


def p90(told: Mapping[str, Any], digits: int = 1) -> str:
    """The 90th percentile of a `timing.summary`, where so many samples can tell it."""
    return number(told["p90_ms"] if tellable(90, told["runs"]) else None, digits)


def tell_how(found: Sequence[Measurement], lines: Sequence[str]) -> None:
    """Prints what stands below a table: how it was measured, what it covers, and where."""
    told = found[0].machine
    print(f"\n{told['cpu']}, {told['cores']} cores")
    for line in lines:
        print(line)
    for scope in dict.fromkeys(each.scope for each in found):
        print(f"scope, {scope}: {SCOPES[scope]}")
