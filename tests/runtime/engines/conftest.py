"""Engines of the fake TensorRT, of either release, on a CUDA of host memory."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fake_tensorrt import RELEASES, Machine, make_fake
from host_cuda import HostCuda
from tiny_model import build_model

from icnet_deploy.engine_sidecar import EngineSidecar, Gpu, sidecar_path
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime import Predictor


@pytest.fixture(scope="session", params=RELEASES)
def release(request: Any) -> Any:
    """A fake `tensorrt` of each recorded release, made once."""
    return make_fake(request.param)


class Frame:
    """A picture on the GPU, as CuPy or PyTorch would have it, written by a stream of its own."""

    def __init__(self, cuda: HostCuda, image: Any, version: int = 3, **changes: Any) -> None:
        with cuda.current():
            self.stream, self.memory = cuda.stream(), cuda.allocate(image.nbytes)
            staged = cuda.pinned(image.nbytes)
        staged.array[:] = image.ravel()
        with cuda.current():
            cuda.copy_in(self.memory.address, staged.array, self.stream)  # not yet done
        self._cuda, self._staged = cuda, staged
        self.shape = image.shape
        self.__cuda_array_interface__ = {
            "shape": image.shape,
            "typestr": "|u1",
            "data": (self.memory.address, True),
            "version": version,
            "stream": self.stream.handle,
        } | changes

    def fill(self, image: Any) -> None:
        """Writes another picture into the same memory, by the same stream; again not yet done."""
        with self._cuda.current():
            self.stream.synchronize()
            self._staged.array[:] = image.ravel()
            self._cuda.copy_in(self.memory.address, self._staged.array, self.stream)


@dataclass
class Desk:
    """A machine with TensorRT and a GPU of host memory, and a folder for files."""

    trt: Any
    cuda: HostCuda
    folder: Path

    def onnx(self, **options: Any) -> Path:
        """A tiny ONNX file; see `build_model`."""
        count = len(list(self.folder.iterdir()))
        return build_model(self.folder / f"tiny{count}.onnx", **options)

    def engine(
        self, onnx: Path, *shapes: Any, sidecar: bool = True, version_compatible: bool = False
    ) -> Path:
        """Builds it as `trtexec` would; each of `shapes` is a profile of three."""
        trt = self.trt
        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(typed)
        parser = trt.OnnxParser(network, logger)
        assert parser.parse(onnx.read_bytes())
        config = builder.create_builder_config()
        if version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        for least, best, largest in shapes:
            profile = builder.create_optimization_profile()
            profile.set_shape("image", least, best, largest)
            assert config.add_optimization_profile(profile) >= 0
        plan = bytes(builder.build_serialized_network(network, config))
        path = onnx.with_suffix(".engine")
        path.write_bytes(plan)
        if sidecar:
            self.describe(path, onnx)
        return path

    def describe(self, path: Path, onnx: Path, **changes: Any) -> None:
        """Writes the sidecar."""
        told = EngineSidecar(
            engine_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            onnx_sha256=hashlib.sha256(onnx.read_bytes()).hexdigest(),
            metadata=read_onnx_metadata(onnx),
            flavour="tensorrt",
            version=self.trt.__version__,
            gpu=Gpu("NVIDIA GeForce RTX 3090", self.trt.machine.compute, "580.65.06"),
        )
        value = replace(told, **changes).to_dict()
        sidecar_path(path).write_text(json.dumps(value), encoding="utf-8")

    def frame(self, image: Any, version: int = 3, **changes: Any) -> Frame:
        """The picture on this machine's GPU."""
        return Frame(self.cuda, image, version, **changes)

    def open(self, path: Path, **options: Any) -> Predictor:
        """`Predictor.from_engine` on this machine."""
        return Predictor.from_engine(path, cuda=self.cuda, **options)


@pytest.fixture
def desk(release: Any, monkeypatch: Any, without: Any, tmp_path: Path) -> Any:
    """A machine of the test's own; at the end nothing may be left open on it."""
    cuda = HostCuda()
    release.machine = Machine(enqueue=cuda.enqueue, check=cuda.check)
    monkeypatch.setitem(sys.modules, "tensorrt", release)
    without("tensorrt_rtx", "openvino")
    return Desk(release, cuda, tmp_path)


BATCHES = ((1, 64, 96, 3), (2, 64, 96, 3), (4, 64, 96, 3))


@pytest.fixture
def batched(desk: Desk) -> Callable[..., Path]:
    """A function that builds an engine of 64 x 96 for one to four images."""
    return lambda sidecar=True, **options: desk.engine(
        desk.onnx(**options), BATCHES, sidecar=sidecar
    )
