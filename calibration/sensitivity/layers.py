"""How far the output of each block of an artefact is from float32's, on a runtime, in one run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf, log10
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from tqdm import tqdm

from icnet_deploy.calibration.calibrate import open_session
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.products import products
from icnet_deploy.calibration.sensitivity.handovers import (
    Handover,
    Handovers,
    given_as,
    of_one_form,
    places,
    shown,
)
from icnet_deploy.data import Dataset
from icnet_deploy.errors import InputError, NotFinite
from icnet_deploy.evaluation.pairing import Run, open_run
from icnet_deploy.images import Fitting
from icnet_deploy.labels import IGNORE
from icnet_deploy.metadata import ArtefactMetadata, write_artefact
from icnet_deploy.runtime.contract import INPUT
from icnet_deploy.runtime.labelmap import label_map

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]


@dataclass
class Noise:
    """How far tensors were from what they should have been, over all images.

    Attributes:
        signal: the sum of squares of what they should have been.
        noise: the sum of squares of the differences; infinite if a value is not finite.
        images: how many were compared.
    """

    signal: float = 0.0
    noise: float = 0.0
    images: int = 0

    def add(self, wanted: Array, value: Array) -> None:
        """Adds the tensor of one image."""
        self.images += 1
        self.signal += _energy(wanted)
        different = np.asarray(value, np.float32) - wanted
        self.noise += _energy(different) if np.isfinite(different).all() else inf

    @property
    def share(self) -> float | None:
        """Noise by signal: 0 where both are equal; None where there is no signal or no image."""
        if self.noise == 0 and self.images:
            return 0.0
        return self.noise / self.signal if self.signal > 0 else None


@dataclass
class Measured:
    """What was measured of one block.

    Attributes:
        handover: the block, what it takes and what it makes.
        after: tensor that it makes -> how far it is from float32's after all blocks up to here.
        added: tensor that it makes -> how far it is from what the float32 block makes of the same
            input. Images on which an input is not finite are not in it.
        in_8_bits: the share of its multiply-adds in 8 bits, 0..1; None where it has none.
    """

    handover: Handover
    after: dict[str, Noise] = field(default_factory=dict)
    added: dict[str, Noise] = field(default_factory=dict)
    in_8_bits: float | None = None

    def to_dict(self, of: Mapping[str, Noise]) -> dict[str, Any]:
        """The JSON form.

        Args:
            of: tensor -> how far it is from float32's, of all blocks.
        """
        taken = [of[name] for name in self.handover.taken if name in of]
        return {
            "name": self.handover.block.name,
            "modules": list(self.handover.block.modules),
            "layers": len(self.handover.layers),
            "tensors": list(self.after),
            "in_8_bits": self.in_8_bits,
            "before": _worst(taken),
            "after": _worst(self.after.values()),
            "added": _worst(self.added.values()),
        }


class Subject(NamedTuple):
    """What is compared with float32, and where it runs: names that `Run` takes."""

    path: Path
    metadata: ArtefactMetadata
    runtime: str
    device: str


@dataclass
class Layers:
    """How far an artefact is from float32, block by block.

    Attributes:
        blocks: in the order in which they end in the graph.
        missing: the tensors of the float32 graph that the artefact has not.
        images: the names of those that were run.
        alike: the share of pixels that the artefact labels as float32 does, 0..1.
        returning: how far the answer of the graph that returns the blocks' outputs, too, is from
            the artefact's own.
        returning_alike: the share of pixels that both label alike, 0..1.
    """

    blocks: list[Measured]
    missing: tuple[str, ...]
    images: list[str] = field(default_factory=list)
    alike: float = 0.0
    returning: Noise = field(default_factory=Noise)
    returning_alike: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        of = {name: noise for block in self.blocks for name, noise in block.after.items()}
        return {
            "image_names": self.images,
            "labels_alike": self.alike,
            "returning_outputs": {
                **_worst([self.returning]),
                "labels_alike": self.returning_alike,
            },
            "missing_tensors": list(self.missing),
            "blocks": [block.to_dict(of) for block in self.blocks],
        }


def compare_layers(
    reference: onnx.ModelProto, subject: Subject, dataset: Dataset, folder: Path
) -> Layers:
    """Runs an artefact and the float32 graph on images, and compares the output of each block.

    What a block takes from others is as the artefact has it where its own noise is measured: the
    float32 block is given the same. Shows progress; the tensors of one image are in memory.

    Args:
        reference: a float32 graph of the artefact's size, whose tensors mean what the artefact's of
            the same names mean.
        subject: the artefact.
        dataset: images of any size; their labels are not read.
        folder: where the graph that returns the blocks' outputs is written; the caller removes it.

    Raises:
        InputError: the artefact has no tensor of the float32 graph.
        UnavailableError, ModelError, BackendError: as `open_run`, and of a run.
    """
    metadata = subject.metadata
    parts = Handovers(reference, metadata.network, PLACEMENTS.get(metadata.precision))
    model = onnx.load(subject.path)
    made = [name for block in parts.blocks for name in block.made]
    where = of_one_form(places(model, made), reference, model)
    if not where:
        raise InputError(
            f"{subject.path} has none of the tensors between the blocks of its reference, such as "
            f"{made[0]!r}: name the float32 file that it was made from with --reference"
        )
    copy = folder / f"{subject.path.stem}-returning.onnx"
    write_artefact(copy, shown(model, where.values()).SerializeToString(), metadata)
    layers = Layers(
        [_measured(block, where) for block in parts.blocks],
        tuple(name for name in made if name not in where),
    )
    _fill_shares(layers, parts, model)
    sessions = _Sessions(reference, parts, where)
    counts = _Counts()
    where_it_runs = subject.runtime, subject.device
    with (
        open_run(Run(copy, *where_it_runs)) as returning,
        open_run(Run(subject.path, *where_it_runs)) as plain,
    ):
        for sample in tqdm(dataset, desc="layers", unit="image", disable=None):
            layers.images.append(sample.name)
            image = Fitting.of(metadata).apply(sample.image, metadata.size).pixels[None]
            wanted = sessions.wanted(image)
            values = returning.backend.run({INPUT: image})
            found = {name: np.array(values[own], np.float32) for name, own in where.items()}
            answer = np.array(values[metadata.head])
            _add(layers, wanted, found, sessions.apart(image, found))
            own = np.array(plain.backend.run({INPUT: image})[metadata.head])
            layers.returning.add(own.astype(np.float32), answer)
            counts.add(metadata, image.shape, wanted[sessions.head], own, answer)
    layers.alike, layers.returning_alike = counts.shares()
    return layers


def _measured(block: Handover, where: Mapping[str, str]) -> Measured:
    names = [name for name in block.made if name in where]
    return Measured(block, {n: Noise() for n in names}, {n: Noise() for n in names})


def _fill_shares(layers: Layers, parts: Handovers, model: onnx.ModelProto) -> None:
    """Says of each block how much of what it multiplies is in 8 bits."""
    nodes = [node for node in products(model).nodes if node.count]
    for measured in layers.blocks:
        own = [node for node in nodes if parts.owner(node.output) is measured.handover.block]
        if own:
            exact = sum(node.count for node in own if node.in_8_bits)
            measured.in_8_bits = exact / sum(node.count for node in own)


def _add(layers: Layers, wanted: Tensors, found: Tensors, apart: Tensors) -> None:
    """Adds the tensors of one image.

    Args:
        layers: what they are added to.
        wanted: as float32 has them.
        found: as the artefact has them.
        apart: what the float32 blocks make of what the artefact has.
    """
    finite = {name: bool(np.isfinite(value).all()) for name, value in found.items()}
    for block in layers.blocks:
        sound = all(finite.get(name, True) for name in block.handover.taken)
        for name, noise in block.after.items():
            noise.add(wanted[name], found[name])
            if sound:
                block.added[name].add(apart[name], found[name])


class _Sessions:
    """The float32 graph as a whole, and its blocks apart, in ONNX Runtime on the CPU."""

    def __init__(self, model: onnx.ModelProto, parts: Handovers, where: Mapping[str, str]) -> None:
        self.head = str(model.graph.output[0].name)
        self._names = list(where)
        self._whole = open_session(shown(model, where))
        self._apart = open_session(parts.apart(where))
        inputs = {value.name for value in self._apart.get_inputs()}
        self._given = {name: given_as(name) for name in where if given_as(name) in inputs}

    def wanted(self, image: Array) -> dict[str, Array]:
        """What the blocks make, and what the graph answers."""
        names = [*dict.fromkeys([*self._names, self.head])]
        return dict(zip(names, self._whole.run(names, {INPUT: image}), strict=True))

    def apart(self, image: Array, found: Tensors) -> dict[str, Array]:
        """What each block makes of what the artefact has."""
        feed = {INPUT: image, **{own: found[name] for name, own in self._given.items()}}
        return dict(zip(self._names, self._apart.run(self._names, feed), strict=True))


class _Counts:
    """Counts pixels that are labelled alike."""

    def __init__(self) -> None:
        self._pixels = self._alike = self._returning = 0

    def add(
        self,
        metadata: ArtefactMetadata,
        shape: tuple[int, ...],
        wanted: Array,
        own: Array,
        returning: Array,
    ) -> None:
        """Adds the answers of float32, of the artefact, and of the graph that returns more."""
        size = shape[1], shape[2]
        labels = _labels(own, size, metadata)
        self._pixels += labels.size
        self._alike += int((labels == _labels(wanted, size, metadata)).sum())
        self._returning += int((labels == _labels(returning, size, metadata)).sum())

    def shares(self) -> tuple[float, float]:
        """Of all pixels: those of float32's label, and those of the other graph's."""
        return self._alike / self._pixels, self._returning / self._pixels


def _labels(answer: Array, size: tuple[int, int], metadata: ArtefactMetadata) -> Array:
    """The label map of an answer; that of logits that are not finite is no class."""
    if answer.dtype == np.uint8:
        return np.asarray(answer[0])
    try:
        return label_map(answer[0], size, upsampling=metadata.upsampling)
    except NotFinite:
        return np.full(size, IGNORE, np.uint8)


def _decibels(share: float) -> float:
    """Signal to noise in dB, of noise by signal; infinite where there is no noise."""
    return -10 * log10(share) if share > 0 else inf


def _worst(measured: Iterable[Noise]) -> dict[str, Any]:
    """The largest noise of some tensors; what is not finite and what is not known is None."""
    shares = [one.share for one in measured]
    known = [share for share in shares if share is not None]
    finite = inf not in known
    share = max(known) if known and finite else None
    return {
        "noise_share": share,
        "db": _decibels(share) if share else None,
        "finite": finite,
    }


def _energy(values: Array) -> float:
    flat = values.astype(np.float64).ravel()
    return float(flat @ flat)
