"""TensorRT-RTX, and TensorRT where it is: engines for this GPU, their parity and their speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from icnet_deploy.errors import InputError, MissingPackage
from icnet_deploy.evaluation.pairing import Pair
from tools.gpu_check.parity import parity_of
from tools.gpu_check.setting import Setting
from tools.gpu_check.speed import Opener, contest
from tools.gpu_check.subjects import EAGER, Subject, open_torch

_PRECISIONS = ("fp32", "fp16", "int8")


def engines(setting: Setting) -> dict[str, Any]:
    """Flavour -> file -> what came of it; all in turn, beside PyTorch eager, in `engine_speed`."""
    if not setting.cuda:
        return {"left_out": "a rehearsal builds no engine"}
    from icnet_deploy.export.build_engine import PACKAGES, load_tensorrt
    from icnet_deploy.metadata import read_onnx_metadata

    told = setting.kept("engines")
    setting.results["engines"] = told
    with TemporaryDirectory() as folder:
        openers: list[Opener] = [(f"PyTorch {EAGER[-1]}", open_torch(setting, EAGER[-1]))]
        for flavour in reversed(PACKAGES):
            try:
                trt = load_tensorrt(flavour)
            except MissingPackage as error:
                told[flavour] = {"left_out": str(error)}
                continue
            rows = told[flavour] = {"version": trt.__version__}
            for path in setting.onnx_files():
                if setting.late or read_onnx_metadata(path).precision not in _PRECISIONS:
                    continue
                out = Path(folder) / f"{path.stem}.{flavour}.engine"
                rows[path.name] = _one(setting, trt, path, out)
                setting.save()
                if "bytes" in rows[path.name]:
                    openers.append((out.name, _opener(out)))
        if len(openers) > 1:
            contest(setting, "engine_speed", openers)
    return told


def _one(setting: Setting, trt: Any, path: Path, out: Path) -> dict[str, Any]:
    """Builds for this GPU as `icnet build-engine` without targets does; that is CURRENT in RTX."""
    from icnet_deploy.export.build_engine import build_engine
    from icnet_deploy.export.engine.options import BuildOptions
    from icnet_deploy.metadata import read_onnx_metadata

    told: dict[str, Any] = {}
    try:
        most = max(setting.batches) if _free_batch(path) else 1
        built = build_engine(path, out, trt, BuildOptions(batch=(1, 1, most)))
        told |= {"bytes": out.stat().st_size, "layers": built.sidecar.precisions, "batch": most}
        told["precision"] = read_onnx_metadata(path).precision
        setting.save()
        told["parity"] = parity_of(setting, Pair(out, "tensorrt", "cuda"))
    except Exception as error:  # whatever TensorRT raises here is the finding
        told["error"] = f"{type(error).__name__}: {error}"
    return told


def _free_batch(path: Path) -> bool:
    import onnx

    model = onnx.load(path, load_external_data=False)
    return not model.graph.input[0].type.tensor_type.shape.dim[0].dim_value


def _opener(path: Path) -> Callable[[Any], Any]:
    """Opens the engine for frames; see `open_engine`."""

    @contextmanager
    def open_it(frames: Any) -> Iterator[Sequence[Subject]]:
        from icnet_deploy.runtime.predictor import Predictor

        with Predictor.from_engine(path) as predictor:
            yield open_engine(path.name, predictor, frames)

    return open_it


def open_engine(name: str, predictor: Any, frames: Any) -> list[Subject]:
    """An engine through `Predictor`: frames on the host and, of one frame, on the GPU.

    The second is timed by events on the engine's own stream.

    Raises:
        InputError: it does not take that many frames.
    """
    batch, precision = len(frames), predictor.metadata.precision
    taken = predictor._backend.inputs[0].shape[0]
    if batch > 1 and taken is not None:
        raise InputError(f"{name} takes {taken} frame(s) a run, not {batch}")
    if batch > 1:
        pictures = list(frames)
        return [Subject(name, "host", precision, lambda: predictor.predict_batch(pictures))]
    import torch

    frame = frames[0]
    there = torch.from_numpy(np.ascontiguousarray(frame)).cuda()
    return [
        Subject(name, "host", precision, lambda: predictor.predict(frame)),
        Subject(
            name,
            "device",
            precision,
            lambda: predictor.predict(there, on_device=True),
            clock=stream_clock(predictor._backend),
        ),
    ]


def stream_clock(backend: Any) -> Callable[[Callable[[], Any]], float]:
    """Runs work and returns its seconds, by events on the stream of an engine's backend."""
    cuda, stream = backend._cuda, backend._stream
    with cuda.current():
        first, last = cuda.event(), cuda.event()

    def clock(work: Callable[[], Any]) -> float:
        with cuda.current():
            first.record(stream)
        work()
        with cuda.current():
            last.record(stream)
            stream.synchronize()
            return float(last.milliseconds_since(first)) / 1e3

    return clock
