"""How many labels each file gives as float32 does, and its mIoU: kept, since neither changes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from os.path import exists
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from icnet_deploy.calibration.sensitivity.search import Cost
from icnet_deploy.data import Dataset
from icnet_deploy.documents import parse
from icnet_deploy.errors import IcnetError
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.score import Score
from icnet_deploy.files import write_json
from icnet_deploy.images import UInt8
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.backends.openvino.graph import PREPARED
from icnet_deploy.runtime.backends.registry import open_backend
from icnet_deploy.runtime.predictor import Predictor
from tools.quantizers.folder import Made, Network

FLOAT = "float32"
"""What stands in the place of a quantizer's name for the float32 file."""


@dataclass(frozen=True)
class Scored:
    """A file on a runtime.

    Attributes:
        made: the file.
        runtime: a key of `RUNTIMES`.
        counts: of each image.
        alike: of each image how many pixels it labels as float32 does, and how many there are.
        rough_ms: processor time of a run on one thread, median, while it was scored.
        error: why it does not run there.
    """

    made: Made
    runtime: str
    counts: Sequence[ImageCounts] = ()
    alike: Sequence[tuple[int, int]] = ()
    rough_ms: float = 0.0
    error: str = ""

    @property
    def agreement(self) -> float:
        """The share of pixels that it labels as float32 does, 0..1."""
        return sum(same for same, _ in self.alike) / sum(pixels for _, pixels in self.alike)

    def cost(self, exact: Sequence[ImageCounts], names: Sequence[str]) -> Cost:
        """How far it is from float32, whose counts are given."""
        return Cost.of(self.counts, exact, names, self.alike)


@dataclass(frozen=True)
class _Truth:
    """What files are scored against.

    Attributes:
        dataset: the images.
        labels: float32's label map of each, on ONNX Runtime.
        score: float32's.
    """

    dataset: Dataset
    labels: Sequence[UInt8]
    score: Score


class Scores:
    """Scores the files of a network, and keeps what it found."""

    def __init__(self, network: Network, dataset: Dataset, metadata: ArtefactMetadata) -> None:
        self._network, self._metadata = network, metadata
        self._truth = _Truth(dataset, [], Score.of(dataset, metadata))
        backend = open_backend("onnxruntime", network.model, "cpu", 1, cached=False)
        predictor = Predictor(backend, metadata)
        labels = []
        for sample in tqdm(dataset, desc="float32", unit="image", disable=None):
            labels.append(np.asarray(predictor.predict(sample.image).labels))
            self._truth.score.add(sample, labels[-1])
        self._truth = _Truth(dataset, labels, self._truth.score)
        backend.close()

    @property
    def exact(self) -> Score:
        """Float32's, on ONNX Runtime."""
        return self._truth.score

    def of(self, made: Made, runtime: str) -> Scored:
        """The score of a file on a runtime: what was kept, or found now."""
        if made.error:
            return Scored(made, runtime, error=made.error)
        kept = self._network.subfolder("scores") / f"{made.sha256[:24]}-{runtime}.json"
        key = {
            "sha256": made.sha256,
            "version": version(runtime),
            "prepared": PREPARED if runtime == "openvino" else 0,
            "images_sha256": self.exact.protocol().images_sha256,
        }
        if exists(kept):
            content: dict[str, Any] = parse(kept.read_text("utf-8"))
            if {"prepared": 0, **content["key"]} == key:
                counts = [ImageCounts.from_dict(each) for each in content["counts"]]
                alike = [(same, pixels) for same, pixels in content["alike"]]
                return Scored(made, runtime, counts, alike, content["rough_ms"], content["error"])
        scored = self._score(made, runtime)
        content = {
            "key": key,
            "counts": [each.to_dict() for each in scored.counts],
            "alike": scored.alike,
            "rough_ms": scored.rough_ms,
            "error": scored.error,
        }
        write_json(kept, content)
        return scored

    def _score(self, made: Made, runtime: str) -> Scored:
        path = path_of(self._network, made)
        score = Score.of(self._truth.dataset, self._metadata)
        alike, times = [], []
        try:
            backend = open_backend(runtime, path, "cpu", 1, cached=False)
            predictor = Predictor(backend, self._metadata)
            for sample, wanted in zip(self._truth.dataset, self._truth.labels, strict=True):
                start = time.process_time()
                labels = np.asarray(predictor.predict(sample.image).labels)
                times.append(time.process_time() - start)
                score.add(sample, labels)
                alike.append((int((labels == wanted).sum()), wanted.size))
            backend.close()
        except IcnetError as error:
            text = str(error).replace(str(path), made.file).splitlines()[0]
            return Scored(made, runtime, error=text[:300])
        rough = round(1e3 * float(np.median(times)), 3)
        return Scored(made, runtime, score.images_counted, alike, rough)


def path_of(network: Network, made: Made) -> Path:
    """Where a file lies."""
    return network.model if made.quantizer == FLOAT else network.folder / "files" / made.file
