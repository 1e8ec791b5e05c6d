"""Weights of one's own into a network."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from icnet_deploy.errors import ModelError


def load_weights(module: nn.Module, path: Path) -> str:
    """Loads a file's tensors into a network.

    Returns:
        What was taken, in words.
    """
    if path.suffix == ".safetensors":
        state = safetensors.torch.load_file(path)
    else:
        state = torch.load(path, weights_only=True, map_location="cpu")
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path} does not fit: {error}") from error
    return f"weights: {len(state)} tensors taken"
