"""A foreign file as a network of the kit, for what runs one and compares with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from icnet_deploy.documents import as_read
from icnet_deploy.export.adopt.ending import Ending
from icnet_deploy.export.adopt.foreign_file import ForeignFile
from icnet_deploy.export.adopt.original import Original
from icnet_deploy.export.adopt.tail import with_tail
from icnet_deploy.networks.base import SegmentationNetwork

ARCHITECTURE = "adopted"
"""What an artefact's `network` has as its architecture."""


class ForeignNetwork(SegmentationNetwork):
    """The file's own graph on ONNX Runtime on the CPU, up to its logits.

    Of a file that gives label maps alone, the logits are 1 of the class and 0 of the others.

    Args:
        file: it.
        ending: where its logits are.
        classes: how many the label set has.
        threshold: of one channel, as `Ending.shift` takes it.

    Raises:
        ModelError: ONNX Runtime does not load it.
    """

    def __init__(
        self, file: ForeignFile, ending: Ending, classes: int, threshold: float | None = None
    ) -> None:
        super().__init__()
        self.num_classes, self.file, self.ending = classes, file, ending
        self.threshold = ending.share(threshold) if ending.channels == 1 else None
        self._original = Original(file, [ending.head], with_tail(file, ending, threshold))
        self._stride: int | None = None

    def place(self, upsampling: str, stride: int | None, min_side: int, side_multiple: int) -> None:
        """Says what was found of it; see `SegmentationNetwork`."""
        self.upsampling, self._stride = upsampling, stride
        self.min_side, self.side_multiple = min_side, side_multiple

    @property
    def stride(self) -> int | None:
        """As it was found."""
        return self._stride

    def __deepcopy__(self, memo: dict[int, Any]) -> ForeignNetwork:
        """Itself: it has no state, and a session cannot be copied."""
        return self

    def heads(self, image: Tensor) -> list[Tensor]:
        """The logits, float N x C x h x w; see `SegmentationNetwork.heads`."""
        answer = self._original.run(image.numpy())[self.ending.head]
        if self.ending.head == "labels":
            index = np.arange(self.num_classes, dtype=np.uint8).reshape(1, -1, 1, 1)
            answer = (answer[:, None] == index).astype(np.float32)
        return [torch.from_numpy(np.ascontiguousarray(answer, np.float32))]

    def description(self, guidance: bool | None = None) -> dict[str, Any]:
        """Where it comes from; nothing builds it from that alone."""
        found: dict[str, Any] = as_read(
            {
                "architecture": ARCHITECTURE,
                "file": self.file.path.name,
                "writer": self.file.writer,
                "opset": f"opset {self.file.opset}",
                "layout": self.file.layout,
                "output": self.file.output,
                "tensor": self.ending.tensor,
                "num_classes": self.num_classes,
            }
        )
        return found
