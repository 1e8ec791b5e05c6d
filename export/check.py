"""Runs what was exported on images and compares it with PyTorch, before the file is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import BackendError, CheckFailed
from icnet_deploy.images import read_image, resize_image
from icnet_deploy.labels import check_labels
from icnet_deploy.networks.checkpoint import Checkpoint

UInt8 = npt.NDArray[np.uint8]
Size = tuple[int, int]

_TOGETHER = 2  # images a batch: enough to prove the batch axis, and no more memory than that
_DRAWN = 2

_LEAST_AGREEMENT = {"fp32": 0.9999, "fp16": 0.995}
"""The share of pixels whose label must be PyTorch's. Float16 changes labels at borders, where two
classes are nearly tied; what it costs in mIoU is for `icnet parity` to say."""


class Samples(Sequence[list[UInt8]]):
    """What an export is measured and checked on, loaded when it is needed.

    Batches of at most two images of one size, uint8 H x W x 3, RGB, resized as `Predictor` does.
    Two drawn scenes for each size; then the images, at the first size. However many there are, one
    batch is in memory at a time.

    Args:
        sizes: each (height, width) in pixels that the graph is run at.
        images: files.

    Raises:
        ImageError: a file is not an image; all are read once, before the long work.
    """

    def __init__(self, sizes: Sequence[Size], images: Sequence[Path] = ()) -> None:
        for path in images:
            read_image(path)
        self._batches: list[tuple[Size, Sequence[int | Path]]] = [
            *((size, range(_DRAWN)) for size in sizes),
            *((sizes[0], images[i : i + _TOGETHER]) for i in range(0, len(images), _TOGETHER)),
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[UInt8]:  # type: ignore[override]
        size, sources = self._batches[index]
        return [_load(source, size) for source in sources]


def _load(source: int | Path, size: Size) -> UInt8:
    if isinstance(source, int):
        return draw_scene((0, source), size).image
    return resize_image(read_image(source), size)


def open_session(model: Path | bytes) -> Any:
    """A quiet session of ONNX Runtime on the CPU, of a file or its bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Verification:
    """How far the artefact is from PyTorch in float32.

    Attributes:
        images: how many were compared.
        agreement: share of pixels with the same label, 0..1.
        largest: the largest difference of a logit; None for the `labels` head.
        spread: the standard deviation of PyTorch's logits, to judge `largest` by.
    """

    images: int
    agreement: float
    largest: float | None
    spread: float

    def __str__(self) -> str:
        text = f"{self.images} images, {self.agreement:.5%} of the labels agree"
        if self.largest is not None:
            text += f", largest logit difference {self.largest:.2g} (spread {self.spread:.3g})"
        return text


def verify(
    model: Path | bytes,
    checkpoint: Checkpoint,
    head: str,
    precision: str,
    batches: Sequence[Sequence[UInt8]],
    agreement: float | None = None,
) -> Verification:
    """Compares an ONNX file with the checkpoint that it was made from.

    Args:
        model: the ONNX file, or its bytes.
        checkpoint: its origin.
        head: `logits` or `labels`.
        precision: `fp32` or `fp16`.
        batches: images, uint8 H x W x 3, RGB; those of one batch are of one size and are run at
            once, so that the batch axis is proved, too.
        agreement: the least share of labels that must be PyTorch's, 0..1; None: `_LEAST_AGREEMENT`
            of the precision.

    Raises:
        CheckFailed: the labels agree less than that; a logit, of the graph or of the checkpoint, is
            not finite; or a label is no class.
    """
    least = _LEAST_AGREEMENT[precision] if agreement is None else agreement
    session = open_session(model)
    same = total = 0
    largest, spreads = 0.0, []
    for batch in tqdm(batches, desc="check", unit="batch", disable=None):
        images = np.stack(batch)
        answer = torch.from_numpy(session.run([head], {"image": images})[0])
        with torch.inference_mode():
            logits = checkpoint.network(checkpoint.preprocessing.tensor(images))
        expected = logits.shape if head == "logits" else images.shape[:3]
        if answer.shape != expected:
            raise CheckFailed(f"the exported graph gives {head} of {answer.shape}, not {expected}")
        _require_finite(logits, f"the logits of {checkpoint.path} in float32")
        if head == "logits":
            _require_finite(answer, f"the exported graph's logits ({precision})")
            largest = max(largest, float((answer - logits).abs().max()))
        else:
            _require_classes(answer, checkpoint, precision)
        for ours, theirs in zip(answer, logits, strict=True):
            labels = _labels(checkpoint, ours, images.shape) if head == "logits" else ours
            reference = _labels(checkpoint, theirs, images.shape)
            same += int((labels == reference).sum())
            total += reference.numel()
            spreads.append(float(theirs.std()))
    result = Verification(
        len(spreads), same / total, largest if head == "logits" else None, float(np.mean(spreads))
    )
    if result.agreement < least:
        raise CheckFailed(
            f"the exported graph is not the checkpoint's network: {result}; at least "
            f"{least:.2%} is required at {precision}. The file was not kept"
        )
    return result


def _require_finite(logits: torch.Tensor, whose: str) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise CheckFailed(
            f"{whose} are not finite on an image: values on the way to them overflow. The file was "
            "not kept; train the network again, or take another checkpoint"
        )


def _require_classes(labels: torch.Tensor, checkpoint: Checkpoint, precision: str) -> None:
    try:
        check_labels(labels.numpy(), checkpoint.label_set)
    except BackendError as error:
        raise CheckFailed(
            f"the exported graph ({precision}) fails on an image: {error}. The file was not kept"
        ) from error


def _labels(checkpoint: Checkpoint, logits: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """C x h x w to uint8 H x W, the dense way, by the network's rule; `shape` is N x H x W x 3."""
    pixels = checkpoint.network.upsample(logits[None].float(), (shape[1], shape[2]))
    return pixels.argmax(1)[0].to(torch.uint8)
