"""TensorRT and TensorRT-RTX: one backend for both, which answers with label maps, too.

A picture goes to the GPU, or is there; the network runs; of logits a kernel of ours makes the
label map at the picture's size; and only the label map comes back, or stays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from icnet_deploy.errors import BackendError, ImageError, NotFinite
from icnet_deploy.images import resize_labels
from icnet_deploy.labels import check_labels
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.backends.base import Array, Labelled, TensorSpec, check_feed
from icnet_deploy.runtime.backends.tensorrt.engine import Engine, Plan, load_engine
from icnet_deploy.runtime.backends.tensorrt.execution import Buffers, Execution, Flag
from icnet_deploy.runtime.contract import Size, check_answer
from icnet_deploy.runtime.cuda.base import (
    Cuda,
    DeviceArray,
    DeviceFrame,
    DeviceLabels,
    UInt8,
    copy_frame,
)
from icnet_deploy.runtime.cuda.labels import launch_check, launch_label_map


def open_plan(plan: Plan, package: str, cuda: Cuda, host_code: bool) -> _TensorRtBackend:
    """Loads an engine.

    Args:
        plan: of `read_plan`.
        package: `tensorrt` or `tensorrt_rtx`.
        cuda: the GPU.
        host_code: see `load_engine`.

    Raises:
        ModelError: it cannot be loaded, or is of another kind.
        BackendError: the GPU has no room for it.
    """
    trt = import_module(package)
    with cuda.current():
        return _TensorRtBackend(load_engine(trt, plan, cuda, host_code), cuda)


def probe(package: Any) -> dict[str, Any]:
    """Its version; whether it runs is up to the GPU."""
    return {"version": package.__version__}


class _TensorRtBackend:
    """An engine with an execution context, a stream and buffers of its own.

    A `Backend`, a `Labeller` and a `Keeper`. Threads take turns on it; to run at once, open one
    each: they share the engine.
    """

    def __init__(self, engine: Engine, cuda: Cuda) -> None:
        self.inputs = (engine.image,)
        self.outputs = engine.outputs
        self._engine: Engine | None = engine
        self._cuda = cuda
        self._lock = threading.Lock()
        with cuda.current(), ExitStack() as undo:
            self._stream = cuda.stream()
            undo.callback(self._stream.close)
            self._events = tuple(cuda.event() for _ in range(2))
            self._buffers = Buffers(cuda)
            undo.callback(self._buffers.free)
            self._flag = Flag(cuda, self._stream, self._buffers)
            for event in self._events:
                undo.callback(event.close)
            self._execution = Execution(engine, cuda, self._stream, self._buffers)
            undo.callback(self._execution.close)
            self._undo = undo.pop_all()

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        with self._running():
            check_feed(self.inputs, feed)
            images = np.asarray(feed[self.inputs[0].name])
            self._execution.prepare(images.shape)
            self._copy_in(list(images))
            self._execution.enqueue()
            blocks = {}
            for spec in self.outputs:
                shape = self._execution.shapes[spec.name]
                block = self._buffers.pinned(spec.name, prod(shape) * spec.dtype.itemsize)
                self._cuda.copy_out(block, self._execution.addresses[spec.name], self._stream)
                blocks[spec.name] = block.view(spec.dtype).reshape(shape)
            self._stream.synchronize()
            return {name: values.copy() for name, values in blocks.items()}

    def label(
        self,
        metadata: ArtefactMetadata,
        images: Sequence[UInt8 | DeviceFrame],
        sizes: Sequence[Size],
        on_device: bool = False,
    ) -> Labelled:
        """See `Labeller.label`."""
        start = time.perf_counter()
        height, width = images[0].shape[:2]
        with self._running() as engine:
            most = engine.largest_batch(height, width)
            labels: list[Any] = []
            finishing = 0.0
            for first in range(0, len(images), most):
                chunk = slice(first, first + most)
                finish = self._on_device if on_device else self._to_host
                self._execution.prepare((len(images[chunk]), height, width, 3))
                self._check_shapes(metadata)
                self._copy_in(images[chunk])
                self._execution.enqueue()
                self._events[0].record(self._stream)
                made, milliseconds = finish(metadata, sizes[chunk])
                labels += made
                finishing += milliseconds
        total = (time.perf_counter() - start) * 1e3
        return Labelled(labels, total - finishing, finishing)

    def keep(self, image: DeviceFrame) -> DeviceArray:
        """See `Keeper.keep`. It waits for no run: it has a stream of its own."""
        if self._engine is None:
            raise BackendError("the model was closed")
        return copy_frame(self._cuda, image)

    def close(self) -> None:
        """See `Backend.close`."""
        with self._lock:
            if self._engine is not None:
                self._engine = None
                with self._cuda.current():
                    self._undo.close()
                del self._execution  # and with it what else holds the engine

    @contextmanager
    def _running(self) -> Iterator[Engine]:
        """One thread's turn. What failed half way is waited for, so that buffers may be reused."""
        with self._lock:
            if self._engine is None:
                raise BackendError("the model was closed")
            with self._cuda.current():
                try:
                    yield self._engine
                except BaseException:
                    self._stream.synchronize()
                    raise

    def _copy_in(self, images: Sequence[UInt8 | DeviceFrame]) -> None:
        """Puts images into the batch: by pinned memory, or from where they are on the GPU."""
        shape = self._execution.shapes[self.inputs[0].name]
        address, size = self._execution.addresses[self.inputs[0].name], prod(shape[1:])
        for index, image in enumerate(images):
            target = address + index * size
            if isinstance(image, DeviceFrame):
                if image.stream is not None:
                    self._stream.wait_for(image.stream)
                self._cuda.copy(target, image.address, size, self._stream)
                continue
            block = self._buffers.pinned("image", prod(shape))[index * size : (index + 1) * size]
            np.copyto(block.reshape(shape[1:]), image)
            self._cuda.copy_in(target, block, self._stream)

    def _check_shapes(self, metadata: ArtefactMetadata) -> None:
        """Holds what will be answered to the metadata: TensorRT knows its shape before the run."""
        head = self._output(metadata.head)
        shapes = self._execution.shapes
        check_answer(metadata, head.dtype, shapes[head.name], shapes[self.inputs[0].name])

    def _to_host(
        self, metadata: ArtefactMetadata, sizes: Sequence[Size]
    ) -> tuple[list[UInt8], float]:
        """Label maps in the host's memory, and the milliseconds from the network's end to them."""
        head = metadata.head
        shape = self._execution.shapes[head]
        source = self._execution.addresses[head]
        # Logits that are not upsampled are finished at their own size, as a label map is.
        finished = head == "labels" or metadata.upsampling == "none"
        ends = [(shape[-2], shape[-1])] * len(sizes) if finished else sizes
        *starts, total = accumulate((height * width for height, width in ends), initial=0)
        block = self._buffers.pinned("label map", total)
        if head == "logits":
            source, flag = self._buffers.device("label map", total), self._flag.clear()
            for index, (first, size) in enumerate(zip(starts, ends, strict=True)):
                self._launch(index, source + first, size, flag, metadata.upsampling)
            self._flag.fetch()
        self._cuda.copy_out(block, source, self._stream)
        milliseconds = self._wait()
        start = time.perf_counter()
        if head == "labels":
            check_labels(block, metadata.label_set)
        elif self._flag.is_set():
            raise NotFinite
        maps = []
        for part, size, end in zip(np.split(block, starts[1:]), sizes, ends, strict=True):
            labels = part.reshape(end)
            resized = resize_labels(labels, size)
            maps.append(labels.copy() if resized is labels else resized)
        return maps, milliseconds + (time.perf_counter() - start) * 1e3

    def _on_device(
        self, metadata: ArtefactMetadata, sizes: Sequence[Size]
    ) -> tuple[list[DeviceLabels], float]:
        """As `_to_host`, in memory of the GPU that is the caller's."""
        head = metadata.head
        shape = self._execution.shapes[head]
        finished = head == "labels" or metadata.upsampling == "none"
        if finished and set(sizes) != {(shape[-2], shape[-1])}:
            raise ImageError(
                f"this engine makes its label map at {shape[-2]} x {shape[-1]}, but the image is "
                f"{sizes[0][0]} x {sizes[0][1]}: resize the image, leave out on_device, or build "
                "an engine with the head 'logits', which gives label maps of any size"
            )
        maps = [DeviceLabels(self._cuda, size) for size in sizes]
        flag = self._flag.clear()
        for index, labels in enumerate(maps):
            if head == "logits":
                self._launch(index, labels.address, sizes[index], flag, metadata.upsampling)
                continue
            count = shape[1] * shape[2]
            source = self._execution.addresses[head] + index * count
            self._cuda.copy(labels.address, source, count, self._stream)
            classes = len(metadata.label_set)
            launch_check(self._cuda, self._stream, source, sizes[index], classes, flag)
        self._flag.fetch()
        milliseconds = self._wait()
        if self._flag.is_set():
            for labels in maps if head == "labels" else ():
                check_labels(labels.to_host(), metadata.label_set)  # says what it found
            raise NotFinite
        return maps, milliseconds

    def _launch(self, index: int, labels: int, size: Size, flag: int, upsampling: str) -> None:
        """The kernel, on the logits of one image of the batch."""
        spec = self._output("logits")
        _, classes, height, width = self._execution.shapes[spec.name]
        offset = index * classes * height * width * spec.dtype.itemsize
        launch_label_map(
            self._cuda,
            self._stream,
            self._execution.addresses[spec.name] + offset,
            (classes, height, width),
            spec.dtype,
            labels,
            size,
            flag,
            upsampling,
        )

    def _output(self, head: str) -> TensorSpec:
        return next(spec for spec in self.outputs if spec.name == head)

    def _wait(self) -> float:
        """Waits for the stream; the GPU's milliseconds since the network's end."""
        self._events[1].record(self._stream)
        self._stream.synchronize()
        return self._events[1].milliseconds_since(self._events[0])
