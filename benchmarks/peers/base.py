"""PyTorch, ONNX Runtime and OpenVINO by themselves, each as its own documentation runs a network.

None of it shares code with `icnet_deploy.runtime`, whose speed it is compared with.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import ModelError, UnavailableError
from icnet_deploy.evaluation.reference import read_checkpoint
from icnet_deploy.images import resize_image, resize_labels
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.labels import check_labels
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.backends.openvino.backend import core
from icnet_deploy.runtime.backends.registry import check_available
from icnet_deploy.runtime.labelmap import label_map

UInt8 = npt.NDArray[np.uint8]
Size = tuple[int, int]

_OPENVINO = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
"""What its docs ask for one image at a time, and float32 by name: some processors would get
bfloat16 by default, and that would be another job."""

_PREPROCESSING = ("Convert", "Transpose", "Subtract")
"""The operators between the image and the network, in OpenVINO's names."""


@dataclass(frozen=True)
class Peer:
    """A way to label images that is ready.

    Attributes:
        subject: what there is to say of it, beyond what all peers share.
        answer: the label map of an image, uint8 H x W.
        label: labels an image and says in milliseconds how long that took, as `total`.
        scope: what of `label` is timed.
    """

    subject: dict[str, Any]
    answer: Callable[[UInt8], UInt8]
    label: Callable[[UInt8], Mapping[str, float]]
    scope: str = "image-to-labels"


def _whole(subject: dict[str, Any], path: Path, answer: Callable[[UInt8], UInt8]) -> Peer:
    def label(image: UInt8) -> Mapping[str, float]:
        start = time.perf_counter()
        answer(image)
        return {"total": 1e3 * (time.perf_counter() - start)}

    return Peer({"file": path.name, "sha256": artefact_sha256(path), **subject}, answer, label)


@contextmanager
def open_pytorch(name: str, weights: Path, threads: int | None) -> Iterator[Peer]:
    """A checkpoint in PyTorch, from the uint8 image to the uint8 label map.

    Args:
        name: `pytorch`, `pytorch-channels-last` or `torch-compile`.
        weights: the checkpoint.
        threads: for the whole process until it is closed; None leaves them as they are.

    Raises:
        MissingPackage, ModelError: as `read_checkpoint`.
        UnavailableError: `torch.compile` finds no C++ compiler.
    """
    checkpoint = read_checkpoint(weights)
    import torch
    import torch.nn.functional as F

    compiler = os.environ.get("CXX", "g++")
    if name == "torch-compile" and shutil.which(compiler) is None:
        raise UnavailableError(
            f"torch.compile needs a C++ compiler, and there is no {compiler}: install g++, or name "
            "another in CXX"
        )
    layout = torch.contiguous_format if name == "pytorch" else torch.channels_last
    network = checkpoint.network.to(memory_format=layout)  # type: ignore[call-overload]

    def labels(pixels: torch.Tensor) -> torch.Tensor:
        x = checkpoint.preprocessing.normalise(pixels).contiguous(memory_format=layout)
        size = (pixels.shape[1], pixels.shape[2])
        logits = F.interpolate(network(x), size=size, mode="bilinear", align_corners=True)
        return logits.argmax(1).to(torch.uint8)

    # With `fullgraph` what cannot be compiled is an error, not a part that runs uncompiled.
    step = torch.compile(labels, fullgraph=True) if name == "torch-compile" else labels

    def answer(image: UInt8) -> UInt8:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(image))[None]
            return np.asarray(step(pixels)[0].numpy())

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        subject = {"runtime": "pytorch", "threads": torch.get_num_threads()}
        yield _whole(subject, weights, answer)
    finally:
        torch.set_num_threads(before)
        if name == "torch-compile":
            torch.compiler.reset()


@contextmanager
def open_onnxruntime(path: Path, threads: int | None) -> Iterator[Peer]:
    """A float32 file that makes label maps, in ONNX Runtime as its "get started" runs it.

    Args:
        path: an ONNX file.
        threads: None is ONNX Runtime's default, one a physical core, and is told as None.

    Raises:
        MissingPackage: ONNX Runtime is not installed.
        ModelError: it cannot load the file.
    """
    check_available("onnxruntime", "cpu")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common root but this
        raise ModelError(f"ONNX Runtime cannot load {path}: {error}") from error
    name = session.get_inputs()[0].name

    def answer(image: UInt8) -> UInt8:
        return np.asarray(session.run(None, {name: image[None]})[0][0])

    yield _whole({"runtime": "onnxruntime", "threads": threads}, path, answer)


@contextmanager
def open_openvino(path: Path, size: Size, threads: int | None) -> Iterator[Peer]:
    """A float32 file that makes label maps, in OpenVINO as its docs run one for latency.

    Args:
        path: an ONNX file.
        size: (height, width) of the images in pixels, which the file takes.
        threads: None is OpenVINO's default.

    Raises:
        MissingPackage: OpenVINO is not installed.
        ModelError: it cannot load the file.
    """
    compiled = _compiled(_read(path, size), threads)

    def answer(image: UInt8) -> UInt8:
        return np.asarray(compiled(image[None])[0][0])

    yield _whole({"runtime": "openvino", "threads": _threads(compiled)}, path, answer)


@contextmanager
def open_bare_openvino(name: str, path: Path, size: Size, threads: int | None) -> Iterator[Peer]:
    """The inference call alone: its input is filled before the clock starts, its output left.

    Args:
        name: `openvino-bare`, or `openvino-bare-core`: without the preprocessing in the graph.
        path: an ONNX file of ours, of any precision.
        size: (height, width) that a file of free size is run at.
        threads: None is OpenVINO's default.

    Raises:
        MissingPackage: OpenVINO is not installed.
        ModelError: OpenVINO cannot load the file, or there is no preprocessing in it.
    """
    told = read_onnx_metadata(path)
    size = told.size or size
    model = _read(path, size)
    before = _cut(model, path) if name == "openvino-bare-core" else None
    compiled = _compiled(model, threads)
    request = compiled.create_infer_request()
    inside = request.get_input_tensor().data
    prepare = None if before is None else _compiled(before, threads).create_infer_request()

    def fill(image: UInt8) -> None:
        pixels = resize_image(image, size)[None]
        if prepare is None:
            inside[:] = pixels
        else:
            inside[:] = prepare.infer([pixels], share_outputs=True)[0]

    def label(image: UInt8) -> Mapping[str, float]:
        fill(image)
        start = time.perf_counter()
        request.infer(share_outputs=True)  # otherwise it returns a copy
        return {"total": 1e3 * (time.perf_counter() - start)}

    def answer(image: UInt8) -> UInt8:
        label(image)
        found = np.array(request.get_output_tensor().data[0])
        shape = (image.shape[0], image.shape[1])
        if told.head == "logits":
            return label_map(found, shape)
        check_labels(found, told.label_set)
        return resize_labels(found, shape)

    subject = {
        "name": f"{path.stem}, {name}",
        "file": path.name,
        "sha256": artefact_sha256(path),
        "precision": told.precision,
        "runtime": "openvino",
        "threads": _threads(compiled),
    }
    yield Peer(subject, answer, label, "network")


def _read(path: Path, size: Size) -> Any:
    """Reads a file for one image of that size: OpenVINO plans better for shapes that are fixed."""
    check_available("openvino", "cpu")
    try:
        model = core().read_model(path)
        model.reshape([1, *size, 3])
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot load {path} for images of {size}: {error}") from error
    return model


def _compiled(model: Any, threads: int | None) -> Any:
    config: dict[str, Any] = dict(_OPENVINO)
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return core().compile_model(model, "CPU", config)


def _threads(compiled: Any) -> int:
    return int(compiled.get_property("INFERENCE_NUM_THREADS"))


def _cut(model: Any, path: Path) -> Any:
    """Takes the preprocessing off a model, and returns it as a model of its own."""
    from openvino import Model, opset13

    image = model.inputs[0].get_node()
    end = image.output(0)
    while True:
        users = [each.get_node() for each in end.get_target_inputs()]
        if len(users) != 1 or users[0].get_type_name() not in _PREPROCESSING:
            break
        end = users[0].output(0)
    if end.get_node() == image:
        raise ModelError(f"{path} has no preprocessing behind its input: nothing to cut off")
    before = Model([end], [image], "preprocessing").clone()
    pixels = opset13.parameter(end.get_shape(), end.get_element_type().to_dtype(), "pixels")
    for user in end.get_target_inputs():
        user.replace_source_output(pixels.output(0))
    model.add_parameters([pixels])
    model.remove_parameter(image)
    return before
