"""Runs what was exported on images and compares it with PyTorch, before the file is kept."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import BackendError, CheckFailed
from icnet_deploy.images import fit_image, read_image
from icnet_deploy.labels import check_labels
from icnet_deploy.networks.checkpoint import Checkpoint
from icnet_deploy.networks.preprocessing import Preprocessing
from icnet_deploy.precisions import PRECISIONS

UInt8 = npt.NDArray[np.uint8]
Size = tuple[int, int]

_TOGETHER = 2  # images a batch: enough to prove the batch axis, and no more memory than that
_DRAWN = 2
_LEAST_SCENE = 64  # the shortest side, in pixels, of a scene that is drawn

_LEAST_AGREEMENT = {"fp32": 0.9999, "fp16": 0.995}
"""The share of pixels whose label must be PyTorch's. Float16 changes labels at borders, where two
classes are nearly tied; what it costs in mIoU is for `icnet parity` to say."""


_MOST_DIFFERENCE = {"fp32": 0.001, "fp16": 0.05}
"""How far the logits may be from PyTorch's, root mean square, as a share of their spread. Of nine
networks, from 19 classes to 150, arithmetic alone gives up to 8e-6 and 6e-3. Labels alone would not
do: where one class wins everywhere they stay what they are, whatever becomes of the logits."""

_TINY = 1e-12


class Samples(Sequence[list[UInt8]]):
    """What an export is measured and checked on, loaded when it is needed.

    Batches of at most two images of one size, uint8 H x W x 3, RGB, brought to it as `Predictor`
    does. Two drawn scenes for each size; then the images, at the first size. However many there
    are, one batch of them is in memory at a time.

    Args:
        sizes: each (height, width) in pixels that the graph is run at.
        images: files.
        preprocessing: says what becomes of an image of another shape; None: it is stretched.

    Raises:
        ImageError: a file is not an image; all are read once, before the long work.
    """

    def __init__(
        self,
        sizes: Sequence[Size],
        images: Sequence[Path] = (),
        preprocessing: Preprocessing | None = None,
    ) -> None:
        for path in images:
            read_image(path)
        self._drawn: dict[tuple[int, Size], UInt8] = {}
        self._fit = ("stretch", (0.0,) * 3)
        if preprocessing is not None:
            self._fit = (preprocessing.fit, preprocessing.border)
        self._batches: list[tuple[Size, Sequence[int | Path]]] = [
            *((size, range(_DRAWN)) for size in sizes),
            *((sizes[0], images[i : i + _TOGETHER]) for i in range(0, len(images), _TOGETHER)),
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[UInt8]:  # type: ignore[override]
        size, sources = self._batches[index]
        return [self._load(source, size) for source in sources]

    def _load(self, source: int | Path, size: Size) -> UInt8:
        if isinstance(source, int):
            if (source, size) not in self._drawn:  # which takes longer than to run a small network
                height, width = (max(_LEAST_SCENE, side) for side in size)
                scene = draw_scene((0, source), (height, width)).image
                self._drawn[source, size] = np.ascontiguousarray(scene[: size[0], : size[1]])
            return self._drawn[source, size]
        return fit_image(read_image(source), size, *self._fit).pixels


def open_session(model: Path | bytes) -> Any:
    """A quiet session of ONNX Runtime on the CPU, of a file or its bytes.

    Raises:
        CheckFailed: ONNX Runtime does not load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of a kind of its own for each of its codes
        raise CheckFailed(
            f"ONNX Runtime does not load the exported graph: {_line(error)}. The file was not kept"
        ) from error


@dataclass(frozen=True)
class Verification:
    """How far the artefact is from PyTorch in float32.

    Attributes:
        images: how many were compared.
        agreement: share of pixels with the same label, or one that is nearly tied with it, 0..1.
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

    A label that is another one than PyTorch's, where PyTorch's logits of the two are nearly tied,
    counts as the same: the least rounding decides there, and a network of many classes or of random
    weights has such pixels everywhere. A graph that computes something else gives labels that are
    far from PyTorch's best.

    Args:
        model: the ONNX file, or its bytes.
        checkpoint: its origin.
        head: `logits` or `labels`.
        precision: `fp32` or `fp16`.
        batches: images, uint8 H x W x 3, RGB; those of one batch are of one size and are run at
            once, and the first of all once more alone, so that the batch axis is proved, too.
        agreement: the least share of labels that must be PyTorch's, 0..1; None: `_LEAST_AGREEMENT`
            of the precision.

    Raises:
        CheckFailed: the labels agree less than that; the graph does not run at a size; a logit, of
            the graph or of the checkpoint, is not finite; or a label is no class.
    """
    least = _LEAST_AGREEMENT[precision] if agreement is None else agreement
    session = open_session(model)
    bits = PRECISIONS[precision].bits
    tally = _Tally()
    for index, batch in enumerate(tqdm(batches, desc="check", unit="batch", disable=None)):
        images = np.stack(batch)
        answer = _answer(session, head, images, tally)
        with torch.inference_mode():
            logits = checkpoint.network(checkpoint.preprocessing.tensor(images))
        expected = logits.shape if head == "logits" else images.shape[:3]
        if answer.shape != expected:
            raise CheckFailed(f"the exported graph gives {head} of {answer.shape}, not {expected}")
        _require_finite(logits, f"the logits of {checkpoint.path} in float32")
        if head == "logits":
            _require_finite(answer, f"the exported graph's logits ({precision})")
            tally.compare((images.shape[1], images.shape[2]), answer, logits)
        else:
            _require_classes(answer, checkpoint, precision)
        if index == 0 and len(_answer(session, head, images[:1], tally)) != 1:
            raise CheckFailed(
                f"the exported graph does not give one answer for one image: {_BATCH}. The file "
                "was not kept"
            )
        margin = checkpoint.network.tie_margins(float(logits.abs().max()))[bits]
        for ours, theirs in zip(answer, logits, strict=True):
            pixels = _pixels(checkpoint, theirs, images.shape)
            labels = _pixels(checkpoint, ours, images.shape).argmax(0) if head == "logits" else ours
            tally.add((images.shape[1], images.shape[2]), pixels, labels.long(), margin)
            tally.spreads.append(float(theirs.std()))
    result = tally.result(head == "logits")
    most = _MOST_DIFFERENCE[precision]
    if result.agreement < least or max(tally.differences.values(), default=0.0) > most:
        raise CheckFailed(
            f"the graph is not the network of {checkpoint.path}: {result}; {precision} needs at "
            f"least {least:.2%}, and logits that differ by at most {most:.1%} of their spread. "
            f"The file was not kept{tally.advice(least, most)}"
            f"{'; export it in float32' * PRECISIONS[precision].rounded}"
        )
    return result


class _Tally:
    """What was compared so far.

    Attributes:
        same: (height, width) -> pixels whose label is PyTorch's, or nearly tied with it.
        total: (height, width) -> pixels.
        differences: (height, width) -> the differences of logits, root mean square, as shares of
            the logits' spread: the largest of a batch.
        largest: the largest difference of a logit.
        spreads: the deviation of each image's logits.
    """

    def __init__(self) -> None:
        self.same: Counter[Size] = Counter()
        self.total: Counter[Size] = Counter()
        self.differences: dict[Size, float] = {}
        self.largest, self.spreads = 0.0, list[float]()

    def compare(self, size: Size, answer: Tensor, logits: Tensor) -> None:
        """Adds a batch's logits and PyTorch's, N x C x h x w."""
        difference = answer - logits
        self.largest = max(self.largest, float(difference.abs().max()))
        share = float(difference.square().mean().sqrt()) / max(float(logits.std()), _TINY)
        self.differences[size] = max(self.differences.get(size, 0.0), share)

    def add(self, size: Size, pixels: Tensor, labels: Tensor, margin: float) -> None:
        """Adds an image's labels, H x W, and PyTorch's logits, C x H x W."""
        best, reference = pixels.max(0)
        alike = labels == reference
        if not bool(alike.all()):
            alike |= best - pixels.gather(0, labels[None])[0] <= margin
        self.same[size] += int(alike.sum())
        self.total[size] += alike.numel()

    def result(self, of_logits: bool) -> Verification:
        return Verification(
            len(self.spreads),
            self.same.total() / self.total.total(),
            self.largest if of_logits else None,
            float(np.mean(self.spreads)),
        )

    def advice(self, least: float, most: float) -> str:
        """Why it may be wrong, where it is right at one size and wrong at another."""
        failed = [
            size
            for size, count in self.total.items()
            if self.same[size] < least * count or self.differences.get(size, 0.0) > most
        ]
        right = [size for size in self.total if size not in failed]
        if not right or not failed:
            return ""
        (height, width), (high, wide) = right[0], failed[0]
        return (
            f". It is right at {height}x{width} and wrong at {high}x{wide}: the network treats "
            "something as a constant that depends on the size; export it at a fixed size, without "
            "--dynamic-size"
        )


def _answer(session: Any, head: str, images: UInt8, tally: _Tally) -> Tensor:
    """What the graph says of images of one size."""
    try:
        return torch.from_numpy(session.run([head], {"image": images})[0])
    except Exception as error:  # of a kind of its own for each of its codes
        count, height, width = images.shape[:3]
        why = "export it at a fixed size, without --dynamic-size"
        if not tally.total:
            why = _BATCH
        raise CheckFailed(
            f"the exported graph does not run on {count} image{'s' * (count > 1)} of "
            f"{height}x{width}: {_line(error)}: {why}. The file was not kept"
        ) from error


_BATCH = (
    "the network treats the number of images as a constant; let it read the number from its input"
)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_LONGEST = 300  # characters of another program's report


def _require_finite(logits: Tensor, whose: str) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise CheckFailed(
            f"{whose} are not finite for an image, as values before them overflow. The file was "
            "not kept; train the network again, or give another checkpoint"
        )


def _require_classes(labels: Tensor, checkpoint: Checkpoint, precision: str) -> None:
    try:
        check_labels(labels.numpy(), checkpoint.label_set)
    except BackendError as error:
        raise CheckFailed(
            f"the exported graph ({precision}) fails on an image: {error}. The file was not kept"
        ) from error


def _pixels(checkpoint: Checkpoint, logits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """C x h x w to C x H x W, the dense way, by the network's rule; `shape` is N x H x W x 3."""
    return checkpoint.network.upsample(logits[None].float(), (shape[1], shape[2]))[0]
