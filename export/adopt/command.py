"""`icnet adopt`: an ONNX file that another program wrote becomes an artefact."""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

from icnet_deploy.command import command, number_type, parser, size
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
        "Make an artefact of an ONNX file that another program wrote: preprocessing is put in\n"
        "front, so that it takes uint8 images, and its logits are found behind what it makes of\n"
        "them. It is checked against the file on ONNX Runtime, and one that fails is not kept.\n"
        "You must name what the file does not say: its classes, and what its input expects.",
        "icnet adopt net.onnx --label-set classes.json --preprocessing imagenet -o adopted.onnx",
    )
    p.add_argument("file", type=Path, metavar="FILE.onnx", help="one float input, an image")
    p.add_argument(
        "--label-set",
        required=True,
        metavar="FILE|NAME",
        help="its classes, in the order of the channels: a JSON file or a built-in name",
    )
    p.add_argument(
        "--preprocessing",
        required=True,
        metavar="NAME|FILE.json",
        help="what its input expects: imagenet, caffe, unit (0..1), symmetric (-1..1), or a file",
    )
    p.add_argument("--layout", choices=LAYOUTS, help="of its input (default: what its shape says)")
    p.add_argument(
        "--size",
        type=functools.partial(size, least=1),
        metavar="HEIGHTxWIDTH",
        help="in pixels, of a file whose sides are free (default: as the file has it)",
    )
    p.add_argument(
        "--upsampling",
        choices=UPSAMPLINGS,
        help="how its logits become pixels (default: what its last Resize does; else half-pixel)",
    )
    p.add_argument(
        "--threshold",
        type=number_type(PROBABILITY),
        metavar="P",
        help="of one channel: a pixel is of the second class from this probability on (default: "
        "what the file compares it with, or 0.5)",
    )
    p.add_argument(
        "--output", metavar="NAME", help="which output has the logits, where there are several"
    )
    p.add_argument("--precision", default="fp32", choices=_CHOICES, help="(default: %(default)s)")
    p.add_argument(
        "--images",
        type=Path,
        action="extend",
        nargs="+",
        default=[],
        metavar="FILE",
        help="photos to check on, and to measure float16's headroom on, besides two drawn scenes",
    )
    p.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="the artefact")
    return p


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
