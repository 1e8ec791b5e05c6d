"""Loading an engine of TensorRT or TensorRT-RTX: whose it is, and why it does not load.

An engine is a program, and loading it runs it. So its bytes are held to the sidecar's SHA-256
before TensorRT sees them, and host code in it is not allowed unless it was asked for.
"""

import hashlib
import re
import threading
from collections import deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from icnet_deploy.engine_sidecar import EngineSidecar, read_sidecar, sidecar_path
from icnet_deploy.errors import BackendError, ModelError
from icnet_deploy.files import read_file
from icnet_deploy.runtime.backends.base import TensorSpec
from icnet_deploy.runtime.cuda.base import Cuda, OutOfMemory

Shape = tuple[int, ...]

# The first bytes of a plan, as `trtexec --getPlanVersionOnly` reads them: a tag, and at byte 24
# major, minor, patch and build in a byte each.
_FLAVOURS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt-rtx"}
_VERSION = slice(24, 28)

_NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


@dataclass(frozen=True)
class Plan:
    """An engine file as it was read, held to its sidecar.

    Attributes:
        path: the file.
        data: all of it.
        sha256: of `data`.
        sidecar: what lies beside it, or None.
        flavour: `tensorrt` or `tensorrt-rtx`; None where neither the header nor a sidecar says.
        version: four numbers of the version that built it, or None.
    """

    path: Path
    data: bytes
    sha256: str
    sidecar: EngineSidecar | None
    flavour: str | None
    version: tuple[int, ...] | None


def read_plan(path: Path, require_manifest: bool) -> Plan:
    """Reads an engine file and its sidecar.

    Args:
        path: the engine.
        require_manifest: refuse an engine without a sidecar.

    Raises:
        ModelError: it cannot be read, its sidecar is missing where one is required, or describes
            another engine.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise ModelError(f"cannot read the engine {path}: {error.strerror or error}") from error
    sidecar = read_sidecar(path)
    if sidecar is not None:
        sidecar.check(data, path)
    elif require_manifest:
        raise ModelError(
            f"{path} has no sidecar {sidecar_path(path).name}: an engine is a program, and "
            "without a sidecar nothing shows which one it is; build it with `icnet build-engine`, "
            "or, if you trust its source, leave out --require-manifest (require_manifest in Python)"
        )
    flavour = _FLAVOURS.get(data[:4])
    version = tuple(data[_VERSION]) if flavour and len(data) >= _VERSION.stop else None
    if flavour is None and sidecar is not None:
        flavour = sidecar.flavour
    digest = hashlib.sha256(data).hexdigest()
    return Plan(path, data, digest, sidecar, flavour, version)


class _Lines:
    """The last lines that TensorRT logged, by any of its threads."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=40)
        self._lock = threading.Lock()
        self._count = 0

    def add(self, line: str) -> None:
        with self._lock:
            self._count += 1
            self._lines.append((self._count, line))

    def mark(self) -> int:
        """Where the log is now, for `since`."""
        return self._count

    def since(self, mark: int) -> str:
        """What was logged since then: the last three lines, in one."""
        with self._lock:
            lines = [line for number, line in self._lines if number > mark]
        return "; ".join(lines[-3:]) or "nothing"


@cache
def _logger_of(trt: Any) -> Any:
    """The one logger that a process gives TensorRT; its `lines` hold warnings and errors."""

    class Log(trt.ILogger):  # type: ignore[misc]  # of whichever module it is
        def __init__(self) -> None:
            super().__init__()
            self.lines = _Lines()

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= int(trt.ILogger.WARNING):
                self.lines.add(msg)

    return Log()


class Engine:
    """A deserialized engine, which several predictors of a process share.

    Attributes:
        trt: the module, `tensorrt` or `tensorrt_rtx`.
        name: of the product and the file, for messages.
        image: the one input.
        outputs: all outputs.
        profiles: the least, the best and the largest shape of the input, by profile.
        lines: what TensorRT logs.
    """

    def __init__(self, trt: Any, raw: Any, plan: Plan) -> None:
        self.trt, self._raw, self._path = trt, raw, plan.path
        self.name = f"{_product(trt)} {trt.__version__} with {plan.path}"
        self.lines: _Lines = _logger_of(trt).lines
        names = [raw.get_tensor_name(index) for index in range(raw.num_io_tensors)]
        modes = {name: raw.get_tensor_mode(name) for name in names}
        inputs = [self._spec(n) for n in names if modes[n] == trt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise ModelError(
                f"{plan.path} has {len(inputs)} inputs ({', '.join(map(str, inputs))}), expected "
                "one, the uint8 image: build the engine from an ONNX file of `icnet export`"
            )
        self.image = inputs[0]
        self.outputs = tuple(self._spec(n) for n in names if modes[n] == trt.TensorIOMode.OUTPUT)
        self.profiles = tuple(
            self._profile(index) for index in range(raw.num_optimization_profiles)
        )

    def new_context(self, cuda: Cuda) -> Any:
        """Makes an execution context; each stream needs its own.

        Raises:
            OutOfMemory: TensorRT made none.
        """
        mark = self.lines.mark()
        context = self._raw.create_execution_context()
        if context is None:
            needed, free = self._raw.device_memory_size_v2 / 2**20, cuda.free_memory() / 2**20
            raise OutOfMemory(
                f"{self.name} cannot make an execution context: it needs {needed:.0f} MiB of GPU "
                f"memory, and {free:.0f} MiB are free; close other predictors, or build the "
                f"engine for a smaller batch. TensorRT said: {self.lines.since(mark)}"
            )
        return context

    def profile_for(self, shape: Shape, preferred: int) -> int:
        """The profile that takes an input shape: the preferred one, else the one nearest its best.

        Raises:
            BackendError: none does.
        """
        fitting = [
            index
            for index, (least, _, largest) in enumerate(self.profiles)
            if len(shape) == len(least)
            and all(a <= b <= c for a, b, c in zip(least, shape, largest, strict=True))
        ]
        if not fitting:
            ranges = " or ".join(f"{_sides(p[0])} to {_sides(p[2])}" for p in self.profiles)
            raise BackendError(
                f"{self._path} takes images of {ranges}, got {_sides(shape)}: build the engine "
                "for these shapes with `icnet build-engine`"
            )
        if preferred in fitting:
            return preferred

        def distance(index: int) -> int:
            best = self.profiles[index][1]
            return sum(abs(a - b) for a, b in zip(best, shape, strict=True))

        return min(fitting, key=distance)

    def largest_batch(self, height: int, width: int) -> int:
        """How many images of a size one run takes at most; 1 where no profile takes the size."""
        counts = [
            largest[0]
            for least, _, largest in self.profiles
            if least[1] <= height <= largest[1] and least[2] <= width <= largest[2]
        ]
        return max(counts, default=1)

    def _spec(self, name: str) -> TensorSpec:
        raw, trt = self._raw, self.trt
        if raw.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise ModelError(f"{self._path}: the tensor {name!r} is not in the GPU's memory")
        if raw.get_tensor_format(name) != trt.TensorFormat.LINEAR:
            raise ModelError(
                f"{self._path}: the tensor {name!r} is not linear in memory: build the engine "
                "without --inputIOFormats and --outputIOFormats"
            )
        try:
            dtype = np.dtype(trt.nptype(raw.get_tensor_dtype(name)))
        except TypeError as error:
            raise ModelError(f"{self._path}: the tensor {name!r}: {error}") from error
        sides = tuple(raw.get_tensor_shape(name))
        return TensorSpec(name, tuple(None if s < 0 else int(s) for s in sides), dtype)

    def _profile(self, index: int) -> tuple[Shape, Shape, Shape]:
        shapes = self._raw.get_tensor_profile_shape(self.image.name, index)
        least, best, largest = (tuple(int(side) for side in shape) for shape in shapes)
        return least, best, largest


_engines: WeakValueDictionary[tuple[Any, ...], Engine] = WeakValueDictionary()
_engines_lock = threading.Lock()


def load_engine(trt: Any, plan: Plan, cuda: Cuda, host_code: bool) -> Engine:
    """Deserializes a plan, or finds it deserialized by another predictor of this process.

    Args:
        trt: the module.
        plan: of `read_plan`.
        cuda: the GPU, whose context is current.
        host_code: let code of the engine that runs on the CPU in, as version-compatible ones have.

    Raises:
        ModelError: TensorRT does not load it; the message says what was found, what was expected,
            and the command that builds it again.
    """
    key = (id(trt), plan.sha256, cuda.gpu.index, host_code)
    with _engines_lock:
        engine = _engines.get(key)
        if engine is None:
            raw = _deserialize(trt, plan, cuda, host_code)
            engine = _engines[key] = Engine(trt, raw, plan)
        return engine


def _deserialize(trt: Any, plan: Plan, cuda: Cuda, host_code: bool) -> Any:
    logger = _logger_of(trt)
    mark = logger.lines.mark()
    try:
        runtime = trt.Runtime(logger)
    except TypeError as error:  # its way to say that there is no driver or no GPU
        raise BackendError(
            f"{_product(trt)} {trt.__version__} does not start ({error}; it said: "
            f"{logger.lines.since(mark)}): check that nvidia-smi lists a GPU"
        ) from error
    runtime.engine_host_code_allowed = host_code
    raw = runtime.deserialize_cuda_engine(plan.data)
    if raw is None:
        raise ModelError(_why_not(trt, plan, cuda, logger.lines.since(mark)))
    return raw


def _why_not(trt: Any, plan: Plan, cuda: Cuda, said: str) -> str:
    """Why TensorRT did not load a plan: which was found, which was expected, what to do."""
    product, sidecar = _product(trt), plan.sidecar
    here = tuple(int(part) & 255 for part in re.findall(r"\d+", trt.__version__)[:4])
    # Of the build the header has the last byte only.
    built = sidecar.version if sidecar else ".".join(map(str, (plan.version or ())[:3]))
    device = re.search(r"expecting compute (\S+) got compute (\S+?),", said)
    if "host code" in said.lower():
        why = (
            "it holds code for the CPU, as version-compatible engines do: if you trust its "
            "source, allow that in Python (host_code=True), or"
        )
    elif plan.version is not None and plan.version[: len(here)] != here[: len(plan.version)]:
        why = (
            f"it was built with {product} {built}, but this machine has {product} "
            f"{trt.__version__}: an engine runs only on the version that built it;"
        )
    elif device is not None:
        built_on = f"{sidecar.gpu}" if sidecar and sidecar.gpu else f"compute {device[2]}"
        why = (
            f"it was built for {built_on}, but this machine has {cuda.gpu}: an engine runs only "
            "on its own kind of GPU;"
        )
    elif sidecar and sidecar.gpu and sidecar.gpu.compute_capability != cuda.gpu.capability:
        why = f"it was built on {sidecar.gpu}, but this machine has {cuda.gpu};"
    elif "cuda runtime" in said.lower():
        why = (
            "the GPU or its driver failed (see `icnet doctor`), or the engine is from another "
            "machine;"
        )
    elif plan.flavour is None:
        why = f"it is not a TensorRT engine ({len(plan.data)} bytes);"
    else:
        why = f"it was cut off or changed ({len(plan.data)} bytes), or is of another kind;"
    flavour = "tensorrt-rtx" if product == _NAMES["tensorrt-rtx"] else "tensorrt"
    return (
        f"{product} {trt.__version__} cannot load {plan.path}: {why} build it here: `icnet "
        f"build-engine MODEL.onnx --with {flavour} -o {plan.path.name}`. It said: {said}"
    )


def _product(trt: Any) -> str:
    return _NAMES["tensorrt-rtx" if "rtx" in trt.__name__ else "tensorrt"]


def _sides(shape: Shape) -> str:
    return " x ".join(map(str, shape))
