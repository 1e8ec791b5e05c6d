"""`icnet adopt`: an ONNX file that another program wrote becomes an artefact."""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

from icnet_deploy.command import Goal, command, number_type, options, parser, size
from icnet_deploy.documents import PROBABILITY
from icnet_deploy.errors import require
from icnet_deploy.export.adopt.request import LAYOUTS, Request
from icnet_deploy.files import sha256
from icnet_deploy.labels import load_label_set
from icnet_deploy.metadata import UPSAMPLINGS
from icnet_deploy.precisions import PRECISIONS

_CHOICES = tuple(name for name, row in PRECISIONS.items() if not row.calibrated)
"""The precisions that need no images: an adoption's; the others are `icnet quantize`'s."""


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "icnet adopt",
        "Make an artefact of an ONNX file that another program wrote, checked against that file.",
        "icnet adopt net.onnx --label-set classes.json --preprocessing imagenet -o adopted.onnx",
    )
    p.add_argument(
        "file", type=Path, metavar="FILE.onnx", help="the ONNX file; its one input is an image"
    )
    _add_file_options(p)
    group = options(p, "to choose what the artefact takes and gives")
    group.add_argument(
        "--size",
        type=functools.partial(size, least=1),
        metavar="HEIGHTxWIDTH",
        help="the size of its images in pixels, if the file takes any size (default: the file's)",
    )
    group.add_argument(
        "--precision",
        default="fp32",
        choices=_CHOICES,
        help="float32 or float16 (default: %(default)s)",
    )
    options(p, "to check the artefact").add_argument(
        "--images",
        type=Path,
        action="extend",
        nargs="+",
        default=[],
        metavar="FILE",
        help="photos to check it on, and to measure the headroom of float16 on, besides two drawn "
        "scenes",
    )
    options(p, Goal.RESULTS).add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the artefact to write, which takes uint8 images; one that fails its check is not "
        "kept",
    )
    return p


def _add_file_options(p: argparse.ArgumentParser) -> None:
    """Adds what the file does not say of its network."""
    group = options(p, "to describe the file's network")
    group.add_argument(
        "--label-set",
        required=True,
        metavar="FILE|NAME",
        help="its classes, in the order of the channels: a JSON file or a built-in name",
    )
    group.add_argument(
        "--preprocessing",
        required=True,
        metavar="NAME|FILE.json",
        help="what its input expects: imagenet, caffe, unit (0..1), symmetric (-1..1), or a file",
    )
    group.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="the order of its input's dimensions (default: read from the input's shape)",
    )
    group.add_argument(
        "--output",
        metavar="NAME",
        help="the output with the logits or the label map, if there are several",
    )
    group.add_argument(
        "--upsampling",
        choices=UPSAMPLINGS,
        help="how its logits become pixels (default: as its last Resize does it, else half-pixel)",
    )
    group.add_argument(
        "--threshold",
        type=number_type(PROBABILITY),
        metavar="P",
        help="for a network with one channel of logits: a pixel of at least this probability gets "
        "the second class (default: the file's, else 0.5)",
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Adopts one file; exit code 0 done, 1 it failed its check, 2 it cannot be taken."""
    args = _arguments().parse_args(argv)
    require("adopting a file", "export", "torch", "safetensors", "onnx", "onnxsim")
    require("the check of an adopted file", "cpu", "onnxruntime")
    from icnet_deploy.export.adopt.adoption import adopt
    from icnet_deploy.networks.preprocessing import load_preprocessing

    request = Request(
        load_label_set(args.label_set),
        load_preprocessing(args.preprocessing),
        args.layout,
        args.size,
        args.output,
        args.upsampling,
        args.threshold,
        args.precision,
        args.images,
    )
    adopted = adopt(args.file, args.out, request)
    for line in adopted.found:
        print(line)
    if adopted.headroom is not None:
        print(adopted.headroom)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(args.out)[:16]}...")
    how = ", every value rounded to float16" if adopted.headroom else ""
    print(f"checked against {args.file.name} on ONNX Runtime{how}: {adopted.check}")
    return 0
