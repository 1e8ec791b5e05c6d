"""Measures the networks of the paper's tables: each in a process of its own, timed in turn."""

from collections.abc import Callable, Collection
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from icnet_deploy.benchmarks.paper.networks import (
    SEED,
    build,
    cost,
    fitting_checkpoint,
    for_one_image,
    write_graph,
)
from icnet_deploy.benchmarks.paper.tables import comparison
from icnet_deploy.benchmarks.paper.worker import WARMUP, Job, Worker
from icnet_deploy.benchmarks.processes.resident import available
from icnet_deploy.benchmarks.subjects import export
from icnet_deploy.data import Dataset
from icnet_deploy.errors import BackendError
from icnet_deploy.evaluation.model import open_model
from icnet_deploy.evaluation.score import Score, refuse_calibration_images, score_dataset
from icnet_deploy.files import scratch_folder, sha256
from icnet_deploy.runtime.machine import machine, versions
from icnet_deploy.timing import interleave, summary

SCHEMA = 1
"""Of the JSON result; raised when a reader of today could misunderstand it."""

_SHARE = 0.8  # of the free memory, which all processes together may take


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        tables: the paper's numbers.
        names: of the networks, in `NETWORKS`.
        runtime, device: neither of them `auto`; the runtime may be `pytorch`.
        threads: of one run; None leaves it to the runtime.
        size: (height, width) of the image.
        head: `logits` or `labels`.
        runs: timed runs of each network.
        checkpoints: network -> file; the others get random weights.
        dataset: what the checkpoints are scored on, if anything.
    """

    tables: tuple[int, ...]
    names: tuple[str, ...]
    runtime: str
    device: str
    threads: int | None
    size: tuple[int, int]
    head: str
    runs: int
    checkpoints: dict[str, Path]
    dataset: Dataset | None

    @property
    def steps(self) -> int:
        """Of the progress bar: exports, first runs, timed runs."""
        return len(self.names) * (2 + self.runs)

    def job(self, name: str, folder: Path) -> Job:
        """What the process of one network runs, whose graph is in a folder."""
        place = (self.runtime, self.device, self.threads, self.size, self.head)
        return Job(name, *place, folder / f"{name}.onnx", self.checkpoints.get(name))


def measure(
    plan: Plan,
    bar: Any,
    open_worker: Callable[[Job], Worker] = Worker,
    export: Callable[..., object] = export,
) -> dict[str, Any]:
    """Measures all networks of a plan and returns the JSON result.

    Args:
        plan: what is measured.
        bar: is told of the progress.
        open_worker: opens a network in a process of its own.
        export: of a checkpoint, as `to_onnx.export`.

    Raises:
        UnavailableError: a package or a device is missing. A network that fails by itself is
            told of in the result.
    """
    with scratch_folder() as folder:
        networks, jobs, peaks = {}, {}, {}
        for each in plan.names:
            bar.set_description(f"export {each}")
            networks[each] = _export(plan, each, folder, export)
            bar.update()
            bar.set_description(f"memory {each}")
            jobs[each] = plan.job(each, folder)
            try:
                with closing(open_worker(jobs[each])) as worker:  # alone
                    networks[each]["memory_bytes"] = worker.memory_bytes
                    peaks[each] = worker.peak_bytes
            except BackendError as error:
                networks[each]["failure"] = str(error)
            bar.update()
        together = fits(peaks.values(), available(plan.device))
        time_in_turn(
            {each: jobs[each] for each in peaks}, plan.runs, networks, together, bar, open_worker
        )
        if plan.dataset is not None:
            for each in plan.checkpoints:
                networks[each]["score"] = _score(plan, each, folder, plan.dataset)
    return _result(plan, networks, together)


def _export(plan: Plan, name: str, folder: Path, export: Callable[..., object]) -> dict[str, Any]:
    """Writes a network's graph; returns what is known of it before it runs."""
    path, checkpoint = folder / f"{name}.onnx", plan.checkpoints.get(name)
    if checkpoint is None:
        network, source = build(name), None
        graph = write_graph(network, plan.size, plan.head, path)
    else:
        import onnx

        network = fitting_checkpoint(name, checkpoint).network
        source = {"file": checkpoint.name, "sha256": sha256(checkpoint)}
        export(_free_batch(folder, name), checkpoint, plan.size, plan.head)
        model = for_one_image(onnx.load(_free_batch(folder, name)))
        onnx.save(model, path)
        graph = cost(model)
    return {
        "description": network.description(),
        "checkpoint": source,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gmac": round(graph.gmac, 3),
        "kept_bytes": graph.kept_bytes,
        "live_bytes": graph.live_bytes,
        "memory_bytes": None,
        "time": None,
        "score": None,
        "failure": None,
    }


def _free_batch(folder: Path, name: str) -> Path:
    """The artefact of a checkpoint, with its metadata, as users get it: it is what is scored."""
    return folder / f"{name}-artefact.onnx"


def fits(peaks: Collection[int | None], free: int | None) -> bool:
    """Whether processes of these bytes can be open at once; if nobody knows, they cannot."""
    known = [peak for peak in peaks if peak is not None]
    return free is not None and len(known) == len(peaks) and sum(known) < _SHARE * free


def time_in_turn(
    jobs: dict[str, Job],
    runs: int,
    networks: dict[str, dict[str, Any]],
    together: bool,
    bar: Any,
    open_worker: Callable[[Job], Worker] = Worker,
) -> None:
    """Times networks in turn and notes it; one that fails is noted as such.

    Args:
        jobs: name -> what its process runs.
        runs: of each.
        networks: name -> what is known of it, which gets `time` or `failure`.
        together: all are open at once; otherwise each is opened for every run.
        bar, open_worker: see `measure`.
    """

    def once(job: Job) -> float:
        with closing(open_worker(job)) as worker:
            return worker.turn()

    def after(name: str) -> None:
        bar.set_description(f"time {name}")
        bar.update()

    with ExitStack() as stack:
        turns: dict[str, Callable[[], float]] = {}
        for name, job in jobs.items():
            try:
                turns[name] = (
                    stack.enter_context(closing(open_worker(job))).turn
                    if together
                    else partial(once, job)
                )
            except BackendError as error:
                networks[name]["failure"] = str(error)
        samples, failures = interleave(turns, runs, after)
    for name, taken in samples.items():
        networks[name]["failure"] = failures.get(name)
        networks[name]["time"] = None if name in failures else summary(taken)


def _score(plan: Plan, name: str, folder: Path, dataset: Dataset) -> dict[str, Any]:
    """Scores a checkpoint on the runtime that was timed; PyTorch scores on the CPU."""
    artefact = (_free_batch(folder, name), None, plan.runtime, plan.device)
    checkpoint = (plan.checkpoints[name], plan.size, "auto", "auto")
    with open_model(*(checkpoint if plan.runtime == "pytorch" else artefact)) as model:
        refuse_calibration_images(dataset, {name: model.metadata.calibration_images})
        score = Score.of(dataset, model.metadata)
        samples = tqdm(dataset, desc=f"score {name}", unit="image", disable=None)
        score_dataset(score, samples, model.label)
    return {**score.to_dict(), "protocol": score.protocol().to_dict()}


def _result(plan: Plan, networks: dict[str, dict[str, Any]], together: bool) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": "paper",
        "versions": versions(),
        "machine": machine(),
        "tables": list(plan.tables),
        "runtime": plan.runtime,
        "device": plan.device,
        "threads": plan.threads,
        "precision": "fp32",
        "size": list(plan.size),
        "batch": 1,
        "head": plan.head,
        "warmup_runs": WARMUP,
        "runs": plan.runs,
        "open_together": together,
        "scope": _scope(plan, together),
        "networks": networks,
        "comparison": comparison(networks),
    }


def _scope(plan: Plan, together: bool) -> dict[str, str]:
    """What each kind of number covers, in words."""
    end = {
        "logits": "float32 logits in memory, at the network's own output size: normalisation, "
        "copies and the network; no decoding, no resizing and no upsampling to a label map",
        "labels": "a label map in memory: normalisation, copies, the network, upsampling to the "
        "image's size and the largest class; no decoding and no resizing",
    }[plan.head]
    processes = (
        "each in its own process, and all processes open at the same time"
        if together
        else "each in its own process, which is opened and warmed up for every run, because not "
        "all fit into memory together"
    )
    measured = {
        "cpu": "growth of the process's peak resident memory",
        "cuda": "growth of the GPU's memory in use, by nvidia-smi,",
    }[plan.device]
    return {
        "time": f"from a uint8 image in memory to {end}. Median, 10th and 90th percentile of all "
        "runs; frames/s is 1000 / median ms, and the speed-up is the ratio of two medians",
        "order": f"timed runs of each network: {plan.runs}, after {WARMUP} warm-up runs; the "
        f"networks take turns, {processes}",
        "memory": f"{measured} over the first {WARMUP} runs, above the memory with the model "
        "loaded, in a fresh process that runs alone; 1 GB is 10^9 bytes",
        "graph": "computed from the graph's shapes, not measured: the outputs of all layers "
        "together (a ReLU works in place), and the largest outputs that are needed at one time if "
        "each is freed after its last use and sums work in place. GMAC counts the multiply-adds of "
        "the convolutions; parameters are all trained ones, with those of batch norm",
        "weights": f"random with the seed {SEED} if no checkpoint is given: neither time nor "
        "memory depends on them",
        "score": "of a trained checkpoint, if a checkpoint and a data set are given; otherwise a "
        "dash",
        "paper": "Cityscapes val, one TitanX, Caffe, 1024x2048; the paper's memory is that of the "
        "whole process on the GPU; if the paper gives no frames/s or speed-up, they are computed "
        "from its times",
    }
