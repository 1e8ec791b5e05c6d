"""`icnet export`, also run as `python export/to_onnx.py`: a checkpoint becomes an ONNX file."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from icnet_deploy._version import __version__
from icnet_deploy.command import command, parser, size
from icnet_deploy.errors import CheckFailed, InputError, OutputError, require
from icnet_deploy.files import make_folder, sha256, write_json
from icnet_deploy.integrity import require_finite_graph
from icnet_deploy.metadata import ArtefactMetadata, write_artefact
from icnet_deploy.precisions import PRECISIONS

if TYPE_CHECKING:
    from icnet_deploy.export.check import Verification
    from icnet_deploy.export.headroom import Headroom
    from icnet_deploy.networks.checkpoint import Checkpoint

_CHOICES = tuple(name for name, row in PRECISIONS.items() if not row.calibrated)
"""The precisions that need no images: an export's; the others are `icnet quantize`'s."""

_USUAL = (1024, 2048)
"""(height, width) of Cityscapes' images: for a checkpoint that names no size of its own."""


class Exported(NamedTuple):
    """What is known of a file that was written.

    Attributes:
        check: how far it is from PyTorch; of a float16 file, with every value rounded to float16.
        headroom: what float16 did to it; None for float32.
    """

    check: Verification
    headroom: Headroom | None


def export(
    out: Path,
    weights: Path | None = None,
    size: tuple[int, int] | None = None,
    head: str = "logits",
    precision: str = "fp32",
    dynamic_size: bool = False,
    images: Sequence[Path] = (),
    headroom: Path | None = None,
    agreement: float | None = None,
) -> Exported:
    """Writes an ONNX file and proves it against PyTorch; a file that fails is not kept.

    Args:
        out: the file to write.
        weights: a checkpoint; None is the shipped one.
        size: (height, width) in pixels that the graph takes; None: what the checkpoint says that
            its network is for, as imported weights do, or else 1024 x 2048.
        head: `logits` (float, N x C x h x w, for ICNet a quarter of the size) or `labels` (uint8,
            N x H x W).
        precision: `fp32` or `fp16`.
        dynamic_size: take any size from the network's shortest side on; `size` is then an example.
        images: photos to measure and to compare on, besides two drawn scenes.
        headroom: where the report on float16 goes, as JSON, before anything else is written.
        agreement: the least share of labels that must be PyTorch's, 0..1; None: as `check` has it.

    Raises:
        InputError: a report on float16 is asked for at another precision.
        ImageError: a photo cannot be read.
        ModelError: the checkpoint cannot be read, or a value in it is not finite.
        CheckFailed: the file does not do what PyTorch does, or a value in it or in an answer is not
            finite.
        OutputError: the file cannot be written.
        MissingPackage: torch, onnx or ONNX Runtime is not installed.
    """
    _require_packages()
    from icnet_deploy.export.check import Samples, verify
    from icnet_deploy.export.deployed import Deployed, stride_of
    from icnet_deploy.export.graph import LARGEST, trace
    from icnet_deploy.export.headroom import measure
    from icnet_deploy.export.passes import rounded, to_half
    from icnet_deploy.networks.checkpoint import SHIPPED, load_checkpoint

    half = PRECISIONS[precision].rounded
    if headroom is not None and not half:
        raise InputError(f"the headroom report is about float16; the precision is {precision}")
    checkpoint = load_checkpoint(weights or SHIPPED)
    size = size or _own_size(checkpoint.info)
    sizes, least = [size], checkpoint.network.min_side
    if dynamic_size:  # not a multiple of anything, and nearly as small as may be
        sizes += [(size[0] * 3 // 4 + 1, size[1] // 2 + 3), (least * 3 // 2, least * 2)]
    samples = Samples(sizes, images)
    make_folder(out.parent)  # what cannot be written is refused before the long work
    if out.is_dir():
        raise OutputError(f"cannot write the file {out}: a folder of that name is there")
    module = Deployed(checkpoint.network, checkpoint.preprocessing, head, dynamic_size)
    model = trace(module, size, dynamic_size)
    report: Headroom | None = None
    _bytes_of(model, checkpoint)
    if half:
        report = measure(model, samples, LARGEST if dynamic_size else None)
        if headroom is not None:
            write_json(headroom, report.to_dict())
        to_half(model, [node.node for node in report.kept])
    # Between them these have sides of every remainder of 32, for a graph that takes any.
    others = [(least + i, least + 16 + i) for i in range(16)] if dynamic_size else []
    stride = stride_of(checkpoint.network, [*sizes, *others])
    metadata = _metadata(checkpoint, None if dynamic_size else size, head, precision, stride)
    model.producer_name, model.producer_version = "icnet-deploy", __version__
    content = _bytes_of(model, checkpoint)

    def check(file: Path) -> Verification:
        if not half:
            return verify(file, checkpoint, head, precision, samples, agreement)
        # A CPU computes a float16 file in float32: that it loads is seen there, what it answers
        # on a GPU is not.
        verify(file, checkpoint, head, precision, [samples[0]], agreement)
        rounded(model)
        gpu = model.SerializeToString()
        return verify(gpu, checkpoint, head, precision, samples, agreement)

    return Exported(write_artefact(out, content, metadata, check), report)


def _bytes_of(model: Any, checkpoint: Checkpoint) -> bytes:
    """The graph as it is written; CheckFailed where folding made a weight infinite or no number."""
    content: bytes = model.SerializeToString()
    whose = f"the graph of {checkpoint.path}, its batch norms and scales folded,"
    advice = "its weights are too large; train the network again, or take another checkpoint"
    require_finite_graph(content, whose, advice, CheckFailed)
    return content


def _require_packages() -> None:
    require("export", "export", "torch", "safetensors", "onnx", "onnxscript", "onnxsim")
    require("the check of an exported file", "cpu", "onnxruntime")


def _metadata(
    checkpoint: Checkpoint,
    size: tuple[int, int] | None,
    head: str,
    precision: str,
    stride: int | None,
) -> ArtefactMetadata:
    return ArtefactMetadata(
        label_set=checkpoint.label_set,
        size=size,
        head=head,
        precision=precision,
        network=checkpoint.network.description(),
        preprocessing=checkpoint.preprocessing.to_dict(),
        weights_sha256=checkpoint.sha256,
        training_data=_training_data(checkpoint.info),
        stride=stride,
        upsampling=checkpoint.network.upsampling,
        min_side=checkpoint.network.min_side,
        tools={name: version(name) for name in ("torch", "onnx", "onnxsim")}
        | {"icnet-deploy": __version__, "python": platform.python_version()},
    )


def _origins(info: dict[str, Any], trained: bool = False) -> Iterator[dict[str, Any]]:
    """What a checkpoint says of itself, then what the one that it was pruned from said, and on;
    or, if `trained`, what the one said that its training started from."""
    while info:
        yield info
        pruned_from = info.get("compression", {}).get("parent", {})
        info = pruned_from or (info.get("parent", {}) if trained else {})


def _own_size(info: dict[str, Any]) -> tuple[int, int]:
    """(height, width) that a checkpoint, or what it was pruned from, says that it is for."""
    for origin in _origins(info):
        if "size" in origin:
            height, width = origin["size"]
            return int(height), int(width)
    return _USUAL


def _training_data(info: dict[str, Any]) -> str | None:
    """What the checkpoint was trained on, in words, and what those that it comes from were."""
    words = []
    for origin in _origins(info, trained=True):
        sets = origin.get("data")
        if isinstance(sets, list):
            words += [f"{d['images']} images of {d['name']} {d['split']}" for d in sets]
        if isinstance(origin.get("source"), str):  # imported weights say where they come from
            words.append(origin["source"])
    return ", ".join(dict.fromkeys(words)) or None


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "icnet export",
        "Export a checkpoint to ONNX: preprocessing in the graph, uint8 image in, checked against "
        "PyTorch. A file that fails the check is not kept.",
        "python export/to_onnx.py --size 1024x2048 --head labels -o icnet.onnx",
    )
    p.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint (default: shipped)")
    p.add_argument(
        "--size",
        type=size,
        help="HEIGHTxWIDTH (default: what the checkpoint says that it is for, as imported weights "
        "do, or else 1024x2048)",
    )
    p.add_argument(
        "--head",
        default="logits",
        choices=("logits", "labels"),
        help="logits at the network's own size, a quarter of the image's for ICNet, finished by "
        "Predictor; or the label map, finished in the graph (default: %(default)s)",
    )
    p.add_argument("--precision", default="fp32", choices=_CHOICES, help="(default: %(default)s)")
    p.add_argument(
        "--dynamic-size",
        action="store_true",
        help="take any size from the network's shortest side on, 64 pixels for ICNet",
    )
    p.add_argument(
        "--image",
        type=Path,
        action="extend",
        nargs="+",
        default=[],
        metavar="FILE",
        help="photos to check on, and to measure float16's headroom on, besides two drawn scenes",
    )
    p.add_argument(
        "--headroom",
        type=Path,
        metavar="FILE",
        help="of --precision fp16: write what was measured of every node as JSON, before building",
    )
    p.add_argument("-o", "--out", type=Path, metavar="FILE", help="(default: a name that says all)")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exports one file; exit code 0 done, 1 it failed its check, 2 the request was wrong."""
    args = _arguments().parse_args(argv)
    _require_packages()
    from icnet_deploy.networks.checkpoint import SHIPPED, load_checkpoint

    height, width = at = args.size or _own_size(load_checkpoint(args.weights or SHIPPED).info)
    where = "anysize" if args.dynamic_size else f"{height}x{width}"
    out = args.out or Path(f"icnet-{where}-{args.head}-{args.precision}.onnx")
    check, headroom = export(
        out,
        args.weights,
        at,
        args.head,
        args.precision,
        args.dynamic_size,
        args.image,
        args.headroom,
    )
    if headroom is not None:
        print(headroom)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(out)[:16]}...")
    how = ", every value rounded to float16" if headroom else ""
    print(f"checked against PyTorch{how}: {check}")
    return 0


if __name__ == "__main__":
    # By path this file is `__main__`; the packaged module is the one that everything else imports.
    from icnet_deploy.export.to_onnx import main as packaged_main

    raise SystemExit(packaged_main())
