"""What a test sets and sees of the machine that a fake `tensorrt` runs on."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


class Fault(Exception):
    """What would crash a process or corrupt memory on a real GPU: always a bug of the caller."""


@dataclass
class Machine:
    """The GPU below a fake, as `trt.machine`.

    Attributes:
        compute: its compute capability; None where there is no GPU.
        enqueue: gets (stream handle, work) of every `execute_async_v3`; `work()` computes. Here it
            runs at once; a fake CUDA puts its own in to run it in stream order or to capture it.
        check: gets (address, bytes, whether it is written) before memory is touched; raises
            `Fault` where no allocation covers it.
        on_step: gets the number of every step of a build, before the progress monitor does.
        monitor: the progress monitor of the last build.
        builds: one dict a build: flags, level, workspace, profiles, layers timed and not found in
            the timing cache.
        float_layers: names of ONNX nodes that the builder "runs" in float32 whatever their type.
        live: how many engines and contexts there are that Python has not freed.
    """

    compute: tuple[int, int] | None = (8, 6)
    enqueue: Any = None
    check: Any = None
    on_step: Any = None
    monitor: Any = None
    builds: list[dict[str, Any]] = field(default_factory=list)
    float_layers: frozenset[str] = frozenset()
    live: Counter[str] = field(default_factory=lambda: Counter(engines=0, contexts=0))

    def require_gpu(self):
        """What the bindings say where TensorRT makes no builder and no runtime."""
        if self.compute is None:
            raise TypeError("pybind11_init(): factory function returned nullptr")

    def run(self, stream, work):
        """Hands work to the stream."""
        if self.enqueue is None:
            work()
        else:
            self.enqueue(stream, work)
