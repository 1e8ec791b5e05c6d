"""Runs what was exported and compares it with PyTorch, before the file is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from icnet_deploy.errors import BackendError, CheckFailed, MissingPackage
from icnet_deploy.labels import check_labels
from icnet_deploy.networks.checkpoint import Checkpoint
from icnet_deploy.networks.layers import resize

UInt8 = npt.NDArray[np.uint8]

LEAST_AGREEMENT = {"fp32": 0.9999, "fp16": 0.995}
"""The share of pixels whose label must be PyTorch's. Float16 changes labels at borders, where two
classes are nearly tied; what it costs in mIoU is for `icnet parity` to say."""


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
) -> Verification:
    """Compares an ONNX file with the checkpoint that it was made from.

    Args:
        model: the ONNX file, or its bytes.
        checkpoint: its origin.
        head: `logits` or `labels`.
        precision: `fp32` or `fp16`.
        batches: images, uint8 H x W x 3, RGB; those of one batch are of one size and are run at
            once, so that the batch axis is proved, too.

    Raises:
        CheckFailed: the labels agree less than `LEAST_AGREEMENT`; a logit, of the graph or of the
            checkpoint, is not finite; or a label is no class.
        MissingPackage: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage(
            "onnxruntime", extra="cpu", purpose="the check of an exported file"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    same = total = count = 0
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
            labels = _labels(ours, images.shape) if head == "logits" else ours
            reference = _labels(theirs, images.shape)
            same += int((labels == reference).sum())
            total += reference.numel()
            spreads.append(float(theirs.std()))
            count += 1
    result = Verification(
        count, same / total, largest if head == "logits" else None, float(np.mean(spreads))
    )
    if result.agreement < LEAST_AGREEMENT[precision]:
        raise CheckFailed(
            f"the exported graph is not the checkpoint's network: {result}; at least "
            f"{LEAST_AGREEMENT[precision]:.2%} is required at {precision}. The file was not kept"
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


def _labels(logits: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """C x h x w to uint8 H x W, the dense way."""
    return resize(logits[None].float(), (shape[1], shape[2])).argmax(1)[0].to(torch.uint8)
