"""Whether an 8-bit graph gives the float32 one's labels, on each runtime that is here to run it."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from icnet_deploy.calibration.calibrate import open_session
from icnet_deploy.errors import BackendError, ImageError, ModelError, UnavailableError
from icnet_deploy.files import scratch_folder
from icnet_deploy.images import UInt8
from icnet_deploy.labels import check_labels
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.backends.registry import RUNTIMES, open_backend
from icnet_deploy.runtime.cuda import installed
from icnet_deploy.runtime.labelmap import label_map

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Agreement:
    """How far an 8-bit graph gives the float32 one's labels on a runtime.

    Attributes:
        runtime: a key of `RUNTIMES`.
        share: of the labels, 0..1.
        error: why the runtime has no labels of an image; empty where it has.
    """

    runtime: str
    share: float
    error: str = ""


EXACT = "onnxruntime"
"""The runtime of the float32 graph's labels: it computes a graph as the file says."""

_TIMES, _MORE = 3, 0.01
"""A runtime with so many times as many other labels, and such a share of them more, is named."""


def other_runtimes() -> tuple[str, ...]:
    """The runtimes besides `EXACT` that run ONNX files on this machine's CPU."""
    return tuple(
        name
        for name, runtime in RUNTIMES.items()
        if name != EXACT
        and not runtime.engines
        and "cpu" in runtime.extras
        and installed(runtime.package)
    )


def agreements(
    a: onnx.ModelProto,
    b: onnx.ModelProto,
    images: Iterable[UInt8],
    metadata: ArtefactMetadata,
    others: Collection[str] = (),
) -> list[Agreement]:
    """The share of pixels to which two graphs give the same label.

    Args:
        a, b: graphs with the same input and head; `a` is run on `EXACT`.
        images: uint8 H x W x 3, RGB, of the graphs' size; they are read once.
        metadata: of both, as far as it says how their answer becomes labels.
        others: runtimes that `b` is run on, besides `EXACT`.

    Returns:
        One for each runtime that `b` was run on, that of `EXACT` first.

    Raises:
        ImageError: there is no image.
        NotFinite: logits of one of the graphs are infinite or not numbers, on `EXACT`.
        BackendError: a label map of one of them holds what is no class, on `EXACT`.
    """
    head = a.graph.output[0].name
    same: Counter[str] = Counter()
    errors: dict[str, str] = {}
    total = 0
    with ExitStack() as opened:
        exact = _on_exact(a, head)
        answers = {EXACT: _on_exact(b, head)}
        for name in others:
            try:
                answers[name] = opened.enter_context(_on_another(name, b, head))
            except (ModelError, UnavailableError) as error:
                errors[name] = str(error)
        for image in images:
            labels = _labels(exact(image), image, metadata)
            for name, answer in list(answers.items()):
                try:
                    theirs = _labels(answer(image), image, metadata)
                except BackendError as error:
                    if name == EXACT:
                        raise
                    errors[name], same[name] = str(error), 0
                    del answers[name]
                else:
                    same[name] += int((theirs == labels).sum())
            total += labels.size
    if not total:
        raise ImageError("there is no image to compare the graphs on: give at least one")
    return [Agreement(n, same[n] / total, errors.get(n, "")) for n in (EXACT, *others)]


def other_labels(
    a: onnx.ModelProto,
    others: Mapping[str, onnx.ModelProto],
    images: Iterable[UInt8],
    metadata: ArtefactMetadata,
) -> dict[str, npt.NDArray[np.float64]]:
    """The share of each image's pixels to which another graph gives another label, on `EXACT`.

    Args:
        a: a graph.
        others: name -> a graph with the same input and head.
        images, metadata: as of `agreements`.

    Returns:
        Name -> float64 of N, 0..1, for the N images.

    Raises:
        NotFinite: logits of one of the graphs are infinite or not numbers.
        BackendError: a label map of one of them holds what is no class.
    """
    head = a.graph.output[0].name
    exact = _on_exact(a, head)
    answers = {name: _on_exact(other, head) for name, other in others.items()}
    found: dict[str, list[float]] = {name: [] for name in others}
    for image in images:
        labels = _labels(exact(image), image, metadata)
        for name, answer in answers.items():
            found[name].append(float((_labels(answer(image), image, metadata) != labels).mean()))
    return {name: np.array(each) for name, each in found.items()}


def agreement_words(found: Sequence[Agreement], where: str) -> list[str]:
    """Lines that say the shares, and which runtime answers otherwise than `EXACT`.

    Args:
        found: as `agreements` has them.
        where: what the images are, in words.
    """
    exact, *others = found
    each = "".join(f", {one.share:.3%} on {one.runtime}" for one in others if not one.error)
    lines = [f"labels alike with float32 on {where}: {exact.share:.3%} on {EXACT}{each}"]
    for one in others:
        if one.error:
            lines.append(f"note: {one.runtime} cannot label the images: {one.error}")
        elif one.share < exact.share - _MORE and 1 - one.share > _TIMES * (1 - exact.share):
            lines.append(
                f"note: many more labels differ on {one.runtime} than on {EXACT}; `icnet "
                f"sensitivity --layers --runtime {one.runtime}` shows the layer where it begins"
            )
    return lines


def _on_exact(model: onnx.ModelProto, head: str) -> Callable[[UInt8], Array]:
    session = open_session(model)
    return lambda image: np.asarray(session.run([head], {"image": image[None]})[0])


@contextmanager
def _on_another(
    runtime: str, model: onnx.ModelProto, head: str
) -> Iterator[Callable[[UInt8], Array]]:
    """Opens a graph in a runtime, by way of a file that is removed."""
    with scratch_folder() as folder:
        path = folder / "model.onnx"
        onnx.save(model, path)
        backend = open_backend(runtime, path, "cpu", cached=False)
        try:
            yield lambda image: backend.run({"image": image[None]})[head]
        finally:
            backend.close()


def _labels(answer: Array, image: UInt8, metadata: ArtefactMetadata) -> Array:
    if answer.dtype == np.uint8:
        check_labels(answer, metadata.label_set)
        return answer
    return label_map(answer, (image.shape[0], image.shape[1]), upsampling=metadata.upsampling)
