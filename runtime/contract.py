"""Holds a file to its kind, and a loaded model to its metadata, before the first image comes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from icnet_deploy.errors import ModelError
from icnet_deploy.labels import CITYSCAPES, LabelSet
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.backends.base import Backend, TensorSpec

__all__ = ["ENGINE_SUFFIXES", "INPUT", "check_contract", "describe", "refuse_other_kinds"]

ENGINE_SUFFIXES = (".engine", ".plan")
"""The endings of the files that `Predictor.from_engine` takes."""

INPUT = "image"
"""The one input: uint8, N x H x W x 3, RGB."""


def check_contract(backend: Backend, metadata: ArtefactMetadata) -> None:
    """Checks names, dtypes, the size, the number of classes, and that one image can be run.

    Raises:
        ModelError: the model is not what the metadata says, or is not of this product.
    """
    _check_input(backend.inputs, metadata)
    _check_output(backend.outputs, metadata)


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
        found = ", ".join(str(spec) for spec in backend.outputs)
        raise ModelError(
            f"the model has neither an output 'labels' nor 'logits', but {found}: build it from an "
            "ONNX file of `icnet export`"
        )
    head = "labels" if "labels" in heads else "logits"
    classes = heads[head].shape[1] if head == "logits" else len(CITYSCAPES)
    if label_set is None and classes not in (None, len(CITYSCAPES)):
        raise ModelError(
            f"the model has {classes} classes and does not say which: name its label set "
            "(label_set=...)"
        )
    height, width = (*backend.inputs[0].shape, None, None, None)[1:3]
    size = (height, width) if height is not None and width is not None else None
    return ArtefactMetadata(label_set or CITYSCAPES, size, head, "unknown")


def _check_input(inputs: tuple[TensorSpec, ...], metadata: ArtefactMetadata) -> None:
    size = metadata.size or (None, None)
    wanted = TensorSpec(INPUT, (None, *size, 3), np.dtype(np.uint8))
    if len(inputs) != 1:
        raise ModelError(f"the model has {len(inputs)} inputs, expected one, {wanted}")
    spec = inputs[0]
    if spec.name != INPUT or spec.dtype != np.uint8 or len(spec.shape) != 4:
        raise ModelError(f"the model's input is {spec}, expected {wanted}")
    batch, height, width, channels = spec.shape
    if batch not in (None, 1):
        raise ModelError(f"the model takes {batch} images at a time, expected 1 or any number")
    # A model of free sides may be described by one size, never one of fixed sides as free.
    fits = metadata.size is not None or (height is None and width is None)
    if height not in (None, size[0]) or width not in (None, size[1]):
        fits = False
    if not fits or channels not in (None, 3):
        raise ModelError(f"the model's input is {spec}, its metadata says {wanted}")


def _check_output(outputs: tuple[TensorSpec, ...], metadata: ArtefactMetadata) -> None:
    classes = len(metadata.label_set)
    if metadata.head not in ("logits", "labels"):
        raise ModelError(f"the model's head is {metadata.head!r}, expected 'logits' or 'labels'")
    spec = next((spec for spec in outputs if spec.name == metadata.head), None)
    if spec is None:
        found = ", ".join(str(spec) for spec in outputs)
        raise ModelError(f"the model has no output {metadata.head!r}; it has {found}")
    if metadata.head == "labels":
        if spec.dtype != np.uint8 or len(spec.shape) != 3:
            raise ModelError(f"the model's output is {spec}, expected uint8 N x H x W")
        return
    if spec.dtype not in (np.float32, np.float16) or len(spec.shape) != 4:
        raise ModelError(f"the model's output is {spec}, expected float N x C x h x w")
    if spec.shape[1] not in (None, classes):
        raise ModelError(
            f"the model's output is {spec}, but its label set {metadata.label_set.name!r} has "
            f"{classes} classes"
        )


def refuse_other_kinds(path: Path) -> None:
    """Answers a file of another kind by what to do with it, before it is read as ONNX.

    Raises:
        ModelError: it is an engine or a checkpoint, by its ending.
    """
    if path.suffix in ENGINE_SUFFIXES:
        raise ModelError(f"{path} is an engine, not an ONNX file: use Predictor.from_engine")
    if path.suffix in (".safetensors", ".pt", ".pth", ".ckpt"):
        raise ModelError(
            f"{path} is a checkpoint, which no runtime runs: icnet export --weights {path} -o "
            f"{path.stem}.onnx, then use that file"
        )
