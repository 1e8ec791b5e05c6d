"""`Predictor` and the runtimes behind it. Imports no torch and no onnx.

    with Predictor.from_onnx("icnet.onnx") as predictor:
        labels = predictor.predict(image).labels

Every name below is imported from its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icnet_deploy.runtime.answer import Prediction
    from icnet_deploy.runtime.backends.base import Backend, TensorSpec
    from icnet_deploy.runtime.backends.registry import RUNTIMES, auto_runtime, choose, open_backend
    from icnet_deploy.runtime.labelmap import label_map, label_map_dense
    from icnet_deploy.runtime.predictor import Predictor

__all__ = [
    "RUNTIMES",
    "Backend",
    "Prediction",
    "Predictor",
    "TensorSpec",
    "auto_runtime",
    "choose",
    "label_map",
    "label_map_dense",
    "open_backend",
]

_HOMES = {
    "RUNTIMES": "backends.registry",
    "Backend": "backends.base",
    "Prediction": "answer",
    "Predictor": "predictor",
    "TensorSpec": "backends.base",
    "auto_runtime": "backends.registry",
    "choose": "backends.registry",
    "label_map": "labelmap",
    "label_map_dense": "labelmap",
    "open_backend": "backends.registry",
}


def __getattr__(name: str) -> Any:
    """Imports a name's module when the name is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
