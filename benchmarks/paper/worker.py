"""A process of its own for each network: what it allocates is its own, and if it is killed for
want of memory the others go on.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.benchmarks.paper.networks import fitting_checkpoint, random_checkpoint
from icnet_deploy.benchmarks.peers.pytorch import open_pytorch
from icnet_deploy.benchmarks.processes.resident import available, difference, growth, peak
from icnet_deploy.documents import parse
from icnet_deploy.errors import IcnetError, UnavailableError
from icnet_deploy.processes import Child
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


class Worker(Child):
    """A network that is loaded and warmed up in a process of its own.

    Attributes:
        memory_bytes: by how much the warm-up runs raised the memory above the loaded model's; None
            where the system does not say.
        peak_bytes: the most that the whole process held; on a GPU, what it took of the card.

    Raises:
        UnavailableError: a package or a device is missing.
        BackendError: it was killed or failed; the message says how.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(["-m", __name__], asdict(job))
        ready = self.answer()
        self.memory_bytes: int | None = ready["memory_bytes"]
        self.peak_bytes: int | None = ready["peak_bytes"]

    def turn(self) -> float:
        """Runs the network once and returns how long that took, in seconds.

        Raises:
            BackendError: the process was killed or failed.
        """
        return float(self.ask("run")["seconds"])


def serve(job: Job, answer: Callable[[dict[str, Any]], object]) -> None:
    """The other process: loads, warms up, reports, and then runs whenever it is told to."""
    try:
        with ExitStack() as stack:
            free = available(job.device)
            run = open_network(job, stack)
            memory = growth(job.device, lambda: [run() for _ in range(WARMUP)])
            held = peak() if job.device == "cpu" else difference(available(job.device), free)
            answer({"memory_bytes": memory, "peak_bytes": held})
            for _ in sys.stdin:
                start = time.perf_counter()
                run()
                answer({"seconds": time.perf_counter() - start})
    except (BrokenPipeError, KeyboardInterrupt):
        return  # nobody asks any more
    except UnavailableError as error:
        answer({"error": str(error), "kind": "UnavailableError"})
    except Exception as error:  # whatever it is, the other networks go on and the table says it
        words = str(error) if isinstance(error, IcnetError) else f"{type(error).__name__}: {error}"
        answer({"error": words, "kind": "BackendError"})


def open_network(job: Job, stack: ExitStack) -> Callable[[], Any]:
    """Loads a network; returns what runs it once on noise, since what an image shows costs nothing.

    Args:
        job: what is run; PyTorch as it comes, without compiling: batch norm and all.
        stack: closes it.
    """
    image = np.random.default_rng(0).integers(0, 256, (*job.size, 3), np.uint8)
    if job.runtime == "pytorch":
        checkpoint = (
            fitting_checkpoint(job.name, job.checkpoint)
            if job.checkpoint
            else random_checkpoint(job.name)
        )
        answer = stack.enter_context(
            open_pytorch("pytorch", checkpoint, job.threads, job.device, job.head)
        ).answer
        assert answer is not None  # PyTorch says what it labelled
        return partial(answer, image)
    # A model from the cache maps its weights and reads them in the first run, as if activations.
    backend = open_backend(job.runtime, job.graph, job.device, job.threads, cached=False)
    stack.callback(backend.close)
    feed = {INPUT: image[None]}
    return partial(backend.run, feed)


def main(argv: list[str]) -> None:
    """Serves what the one argument says as JSON; its answers are lines of JSON."""
    job = parse(argv[0])
    paths = {name: job[name] and Path(job[name]) for name in ("graph", "checkpoint")}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints something answers nothing
    serve(
        Job(**{**job, **paths, "size": tuple(job["size"])}),
        lambda answer: print(json.dumps(answer), file=answers, flush=True),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
