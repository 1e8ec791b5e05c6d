"""ICNet from PyTorch to ONNX, and one `Predictor` over the runtimes that serve it."""

import os
from typing import TYPE_CHECKING, Any

from icnet_deploy._version import __version__

if TYPE_CHECKING:
    from icnet_deploy.runtime.answer import Prediction
    from icnet_deploy.runtime.predictor import Predictor

# ONNX Runtime reads it when it is imported; otherwise it tells its makers of each model that is
# opened (docs/reliability.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["Prediction", "Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """Lends `Predictor` and `Prediction`; nothing is imported before they are used."""
    if name in ("Predictor", "Prediction"):
        from importlib import import_module

        return getattr(import_module("icnet_deploy.runtime"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
