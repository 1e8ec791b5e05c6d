"""The training run as PyTorch Lightning sees it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor

from icnet_deploy.data import ConfusionMatrix, Dataset, prediction_table
from icnet_deploy.errors import CheckFailed, InputError, NotFinite
from icnet_deploy.finite import require_finite
from icnet_deploy.images import resize_image
from icnet_deploy.labels import LabelSet
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.checkpoint import arrays_of
from icnet_deploy.networks.preprocessing import Preprocessing
from icnet_deploy.training.config import TrainConfig, changed_settings
from icnet_deploy.training.loss import head_losses, label_guidance
from icnet_deploy.training.parallel import shared_mean

_CONFIG = "icnet_deploy_config"
_LOADED = ("state_dict", "optimizer_states", "lr_schedulers")


class Training(pl.LightningModule):
    """A network with its guidance heads, its loss, its optimizer and its score.

    Attributes:
        network: what is trained.
        average: its moving average, which is scored and saved; None where that is the network.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        config: TrainConfig,
        preprocessing: Preprocessing,
        label_set: LabelSet,
        class_weights: Tensor | None = None,
        merged: Sequence[tuple[int, ...]] = (),
        validation: Sequence[tuple[str, Dataset]] = (),
    ) -> None:
        super().__init__()
        self.config, self.preprocessing, self.merged = config, preprocessing, list(merged)
        self.label_set, self.validation = label_set, list(validation)
        # Twice as fast on a CPU; torch's annotations know it for tensors only.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average: SegmentationNetwork | None = None
        if config.average:
            self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("class_weights", class_weights)
        self._scores: list[ConfusionMatrix] = []

    @property
    def best(self) -> SegmentationNetwork:
        """The network to score and to save."""
        return self.average if self.average is not None else self.network

    def _input(self, images: Tensor) -> Tensor:
        x = self.preprocessing.normalise(images).to(cast(torch.dtype, self.dtype))
        return x.contiguous(memory_format=torch.channels_last)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step on (uint8 N x h x w x 3, int64 N x h x w)."""
        images, target = batch
        x = self._input(images)
        losses = head_losses(
            self.network.heads(x),
            target,
            cast(Tensor | None, self.class_weights),
            self.merged,
            self.config.hard_pixels,
            shared_mean,
        )
        loss = label_guidance(losses, self.config.guidance)
        # Of all processes: each must stop, or the others wait for it for ever.
        if not bool(torch.isfinite(shared_mean(loss.detach()))):
            raise CheckFailed(
                f"the loss is not a finite number at step {self.global_step + 1} of "
                f"{self.config.steps}: {self.diverged()}"
            )
        parts = {f"loss_{i}": part.detach() for i, part in enumerate(losses, 1)}
        self.log_dict({"loss": loss.detach(), **parts}, sync_dist=True)
        return loss

    def diverged(self) -> str:
        """What is said of a run whose loss or weights are no longer finite numbers."""
        return (
            f"the training diverged, and no checkpoint is written. Train anew with a lower rate "
            f"than {self.config.rate:g}; a run that began well can be taken up from an earlier "
            "checkpoint by --init"
        )

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Lets the average follow: fast at first, so that the first weights are soon forgotten."""
        if self.average is None:
            return
        step = self.global_step
        keep = min(self.config.average, (1 + step) / (10 + step))
        pairs = zip(
            [*self.average.parameters(), *self.average.buffers()],
            [*self.network.parameters(), *self.network.buffers()],
            strict=True,
        )
        for mine, theirs in pairs:
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - keep)

    def on_validation_start(self) -> None:
        """Empties the scores."""
        self._scores = [ConfusionMatrix(len(d.label_set)) for _, d in self.validation]
        self._tables = [prediction_table(self.label_set, d.label_set) for _, d in self.validation]

    def validation_step(
        self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Scores an image, uint8 H x W x 3, with its labels, uint8 H x W, as `icnet evaluate` does.

        It is scored at its own size, or at the configuration's.
        """
        image, target = (value.cpu().numpy() for value in batch)
        height, width = self.config.size or image.shape[:2]
        pixels = torch.from_numpy(resize_image(image, (height, width)))
        logits = self.best(self._input(pixels[None].to(self.device)))
        if not bool(torch.isfinite(logits).all()):
            raise NotFinite
        labels = self.best.upsample(logits.float(), (target.shape[0], target.shape[1])).argmax(1)[0]
        mapped = self._tables[dataloader_idx][labels.cpu().numpy().astype(np.uint8)]
        self._scores[dataloader_idx].add(mapped, target)

    def on_validation_epoch_end(self) -> None:
        """Adds up the counts of all processes and logs `miou_NAME`, in percent, a data set."""
        for (name, _), score in zip(self.validation, self._scores, strict=True):
            counts = torch.from_numpy(score.counts).to(self.device)
            score.counts = np.asarray(self.trainer.strategy.reduce(counts, reduce_op="sum").cpu())
            self.log(f"miou_{name}", 100 * score.miou(), rank_zero_only=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remembers the settings; CheckFailed for a state from which no run can go on."""
        whose = f"after step {self.global_step} the network"
        require_finite(arrays_of(self.state_dict()), whose, self.diverged(), CheckFailed)
        checkpoint[_CONFIG] = self.config.settings()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to resume from what is not finite, or with other settings than before.

        The curve would be of neither run.
        """
        state = {name: checkpoint.get(name) for name in _LOADED}
        advice = "start another run, from an earlier checkpoint by --init or anew"
        require_finite(_arrays(state, "its"), "the run's last state", advice)
        if changed := changed_settings(checkpoint.get(_CONFIG, {}), self.config.settings()):
            raise InputError(
                f"the run cannot be resumed with other settings ({'; '.join(changed)}): give those "
                "that it began with, or start another run from its checkpoint by --init"
            )

    def configure_optimizers(self) -> Any:
        """See `optimizers`."""
        return optimizers(self.network, self.config)


def _arrays(value: Any, name: str) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Every number in a state of nested containers, with its path."""
    if isinstance(value, Tensor) and value.is_floating_point():
        yield from arrays_of({name: value})
    elif isinstance(value, float):
        yield name, np.array(value)
    elif isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in pairs:
            yield from _arrays(part, f"{name} {key}")


def optimizers(network: torch.nn.Module, config: TrainConfig) -> dict[str, Any]:
    """The optimizer and its schedule, as Lightning takes them.

    Weight decay is on convolution kernels only, not on batch norm and biases.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim == 4], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim != 4], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=config.rate, momentum=config.momentum)
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.rate)
    schedule: torch.optim.lr_scheduler.LRScheduler
    if config.schedule == "poly":
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, config.steps, config.power)
    else:
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.rate, total_steps=config.steps, pct_start=0.15
        )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
