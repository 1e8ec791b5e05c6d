"""`icnet export`, also run as `python export/to_onnx.py`: a network becomes an ONNX file."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icnet_deploy.command import Goal, check_outputs, command, options, parser, size
from icnet_deploy.documents import as_read
from icnet_deploy.errors import InputError, require
from icnet_deploy.export.artefact import Exported, Form, origins, write_network
from icnet_deploy.files import sha256
from icnet_deploy.labels import LabelSet, load_label_set
from icnet_deploy.networks.own.request import (
    NetworkRequest,
    add_network_options,
    network_request,
)
from icnet_deploy.precisions import PRECISIONS

if TYPE_CHECKING:
    from torch import nn

    from icnet_deploy.networks.checkpoint import Checkpoint
    from icnet_deploy.networks.preprocessing import Preprocessing

_CHOICES = tuple(name for name, row in PRECISIONS.items() if not row.calibrated)
"""The precisions that need no images: an export's; the others are `icnet quantize`'s."""

_USUAL = (1024, 2048)
"""(height, width) of Cityscapes' images: for a checkpoint that names no size of its own."""


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
    """Writes an ONNX file of a checkpoint, proved against PyTorch; one that fails is not kept.

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
        InputError: the network does not take that size; a report on float16 is asked for at another
            precision.
        ImageError: a photo cannot be read.
        ModelError: the checkpoint cannot be read, a value in it is not finite, or its network
            cannot be said in ONNX.
        CheckFailed: the file does not do what PyTorch does, or a value in it or in an answer is not
            finite.
        OutputError: the file cannot be written.
        MissingPackage: torch, onnx or ONNX Runtime is not installed.
    """
    checkpoint = _load(weights)
    at = size or _own_size(checkpoint.info)
    form = Form(at, head, precision, dynamic_size, images, headroom, agreement)
    return write_network(checkpoint, out, form)


def export_network(
    module: nn.Module,
    out: str | Path,
    *,
    size: tuple[int, int],
    label_set: LabelSet | str | Path,
    preprocessing: Preprocessing | str | Path,
    head: str = "logits",
    precision: str = "fp32",
    dynamic_size: bool = False,
    upsampling: str | None = None,
    threshold: float | None = None,
    stride: int | None = None,
    side_multiple: int | None = None,
    images: Sequence[Path] = (),
    headroom: Path | None = None,
    agreement: float | None = None,
) -> Exported:
    """Writes an ONNX file of any PyTorch network, as `icnet export --network` does.

    The file is proved against the network; one that fails is not kept. What is left None is found
    by running the network.

    Args:
        module: takes float N x 3 x H x W and gives logits: a tensor, a tuple or list (the first is
            the logits), a dict (`out`), or an object with `logits`. It is copied, not changed; the
            copy runs in float32 on the CPU, in eval mode.
        out: the file to write.
        size: (height, width) in pixels that the graph takes.
        label_set: the network's classes: a value, a built-in name, or a JSON file. One channel of
            logits has two.
        preprocessing: what its input expects: a value, a name (`imagenet`, `caffe`, `unit`,
            `symmetric`), or a JSON file.
        head: `logits` (float, N x C x h x w) or `labels` (uint8, N x H x W).
        precision: `fp32` or `fp16`.
        dynamic_size: take any size that the network does; `size` is then an example.
        upsampling: how its logits become pixels, of `metadata.UPSAMPLINGS`.
        threshold: of one channel of logits, the probability, 0..1, from which on a pixel is of the
            second class; None: 0.5.
        stride: pixels from logit to logit.
        side_multiple: what both sides must be multiples of, in pixels.
        images: photos to measure and to compare on, besides two drawn scenes.
        headroom: where the report on float16 goes, as JSON.
        agreement: the least share of labels that must be PyTorch's, 0..1; None: as `check` has it.

    Raises:
        InputError: the module takes no such images, or what was said of it cannot be.
        ImageError: a photo cannot be read.
        LabelSetError: the label set has another number of classes than the network.
        ModelError: the network cannot be said in ONNX.
        CheckFailed: what was said of the network is not what it does, or the file does not do what
            PyTorch does.
        OutputError: the file cannot be written.
        MissingPackage: torch, onnx or ONNX Runtime is not installed.

    Example:
        >>> network = MyNetwork(num_classes=4)
        >>> network.load_state_dict(torch.load("my.pth", weights_only=True))
        >>> export_network(
        ...     network,
        ...     "my.onnx",
        ...     size=(512, 512),
        ...     label_set="my-classes.json",
        ...     preprocessing="imagenet",
        ... )
    """
    _require_packages()
    from icnet_deploy.networks.own.opened import adapt
    from icnet_deploy.networks.preprocessing import Preprocessing

    request = NetworkRequest(
        factory="",
        label_set=label_set if isinstance(label_set, LabelSet) else load_label_set(label_set),
        preprocessing=as_read(preprocessing.to_dict())
        if isinstance(preprocessing, Preprocessing)
        else str(preprocessing),
        upsampling=upsampling,
        threshold=threshold,
        stride=stride,
        side_multiple=side_multiple,
    )
    checkpoint = adapt(module, request, None if dynamic_size else size)
    form = Form(size, head, precision, dynamic_size, images, headroom, agreement)
    return write_network(checkpoint, Path(out), form)


def _load(weights: Path | None) -> Checkpoint:
    _require_packages()
    from icnet_deploy.networks.checkpoint import SHIPPED, load_checkpoint

    return load_checkpoint(weights or SHIPPED)


def _require_packages() -> None:
    require("export", "export", "torch", "safetensors", "onnx", "onnxscript", "onnxsim")
    require("the check of an exported file", "cpu", "onnxruntime")


def _own_size(info: dict[str, Any]) -> tuple[int, int]:
    """(height, width) that a checkpoint, or what it was pruned from, says that it is for."""
    for origin in origins(info):
        if "size" in origin:
            height, width = origin["size"]
            return int(height), int(width)
    return _USUAL


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "icnet export",
        "Write a network as an ONNX file with its preprocessing, checked against PyTorch.",
        "icnet export -o icnet.onnx",
    )
    p.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="the checkpoint (default: the shipped one); with --network, a .safetensors or .pth "
        "file of its weights (default: the weights that FACTORY gives it)",
    )
    _add_own_options(p)
    _add_form_options(p)
    options(p, "to check the artefact").add_argument(
        "--image",
        type=Path,
        action="extend",
        nargs="+",
        default=[],
        metavar="FILE",
        help="photos to check it on, and to measure the headroom of float16 on, besides two drawn "
        "scenes",
    )
    group = options(p, Goal.RESULTS)
    group.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="the artefact to write; one that fails its check is not kept (default: a name made "
        "of network, size, head and precision)",
    )
    group.add_argument(
        "--headroom",
        type=Path,
        metavar="FILE",
        help="with --precision fp16: write the range of every node as JSON",
    )
    return p


def _add_form_options(p: argparse.ArgumentParser) -> None:
    group = options(p, "to choose what the artefact takes and gives")
    group.add_argument(
        "--size",
        type=functools.partial(size, least=1),
        metavar="HEIGHTxWIDTH",
        help="the size of its images in pixels; needed with --network (default: the size in the "
        "checkpoint, as imported weights have one, else 1024x2048)",
    )
    group.add_argument(
        "--dynamic-size",
        action="store_true",
        help="take images of any size that the network takes; ICNet: from 64 pixels a side",
    )
    group.add_argument(
        "--head",
        default="logits",
        choices=("logits", "labels"),
        help="what the graph gives: logits, of which Predictor makes the label map (for ICNet a "
        "quarter of the image's size), or the label map itself (default: %(default)s)",
    )
    group.add_argument(
        "--precision",
        default="fp32",
        choices=_CHOICES,
        help="float32 or float16 (default: %(default)s)",
    )


def _add_own_options(parser: argparse.ArgumentParser) -> None:
    own = options(parser, Goal.NETWORK)
    add_network_options(own)
    own.add_argument(
        "--label-set",
        metavar="FILE|NAME",
        help="its classes: a JSON file or a built-in name, e.g. cityscapes",
    )


def _open(args: argparse.Namespace) -> tuple[Checkpoint, str, tuple[int, int]]:
    """The network that is asked for, what to call its file, and the (height, width) to export at.

    Raises:
        InputError: something that a network of one's own needs was not said; or an option of one
            stands alone.
    """
    if args.network is None and args.label_set is not None:
        raise InputError(
            "--label-set is for --network PACKAGE.MODULE:FACTORY: a checkpoint holds its own "
            "classes; give --network also, or leave --label-set out"
        )
    for name, what in _NEEDED.items():
        if args.network is not None and getattr(args, name) is None:
            raise InputError(
                f"--network {args.network} needs --{name.replace('_', '-')} also: {what}"
            )
    request = network_request(args)
    if request is None:
        checkpoint = _load(args.weights)
        return checkpoint, "icnet", args.size or _own_size(checkpoint.info)
    _require_packages()
    from icnet_deploy.networks.own.opened import open_network

    name = re.sub(r"[^\w.-]+", "-", request.factory.partition(":")[2]) or "network"
    opened = open_network(request, None if args.dynamic_size else args.size)
    return opened, name, args.size


_NEEDED = {
    "label_set": "the classes of its logits, e.g. cityscapes or classes.json",
    "preprocessing": "what its input expects, e.g. imagenet",
    "size": "the HEIGHTxWIDTH of its images in pixels, e.g. 512x512",
}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exports one file; exit code 0 done, 1 it failed its check, 2 the request was wrong."""
    args = _arguments().parse_args(argv)
    _require_packages()
    checkpoint, name, at = _open(args)
    where = "anysize" if args.dynamic_size else "x".join(map(str, at))
    out = args.out or Path(f"{name}-{where}-{args.head}-{args.precision}.onnx")
    args.out = out
    check_outputs(args, "headroom")
    form = Form(at, args.head, args.precision, args.dynamic_size, args.image, args.headroom)
    exported = write_network(checkpoint, out, form)
    for line in exported.found:
        print(line)
    if exported.headroom is not None:
        print(exported.headroom)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(out)[:16]}...")
    how = ", every value rounded to float16" if exported.headroom else ""
    print(f"checked against PyTorch{how}: {exported.check}")
    return 0


if __name__ == "__main__":
    # By path this file is `__main__`; the packaged module is the one that everything else imports.
    from icnet_deploy.export.to_onnx import main as packaged_main

    raise SystemExit(packaged_main())
