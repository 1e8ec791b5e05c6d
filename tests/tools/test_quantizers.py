"""The comparison of quantizers: how a candidate is judged, and the table of it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.evaluation.score import Score
from icnet_deploy.labels import LabelSet
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import TensorSpec
from tools import quantizers

CLASSES = LabelSet("two", ("road", "sky"), ((0, 0, 0), (1, 1, 1)))


METADATA = ArtefactMetadata(CLASSES, (8, 10), "logits", "fp32", upsampling="none")


class Backend:
    """Says the class of a pixel by its brightness, and errs in some."""

    inputs = (TensorSpec("image", (1, 8, 10, 3), np.dtype(np.uint8)),)
    outputs = (TensorSpec("logits", (1, 2, 8, 10), np.dtype(np.float32)),)

    def __init__(self, wrong):
        self.wrong = wrong

    def run(self, feed):
        sky = (feed["image"][..., 0] > 127).astype(np.float32)
        sky[:, 0, : self.wrong] = 1 - sky[:, 0, : self.wrong]
        return {"logits": np.stack([1 - sky, sky], axis=1)}


@pytest.fixture
def rows():
    image = np.zeros((8, 10, 3), np.uint8)
    image[4:] = 255
    sample = Sample("one", image, (image[..., 0] > 127).astype(np.uint8))
    dataset = Dataset("two", "val", CLASSES, (), lambda path: sample.labels)

    def score():
        return Score(dataset, CLASSES, (8, 10))

    names = [("ours", "mse", 2), ("ONNX Runtime", "minmax", 5)]
    candidates = [
        quantizers._Candidate((name, method, "int8-ort"), Backend(wrong), score(), 1.0)
        for name, method, wrong in names
    ]
    reference = score()
    quantizers._measure(candidates, Backend(0), reference, [sample], METADATA)
    times = {candidates[0].key: 0.2, candidates[1].key: 0.4}
    return [quantizers._row(c, reference, times) for c in candidates]


def test_a_candidate_is_judged_against_float32(rows):
    ours, plain = rows
    assert ours["alike_percent"] == 97.5
    assert ours["time_to_plain"] == 0.5
    assert plain["time_to_plain"] == 1
    # Two of forty road pixels called sky: road 38/40, sky 40/42.
    points = {name: one["value"] for name, one in ours["class_difference_points"].items()}
    assert points == {"road": -5.0, "sky": round(100 * (40 / 42 - 1), 6)}
    assert ours["lowest_class"] == "road"
    mean, other = (row["miou_difference_points"]["value"] for row in (ours, plain))
    assert other < mean < 0


def test_the_table_has_a_row_for_each_and_ignores_other_results(rows):
    text = quantizers.markdown([{"kind": "evaluate"}, {"kind": "quantizers", "rows": rows}])
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| int8-ort on onnxruntime | ours | mse | ")
    assert re.search(r"\| -5.00 \[.+\] road \| 97.50 \| 0.50 \|", lines[2])


def test_rows_that_were_recorded_without_intervals_are_read(rows):
    points = {"miou_difference_points": -0.5, "class_difference_points": {"road": -5.0}}
    text = quantizers.markdown([{"kind": "quantizers", "rows": [rows[0] | points]}])
    assert "| -0.50 | -5.00 road | 97.50 | 0.50 |" in text
