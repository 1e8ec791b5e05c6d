"""Engines and timings from earlier builds, so that the same build is not done twice.

An engine is found by everything that it depends on: the ONNX file's SHA-256 (which holds weights
and precision), the options and the shapes, TensorRT's flavour and version, the GPU and its driver,
and the version of this package. A GPU that cannot be asked its name gets no cache: an engine of
another one is worse than a build. An entry is an engine and its sidecar; one whose bytes are not
what the sidecar says is built anew.
"""

import ctypes
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from icnet_deploy._version import __version__
from icnet_deploy.engine_sidecar import EngineSidecar, Gpu, read_sidecar, sidecar_path
from icnet_deploy.errors import ModelError, OutputError
from icnet_deploy.files import alone_in, make_folder, read_file, replacing, write_json

_MAJOR, _MINOR = 75, 76  # of CUdevice_attribute in cuda.h, the same in every release


def write_engine(path: Path, plan: bytes, sidecar: EngineSidecar) -> None:
    """Writes an engine and what belongs beside it, each whole or not at all.

    Of processes that write one engine at once, the pair of one stays. A kill between the two
    leaves a pair that does not match, which every reader refuses.

    Raises:
        OutputError: the files cannot be written.
    """
    with alone_in(make_folder(path.parent)), replacing(path) as temporary:
        temporary.write_bytes(plan)
        write_json(sidecar_path(path), sidecar.to_dict())


@dataclass(frozen=True)
class EngineCache:
    """A folder of engines and timings for one TensorRT on one GPU.

    Attributes:
        folder: where; made when something is written, for its owner only: an engine is a program.
        flavour: `tensorrt` or `tensorrt-rtx`.
        version: of TensorRT, in full.
        gpu: what is built on; None for targets.
    """

    folder: Path
    flavour: str
    version: str
    gpu: Gpu | None

    def key(self, onnx_sha256: str, options: Mapping[str, Any], profile: Any) -> str:
        """The name of an entry: 32 hex digits of everything that an engine depends on."""
        text = json.dumps(
            {
                "onnx": onnx_sha256,
                "options": dict(options),
                "profile": profile,
                "flavour": self.flavour,
                "version": self.version,
                "gpu": self.gpu and asdict(self.gpu),
                "icnet-deploy": __version__,
            },
            sort_keys=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def find(self, key: str) -> tuple[bytes, EngineSidecar] | None:
        """The engine of that key and its sidecar, if both are there and match."""
        path = self._engine(key)
        try:
            plan, sidecar = read_file(path), read_sidecar(path)
            if sidecar is not None:
                sidecar.check(plan, path)
                return plan, sidecar
        except (OSError, ModelError):  # gone, half written or changed: build it
            pass
        return None

    def keep(self, key: str, plan: bytes, sidecar: EngineSidecar, timings: bytes = b"") -> None:
        """Adds an engine, and puts the measurements, which TensorRT has added to, in place.

        Raises:
            OutputError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the cache folder {self.folder}: {error.strerror or error}; name "
                "another with --cache, or build with --no-cache"
            ) from error
        write_engine(self._engine(key), plan, sidecar)
        if timings:
            with replacing(self._timings()) as temporary:
                temporary.write_bytes(timings)

    def timings(self) -> bytes:
        """TensorRT's measurements of earlier builds; empty if there are none."""
        try:
            return read_file(self._timings())
        except OSError:
            return b""

    def _engine(self, key: str) -> Path:
        return self.folder / f"{key}.engine"

    def _timings(self) -> Path:
        gpu = f"{self.gpu.name}-{self.gpu.compute_capability}-{self.gpu.driver}" if self.gpu else ""
        where = re.sub(r"[^A-Za-z0-9.]+", "-", f"{self.version}-{gpu}").strip("-")
        return self.folder / f"timings-{where}.cache"


def find_gpu(load: Callable[[str], Any] = ctypes.CDLL) -> Gpu | None:
    """The first GPU, which is the one that TensorRT builds on; None where there is none.

    NVIDIA's driver itself is asked (cuda.h and nvml.h): no package is needed for it.

    Args:
        load: opens a shared library by name, raising OSError where it is missing.
    """
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    if (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, len(name), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    ):
        return None
    return Gpu(name.value.decode(), (major.value, minor.value), _driver(load, cuda))


def _driver(load: Callable[[str], Any], cuda: Any) -> str:
    """The driver's version by NVML; a Jetson has none, and tells its CUDA version only."""
    text = ctypes.create_string_buffer(96)
    try:
        nvml = load("libnvidia-ml.so.1")
        if not nvml.nvmlInit_v2() and not nvml.nvmlSystemGetDriverVersion(text, len(text)):
            return text.value.decode()
    except OSError:
        pass
    number = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(number)):
        return ""
    return f"CUDA {number.value // 1000}.{number.value % 1000 // 10}"
