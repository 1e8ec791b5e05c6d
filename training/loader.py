"""The mix of data sets that training draws from."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.errors import DatasetError, InputError, LabelSetError
from icnet_deploy.labels import IGNORE, LabelSet
from icnet_deploy.training.augment import augment
from icnet_deploy.training.config import TrainConfig
from icnet_deploy.training.rare import Places, aim_at, mixed, places, rare_targets
from icnet_deploy.training.targets import Targets

UInt8 = npt.NDArray[np.uint8]
_Paste = Callable[[np.random.Generator, Sample], Sample]

_CACHE_BYTES = 2 << 30
"""Decoded images that a process, or each of its loading workers, keeps at most."""

_LOOKED_AT = 200
"""Images on which the shares of the classes are counted."""


class Mix(IterableDataset[tuple[Tensor, ...]]):
    """An endless, seeded stream of (image, target) crops drawn from several data sets.

    Images are uint8 h x w x 3, RGB; targets int64 h x w. Where the configuration weighs pixels by
    confidence, an item is (image, target, weight): uint8 h x w, 255 where a pixel counts in full
    (also of the data sets that have no confidence), 0 past an image's edge.

    Draw `i` depends on the seed and `i` alone, and batch `n` is made of the draws from `n * batch`
    on, however many processes and workers share the work: a run that is resumed at a step, or
    spread over machines, sees what an unbroken run of one process sees.

    Attributes:
        label_set: the network's classes.
        merged: the merged targets; see `target_table`.
        shares: how often each data set is drawn from; they sum to 1.
        start: the step that comes next.
        rank, processes: which part of every batch is this process's.
    """

    def __init__(
        self, datasets: Sequence[Dataset], label_set: LabelSet, config: TrainConfig, start: int = 0
    ) -> None:
        self._targets = [Targets(dataset, label_set, config) for dataset in datasets]
        self.merged = [*dict.fromkeys(group for each in self._targets for group in each.merged)]
        if len(label_set) + len(self.merged) > IGNORE:
            raise LabelSetError(
                f"{len(label_set)} classes and {len(self.merged)} groups of classes are more than "
                f"the {IGNORE} values that targets have: map fewer classes to several"
            )
        self.datasets, self.label_set = list(datasets), label_set
        self.config, self.start = config, start
        self.rank, self.processes = 0, 1
        for targets in self._targets:
            targets.number(self.merged)
        _require_taught(datasets, config)
        for name in ("shares", "scales", "pixel_aspects"):
            values = getattr(config, name)
            if len(values) not in (0, len(datasets)):
                raise LabelSetError(
                    f"{name} in the configuration has {len(values)} values {values}, but there are "
                    f"{len(datasets)} data sets: give one value for each"
                )
        shares = config.shares or tuple(float(len(d)) for d in datasets)
        self.shares = np.array(shares) / sum(shares)
        self._scales = config.scales or (1.0,) * len(datasets)
        self._aspects = config.pixel_aspects or (1.0,) * len(datasets)
        self._cache: dict[tuple[int, int], Sample] = {}
        self._cached = 0
        self._seen: npt.NDArray[np.float64] | None = None
        self._places: dict[tuple[int, int], Places] = {}
        self._counts = np.zeros((len(datasets), 256))

    def source(self, which: int, index: int) -> Sample:
        """Image `index` of data set `which`, with training targets for labels, and weights where
        the configuration weighs pixels.

        Decoded images are kept until they fill `_CACHE_BYTES`.
        """
        sample = self._cache.get((which, index))
        if sample is None:
            sample = self._targets[which].read(index)
            self._cached += sample.image.nbytes + sample.labels.nbytes
            self._cached += 0 if sample.weights is None else sample.weights.nbytes
            if self._cached <= _CACHE_BYTES:
                self._cache[which, index] = sample
        return sample

    def seen(self) -> npt.NDArray[np.float64]:
        """The share of the labelled pixels that each training target has, as they are drawn.

        Counted on up to `_LOOKED_AT` images, of each data set as many as its share says; a pixel
        counts as one, whatever its weight.

        Returns:
            float64, C + len(merged), sum 1.

        Raises:
            DatasetError: no pixel of them is labelled with a class of the network.
        """
        if self._seen is None:
            shares = np.zeros(256)
            self._counts[:] = 0
            looked = self._looked_at()
            for which, index in tqdm(looked, "look", unit="image", leave=False, disable=None):
                labels = self.source(which, index).labels
                counts = np.bincount(labels.ravel(), minlength=256) / labels.size
                self._counts[which] += counts
                of_its_set = sum(other == which for other, _ in looked)
                shares += counts * float(self.shares[which]) / of_its_set
            known = shares[: len(self.label_set) + len(self.merged)]
            if not known.sum():
                raise DatasetError(
                    "no pixel of the training images is labelled with a class of "
                    f"{self.label_set.name!r}: check them with `icnet dataset check`"
                )
            self._seen = known / known.sum()
        return self._seen

    def frequencies(self) -> npt.NDArray[np.float64]:
        """How frequent each training target is: its share, as `seen` has it.

        Where a teacher decides inside a person's labels, a merged target is what it left open,
        however little that is: it has the share of all targets inside it, as if nothing were
        decided.

        Returns:
            float64, C + len(merged).
        """
        seen, classes = self.seen(), len(self.label_set)
        if not any(dataset.teacher and dataset.teacher.person for dataset in self.datasets):
            return seen
        targets = [*((index,) for index in range(classes)), *self.merged]
        inside = [[{*each} <= {*group} for each in targets] for group in self.merged]
        return np.array([*seen[:classes], *(seen[mask].sum() for mask in inside)])

    def _looked_at(self) -> list[tuple[int, int]]:
        """(data set, image) of those on which `seen` counts, spread evenly over each set."""
        looked = []
        for which, dataset in enumerate(self.datasets):
            count = min(max(1, round(_LOOKED_AT * float(self.shares[which]))), len(dataset))
            chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int)
            looked += [(which, int(index)) for index in chosen]
        return looked

    def warnings(self) -> list[str]:
        """What a person should know of the data, a line each: the classes that it does not show,
        those of its own that are not trained, and what a teacher's labels come to."""
        names, seen = self.label_set.names, self.seen()
        notes: list[str] = []
        for dataset, targets, counts in zip(
            self.datasets, self._targets, self._counts, strict=True
        ):
            notes += filter(None, [targets.note(counts)])
            if left := targets.left_out():
                notes.append(
                    f"note: no class of the network stands for {', '.join(left)} of "
                    f"{dataset.called}, so their pixels are ignored"
                )
        parts = zip(self.merged, seen[len(names) :], strict=True)
        shown = {index for classes, share in parts if share for index in classes}
        unseen = [n for i, n in enumerate(names) if not seen[i] and i not in shown]
        if not unseen:
            return notes
        looked = len(self._looked_at())
        every = looked == sum(map(len, self.datasets))
        where = (
            f"the {looked} training images" if every else f"a sample of {looked} training images"
        )
        return [
            *notes,
            f"note: {len(unseen)} of {len(names)} classes have no pixel in {where}, so the network "
            f"does not learn them: {', '.join(unseen)}",
        ]

    def draw(self, number: int) -> tuple[Tensor, ...]:
        """Crop `number` of the stream."""
        rng = np.random.default_rng([self.config.seed, number])
        chance = self.config.rare_crops
        rare = bool(chance) and rng.random() < chance
        return _tensors(self._cut(rng, rare, self.config.colour, self._mixed))

    def _cut(
        self, rng: np.random.Generator, rare: bool, colour: float, paste: _Paste | None = None
    ) -> Sample:
        """Draws a crop; with `rare` where its image shows a rare class, if it does."""
        config = self.config
        which = int(rng.choice(len(self.datasets), p=self.shares))
        index = int(rng.integers(len(self.datasets[which])))
        sample = self.source(which, index)
        least, most = (f * self._scales[which] for f in config.resize)
        return augment(
            sample,
            config.crop,
            (least, most),
            rng,
            colour,
            config.appearance,
            pixel_aspect=self._aspects[which],
            aim=self._aim((which, index), sample, rng) if rare else None,
            paste=None if paste is None else partial(paste, rng),
        )

    def _mixed(self, rng: np.random.Generator, crop: Sample) -> Sample:
        """A crop, with the chance `class_mix` with rare classes of another on it."""
        if not self.config.class_mix or rng.random() >= self.config.class_mix:
            return crop
        return mixed(crop, self._cut(rng, True, 0.0), self._rare, rng)

    def _aim(
        self, key: tuple[int, int], sample: Sample, rng: np.random.Generator
    ) -> tuple[int, int] | None:
        """A pixel of a rare class; where an image has them is looked for once."""
        if key not in self._places:
            self._places[key] = places(sample.labels, self._rare)
        return aim_at(sample.labels, self._places[key], self._rare, rng)

    @cached_property
    def _rare(self) -> dict[int, float]:
        return rare_targets(self.frequencies(), self.config.rare)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        own = self.config.batch // self.processes
        step = self.start + worker  # the loader takes whole batches from its workers in turn
        while True:
            first = step * self.config.batch + self.rank * own
            for number in range(first, first + own):
                yield self.draw(number)
            step += workers


def _tensors(crop: Sample) -> tuple[Tensor, ...]:
    """An item of the stream."""
    pair = torch.from_numpy(crop.image), torch.from_numpy(crop.labels).long()
    return pair if crop.weights is None else (*pair, torch.from_numpy(crop.weights))


def _require_taught(datasets: Sequence[Dataset], config: TrainConfig) -> None:
    """InputError for settings of a teacher's confidence where no data set has one."""
    asked = {
        "min_confidence": config.min_confidence > 0,
        "weigh_confidence": config.weigh_confidence,
    }
    if any(asked.values()) and all(dataset.teacher is None for dataset in datasets):
        raise InputError(
            f"{' and '.join(name for name, given in asked.items() if given)} cannot be used: no "
            "data set has the confidences of a teacher, which are in confidence/SPLIT of a "
            "--dataset folder: leave it out"
        )


def class_weights(mix: Mix) -> Tensor:
    """(1 / log(1.02 + share)) ** power, scaled to a mean of 1 over the pixels that are drawn.

    The formula is ENet's (Paszke et al., arXiv 1606.02147, section 5.1). The shares are the mix's
    `frequencies`; of a class that was not seen the share is 0, and its weight the largest.

    Returns:
        float32, one weight a class and one a merged class.
    """
    weights = (1 / np.log(1.02 + mix.frequencies())) ** mix.config.class_weights
    weights /= (weights * mix.seen()).sum()
    return torch.tensor(weights, dtype=torch.float32)
