"""`python -m tools.planted`: a file with a known fault, to prove the gates on.

One class loses a known share of its pixels. A gate that never failed on a file that is known to be
worse is no gate.
"""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from icnet_deploy.command import command, number_type, parser
from icnet_deploy.documents import PERCENT
from icnet_deploy.errors import InputError
from icnet_deploy.metadata import read_onnx_metadata, write_artefact
from icnet_deploy.precisions import PRECISIONS

_CLAIMED = next(name for name, row in PRECISIONS.items() if row.calibrated)
"""The precision that the file claims: its budget is the one that holds classes."""


def plant(
    source: Path,
    out: Path,
    names: tuple[str, str],
    share: float,
    seed: int = 0,
) -> None:
    """Writes a file that labels a share of one class's pixels as another class.

    The pixels are drawn once and are the same in every image. A class whose IoU is i loses about
    i times the share; the other loses the more the rarer it is.

    Args:
        source: a float32 file of a fixed size whose head is `labels`.
        out: where to.
        names: of the class that loses pixels, and of the one that is given them.
        share: of the pixels that it is given, 0..1.
        seed: of the pixels.

    Raises:
        InputError: there is no such class, or the file has another head or takes any size.
    """
    metadata = read_onnx_metadata(source)
    if metadata.size is None or metadata.head != "labels":
        raise InputError(f"{source} gives no labels of a fixed size: export it with --head labels")
    known = metadata.label_set.names
    for name in names:
        if name not in known:
            raise InputError(f"{source} has no class {name!r}; it has {', '.join(known)}")
    own, other = map(known.index, names)
    model = onnx.load(source)
    graph = model.graph
    (last,) = [node for node in graph.node if "labels" in node.output]
    last.output[list(last.output).index("labels")] = "true_labels"
    lost = np.random.default_rng(seed).random((1, *metadata.size)) < share
    constants = {
        "planted_pixels": lost,
        "planted_class": np.array(own, np.uint8),
        "planted_other": np.array(other, np.uint8),
    }
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    graph.node.extend(
        [
            helper.make_node("Equal", ["true_labels", "planted_class"], ["planted_own"]),
            helper.make_node("And", ["planted_own", "planted_pixels"], ["planted_lost"]),
            helper.make_node("Where", ["planted_lost", "planted_other", "true_labels"], ["labels"]),
        ]
    )
    no_image = hashlib.sha256(b"planted").hexdigest()  # the gate asks what it was calibrated on
    claims = replace(metadata, precision=_CLAIMED, calibration_images=(no_image,))
    write_artefact(out, model.SerializeToString(), claims)


def _parser() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.planted",
        "Writes a file that labels a share of one class's pixels as another class.",
        "python -m tools.planted icnet-labels.onnx --classes road building --percent 1 "
        "-o planted.onnx",
    )
    p.add_argument("source", type=Path, metavar="FILE", help="float32, with the head labels")
    p.add_argument(
        "--classes",
        required=True,
        nargs=2,
        metavar=("FROM", "TO"),
        help="the one that loses pixels, and the one that is given them",
    )
    p.add_argument("--percent", required=True, type=number_type(PERCENT), help="of its pixels")
    p.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="where to")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _parser().parse_args(argv)
    own, other = args.classes
    plant(args.source, args.out, (own, other), args.percent / 100)
    print(f"{args.out} labels {args.percent:g} % of the pixels of {own} as {other}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
