"""From an ONNX file of another program to an artefact that was proved against it."""

import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from os.path import exists
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor

from icnet_deploy._version import __version__
from icnet_deploy.errors import BackendError, CheckFailed, InputError, ModelError, OutputError
from icnet_deploy.export.adopt.assemble import assemble
from icnet_deploy.export.adopt.foreign_file import ForeignFile, read_foreign, require_finite_weights
from icnet_deploy.export.adopt.network import ForeignNetwork, endings_of
from icnet_deploy.export.adopt.original import Original
from icnet_deploy.export.adopt.request import Request
from icnet_deploy.export.adopt.rule import rule_in_words
from icnet_deploy.export.artefact import Form, sizes_of
from icnet_deploy.export.check import Samples, Verification, verify
from icnet_deploy.export.graph import LARGEST
from icnet_deploy.export.headroom import Headroom, measure
from icnet_deploy.export.passes import rounded, to_half
from icnet_deploy.files import require_place
from icnet_deploy.images import UInt8
from icnet_deploy.metadata import ArtefactMetadata, write_artefact
from icnet_deploy.networks.checkpoint import Checkpoint
from icnet_deploy.networks.layers import resize
from icnet_deploy.networks.own.probe import Behaviour, probe, probe_at
from icnet_deploy.networks.own.request import NetworkRequest
from icnet_deploy.networks.own.said import hold_said
from icnet_deploy.networks.preprocessing import Preprocessing
from icnet_deploy.precisions import PRECISIONS

Size = tuple[int, int]

_LEAST_ALIKE = 0.9999
_MOST_APART = 1e-3
"""How far logits that are resized behind the file may be from its own, root mean square, as a share
of their spread; as for an artefact in float32."""

_MOVED = frozenset({"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Resize"})
"""What leaves logits logits: behind others the labels alone can be compared."""


class Adopted(NamedTuple):
    """What is known of an artefact that was written.

    Attributes:
        check: how far it is from the file; of float16, with every value rounded to it.
        headroom: what float16 did to it; None of float32.
        found: what the file is, and what became of it, line by line.
    """

    check: Verification
    headroom: Headroom | None
    found: tuple[str, ...]


class _Placed(NamedTuple):
    """A way to take a file, that was found to be exact."""

    network: ForeignNetwork
    behaviour: Behaviour
    upsampling: str
    samples: Samples
    notes: tuple[str, ...]


def adopt(path: Path, out: Path, request: Request) -> Adopted:
    """Writes an artefact of a foreign file and proves it against that; one that fails is not kept.

    Args:
        path: the file.
        out: the artefact.
        request: what is said of the file.

    Raises:
        InputError: the artefact does not end in .onnx; the file needs something said, or cannot be
            run at that size.
        ModelError: it cannot be taken; the message says why.
        LabelSetError: the label set has another number of classes.
        ImageError: a photo cannot be read.
        CheckFailed: the artefact does not do what the file does, or what was said of it is not so.
        OutputError: the artefact cannot be written.
    """
    file = read_foreign(path, request.layout, request.output)
    size = _size(file, request.size)
    require_place(out, ".onnx")
    if exists(out) and out.samefile(path):
        raise OutputError(f"the artefact would replace {path} itself: write it to another file")
    placed = _place(file, size, request)
    network, file = placed.network, placed.network.file
    network.place(
        placed.upsampling,
        placed.behaviour.stride,
        placed.behaviour.min_side,
        placed.behaviour.side_multiple,
    )
    checkpoint = Checkpoint(
        path, network, request.label_set, request.preprocessing, {}, file.sha256
    )
    half = [_half_words(file, placed.samples, request.preprocessing)] if file.half else []
    written = _write(out, checkpoint, placed, size, request)
    words = _words(file, placed, size, written.batch, request.upsampling)
    return Adopted(written.check, written.headroom, (*words, *half, *placed.notes))


def _half_words(file: ForeignFile, samples: Samples, preprocessing: Preprocessing) -> str:
    """How far the file's own float16 is from its float32, in words (CheckFailed: too far)."""
    whole = Original(file, [file.output])
    half = Original(file, [file.output], onnx.load(file.path))
    pixels = preprocessing.tensor(np.stack(samples[0])).numpy()
    ours, theirs = (np.asarray(one.run(pixels)[file.output]) for one in (whole, half))
    if ours.dtype.kind == "f":
        difference = np.sqrt(np.square(ours - theirs.astype(np.float32)).mean())
        apart = float(difference / max(float(ours.std()), 1e-12))
        text = f"its output in float16 differs by {apart:.2%} of its spread"
    else:
        apart = float((ours != theirs).mean())
        text = f"its label map in float16 differs in {apart:.3%} of the pixels"
    if not apart <= _HALF_APART[ours.dtype.kind == "f"]:
        raise CheckFailed(
            f"{file.path} is float16, and {text}, which is more than rounding: values overflow in "
            "float16; adopt the network in float32"
        )
    return f"float16: its weights are kept exactly, as float32; {text}"


_HALF_APART = {True: 0.05, False: 0.005}
"""Of logits, as a share of their spread; of labels, as a share of the pixels: as of an export."""


def _size(file: ForeignFile, said: Size | None) -> Size | None:
    """(height, width) that the artefact takes; None: any."""
    height, width = file.size
    if said is not None:
        if any(own not in (None, side) for own, side in zip(file.size, said, strict=True)):
            own = "x".join("any" if side is None else str(side) for side in file.size)
            raise InputError(
                f"--size {said[0]}x{said[1]} was given, but {file.path} takes only images of "
                f"{own}: leave --size out, or export the network at that size"
            )
        return said
    if height is None and width is None:
        return None
    if height is None or width is None:
        raise InputError(
            f"{file.path} has one free side and one fixed side ({height or 'any'}x"
            f"{width or 'any'}): give both with --size"
        )
    return height, width


def _place(file: ForeignFile, size: Size | None, request: Request) -> _Placed:
    """The first way to take the file that is exact."""
    classes = len(request.label_set)
    file, endings, at = endings_of(file, classes, size)
    if request.threshold is not None and (channels := endings[0].channels) != 1:
        raise InputError(
            f"--threshold {request.threshold:g} is for one channel of logits; {file.path} has "
            f"{f'{channels} channels' if channels else 'only label maps'}: leave it out"
        )
    whole = ForeignNetwork(file, endings[-1], classes, request.threshold)
    said = NetworkRequest(str(file.path), upsampling=request.upsampling)
    notes: list[str] = []
    if request.upsampling == "none":  # then what upsamples stays in the graph
        endings = [ending for ending in endings if ending.upsampling is None]
    for ending in endings:
        network = ForeignNetwork(file, ending, classes, request.threshold)
        behaviour = _behaviour(network, str(file.path), size)
        if ending.head == "labels" and not behaviour.is_whole:
            run = behaviour.runs[0]
            raise ModelError(
                f"for an image of {run.size[0]}x{run.size[1]}, {file.path} gives a label map of "
                f"{run.grid[0]}x{run.grid[1]}, and no logits: export the network so that it gives "
                "logits"
            )
        behaviour = replace(behaviour, upsampling=ending.upsampling)
        if size is None and ending.upsampling is not None:
            behaviour = replace(behaviour, side_multiple=_exact_multiple(whole, behaviour))
        rule = hold_said(said, behaviour, str(file.path))
        form = Form(size or at, dynamic_size=size is None)
        sizes = sizes_of(form, behaviour.min_side, behaviour.side_multiple)
        samples = Samples(sizes, request.images, request.preprocessing)
        reason = "" if ending == endings[-1] else _unlike(network, whole, rule, samples, request)
        if not reason:
            return _Placed(network, behaviour, rule, samples, tuple(notes))
        off = ", ".join(reversed(ending.taken_off))
        notes.append(f"kept in the graph: {off}, as without them {reason}")
    raise CheckFailed(f"{file.path} cannot be adopted: {'; '.join(notes)}")


def _behaviour(network: ForeignNetwork, name: str, size: Size | None) -> Behaviour:
    """What the file does on noise, by this name in messages (ModelError: nothing steady)."""
    try:
        if size is not None:
            return probe_at(network, name, size)
        return probe(network, name, keep_resize=True)
    except CheckFailed as error:
        advice = "export the network again, in inference mode and from weights that are whole"
        raise ModelError(f"{error}: {advice}") from error


def _exact_multiple(whole: ForeignNetwork, behaviour: Behaviour) -> int:
    """The multiple of an image's sides at which the file's own answer has the image's size.

    A Resize by a factor gives 66x98 for an image of 65x97: there is no label map to be the same as.
    """
    for times in (1, 2, 4, 8, 16, 32):
        multiple = behaviour.side_multiple * times
        side = (-(-behaviour.min_side // multiple) | 1) * multiple
        with suppress(BackendError):  # it does not take that size
            if whole(torch.zeros(1, 3, side, side + multiple)).shape[2:] == (side, side + multiple):
                return multiple
    return behaviour.side_multiple


def _unlike(
    network: ForeignNetwork, whole: ForeignNetwork, rule: str, samples: Samples, request: Request
) -> str:
    """Why the logits of an ending are not those of the file's own answer; empty where they are."""
    same = total = 0
    furthest = 0.0
    for batch in samples:
        pixels = request.preprocessing.tensor(np.stack(batch))
        logits, answers = network(pixels), whole(pixels)
        grid = (int(answers.shape[2]), int(answers.shape[3]))
        ours = logits if logits.shape == answers.shape else resize(logits, grid, rule)
        margin = network.tie_margins(float(logits.abs().max()))[32]
        alike = _alike(ours, answers, margin)
        same, total = same + int(alike.sum()), total + alike.numel()
        spread = max(float(answers.std()), 1e-12)
        furthest = max(furthest, float((ours - answers).square().mean().sqrt()) / spread)
    if same < _LEAST_ALIKE * total:
        return f"only {same / total:.3%} of the labels are the same as the file's"
    compared = whole.ending.head == "logits" and _MOVED.issuperset(network.ending.taken_off)
    if compared and furthest > _MOST_APART:
        return f"the logits differ from the file's by {furthest:.2%} of their spread"
    return ""


def _alike(ours: Tensor, answers: Tensor, margin: float) -> Tensor:
    """Where the labels are the same, or nearly tied, bool N x H x W."""
    theirs = answers.argmax(1, keepdim=True)
    best, own = ours.max(1, keepdim=True)
    return torch.logical_or(own == theirs, best - ours.gather(1, theirs) <= margin)


class _Written(NamedTuple):
    """An artefact that passed its check, for so many images at a time."""

    check: Verification
    headroom: Headroom | None
    batch: str


def _write(
    out: Path, checkpoint: Checkpoint, placed: _Placed, size: Size | None, request: Request
) -> _Written:
    """Writes the artefact, for any number of images where that holds."""
    forms = ["freed", "free", "one"] if size is not None else ["free", "freed", "one"]
    for batch in forms[:-1]:
        with suppress(CheckFailed, ModelError):
            return _write_form(out, checkpoint, placed, size, request, batch)
    try:
        return _write_form(out, checkpoint, placed, size, request, forms[-1])
    except CheckFailed as error:
        text = str(error)
        for advice, here in _ADVICE.items():
            text = text.replace(advice, here)
        raise CheckFailed(text) from error


_ADVICE = {
    "export it at a fixed size, without --dynamic-size": "give --size",
    "export it in float32": "adopt it in float32, without --precision fp16",
}
"""What a failed check advises of an export -> of an adoption."""


def _write_form(
    out: Path,
    checkpoint: Checkpoint,
    placed: _Placed,
    size: Size | None,
    request: Request,
    batch: str,
) -> _Written:
    network, samples = placed.network, placed.samples
    file, head, precision = network.file, network.ending.head, request.precision
    model = assemble(file, network.ending, request.preprocessing, request.threshold, size, batch)
    batches: Sequence[Sequence[UInt8]] = samples
    if batch == "one":
        batches = [[image] for each in samples for image in each]
    _bytes_of(model, file)
    report: Headroom | None = None
    if PRECISIONS[precision].rounded:
        report = measure(model, batches, LARGEST if size is None else None)
        to_half(model, [node.node for node in report.kept])
    model.producer_name, model.producer_version = "icnet-deploy", __version__
    content = _bytes_of(model, file)

    def check(written: Path) -> Verification:
        if report is None:
            return verify(written, checkpoint, head, precision, batches)
        verify(written, checkpoint, head, precision, [batches[0]])  # that it loads; see `export`
        rounded(model)
        return verify(model.SerializeToString(), checkpoint, head, precision, batches)

    metadata = _metadata(checkpoint, network, size, precision)
    return _Written(write_artefact(out, content, metadata, check), report, batch)


def _bytes_of(model: onnx.ModelProto, file: ForeignFile) -> bytes:
    """The graph as it is written; CheckFailed where a weight of it is infinite or no number."""
    advice = "its weights are too large; export the network again"
    require_finite_weights(model, f"the graph of {file.path}", advice, CheckFailed)
    content: bytes = model.SerializeToString()
    return content


def _metadata(
    checkpoint: Checkpoint, network: ForeignNetwork, size: Size | None, precision: str
) -> ArtefactMetadata:
    return ArtefactMetadata(
        label_set=checkpoint.label_set,
        size=size,
        head=network.ending.head,
        precision=precision,
        network=network.description(),
        preprocessing=checkpoint.preprocessing.to_dict(),
        weights_sha256=checkpoint.sha256,
        parent_sha256=checkpoint.sha256,
        stride=network.stride,
        upsampling=network.upsampling,
        min_side=network.min_side,
        side_multiple=network.side_multiple,
        fit=checkpoint.preprocessing.fit,
        threshold=network.threshold,
        tools={name: version(name) for name in ("onnx", "onnxsim", "onnxruntime")}
        | {"icnet-deploy": __version__, "python": platform.python_version()},
    )


def _words(
    file: ForeignFile, placed: _Placed, size: Size | None, batch: str, said: str | None
) -> tuple[str, ...]:
    """What the file is and what became of it, line by line."""
    network, behaviour = placed.network, placed.behaviour
    ending = network.ending
    lines = [
        f"file: {file.path.name}, written by {file.writer}, opset {file.opset}, "
        f"{'float16' if file.half else 'float32'}, SHA-256 {file.sha256[:16]}...",
        f"input: {file.image.removesuffix('_inside')}, {file.layout}, "
        f"{'uint8' if file.integers else 'float'}",
        f"output: {file.output}, {_classes(network)}",
    ]
    if ending.taken_off:
        lines.append(
            f"after the logits: {', '.join(reversed(ending.taken_off))} (removed; the label map is "
            "the same)"
        )
    stride = "not a single number" if behaviour.stride is None else behaviour.stride
    rule = rule_in_words(file, ending, placed.upsampling, said)
    lines += [f"upsampling: {rule}", f"stride: {stride} (found)"]
    if size is None:
        lines.append(
            f"sides: multiples of {behaviour.side_multiple}, from {behaviour.min_side} pixels on "
            "(found)"
        )
    else:
        lines.append(f"size: {size[0]}x{size[1]}")
    one = "1, which is a constant in the graph"
    lines.append(f"images at a time: {one if batch == 'one' else 'any number'}")
    if network.threshold is not None:
        lines.append(f"threshold: {network.threshold:g}")
    return tuple(lines)


def _classes(network: ForeignNetwork) -> str:
    if network.ending.head == "labels":
        return f"a label map of {network.num_classes} classes, without logits"
    channels = network.ending.channels
    values = "probabilities" if network.ending.probability and channels == 1 else "logits"
    return f"{values} of {channels} channel{'s' * (channels > 1)}, {network.ending.layout}"
