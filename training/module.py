"""The training run as PyTorch Lightning sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from icnet_deploy.training.config import TrainConfig
from icnet_deploy.training.icnet import ICNet, Stages
from icnet_deploy.training.loss import label_guidance
from icnet_deploy.training.preprocessing import Preprocessing

__all__ = ["Training"]


class Training(pl.LightningModule):
    """ICNet with its guidance heads, its loss and its optimizer."""

    def __init__(
        self,
        config: TrainConfig,
        classes: int,
        preprocessing: Preprocessing,
        class_weights: Tensor | None = None,
        merged: Sequence[tuple[int, ...]] = (),
    ) -> None:
        super().__init__()
        self.config, self.preprocessing, self.merged = config, preprocessing, list(merged)
        stages = cast(Stages, config.stages)
        network = ICNet(classes, config.width, stages, guidance=True)
        # Twice as fast on a CPU; torch's annotations know it for tensors only.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("class_weights", class_weights)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step on (uint8 N x h x w x 3, int64 N x h x w)."""
        images, target = batch
        x = self.preprocessing.normalise(images).contiguous(memory_format=torch.channels_last)
        weights = cast(Tensor | None, self.class_weights)
        loss = label_guidance(
            self.network.heads(x), target, self.config.guidance, weights, self.merged
        )
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW on one cycle; decay on convolution kernels only, not on batch norm and biases."""
        kernels = [p for p in self.network.parameters() if p.ndim == 4]
        others = [p for p in self.network.parameters() if p.ndim != 4]
        groups = [
            {"params": kernels, "weight_decay": self.config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.config.rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.config.rate, total_steps=self.config.steps, pct_start=0.15
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
