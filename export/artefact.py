"""From a network that is ready to run to an ONNX file that was proved against it."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from icnet_deploy._version import __version__
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.files import require_place, write_json
from icnet_deploy.integrity import require_finite_graph
from icnet_deploy.metadata import ArtefactMetadata, write_artefact
from icnet_deploy.precisions import PRECISIONS

if TYPE_CHECKING:
    from icnet_deploy.export.check import Verification
    from icnet_deploy.export.headroom import Headroom
    from icnet_deploy.networks.checkpoint import Checkpoint

Size = tuple[int, int]


@dataclass(frozen=True)
class Form:
    """What kind of file is wanted of a network.

    Attributes:
        size: (height, width) in pixels that the graph takes.
        head: `logits` or `labels`.
        precision: `fp32` or `fp16`.
        dynamic_size: take any size that the network does; `size` is then an example.
        images: photos to measure and to compare on, besides two drawn scenes.
        headroom: where the report on float16 goes, as JSON, before anything else is written.
        agreement: the least share of labels that must be PyTorch's, 0..1; None: as `check` has it.
    """

    size: Size
    head: str = "logits"
    precision: str = "fp32"
    dynamic_size: bool = False
    images: Sequence[Path] = ()
    headroom: Path | None = None
    agreement: float | None = None


class Exported(NamedTuple):
    """What is known of a file that was written.

    Attributes:
        check: how far it is from PyTorch; of a float16 file, with every value rounded to float16.
        headroom: what float16 did to it; None for float32.
        found: what running a network of one's own showed, and how its graph came about, line by
            line; none of a checkpoint.
    """

    check: Verification
    headroom: Headroom | None
    found: tuple[str, ...] = ()


def write_network(checkpoint: Checkpoint, out: Path, form: Form) -> Exported:
    """Writes an ONNX file and proves it against PyTorch; a file that fails is not kept.

    Args:
        checkpoint: the network.
        out: the file to write.
        form: what kind of file.

    Raises:
        InputError: the file does not end in .onnx; the network does not take that size; a report
            on float16 is asked for at another precision.
        ImageError: a photo cannot be read.
        ModelError: the network cannot be said in ONNX.
        CheckFailed: the file does not do what PyTorch does, a value in it or in an answer is not
            finite, or the network's logits are not where it says.
        OutputError: the file cannot be written.
    """
    from icnet_deploy.export.check import Samples, verify
    from icnet_deploy.export.deployed import Deployed, stride_of
    from icnet_deploy.export.graph import LARGEST, trace
    from icnet_deploy.export.headroom import measure
    from icnet_deploy.export.passes import rounded, to_half

    half = PRECISIONS[form.precision].rounded
    if form.headroom is not None and not half:
        raise InputError(f"the headroom report needs the precision fp16, not {form.precision}")
    network = checkpoint.network
    _require_size(form.size, checkpoint)
    sizes = sizes_of(form, network.min_side, network.side_multiple)
    samples = Samples(sizes, form.images, checkpoint.preprocessing)
    require_place(out, ".onnx")
    others = _every_remainder(network.min_side, network.side_multiple) if form.dynamic_size else []
    stride = stride_of(network, [*sizes, *others])
    module = Deployed(network, checkpoint.preprocessing, form.head, form.dynamic_size)
    model, note = trace(module, form.size, form.dynamic_size)
    report: Headroom | None = None
    _bytes_of(model, checkpoint)
    if half:
        report = measure(model, samples, LARGEST if form.dynamic_size else None)
        if form.headroom is not None:
            write_json(form.headroom, report.to_dict())
        to_half(model, [node.node for node in report.kept])
    model.producer_name, model.producer_version = "icnet-deploy", __version__
    content = _bytes_of(model, checkpoint)
    by = (checkpoint, form.head, form.precision)

    def check(file: Path) -> Verification:
        if not half:
            return verify(file, *by, samples, form.agreement)
        # A CPU computes a float16 file in float32: that it loads is seen there, what it answers
        # on a GPU is not.
        verify(file, *by, [samples[0]], form.agreement)
        rounded(model)
        return verify(model.SerializeToString(), *by, samples, form.agreement)

    info = checkpoint.info
    found = filter(None, (info.get("tensors"), *info.get("own", ()), note))
    checked = write_artefact(out, content, _metadata(checkpoint, form, stride), check)
    return Exported(checked, report, tuple(found))


def _require_size(size: Size, checkpoint: Checkpoint) -> None:
    height, width = size
    least, multiple = checkpoint.network.min_side, checkpoint.network.side_multiple
    given = f"the size {height}x{width} (--size) is not one that {checkpoint.path.name} takes"
    if min(size) < least:
        raise InputError(f"{given}: each side must be at least {least} pixels")
    if height % multiple or width % multiple:
        near = "x".join(str(max(1, round(side / multiple)) * multiple) for side in size)
        raise InputError(f"{given}: each side must be a multiple of {multiple} pixels, e.g. {near}")


def sizes_of(form: Form, least: int, multiple: int) -> list[Size]:
    """What the graph is run at; of free size not only multiples, and nearly as small as may be."""
    if not form.dynamic_size:
        return [form.size]
    height, width = form.size
    more = [(height * 3 // 4 + 1, width // 2 + 3), (least * 3 // 2, least * 2)]
    return [form.size, *(_rounded_up(size, least, multiple) for size in more)]


def _every_remainder(least: int, multiple: int) -> list[Size]:
    """Sizes that between them have sides of every remainder of 32, where any will do."""
    return [
        _rounded_up((least + i * multiple, least + (16 + i) * multiple), least, multiple)
        for i in range(16)
    ]


def _rounded_up(size: Size, least: int, multiple: int) -> Size:
    height, width = (-(-max(side, least) // multiple) * multiple for side in size)
    return height, width


def _bytes_of(model: Any, checkpoint: Checkpoint) -> bytes:
    """The graph as it is written; CheckFailed where folding made a weight infinite or no number."""
    content: bytes = model.SerializeToString()
    whose = f"the graph of {checkpoint.path}, its batch norms and scales folded,"
    advice = "its weights are too large; train the network again, or give another checkpoint"
    require_finite_graph(content, whose, advice, CheckFailed)
    return content


def _metadata(checkpoint: Checkpoint, form: Form, stride: int | None) -> ArtefactMetadata:
    network = checkpoint.network
    return ArtefactMetadata(
        label_set=checkpoint.label_set,
        size=None if form.dynamic_size else form.size,
        head=form.head,
        precision=form.precision,
        network=network.description(),
        preprocessing=checkpoint.preprocessing.to_dict(),
        weights_sha256=checkpoint.sha256,
        training_data=training_data(checkpoint.info),
        stride=stride,
        upsampling=network.upsampling,
        min_side=network.min_side,
        side_multiple=network.side_multiple,
        fit=checkpoint.preprocessing.fit,
        threshold=getattr(network, "threshold", None),
        tools={name: version(name) for name in ("torch", "onnx", "onnxsim")}
        | {"icnet-deploy": __version__, "python": platform.python_version()},
    )


def origins(info: dict[str, Any], trained: bool = False) -> Iterator[dict[str, Any]]:
    """What a checkpoint says of itself, then what the one that it was pruned from said, and on;
    or, if `trained`, what the one said that its training started from."""
    while info:
        yield info
        pruned_from = info.get("compression", {}).get("parent", {})
        info = pruned_from or (info.get("parent", {}) if trained else {})


def training_data(info: dict[str, Any]) -> str | None:
    """What a checkpoint was trained on, in words, and what those that it comes from were.

    Args:
        info: what the checkpoint says of itself.

    Returns:
        None where neither it nor these say anything.
    """
    words = []
    for origin in origins(info, trained=True):
        sets = origin.get("data")
        if isinstance(sets, list):
            words += [f"{d['images']} images of {d['name']} {d['split']}" for d in sets]
        if isinstance(origin.get("source"), str):  # imported weights say where they come from
            words.append(origin["source"])
    return ", ".join(dict.fromkeys(words)) or None
