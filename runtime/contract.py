"""Holds a loaded model to its metadata, and each of its answers, too."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from icnet_deploy.errors import BackendError, ModelError
from icnet_deploy.labels import CITYSCAPES, LabelSet
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.backends.base import Backend, TensorSpec

Size = tuple[int, int]

INPUT = "image"
"""The one input: uint8, N x H x W x 3, RGB."""

_LARGEST_STRIDE = 32
"""Where the metadata does not say one. Then a network may round down, or, with a pool as PSPNet's,
leave one logit more: 65 of 1024 pixels, at a stride of 16."""


def check_contract(backend: Backend, metadata: ArtefactMetadata) -> None:
    """Checks names, dtypes, the sizes, the number of classes, and that one image can be run.

    Sides that the runtime leaves free are held by `check_answer`, answer by answer.

    Raises:
        ModelError: the model is not what the metadata says, or is not of this product.
    """
    _check_input(backend.inputs, metadata)
    _check_output(backend.outputs, metadata, backend.inputs[0].shape[0])


def check_answer(
    metadata: ArtefactMetadata, dtype: np.dtype[Any], shape: Sequence[int], fed: Sequence[int]
) -> None:
    """Holds an answer of a model to what its metadata says of images of the size that it was fed.

    What its values are is for `check_labels` and `label_map`, which read them anyway.

    Args:
        metadata: what the model says of itself; `head` is the output that answered.
        dtype, shape: of the answer.
        fed: N x H x W x 3, the shape of the images.

    Raises:
        BackendError: the dtype, the number of images or of classes, or the size differs.
    """
    images, size = fed[0], (fed[1], fed[2])
    if metadata.head == "labels":
        fits = dtype == np.uint8 and tuple(shape) == (images, *size)
    else:
        fits = (
            dtype in (np.float32, np.float16)
            and tuple(shape[:2]) == (images, len(metadata.label_set))
            and _fits_grid(shape[2:], size, _stride(metadata))
        )
    if not fits:
        raise BackendError(
            f"the model gave {TensorSpec(metadata.head, tuple(shape), dtype)} for {images} "
            f"image{'s' * (images != 1)} of {size[0]} x {size[1]} pixels, expected "
            f"{_expected(metadata, size)}: the file does not match its metadata; export it again"
        )


def describe(backend: Backend, label_set: LabelSet | None = None) -> ArtefactMetadata:
    """What a model without metadata, such as an engine of `trtexec`, says of itself by its tensors.

    Args:
        backend: the model, loaded.
        label_set: its classes; without it Cityscapes' 19, if the model can have those.

    Raises:
        ModelError: it has neither `logits` nor `labels`, or other classes than 19 and no label set.
    """
    heads = {spec.name: spec for spec in backend.outputs if spec.name in ("labels", "logits")}
    if not heads:
        listed = ", ".join(str(spec) for spec in backend.outputs)
        raise ModelError(
            f"expected an output 'labels' or 'logits', but the model has {listed}: build it from "
            "an ONNX file of `icnet export`"
        )
    head = "labels" if "labels" in heads else "logits"
    classes = heads[head].shape[1] if head == "logits" else len(CITYSCAPES)
    if label_set is None and classes not in (None, len(CITYSCAPES)):
        raise ModelError(
            f"the model has {classes} classes and does not name them: open it in Python with "
            "label_set=..."
        )
    height, width = (*backend.inputs[0].shape, None, None, None)[1:3]
    size = (height, width) if height is not None and width is not None else None
    return ArtefactMetadata(label_set or CITYSCAPES, size, head, "unknown")


def _check_input(inputs: tuple[TensorSpec, ...], metadata: ArtefactMetadata) -> None:
    size = metadata.size or (None, None)
    wanted = TensorSpec(INPUT, (None, *size, 3), np.dtype(np.uint8))
    if len(inputs) != 1:
        raise ModelError(f"the model has {len(inputs)} inputs, expected one: {wanted}")
    spec = inputs[0]
    if spec.name != INPUT or spec.dtype != np.uint8 or len(spec.shape) != 4:
        raise ModelError(f"the model's input is {spec}, expected {wanted}")
    batch, height, width, channels = spec.shape
    if batch not in (None, 1):
        raise ModelError(f"the model takes {batch} images at a time, expected 1 or any number")
    # A model of free sides may be described by one size, never one of fixed sides as free.
    free = metadata.size is not None or (height is None and width is None)
    fits = height in (None, size[0]) and width in (None, size[1])
    if not (free and fits) or channels != 3:
        raise ModelError(f"the model's input is {spec}, but its metadata says {wanted}")


def _check_output(
    outputs: tuple[TensorSpec, ...], metadata: ArtefactMetadata, batch: int | None
) -> None:
    if metadata.head not in ("logits", "labels"):
        raise ModelError(f"the model's head is {metadata.head!r}, expected 'logits' or 'labels'")
    if metadata.stride is not None and not metadata.stride >= 1:
        raise ModelError(f"the model's stride is {metadata.stride}, expected at least 1, or null")
    spec = next((spec for spec in outputs if spec.name == metadata.head), None)
    if spec is None:
        listed = ", ".join(str(spec) for spec in outputs)
        raise ModelError(f"the model has no output {metadata.head!r}; it has {listed}")
    wanted = _expected(metadata, metadata.size)
    finished = metadata.head == "labels"
    dtypes, sides = ((np.uint8,), 3) if finished else ((np.float32, np.float16), 4)
    if spec.dtype not in dtypes or len(spec.shape) != sides:
        raise ModelError(f"the model's output is {spec}, expected {wanted}")
    if not finished and spec.shape[1] not in (None, len(metadata.label_set)):
        raise ModelError(
            f"the model's output is {spec}, but its label set {metadata.label_set.name!r} has "
            f"{len(metadata.label_set)} classes"
        )
    grid = spec.shape[-2:]
    if finished or metadata.size is None:  # where the sides are free, the output's are, too
        size = metadata.size or (None, None)
        fits = all(side in (None, want) for side, want in zip(grid, size, strict=True))
    else:
        fits = _fits_grid(grid, metadata.size, _stride(metadata))
    if not fits or spec.shape[0] not in (None, batch):
        raise ModelError(
            f"the model's output is {spec}, but its metadata says {wanted}: the metadata belongs "
            "to another model; export it again"
        )


def _stride(metadata: ArtefactMetadata) -> int | None:
    """Logits that are not upsampled are one a pixel, whatever else is said."""
    return 1 if metadata.upsampling == "none" else metadata.stride


def _fits_grid(grid: Sequence[int | None], size: Size, stride: int | None) -> bool:
    """Whether logits lie on a grid of one stride; a side that is None may be any."""
    if len(grid) != 2:
        return False
    sides = [(got, side) for got, side in zip(grid, size, strict=True) if got is not None]
    if stride is not None:
        return all(got == -(-side // stride) for got, side in sides)
    return any(
        all(side // each <= got <= -(-side // each) + 1 for got, side in sides)
        for each in range(1, _LARGEST_STRIDE + 1)
    )


def _expected(metadata: ArtefactMetadata, size: Size | None) -> str:
    """What a head answers for images of a size, in words."""
    height, width = size or ("H", "W")
    if metadata.head == "labels":
        return f"uint8 N x {height} x {width}"
    stride = _stride(metadata) or f"a whole number up to {_LARGEST_STRIDE}"
    text = (
        f"float N x {len(metadata.label_set)} x h x w, one logit for every s pixels of {height} x "
        f"{width}, where s is {stride}"
    )
    multiple = metadata.side_multiple
    return text if multiple == 1 else f"{text}, of images whose sides are multiples of {multiple}"
