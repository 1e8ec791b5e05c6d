"""What is said of a foreign file. Needs neither torch nor onnx."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from icnet_deploy.labels import LabelSet

if TYPE_CHECKING:
    from icnet_deploy.networks.preprocessing import Preprocessing

Size = tuple[int, int]

LAYOUTS = ("NCHW", "NHWC")
"""How an image may lie in a tensor: channels before the sides, or after them."""


@dataclass(frozen=True)
class Request:
    """What is said of a foreign file. What is None is found, or assumed and said so.

    Attributes:
        label_set: its classes.
        preprocessing: what its input expects.
        layout: of its input, of `LAYOUTS`.
        size: (height, width) in pixels that the artefact takes; None: as the file has it.
        output: the name of the output that is meant.
        upsampling: how its logits become pixels.
        threshold: of one channel, the probability from which on a pixel is of the second class.
        precision: `fp32` or `fp16`.
        images: photos to compare on, besides two drawn scenes.
    """

    label_set: LabelSet
    preprocessing: Preprocessing
    layout: str | None = None
    size: Size | None = None
    output: str | None = None
    upsampling: str | None = None
    threshold: float | None = None
    precision: str = "fp32"
    images: Sequence[Path] = ()
