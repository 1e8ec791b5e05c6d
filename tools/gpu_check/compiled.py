"""PyTorch compiled, which takes minutes, in turn with the best of the others."""

from __future__ import annotations

from typing import Any

from tools.gpu_check.setting import Setting
from tools.gpu_check.speed import Opener, contest
from tools.gpu_check.subjects import (
    COMPILED,
    EAGER,
    onnxruntime_ways,
    open_onnxruntime,
    open_torch,
)


def compiled(setting: Setting) -> dict[str, Any]:
    """As `speed`: `torch.compile` beside PyTorch eager and the foremost way of ONNX Runtime."""
    if not setting.cuda:
        return {"left_out": "a rehearsal compiles nothing"}
    openers: list[Opener] = [(f"PyTorch {EAGER[-1]}", open_torch(setting, EAGER[-1]))]
    for path, graph, nhwc in onnxruntime_ways(setting)[:1]:
        openers.append((f"ONNX Runtime {path.stem}", open_onnxruntime(setting, path, graph, nhwc)))
    openers += [(f"PyTorch {way}", open_torch(setting, way)) for way in COMPILED]
    return contest(setting, "compiled", openers)
