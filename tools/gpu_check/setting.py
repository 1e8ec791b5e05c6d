"""What the steps share: the device, the network, the artefacts, clocks, and what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from icnet_deploy.data import Dataset
from icnet_deploy.errors import IcnetError
from icnet_deploy.metadata import read_onnx_metadata


@dataclass
class Setting:
    """How the steps run.

    Attributes:
        device: `cuda`, or `cpu` for a rehearsal.
        size: (height, width) of the frames, in pixels.
        batches: frames a run, of `speed`.
        rounds: turns of each contestant in `speed`.
        artefacts: a folder of ONNX files, and perhaps of scenes, or None.
        images: how many scenes `parity` draws.
        deadline: `time.monotonic()` at which no new work begins.
        results: step -> what it found so far; later steps read what earlier ones measured.
        save: writes `results`; called by long steps after each part.
    """

    device: str
    size: tuple[int, int]
    batches: tuple[int, ...] = (1, 4, 8)
    rounds: int = 10
    artefacts: Path | None = None
    images: int = 2
    deadline: float = float("inf")
    results: dict[str, Any] = field(default_factory=dict)
    save: Callable[[], None] = lambda: None

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU that is measured."""
        return self.device == "cuda"

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return self.deadline - time.monotonic()

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self.left < 0

    @cached_property
    def reference(self) -> Any:
        """The shipped checkpoint as `Reference`, float32 on the CPU, for images of any size."""
        from icnet_deploy.evaluation.reference import Reference, shipped_checkpoint

        return Reference(shipped_checkpoint(), None)

    @property
    def checkpoint(self) -> Any:
        """The shipped checkpoint."""
        return self.reference.checkpoint

    def scenes(self, count: int) -> Dataset:
        """So many scenes (InputError where they can neither be drawn nor were brought)."""
        from tools.gpu_check.scenes import scenes

        return scenes(count, self.size, self.artefacts)

    def kept(self, step: str) -> dict[str, Any]:
        """What an earlier run of the step found, which this one adds to."""
        found = self.results.get(step, {})
        return {name: told for name, told in found.items() if name not in ("error", "left_out")}

    def onnx_files(self) -> list[Path]:
        """The artefacts that say what they are, by name."""
        found = []
        for path in sorted(self.artefacts.glob("[!.]*.onnx")) if self.artefacts else []:
            try:
                read_onnx_metadata(path)
            except IcnetError:
                continue
            found.append(path)
        return found

    def wait(self) -> None:
        """Until the device has done all its work."""
        if self.cuda:
            import torch

            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], events: bool = False) -> float:
        """Runs it once.

        Args:
            work: what is timed.
            events: by CUDA events on torch's stream, not by the wall clock; of a GPU only.
        """
        self.wait()
        if events and self.cuda:
            import torch

            make: Any = torch.cuda.Event
            first, last = make(enable_timing=True), make(enable_timing=True)
            first.record()
            work()
            last.record()
            last.synchronize()
            return float(first.elapsed_time(last)) / 1e3
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start
