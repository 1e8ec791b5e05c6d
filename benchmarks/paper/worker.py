"""A process of its own for each network: what it allocates is its own, and if it is killed for
want of memory the others go on.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from icnet_deploy.benchmarks.paper.networks import build, fitting_checkpoint
from icnet_deploy.benchmarks.processes.resident import available, growth, peak
from icnet_deploy.errors import BackendError, IcnetError, UnavailableError
from icnet_deploy.runtime import open_backend
from icnet_deploy.runtime.contract import INPUT

WARMUP = 2
"""Runs before the first that is timed: runtimes plan their memory in the first, and use the plan
from the second on. The growth of memory is taken over these."""


@dataclass(frozen=True)
class Job:
    """What one process runs.

    Attributes:
        name: of the network, in `NETWORKS`.
        runtime: a name of `icnet_deploy.runtime.RUNTIMES`, or `pytorch`.
        device: `cpu` or `cuda`.
        threads: of one run; None leaves it to the runtime.
        size: (height, width) of the image.
        head: `logits` or `labels`.
        graph: the ONNX file.
        checkpoint: whose weights PyTorch is to run; None for random ones.
    """

    name: str
    runtime: str
    device: str
    threads: int | None
    size: tuple[int, int]
    head: str
    graph: Path
    checkpoint: Path | None


class Worker:
    """A network that is loaded and warmed up in a process of its own; a context manager.

    Attributes:
        memory_bytes: by how much the warm-up runs raised the memory above the loaded model's; None
            where the system does not say.
        peak_bytes: the most that the whole process held; on a GPU, what it took of the card.

    Raises:
        UnavailableError: a package or a device is missing.
        BackendError: it was killed or failed; the message says how.
    """

    def __init__(self, job: Job) -> None:
        # A fresh interpreter: a forked one would begin with this one's memory and threads.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, job), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.memory_bytes, self.peak_bytes = cast(tuple[int | None, int | None], self._answer())
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid or 0

    def turn(self) -> float:
        """Runs the network once and returns how long that took, in seconds.

        Raises:
            BackendError: the process was killed or failed.
        """
        with suppress(OSError):  # it is gone: the answer says why
            self._connection.send("run")
        return cast(float, self._answer())

    def close(self) -> None:
        """Ends the process; a second call does nothing."""
        self._connection.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _answer(self) -> Any:
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise BackendError(_end(self._process.exitcode)) from None
        if kind == "unavailable":
            raise UnavailableError(value)
        if kind == "failed":
            raise BackendError(value)
        return value


def _end(exitcode: int | None) -> str:
    """Why a process ended that said nothing."""
    if exitcode == -signal.SIGKILL:
        return "killed by the system, which it does to a process when memory runs out"
    if exitcode is not None and exitcode < 0:
        return f"ended by the signal {signal.Signals(-exitcode).name}"
    return f"ended with the exit code {exitcode}"


def _serve(connection: Connection, job: Job) -> None:
    """The other process: loads, warms up, reports, and then runs whenever it is told to."""
    try:
        before = available(job.device)
        run = _pytorch(job) if job.runtime == "pytorch" else _runtime(job)
        memory = growth(job.device, lambda: [run() for _ in range(WARMUP)])
        held = peak() if job.device == "cpu" else _difference(before, available(job.device))
        connection.send(("ready", (memory, held)))
        while connection.recv() == "run":
            start = time.perf_counter()
            run()
            connection.send(("time", time.perf_counter() - start))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # nobody asks any more
    except UnavailableError as error:
        connection.send(("unavailable", str(error)))
    except Exception as error:  # whatever it is, the other networks go on and the table says it
        told = str(error) if isinstance(error, IcnetError) else f"{type(error).__name__}: {error}"
        connection.send(("failed", told))


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, before - after)


def _image(job: Job) -> npt.NDArray[np.uint8]:
    """Noise, since what the image shows changes nothing: uint8 1 x H x W x 3."""
    return np.random.default_rng(0).integers(0, 256, (1, *job.size, 3), np.uint8)


def _runtime(job: Job) -> Callable[[], object]:
    # A model from the cache maps its weights and reads them in the first run, as if activations.
    backend = open_backend(job.runtime, job.graph, job.device, job.threads, cached=False)
    feed = {INPUT: _image(job)}
    return lambda: backend.run(feed)


def _pytorch(job: Job) -> Callable[[], object]:
    """PyTorch as it comes, without compiling: batch norm and all."""
    import torch

    from icnet_deploy.export.deployed import Deployed
    from icnet_deploy.networks.layers import resize
    from icnet_deploy.networks.preprocessing import STREET

    network, preprocessing = None, STREET
    if job.checkpoint is not None:
        checkpoint = fitting_checkpoint(job.name, job.checkpoint)
        network, preprocessing = checkpoint.network, checkpoint.preprocessing
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32, as on the runtimes
    torch.backends.cuda.matmul.allow_tf32 = False
    module = Deployed(network or build(job.name), preprocessing, "logits").to(job.device)
    image = torch.from_numpy(_image(job))

    def run() -> object:
        with torch.inference_mode():
            values = module(image.to(job.device))
            if job.head == "labels":
                values = resize(values, job.size).argmax(1).to(torch.uint8)
            return values.cpu()

    return run
