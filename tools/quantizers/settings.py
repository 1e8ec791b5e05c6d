"""With which settings each quantizer is tried: its default, and what it offers beyond that."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx

KIND, SCHEMA = "quantizers", 3
"""Of what is recorded."""

OURS = "icnet-deploy"
RUNTIMES = ("onnxruntime", "openvino")
"""Where every file is run: a row of the comparison is a network on one of them."""

DEFAULT = "its default"
"""Settings of who sets nothing."""

_ATTENTION = ("Softmax", "LayerNormalization")


@dataclass(frozen=True)
class Recipe:
    """One file of one quantizer.

    Attributes:
        quantizer: whose.
        name: its settings in words.
        worker: the script in `workers` that makes it; empty for ours.
        settings: what that script is told, or for ours the options of `icnet quantize`.
        runtimes: where the file runs.
        attention: whether it is for networks that have attention only.
    """

    quantizer: str
    name: str
    worker: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    runtimes: tuple[str, ...] = RUNTIMES
    attention: bool = False

    @property
    def stem(self) -> str:
        """Its file's name without the ending."""
        words = f"{self.quantizer} {self.name}".lower()
        return "-".join("".join(c if c.isalnum() or c == "." else " " for c in words).split())

    @property
    def ending(self) -> str:
        """Its file's: OpenVINO's own format, or ONNX."""
        return ".xml" if self.settings.get("backend") == "openvino" else ".onnx"


_RANGES: Mapping[str, Mapping[str, Any]] = {
    "min-max": {"ranges": "MinMax"},
    "percentile 99.999": {"ranges": "Percentile", "percentile": 99.999},
    "percentile 99.99": {"ranges": "Percentile", "percentile": 99.99},
    "entropy": {"ranges": "Entropy"},
}
_WEIGHTED = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
_BODY = [*_WEIGHTED, "Add", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool"]
_PLACES: Mapping[str, Mapping[str, Any]] = {
    # All first: its ranges are kept, and hold those that the others need.
    "all operators": {"activations": "QUInt8"},
    "weighted operators, sums, pools": {"activations": "QUInt8", "operators": _BODY},
    "symmetric inputs of weighted operators": {
        "activations": "QInt8",
        "operators": _WEIGHTED,
        "extra": {
            "ActivationSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": _WEIGHTED,
        },
    },
}


def _onnx_runtime() -> Iterator[Recipe]:
    peer, worker = "ONNX Runtime", "with_onnxruntime"
    yield Recipe(peer, DEFAULT, worker)
    for ranges, how in _RANGES.items():
        for place, where in _PLACES.items():
            settings = {"prepare": True, "per_channel": True, **how, **where}
            yield Recipe(peer, f"{ranges}, {place}", worker, settings)


_BEST_OF_NNCF = {"preset": "mixed", "ranges": "HISTOGRAM", "bias": "full"}
_NNCF: Mapping[str, Mapping[str, Any]] = {
    DEFAULT: {},
    "mixed preset, full bias correction": {"preset": "mixed", "bias": "full"},
    "histogram ranges, full bias correction": {"ranges": "HISTOGRAM", "bias": "full"},
    "mixed preset, histogram ranges": {"preset": "mixed", "ranges": "HISTOGRAM"},
    "mixed preset, histogram ranges, full bias correction": _BEST_OF_NNCF,
    "mixed preset, histogram ranges, full bias correction, accuracy control 0.5 %": {
        **_BEST_OF_NNCF,
        "max_drop": 0.005,
    },
}
_NNCF_ATTENTION: Mapping[str, Mapping[str, Any]] = {
    "transformer": {"model": "TRANSFORMER"},
    "transformer, mixed preset, histogram ranges, full bias correction": {
        **_BEST_OF_NNCF,
        "model": "TRANSFORMER",
    },
    "transformer, histogram ranges, SmoothQuant 0.5": {
        "model": "TRANSFORMER",
        "ranges": "HISTOGRAM",
        "smooth": 0.5,
    },
    "transformer, full bias correction, accuracy control 0.5 %": {
        "model": "TRANSFORMER",
        "bias": "full",
        "max_drop": 0.005,
    },
}


def _nncf() -> Iterator[Recipe]:
    for backend in ("onnx", "openvino"):
        runtimes = RUNTIMES if backend == "onnx" else ("openvino",)
        words = "" if backend == "onnx" else "OpenVINO file, "
        for attention, some in ((False, _NNCF), (True, _NNCF_ATTENTION)):
            for name, how in some.items():
                settings = {"backend": backend, **how}
                yield Recipe("NNCF", words + name, "with_nncf", settings, runtimes, attention)


_ONNXSIM: Mapping[str, Mapping[str, Any]] = {
    DEFAULT: {},
    **{f"{m} ranges": {"method": m} for m in ("percentile", "mse")},
    **{
        f"full graph, {m} ranges": {"method": m, "full_graph": True}
        for m in ("minmax", "percentile", "mse")
    },
    "mse ranges, equalized, biases corrected": {
        "method": "mse",
        "simplify": True,
        "equalize": True,
        "correct": True,
    },
    "full graph, mse ranges, equalized, biases corrected": {
        "method": "mse",
        "full_graph": True,
        "simplify": True,
        "equalize": True,
        "correct": True,
    },
    "mse ranges, AdaQuant": {"method": "mse", "simplify": True, "adaquant": True},
}
_ONNXSIM_ATTENTION: Mapping[str, Mapping[str, Any]] = {
    "mse ranges, SmoothQuant": {"method": "mse", "smooth": True},
    "full graph but for Softmax and LayerNormalization, mse ranges": {
        "method": "mse",
        "full_graph": True,
        "exclude": list(_ATTENTION),
    },
}


def _onnxsim() -> Iterator[Recipe]:
    for attention, some in ((False, _ONNXSIM), (True, _ONNXSIM_ATTENTION)):
        for name, how in some.items():
            yield Recipe("onnxsim", name, "with_onnxsim", how, attention=attention)


_OURS = (
    Recipe(OURS, DEFAULT),
    Recipe(OURS, "every rung that needs no labels", settings={"--effort": "smoothing"}),
)

RECIPES: tuple[Recipe, ...] = (*_OURS, *_onnx_runtime(), *_nncf(), *_onnxsim())
"""Every file that is made of a network."""


def recipes(model: onnx.ModelProto) -> list[Recipe]:
    """Those for a network: with attention, or without."""
    attention = any(node.op_type in _ATTENTION for node in model.graph.node)
    return [each for each in RECIPES if attention or not each.attention]
