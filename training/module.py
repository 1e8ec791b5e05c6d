"""The training run as PyTorch Lightning sees it.

Its loss is label guidance: cross-entropy at every head (Zhao et al., arXiv 1704.08545, section
4.3).
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from icnet_deploy.data import ConfusionMatrix, Dataset, Sample, prediction_table
from icnet_deploy.errors import CheckFailed, InputError, NotFinite
from icnet_deploy.images import resize_image
from icnet_deploy.integrity import require_finite
from icnet_deploy.labels import IGNORE
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.checkpoint import arrays_of
from icnet_deploy.networks.preprocessing import Preprocessing
from icnet_deploy.training.config import TrainConfig, changed_settings
from icnet_deploy.training.loader import Mix, class_weights
from icnet_deploy.training.parallel import shared_mean

_CONFIG, _ORIGIN = "icnet_deploy_config", "icnet_deploy_origin"
_LOADED = ("state_dict", "optimizer_states", "lr_schedulers")


class Training(pl.LightningModule):
    """A network with its guidance heads, its data, its loss, its optimizer and its score.

    Args:
        network: what is trained.
        preprocessing: what its input expects.
        mix: what it is trained on; its configuration is the run's.
        validation: named data sets to score on.
        workers: processes that load images.
        origin: what the run starts from and is trained on, in words: it is resumed with no other.

    Attributes:
        average: the network's moving average, which is scored and saved; None where that is the
            network.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        preprocessing: Preprocessing,
        mix: Mix,
        validation: Sequence[tuple[str, Dataset]] = (),
        workers: int = 0,
        origin: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._origin = dict(origin or {})
        self.config, self.preprocessing, self.mix = mix.config, preprocessing, mix
        self.validation, self.workers = list(validation), workers
        # Twice as fast on a CPU; torch's annotations know it for tensors only.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average: SegmentationNetwork | None = None
        if self.config.average:
            self.average = copy.deepcopy(self.network).requires_grad_(False)
        weights = class_weights(mix) if self.config.class_weights else None
        self.register_buffer("class_weights", weights)
        self._scores: list[ConfusionMatrix] = []
        self._tables = [
            prediction_table(mix.label_set, d.label_set, d.class_map) for _, d in self.validation
        ]

    def train_dataloader(self) -> Any:
        """The mix from the step at which the trainer stands, so that a resumed run goes on."""
        self.mix.start = self.trainer.global_step
        self.mix.rank, self.mix.processes = self.trainer.global_rank, self.trainer.world_size
        return DataLoader(
            self.mix,
            self.config.batch // self.trainer.world_size,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> Any:
        """A loader a data set; each process scores its own part of the images, none twice."""
        return [
            DataLoader(
                cast(Any, dataset),
                batch_size=None,
                sampler=range(self.trainer.global_rank, len(dataset), self.trainer.world_size),
                collate_fn=cast(Any, _alone),  # without a batch it is given one sample
                num_workers=self.workers,
            )
            for _, dataset in self.validation
        ]

    @property
    def best(self) -> SegmentationNetwork:
        """The network to score and to save."""
        return self.average if self.average is not None else self.network

    def _input(self, images: Tensor) -> Tensor:
        x = self.preprocessing.normalise(images).to(cast(torch.dtype, self.dtype))
        return x.contiguous(memory_format=torch.channels_last)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """One step on (uint8 N x h x w x 3, int64 N x h x w), and uint8 N x h x w of weights."""
        images, target, *weights = batch
        x = self._input(images)
        losses = head_losses(
            self.network.heads(x),
            target,
            cast(Tensor | None, self.class_weights),
            self.mix.merged,
            self.config.hard_pixels,
            shared_mean,
            self.network.upsampling,
            next(iter(weights), None),
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
            "the training diverged, so no checkpoint is written: train again with a rate below "
            f"{self.config.rate:g}, or continue from an earlier checkpoint with --init"
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

    def validation_step(
        self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Scores an image, uint8 H x W x 3, with its labels, uint8 H x W, as `icnet evaluate` does.

        It is scored at the configuration's size, or at its own, or at the next that the network
        takes.
        """
        image, target = (value.cpu().numpy() for value in batch)
        least, step = self.network.min_side, self.network.side_multiple
        height, width = self.config.size or (
            -(-max(side, least) // step) * step for side in image.shape[:2]
        )
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
        """Remembers how the run began; CheckFailed for a state from which no run can go on."""
        whose = f"after step {self.global_step} the network"
        require_finite(arrays_of(self.state_dict()), whose, self.diverged(), CheckFailed)
        checkpoint[_CONFIG], checkpoint[_ORIGIN] = self.config.settings(), self._origin

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to resume from what is not finite, or with other settings or data than before.

        The curve would be of neither run, and what is left out now was trained on then.
        """
        state = {name: checkpoint.get(name) for name in _LOADED}
        advice = "start a new run, if you like from an earlier checkpoint with --init"
        require_finite(_arrays(state, "its"), "the run's last state", advice)
        if changed := changed_settings(checkpoint.get(_CONFIG, {}), self.config.settings()):
            raise InputError(
                f"the run cannot be resumed with other settings ({'; '.join(changed)}): give the "
                "settings that it began with, or start a new run from its checkpoint with --init"
            )
        if changed := changed_settings(checkpoint.get(_ORIGIN, {}), self._origin):
            raise InputError(
                f"the run cannot be resumed, as it began differently ({'; '.join(changed)}): give "
                "what it began with, or start a new run with another --run"
            )

    def configure_optimizers(self) -> Any:
        """See `optimizers`."""
        return optimizers(self.network, self.config)


def _alone(sample: Sample) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(sample.image), torch.from_numpy(sample.labels)


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


def label_guidance(losses: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum of the heads' losses, each a float scalar; a weight a head."""
    total = torch.zeros_like(losses[0])
    for loss, weight in zip(losses, weights, strict=False):
        total = total + weight * loss
    return total


def head_losses(
    heads: Sequence[Tensor],
    target: Tensor,
    class_weights: Tensor | None = None,
    merged: Sequence[tuple[int, ...]] = (),
    hard_pixels: float = 1.0,
    share: Callable[[Tensor], Tensor] = lambda weight: weight,
    upsampling: str = "aligned-corners",
    pixel_weights: Tensor | None = None,
) -> list[Tensor]:
    """The cross-entropy of every head.

    With p[c] a pixel's probability of the class, or the sum of those of the merged classes, that is
    its target c, the loss is the weighted mean sum(-w log p[c]) / sum(w) over the pixels i of the
    batch, where w = hard[i] x class_weights[c] x pixel_weights[i] / 255. hard[i] is 1 at the share
    of each image's pixels of w > 0 at which -w log p[c] is largest, and 0 elsewhere. So neither a
    batch of unsure labels nor one of frequent classes has a smaller loss than another.

    Labels are brought to each head's size by nearest neighbour, placed as the logits are: averaging
    them would make classes that are not there. Weights are taken from the same pixels.

    Args:
        heads: float N x C x h x w each, the finest first.
        target: int64 N x H x W; 0..C-1, C + i for "any of `merged[i]`", 255 ignored.
        class_weights: float, C + len(merged), or None.
        merged: sets of classes whose probabilities are summed.
        hard_pixels: the share of each image's labelled pixels that counts, 0..1: those of the
            largest loss (online hard example mining, Shrivastava et al., arXiv 1604.03540).
        share: from this process's sum of weights to the one to divide by, where several processes
            share a batch: the mean over all of them, so that their averaged gradients are those
            of the whole batch.
        upsampling: where the logits lie in the image, as `SegmentationNetwork` has it.
        pixel_weights: uint8 N x H x W, 255 where a pixel counts in full, 0 as if it were ignored;
            None: all count alike.

    Returns:
        A float scalar a head, the mean over the pixels that count; 0 where every pixel is ignored.
    """
    losses = []
    for logits in heads:
        # Half precision is too coarse for sums over many pixels.
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_p = F.log_softmax(logits.to(dtype), dim=1)
        groups = [torch.logsumexp(log_p[:, list(m)], dim=1, keepdim=True) for m in merged]
        log_p = torch.cat([log_p, *groups], dim=1) if groups else log_p
        size = (logits.shape[2], logits.shape[3])
        small = nearest_labels(target, size, upsampling)
        known = small != IGNORE
        sure = None
        if pixel_weights is not None:
            sure = nearest_labels(pixel_weights, size, upsampling).to(dtype) / 255
            known = known & (sure > 0)
        index = small.where(known, 0)
        loss = -log_p.gather(1, index[:, None])[:, 0]
        weight = known.to(dtype) if class_weights is None else class_weights[index] * known
        if sure is not None:
            weight = weight * sure
        if hard_pixels < 1:
            weight = weight * _hardest((loss * weight).detach(), known, hard_pixels)
        # Not 0 / 0 where nothing is known, and still part of the graph: every process of several
        # must have a gradient for every parameter.
        losses.append((loss * weight).sum() / share(weight.sum().detach()).clamp(min=1e-6))
    return losses


def _hardest(loss: Tensor, known: Tensor, part: float) -> Tensor:
    """Float N x h x w, 1 at the `part` of each image's known pixels that have the largest loss."""
    keep = torch.zeros_like(loss)
    for image, (values, mask) in enumerate(zip(loss, known, strict=True)):
        count = int(part * int(mask.sum()))
        if count:
            flat = values.masked_fill(~mask, -1).flatten()
            keep[image].view(-1)[flat.topk(count, sorted=False).indices] = 1
    return keep


def nearest_labels(
    target: Tensor, size: tuple[int, int], upsampling: str = "aligned-corners"
) -> Tensor:
    """Any N x H x W to N x h x w: the label nearest to where each logit lies."""

    def nearest(pixels: int, logits: int) -> Tensor:
        if upsampling == "half-pixel":
            centres = (torch.arange(logits, device=target.device) + 0.5) * (pixels / logits)
            return centres.long()
        return torch.linspace(0, pixels - 1, logits, device=target.device).round().long()

    rows, columns = map(nearest, target.shape[1:], size)
    return target[:, rows[:, None], columns]
