"""Runs a training with PyTorch Lightning, checkpointing as it goes."""

import hashlib
import io
import logging
import math
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os.path import isdir, isfile
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from icnet_deploy.data import Dataset
from icnet_deploy.errors import CheckFailed, IcnetError, InputError, UnavailableError
from icnet_deploy.files import make_folder, replacing
from icnet_deploy.integrity import require_finite
from icnet_deploy.labels import LabelSet
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.checkpoint import arrays_of, save_checkpoint
from icnet_deploy.networks.registry import completed
from icnet_deploy.training.config import TrainConfig
from icnet_deploy.training.curve import Bar, Curve, plot_curve, read_curve
from icnet_deploy.training.loader import Mix
from icnet_deploy.training.module import Training
from icnet_deploy.training.parallel import share_batch_norm
from icnet_deploy.training.start import Start, new_start, require_one_start, start_from

_ENDED_WORKER = ("shared memory", "DataLoader worker")
"""In what torch says where a process that loads images had no room, or was killed."""

_SAVE_EVERY = 500
"""Steps between two states of a run at most; a kill loses these, and never more than an epoch."""


@dataclass(frozen=True)
class Machines:
    """What a run is spread over.

    Attributes:
        devices: processes a machine, a GPU each where there are any.
        nodes: machines, started as Lightning has it (MASTER_ADDR, MASTER_PORT and NODE_RANK).
        workers: processes that load images, for each device; None: 0 on a CPU, 6 a GPU.
    """

    devices: int = 1
    nodes: int = 1
    workers: int | None = None


def train(
    datasets: Sequence[Dataset],
    label_set: LabelSet,
    config: TrainConfig,
    out: Path,
    run: Path,
    resume: bool = False,
    init: Path | None = None,
    validation: Sequence[tuple[str, Dataset]] = (),
    validate_every: int = 500,
    machines: Machines | None = None,
    callbacks: Sequence[pl.Callback] = (),
    backbone: Path | None = None,
) -> dict[str, Any] | None:
    """Trains a network and writes its checkpoint.

    Args:
        datasets: what to train on, in the order of `config.shares`.
        label_set: the network's classes.
        config: how to train.
        out: the checkpoint to write when it is done.
        run: a folder for the state of the run (`last.ckpt`), its losses and scores
            (`metrics.csv`, `curve.png`) and TensorBoard's files.
        resume: go on from `last.ckpt` in `run`.
        init: a checkpoint to start from. Its network is trained, whatever the configuration says
            of one; the guidance heads, which no checkpoint holds, are new, and so are the
            classifiers, where its classes are others.
        validation: named data sets to score on while it trains.
        validate_every: steps between two scores.
        machines: what to spread the run over; None is one device.
        callbacks: what else Lightning shall call as the run goes on.
        backbone: an image classifier's checkpoint that initialises the backbone of a new network.

    Returns:
        What the checkpoint says of its training; None in the processes that help the first.

    Raises:
        InputError: `resume` without a state to resume from, or of a run that began otherwise, the
            batch cannot be shared evenly, both `init` and `backbone` are given, or the network has
            no backbone.
        LabelSetError: it is not known how to train these classes on those of a data set.
        DatasetError: no pixel of the images that were looked at is labelled.
        ModelError: `init` is not a checkpoint, `backbone` holds nothing that fits, or the state to
            resume from holds values that are not finite.
        CheckFailed: the loss or a weight is no longer a finite number; no checkpoint is written.
    """
    require_one_start(init, backbone)
    machines = machines or Machines()
    config = config.override(network=completed(config.network))
    state = make_folder(run) / "last.ckpt"
    if resume and not isfile(state):
        raise InputError(f"nothing to resume: there is no {state}")
    processes = _processes(config, machines)
    _quiet()
    pl.seed_everything(config.seed, verbose=False)
    mix = Mix(datasets, label_set, config)
    start = start_from(init, config, label_set) if init else new_start(config, label_set, backbone)
    network = start.network
    _require_sides(network, config)
    _say(*start.notes, *mix.warnings())
    shown = [_states(run, datasets, config), Bar(), *callbacks]
    trainer = _trainer(config, machines, validate_every, Curve(run, resume), shown)
    on_gpu = trainer.strategy.root_device.type == "cuda"
    if processes > 1 and not on_gpu:
        share_batch_norm(network)  # on CUDA Lightning puts torch's own
    workers = machines.workers if machines.workers is not None else 6 * on_gpu
    module = Training(network, start.preprocessing, mix, validation, workers, _origin(mix, start))
    began = time.monotonic()
    with _own_errors(workers):
        trainer.fit(module, ckpt_path=state if resume else None, weights_only=False)
    if trainer.global_step < config.steps:  # Lightning ends quietly on Ctrl-C
        raise KeyboardInterrupt
    if not trainer.is_global_zero:
        return None
    weights_of = arrays_of(module.best.state_dict())
    require_finite(weights_of, "the trained network", module.diverged(), CheckFailed)
    rows = read_curve(run / "metrics.csv")
    if rows:
        plot_curve(rows, run / "curve.png")
    info = {
        "config": config.settings(),
        "data": [
            {"name": d.called, "split": d.split, "images": len(d), "share": round(float(s), 3)}
            for d, s in zip(datasets, mix.shares, strict=True)
        ],
        **start.info,
        "steps": trainer.global_step,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    save_checkpoint(out, module.best, label_set, start.preprocessing, info, half=True)
    return info


@contextmanager
def _own_errors(workers: int) -> Iterator[None]:
    """Says what ended a process that loads images, which torch raises with the traceback there.

    And lets Ctrl-C do afterwards what it did before: Lightning, once interrupted, ignores it.
    """
    mine = threading.current_thread() is threading.main_thread()
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except IcnetError as error:
        head, _, there = str(error).partition("\nOriginal Traceback")
        if not head.startswith("Caught ") or not there:
            raise
        raise type(error)(there.strip().rpartition(f"{type(error).__name__}: ")[2]) from None
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if not workers or not any(words in str(error) for words in _ENDED_WORKER):
            raise
        room = shutil.disk_usage("/dev/shm").total / 2**20 if isdir("/dev/shm") else 0
        raise UnavailableError(
            f"a process that loads images ended ({str(error).strip().splitlines()[-1]}); it passes "
            f"images through shared memory, and there are {room:,.0f} MiB of it: give --workers 0, "
            "smaller batches or crops, or more shared memory (docker run --shm-size 1g)"
        ) from error
    finally:
        if mine and on_interrupt is not None:
            signal.signal(signal.SIGINT, on_interrupt)


def _origin(mix: Mix, start: Start) -> dict[str, str]:
    """What a run starts from, and what it is trained on, in words that differ where those do.

    Where the data lie does not count, nor what their folder is called.
    """
    sets, info = [], start.info
    for data in mix.datasets:
        named = [str(data.below(image)) for image, _ in data.files]
        classes = [*data.label_set.names, str(data.class_map)]
        digest = hashlib.sha256("\n".join([*classes, *named]).encode()).hexdigest()
        sets.append(f"{len(data)} images of {data.split} ({digest[:12]})")
    return {
        "the classes": ", ".join(mix.label_set.names),
        "the data": " and ".join(sets),
        "--init": f"SHA-256 {info['started_from']}" if info["started_from"] else "none",
        "--init-backbone": f"SHA-256 {info['backbone']['sha256']}"
        if "backbone" in info
        else "none",
    }


def _states(run: Path, datasets: Sequence[Dataset], config: TrainConfig) -> ModelCheckpoint:
    """Writes the newest state to `run/last.ckpt`: as many crops are drawn in an epoch as there are
    images."""
    epoch = math.ceil(sum(len(d) for d in datasets) / config.batch)
    return ModelCheckpoint(
        run,
        filename="state",
        every_n_train_steps=max(1, min(_SAVE_EVERY, epoch)),
        enable_version_counter=False,
        save_last=True,
        save_top_k=1,
    )


class _WholeStates(TorchCheckpointIO):
    """States that are written whole or not at all.

    Lightning's own way writes them below the system's temporary folder and moves them: where that
    is another disk, a kill leaves half of one, and where it is not, a file without an owner.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes a state (OutputError if it cannot)."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())


def _trainer(
    config: TrainConfig,
    machines: Machines,
    validate_every: int,
    curve: Curve,
    callbacks: Sequence[pl.Callback],
) -> pl.Trainer:
    several = machines.devices * machines.nodes > 1
    return pl.Trainer(
        max_steps=config.steps,
        precision=cast(Any, config.precision),
        accelerator="auto",
        devices=machines.devices,
        num_nodes=machines.nodes,
        # Batch norm's buffers are alike in all processes already.
        strategy=DDPStrategy(broadcast_buffers=False) if several else "auto",
        sync_batchnorm=several and torch.cuda.is_available(),
        use_distributed_sampler=False,
        benchmark=True,  # crops are of one size: on GPUs cuDNN times its algorithms once
        plugins=[_WholeStates()],
        logger=curve,
        callbacks=list(callbacks),
        log_every_n_steps=max(1, min(10, config.steps // 20)),
        val_check_interval=validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        # AdamW's first steps; the paper's SGD has none.
        gradient_clip_val=5.0 if config.optimizer == "adamw" else None,
    )


@rank_zero_only
def _say(*notes: str) -> None:
    """Prints, in the first of several processes."""
    for note in notes:
        print(note, flush=True)


_PIXEL_BYTES = 3 + 8 + 12
"""Of a crop: the image, its labels, and the network's input."""


def _processes(config: TrainConfig, machines: Machines) -> int:
    """How many processes share a batch.

    Raises:
        InputError: they cannot share it, or a machine has not the memory for its part: less than
            for its images and labels alone.
    """
    processes = machines.devices * machines.nodes
    if config.batch % processes:
        raise InputError(f"a batch of {config.batch} cannot be shared by {processes} processes")
    wanted = config.batch // machines.nodes * math.prod(config.crop) * _PIXEL_BYTES
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > there:
        height, width = config.crop
        raise InputError(
            f"a batch of {config.batch} crops of {height}x{width} takes {wanted / 2**30:,.0f} GiB "
            f"for images and labels alone, and this machine has {there / 2**30:,.0f} GiB: give a "
            "smaller batch or smaller crops"
        )
    return processes


def _require_sides(network: SegmentationNetwork, config: TrainConfig) -> None:
    """InputError for crops, or images to score, of a size that the network cannot take."""
    for name, size in (("crop", config.crop), ("size", config.size)):
        for side in size:
            if side < network.min_side or side % network.side_multiple:
                raise InputError(
                    f"{name} is {size}; {network.architecture} takes sides of {network.min_side} "
                    f"pixels or more that are multiples of {network.side_multiple}: give such a "
                    "size"
                )


def _quiet() -> None:
    """Lightning advertises, and advises loading workers that would not help here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning\..*")
