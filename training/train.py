"""Runs a training with PyTorch Lightning, checkpointing as it goes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from icnet_deploy.data import Dataset
from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.files import make_folder, sha256
from icnet_deploy.labels import LabelSet
from icnet_deploy.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from icnet_deploy.training.config import TrainConfig
from icnet_deploy.training.loader import Mix, class_weights
from icnet_deploy.training.module import Training
from icnet_deploy.training.preprocessing import STREET

__all__ = ["train"]

SAVE_EVERY = 200
"""Steps between two states of a run; a kill loses at most these."""


class Stream(pl.LightningDataModule):
    """Feeds the mix from the step at which the trainer stands, so that a resumed run goes on."""

    def __init__(self, mix: Mix, batch: int) -> None:
        super().__init__()
        self.mix, self.batch = mix, batch

    def train_dataloader(self) -> Any:
        if self.trainer is not None:
            self.mix.start = self.trainer.global_step * self.batch
        return DataLoader(self.mix, self.batch)


def train(
    datasets: Sequence[Dataset],
    label_set: LabelSet,
    config: TrainConfig,
    out: Path,
    run: Path,
    resume: bool = False,
    init: Path | None = None,
) -> dict[str, Any]:
    """Trains a network and writes its checkpoint.

    Args:
        datasets: what to train on, in the order of `config.shares`.
        label_set: the network's classes.
        config: how to train.
        out: the checkpoint to write when it is done.
        run: a folder for the state of the run (`last.ckpt`) and its losses (`metrics.csv`).
        resume: go on from `last.ckpt` in `run`.
        init: a checkpoint to start from; its guidance heads, which no checkpoint holds, are new.

    Returns:
        What the checkpoint says of its training.

    Raises:
        InputError: `resume` without a state to resume from.
        ModelError: `init` is not a checkpoint of such a network.
    """
    state = make_folder(run) / "last.ckpt"
    if resume and not state.is_file():
        raise InputError(f"nothing to resume: there is no {state}")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # it advertises
    pl.seed_everything(config.seed, verbose=False)
    mix = Mix(datasets, label_set, config)
    weights = class_weights(mix, len(label_set)) if config.class_weights else None
    module = Training(config, len(label_set), STREET, weights, mix.merged)
    if init is not None:
        _start_from(module, load_checkpoint(init), label_set)
    trainer = _trainer(config, run)
    start = time.monotonic()
    trainer.fit(module, Stream(mix, config.batch), ckpt_path=state if resume else None)
    info = {
        "config": asdict(config),
        "data": [
            {"name": d.name, "split": d.split, "images": len(d), "share": round(float(s), 3)}
            for d, s in zip(datasets, mix.shares, strict=True)
        ],
        "started_from": None if init is None else sha256(init),
        "steps": trainer.global_step,
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    if trainer.global_step < config.steps:  # Lightning ends quietly on Ctrl-C
        raise KeyboardInterrupt
    save_checkpoint(out, module.network, label_set, STREET, info, half=True)
    return info


def _start_from(module: Training, checkpoint: Checkpoint, label_set: LabelSet) -> None:
    old, new = checkpoint.network, module.network
    if (old.width, old.stages, checkpoint.label_set) != (new.width, new.stages, label_set):
        raise ModelError(
            f"{checkpoint.path} is {old.stages} of width {old.width} with the label set "
            f"{checkpoint.label_set.name!r}; the run is {new.stages} of width {new.width} with "
            f"{label_set.name!r}"
        )
    new.load_state_dict(old.state_dict(), strict=False)


def _trainer(config: TrainConfig, run: Path) -> pl.Trainer:
    """One device, a loss a line in `run/metrics.csv`, the newest state in `run/last.ckpt`."""
    states = ModelCheckpoint(
        run,
        filename="state",
        every_n_train_steps=SAVE_EVERY,
        enable_version_counter=False,
        save_last=True,
        save_top_k=1,
    )
    return pl.Trainer(
        max_steps=config.steps,
        precision=cast(Any, config.precision),
        accelerator="auto",
        devices=1,
        logger=CSVLogger(run, name="", version=""),
        callbacks=[states],
        log_every_n_steps=10,
        enable_model_summary=False,
        gradient_clip_val=5.0,
    )
