"""The mix of data sets that training draws from, with labels brought to the network's classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.data.mapping import target_table
from icnet_deploy.errors import LabelSetError
from icnet_deploy.labels import LabelSet
from icnet_deploy.training.augment import augment
from icnet_deploy.training.config import TrainConfig

UInt8 = npt.NDArray[np.uint8]

CACHE_BYTES = 2 << 30
"""Decoded images that a process, or each of its loading workers, keeps at most."""


class Mix(IterableDataset[tuple[Tensor, Tensor]]):
    """An endless, seeded stream of (image, target) crops drawn from several data sets.

    Images are uint8 h x w x 3, RGB; targets int64 h x w. Draw `i` depends on the seed and `i`
    alone, and batch `n` is made of the draws from `n * batch` on, however many processes and
    workers share the work: a run that is resumed at a step, or spread over machines, sees what an
    unbroken run of one process sees.

    Attributes:
        merged: the merged targets; see `target_table`.
        shares: how often each data set is drawn from; they sum to 1.
        start: the step that comes next.
        rank, processes: which part of every batch is this process's.
    """

    def __init__(
        self, datasets: Sequence[Dataset], model: LabelSet, config: TrainConfig, start: int = 0
    ) -> None:
        tables = [target_table(model, d.label_set) for d in datasets]
        merged = [m for _, m in tables if m]
        if any(m != merged[0] for m in merged):
            raise LabelSetError("two of the data sets merge different classes")
        self.merged = merged[0] if merged else []
        self.datasets, self.config, self.start = list(datasets), config, start
        self.rank, self.processes = 0, 1
        self._tables = [t for t, _ in tables]
        shares = config.shares or tuple(float(len(d)) for d in datasets)
        if len(shares) != len(datasets) or min(shares) < 0 or sum(shares) <= 0:
            raise LabelSetError(
                f"{len(datasets)} data sets, but the configuration has the shares {shares}"
            )
        self.shares = np.array(shares) / sum(shares)
        self.scales = config.scales or (1.0,) * len(datasets)
        if len(self.scales) != len(datasets) or min(self.scales) <= 0:
            raise LabelSetError(
                f"{len(datasets)} data sets, but the configuration has the scales {self.scales}"
            )
        self._cache: dict[tuple[int, int], Sample] = {}
        self._cached = 0

    def source(self, which: int, index: int) -> Sample:
        """Image `index` of data set `which`, with training targets for labels.

        Decoded images are kept until they fill `CACHE_BYTES`.
        """
        sample = self._cache.get((which, index))
        if sample is None:
            read = self.datasets[which][index]
            sample = Sample(read.name, read.image, self._tables[which][read.labels])
            self._cached += sample.image.nbytes + sample.labels.nbytes
            if self._cached <= CACHE_BYTES:
                self._cache[which, index] = sample
        return sample

    def draw(self, number: int) -> tuple[Tensor, Tensor]:
        """Crop `number` of the stream."""
        rng = np.random.default_rng([self.config.seed, number])
        which = int(rng.choice(len(self.datasets), p=self.shares))
        sample = self.source(which, int(rng.integers(len(self.datasets[which]))))
        least, most = (f * self.scales[which] for f in self.config.resize)
        image, target = augment(
            sample.image, sample.labels, self.config.crop, (least, most), rng, self.config.colour
        )
        return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(target).long()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        own = self.config.batch // self.processes
        step = self.start + worker  # the loader takes whole batches from its workers in turn
        while True:
            first = step * self.config.batch + self.rank * own
            for number in range(first, first + own):
                yield self.draw(number)
            step += workers


def class_weights(mix: Mix, classes: int, samples: int = 200) -> Tensor:
    """(1 / log(1.02 + share)) ** power, scaled to a mean of 1 over the pixels that are drawn.

    The formula is ENet's (Paszke et al., arXiv 1606.02147, section 5.1). Shares are counted on
    `samples` images drawn as training draws them, each data set evenly.

    Returns:
        float32, one weight a class and one a merged class.
    """
    total = classes + len(mix.merged)
    share = np.zeros(256)
    for which, dataset in enumerate(mix.datasets):
        count = max(1, round(samples * float(mix.shares[which])))
        chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
        for index in chosen:
            labels = mix.source(which, int(index)).labels
            counts = np.bincount(labels.ravel(), minlength=256) / labels.size
            share += counts * float(mix.shares[which]) / len(chosen)
    seen = share[:total] / share[:total].sum()
    weights = (1 / np.log(1.02 + seen)) ** mix.config.class_weights
    weights /= (weights * seen).sum()
    return torch.tensor(weights, dtype=torch.float32)
