"""OpenVINO on the CPU."""

import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from icnet_deploy._version import __version__
from icnet_deploy.documents import parse
from icnet_deploy.errors import BackendError, ModelError, OutputError
from icnet_deploy.files import asked_cache_folder, read_file, replacing
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.runtime.backends.base import Array, TensorSpec, check_feed, reason
from icnet_deploy.runtime.backends.forks import outlive_forks
from icnet_deploy.runtime.backends.openvino.arity import require_inputs
from icnet_deploy.runtime.backends.openvino.graph import PREPARED, for_one, prepare
from icnet_deploy.runtime.backends.registry import RUNTIMES

_INSTRUCTIONS = "ONEDNN_MAX_CPU_ISA"
"""An environment variable that lets OpenVINO use fewer of a processor's instructions."""

_ERRORS = (RuntimeError, UnicodeDecodeError)
"""OpenVINO's; the second where it cites bytes of a file that are no text."""

_DIGEST = 64  # hex digits at the start of what is kept

_TRIES, _ALIKE = 3, 0.98
"""A model for several streams that is sound differs from one for one stream by rounding alone."""

_SIDE = 128  # pixels of a side that a model leaves free, in that comparison


class _Ports(NamedTuple):
    """What is to be known of a compiled model besides itself.

    Attributes:
        inputs, outputs: as `Backend` has them.
        turned: the indices of the outputs that it gives with channels last.
        one_by_one: whether it takes one image at a time, and the inputs any number.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    turned: tuple[int, ...]
    one_by_one: bool


class OpenVinoBackend:
    """A compiled model of OpenVINO as a `Backend`; each thread has an infer request of its own.

    Where only the batch is free, the model is compiled for one image, and a batch runs image by
    image: one compiled for any number fuses other layers, so that INT8 rounds otherwise (up to
    0.1 % of the labels), and takes 1.0 to 1.25 times as long an image.
    """

    def __init__(self, compiled: Any, ports: _Ports) -> None:
        self.inputs, self.outputs = ports.inputs, ports.outputs
        self._ports = ports
        self._compiled = compiled
        self._lock = threading.Lock()
        self._own: Any = threading.local()
        self._closed = False
        outlive_forks(self)

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`. Of one image neither C-contiguous inputs nor outputs are copied."""
        if self._closed:
            raise BackendError("the model was closed")
        check_feed(self.inputs, feed)
        given = [feed[spec.name] for spec in self.inputs]
        try:
            one_by_one = self._ports.one_by_one and len(given[0]) > 1
            values = self._each(given[0]) if one_by_one else self._infer(given)
        except _ERRORS as error:
            raise BackendError(f"OpenVINO failed to run the model: {reason(error)}") from error
        return {
            spec.name: values[index].transpose(0, 3, 1, 2)
            if index in self._ports.turned
            else values[index]
            for index, spec in enumerate(self.outputs)
        }

    def close(self) -> None:
        """See `Backend.close`."""
        with self._lock:
            self._closed = True
            self._compiled = None
            self._own = threading.local()

    def _infer(self, given: list[Array]) -> list[Array]:
        """Runs once; what it returns is the request's own memory."""
        values = self._request().infer(given, share_inputs=True, share_outputs=True)
        return [values[index] for index in range(len(self.outputs))]

    def _each(self, images: Array) -> list[Array]:
        """Runs images one after another, and puts their outputs together."""
        together: list[Array] = []
        for index in range(len(images)):
            values = self._infer([images[index : index + 1]])
            if not together:
                together = [np.empty((len(images), *v.shape[1:]), v.dtype) for v in values]
            for whole, value in zip(together, values, strict=True):
                whole[index] = value[0]
        return together

    def _request(self) -> Any:
        """This thread's infer request."""
        own: dict[str, Any] = self._own.__dict__
        if "request" not in own:
            with self._lock:
                if self._closed:  # since `run` looked
                    raise BackendError("the model was closed")
                own["request"] = self._compiled.create_infer_request()
        return own["request"]


def open_model(
    path: Path, device: str, threads: int | None, streams: int = 1, cached: bool | None = None
) -> OpenVinoBackend:
    """Loads an ONNX file; see `open_backend`, which lets no device but `cpu` through.

    A compiled model is as large as the file and is never deleted, so it is kept only for who asks:
    by `cached`, or by setting `ICNET_CACHE`.
    """
    config: dict[str, Any] = {
        # The default precision is bfloat16 on some processors: less exact there, and slower.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        # As many requests as there are streams run at once, each on its share of the threads.
        "NUM_STREAMS": streams,
        # Layers that are kept, each at a size: by default 5000, and a process that labels images of
        # ever other sizes grew to 1.2 GB with 160 of them, with 100 to 0.4. Two sizes in turn take
        # no longer.
        "CPU_RUNTIME_CACHE_CAPACITY": 100,
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    try:
        if streams > 1:
            alone = _load(path, device.upper(), config | {"NUM_STREAMS": 1}, False)
            load = partial(_load, path, device.upper(), config, cached)
            return OpenVinoBackend(*load_alike(load, alone, streams, path))
        return OpenVinoBackend(*_load(path, device.upper(), config, cached))
    except _ERRORS as error:
        raise ModelError(f"OpenVINO cannot load the model {path}: {reason(error)}") from error


def load_alike(
    load: Callable[[], tuple[Any, _Ports]], alone: tuple[Any, _Ports], streams: int, path: Path
) -> tuple[Any, _Ports]:
    """Loads a model for several streams until it answers as one for a single stream does.

    Now and then, above all on a busy machine, OpenVINO 2026.4 compiles INT8 for several streams so
    that they label wrongly for as long as the model is open (docs/decisions/openvino-streams.md).

    Args:
        load: compiles the model for so many streams.
        alone: the same model, compiled for one.
        streams: how many run at once.
        path: of the file, for the message.

    Raises:
        ModelError: it answers otherwise each time.
    """
    sides = [side or _SIDE for side in alone[1].inputs[0].shape[1:]]
    noise = np.random.default_rng(0).integers(0, 256, (1, *sides), np.uint8)
    wanted = _classes(*alone, [noise])[0]
    for _ in range(_TRIES):
        loaded = load()
        found = _classes(*loaded, [noise] * (2 * streams))
        if all(float(np.mean(labels == wanted)) > _ALIKE for labels in found):
            return loaded
    raise ModelError(
        f"OpenVINO compiled {path} wrongly for {streams} streams, {_TRIES} times: open it with one "
        "stream, or try again when the machine is less busy"
    )


def _classes(compiled: Any, ports: _Ports, images: list[Array]) -> list[Array]:
    """The classes that a compiled model answers to images of one size, all asked for at once."""
    requests = [compiled.create_infer_request() for _ in images]
    for request, image in zip(requests, images, strict=True):
        request.start_async([image])
    answers = []
    for request in requests:
        request.wait()
        values = np.array(request.get_output_tensor(0).data)
        answers.append(values.argmax(-1 if ports.turned else 1) if values.ndim == 4 else values)
    return answers


def _load(
    path: Path, device: str, config: dict[str, Any], cached: bool | None
) -> tuple[Any, _Ports]:
    """A compiled model: of what was kept of the file, or compiled anew and kept."""
    place = _kept(path, config, cached)
    earlier = place and place.read()
    if earlier:
        ports, content = earlier
        with suppress(*_ERRORS):  # what OpenVINO does not take is compiled anew
            return core().import_model(content, device, config), _ports_of(ports)
    reader = core()
    require_inputs(path)
    compiled, made = compile_for(
        reader.read_model(path), lambda model: core().compile_model(model, device, config)
    )
    if place is not None:
        stream = io.BytesIO()
        compiled.export_model(stream)
        place.write(_as_json(made), stream.getvalue())
    return compiled, made


class _Kept(NamedTuple):
    """Where one compiled model is kept, or will be, with a SHA-256 of its key and its bytes.

    OpenVINO's own cache (CACHE_DIR) loads whatever lies under a name: a changed byte of a weight
    gives other labels, and nothing is said. Its callbacks for encryption, which could carry a
    digest, see the graph and not the weights.

    Attributes:
        artefact: the ONNX file.
        sha256: of it, and of its external data.
        folder: of all that is kept.
        key: all that the compiled model depends on, as JSON.
    """

    artefact: Path
    sha256: str
    folder: Path
    key: bytes

    @property
    def path(self) -> Path:
        """The file; its name is the key's SHA-256."""
        return self.folder / f"{hashlib.sha256(self.key).hexdigest()[:32]}.blob"

    def read(self) -> tuple[Any, bytes] | None:
        """The ports and what was compiled; None if nothing is kept, or other bytes than were."""
        try:
            content = read_file(self.path)
        except OSError:
            return None
        if content[:_DIGEST] != self._digest(memoryview(content)[_DIGEST:]):
            return None
        try:
            end = content.index(b"\n", _DIGEST)
            return parse(content[_DIGEST:end]), content[end + 1 :]
        except ValueError:  # whole, but laid out by another version of this file
            return None

    def write(self, ports: Mapping[str, Any], compiled: bytes) -> None:
        """Keeps a compiled model and its ports; done without where it cannot be."""
        with suppress(ModelError, OSError, OutputError):
            # What was compiled was read after the digest was taken.
            if artefact_sha256(self.artefact) != self.sha256:
                return
            content = json.dumps(ports).encode() + b"\n" + compiled
            with replacing(self.path) as temporary:
                temporary.write_bytes(self._digest(content) + content)

    def _digest(self, content: bytes | memoryview) -> bytes:
        digest = hashlib.sha256(self.key)
        digest.update(content)
        return digest.hexdigest().encode()


def _kept(artefact: Path, config: Mapping[str, Any], cached: bool | None) -> _Kept | None:
    """Where the compiled form of an ONNX file is kept; None where nothing is.

    Args:
        artefact: the file.
        config: how it is compiled.
        cached: whether it may be kept; None: only where `ICNET_CACHE` is set.

    Raises:
        ModelError: external data are missing.
    """
    folder = asked_cache_folder("openvino", cached)
    if folder is None:
        return None
    try:
        sha256 = artefact_sha256(artefact)
    except OSError:  # opening it says why
        return None
    key: dict[str, Any] = {"artefact": sha256, "machine": _machine(), "config": config}
    key |= {"icnet-deploy": __version__, "prepared": PREPARED}
    return _Kept(artefact, sha256, folder, json.dumps(key, sort_keys=True).encode())


def compile_for(model: Any, compile_model: Callable[[Any], Any]) -> tuple[Any, _Ports]:
    """Prepares a model that was read, and compiles it.

    Compiling drops casts at the ends of a graph, and a port then has their names, too: names and
    shapes are those that were read, types those that are run.
    """
    single = for_one(model)
    prepared, turned = prepare(single or model)
    compiled = compile_model(prepared)
    inputs = _specs(model.inputs, compiled.inputs)
    outputs = _specs(model.outputs, compiled.outputs)
    return compiled, _Ports(inputs, outputs, tuple(turned), single is not None)


def _as_json(ports: _Ports) -> dict[str, Any]:
    """The JSON form."""
    specs = [
        [[spec.name, spec.shape, spec.dtype.str] for spec in some]
        for some in (ports.inputs, ports.outputs)
    ]
    return {"ports": specs, "turned": ports.turned, "one_by_one": ports.one_by_one}


def _ports_of(value: Mapping[str, Any]) -> _Ports:
    """Reads the JSON form, which came with a digest."""
    inputs, outputs = (
        tuple(TensorSpec(name, tuple(shape), np.dtype(kind)) for name, shape, kind in some)
        for some in value["ports"]
    )
    return _Ports(inputs, outputs, tuple(value["turned"]), value["one_by_one"])


def core() -> Any:
    """The process's one `openvino.Core`, which is never freed.

    Each core that loads the CPU plugin gives the thread a stack for signals, and puts the former
    back when it is freed. Cores that are freed in the order in which they were made leave the
    thread a stack that is gone, and the next signal, a Ctrl-C or the end of a child, kills the
    process (OpenVINO 2026.4).
    """
    return _only(RUNTIMES["openvino"].imported().Core)


@cache
def _only(kind: Callable[[], Any]) -> Any:
    return kind()


def probe(package: Any) -> dict[str, Any]:
    """Its version and the devices that it sees."""
    names = {d: core().get_property(d, "FULL_DEVICE_NAME") for d in core().available_devices}
    return {"version": package.__version__.split("-")[0], "devices": names}


def _machine() -> dict[str, Any]:
    """What a compiled model is for: it is asked for by that, and refused by OpenVINO elsewhere."""
    version = RUNTIMES["openvino"].imported().__version__
    names = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
    return {"openvino": version, "instructions": os.environ.get(_INSTRUCTIONS)} | {
        name: core().get_property("CPU", name) for name in names
    }


def _specs(read: list[Any], compiled: list[Any]) -> tuple[TensorSpec, ...]:
    """Reads inputs or outputs, whose order compiling keeps; a dynamic side is free."""
    return tuple(
        TensorSpec(
            port.any_name,
            tuple(None if side.is_dynamic else side.get_length() for side in port.partial_shape),
            np.dtype(run.element_type.to_dtype()),
        )
        for port, run in zip(read, compiled, strict=True)
    )
