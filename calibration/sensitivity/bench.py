"""Where 8-bit graphs are written and scored against float32 on the same runtime."""

import zlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from icnet_deploy.calibration.artefact import Recipe, load_float
from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.placements.registry import cpu_runtime, placement_of
from icnet_deploy.calibration.sensitivity.search import Block, Cost, Gain, blocks_of, modules_of
from icnet_deploy.data import ConfusionMatrix, Dataset, RegionAccuracy
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.confidence.differences import LEVEL, differences, share
from icnet_deploy.evaluation.score import Score
from icnet_deploy.metadata import write_artefact
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import WARMUP, Subject, measure, summary

_TIMED = 3  # images


class Graphs:
    """Writes 8-bit graphs of one float32 file.

    Args:
        source: the float32 file.
        recipe: how they are made of it; what it excludes is always in float.
        folder: where the graphs are written; the caller removes it.

    Attributes:
        source: see above.
        metadata, size: of the float32 file.
        runtime: the one that the placement is for and that a CPU has.
        blocks, kept: of the network, in the graph's order, and those that are always in float.

    Raises:
        ModelError: the file is no float32 artefact of one size.
        UnavailableError: the placement's runtime is missing.
    """

    def __init__(self, source: Path, recipe: Recipe, folder: Path) -> None:
        self.source = source
        self._model, self.metadata, self.size = load_float(source)
        self._recipe = recipe
        self._folder = folder
        self.runtime = cpu_runtime(recipe.placement)
        graph = Graph(self._model)
        layers = [graph.layer(one.node) for one in graph.weighted()]
        kept: Collection[str] = placement_of(recipe.placement).float_layers(graph)
        if recipe.exclude is not None:
            kept = {*layers}.difference(graph.layer(o.node) for o in graph.weighted(recipe.exclude))
        self.blocks = blocks_of(layers, kept, self.metadata.network)
        self.kept = [block for block in self.blocks if block.kept]

    def write(self, in_float: Iterable[Block]) -> Path:
        """Writes the 8-bit graph with these blocks in float."""
        content = self._recipe.graph(self._model, modules_of(in_float)).SerializeToString()
        path = self._folder / f"{len(list(self._folder.iterdir()))}.onnx"
        write_artefact(path, content, self._recipe.metadata(self.metadata))
        return path

    def open(self, path: Path) -> Predictor:
        """Opens one of them, or the float32 file, as it is scored."""
        return Predictor.open(path, self.runtime, "cpu", cached=False)


class _Counted(NamedTuple):
    """What was counted of a graph, image by image.

    Attributes:
        counts: against the truth.
        alike: how many pixels have float32's label, and how many there are.
    """

    counts: list[ImageCounts]
    alike: list[tuple[int, int]]


class Bench:
    """Scores graphs on one data set.

    The float32 graph runs once; its label maps are kept packed, about 1 % of their size.

    Args:
        graphs: what writes them.
        dataset: labelled images, none of which was calibrated on.
        words: what the images are for.

    Attributes:
        dataset: see above.
        score: of the float32 graph.

    Raises:
        DatasetError: no image has a labelled pixel.
    """

    def __init__(self, graphs: Graphs, dataset: Dataset, words: str = "") -> None:
        self._graphs, self.dataset = graphs, dataset
        metadata = graphs.metadata
        self.score = Score.of(dataset, metadata)
        self._wanted: list[bytes] = []
        self._counted: dict[Path, _Counted] = {}
        with graphs.open(graphs.source) as predictor:
            for sample in tqdm(dataset, desc=f"float32{words}", unit="image", disable=None):
                labels = predictor.predict(sample.image).labels
                self.score.add(sample, labels)
                self._wanted.append(zlib.compress(labels.tobytes(), 1))
        self.score.require_truth()

    def cost(self, path: Path, words: str, level: float = LEVEL) -> Cost:
        """Scores a graph.

        Args:
            path: its file.
            words: which it is.
            level: of the intervals.
        """
        counted: list[ImageCounts] = []
        alike: list[tuple[int, int]] = []
        regions = RegionAccuracy()  # none: a cost has no part of them, and they take long to find
        shown = tqdm(self.dataset, desc=words, unit="image", disable=None)
        rows = zip(shown, self._wanted, self.score.images_counted, strict=True)
        with self._graphs.open(path) as predictor:
            for sample, packed, exact in rows:
                labels = predictor.predict(sample.image).labels
                wanted = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(labels.shape)
                alike.append((int(np.count_nonzero(labels == wanted)), labels.size))
                confusion = ConfusionMatrix(len(self.dataset.label_set))
                confusion.add(self.score.mapped(labels), sample.labels)
                counted.append(ImageCounts.of(exact.name, exact.group, confusion, regions))
        self._counted[path] = _Counted(counted, alike)
        names = self.dataset.label_set.names
        return Cost.of(counted, self.score.images_counted, names, alike, level)

    def gain(self, path: Path, before: Path) -> Gain:
        """What a graph has gained over another; the files of both were scored here."""
        ours, theirs = self._counted[path], self._counted[before]
        found = differences(ours.counts, theirs.counts, self.dataset.label_set.names)
        groups = [one.group for one in ours.counts]
        other = [same for same, _ in theirs.alike]
        return Gain(found.miou, share(ours.alike, groups, before=other))


def alone_costs(graphs: Graphs, bench: Bench, blocks: Sequence[Block]) -> dict[Block, Cost]:
    """What each of these blocks costs when it alone is in 8 bits, and all others in float."""
    alone: dict[Block, Cost] = {}
    for number, block in enumerate(blocks, 1):
        words = f"{block.name} ({number} of {len(blocks)})"
        path = graphs.write(b for b in graphs.blocks if b is not block)
        alone[block] = bench.cost(path, words)
        path.unlink()
    return alone


TIME = (
    f"inference of one image, wall clock, all graphs in turn, after {WARMUP} warm-up runs each; "
    "input and output are in memory; without decoding, resizing and the label map"
)
"""What `inference_times` measures."""


def inference_times(
    graphs: Graphs, dataset: Dataset, paths: Iterable[Path], rounds: int
) -> list[dict[str, Any]]:
    """`timing.summary` of float32 and of graphs of these files, timed in turn.

    Args:
        graphs: what wrote them.
        dataset: its first images are what is timed on.
        paths: the files.
        rounds: of timing.
    """
    images = [sample.image for sample in dataset.first(_TIMED)]
    with ExitStack() as stack:
        subjects = []
        for path in (graphs.source, *paths):
            opened = stack.enter_context(Predictor.open(path, graphs.runtime, "cpu"))
            label = lambda image, one=opened: one.predict(image).timings_ms  # noqa: E731
            subjects.append(Subject({"name": path.stem, "runtime": graphs.runtime}, label))
        rows = measure(subjects, images, rounds)
    return [summary(row.stages["inference"]) for row in rows]
