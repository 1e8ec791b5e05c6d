"""Images a second, and the share of the time that the network was at work."""

from __future__ import annotations

import argparse
import json
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
from fake_backend import FakeBackend

from icnet_deploy.benchmarks.modes.throughput import (
    Feed,
    batches,
    files,
    open_feeds,
    run_in_turn,
    stream,
)
from icnet_deploy.benchmarks.subjects import busy_percent, note_runs
from icnet_deploy.errors import BackendError
from icnet_deploy.evaluation.pairing import Run
from icnet_deploy.images import write_image
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.predict.inputs import find_items

SIZE = (64, 64)
FRAMES = "frames-to-labels"
IMAGE = np.zeros((*SIZE, 3), np.uint8)


@pytest.mark.parametrize(
    ("spans", "percent"),
    [
        ([(5.0, 7.0)], 100),
        ([(0.0, 1.0), (3.0, 4.0)], 50),
        ([(0.0, 3.0), (1.0, 2.0), (2.5, 4.0)], 100),  # one within another, and one that overlaps
        ([(8.0, 10.0), (0.0, 1.0), (0.5, 2.0)], 40),  # told in the order in which they ended
        ([(1.0, 1.0)], 100),
    ],
)
def test_busy_is_the_union_of_the_runs(spans, percent):
    assert busy_percent(spans) == pytest.approx(percent)


def test_busy_of_nothing():
    with pytest.raises(ValueError, match="nothing was run"):
        busy_percent([])


class Labels:
    """A backend that makes label maps itself."""

    inputs = outputs = ()

    def run(self, feed):
        raise AssertionError

    def label(self, head, images, sizes, on_device=False):
        return head, images, sizes, on_device

    def close(self):
        self.closed = True


def test_runs_are_noted_and_a_labeller_stays_one():
    labeller = Labels()
    spans = note_runs(labeller)
    assert labeller.label("labels", [IMAGE], [SIZE], True) == ("labels", [IMAGE], [SIZE], True)
    assert len(spans) == 1
    plain = FakeBackend.of_colours(CITYSCAPES, SIZE)
    spans = note_runs(plain)
    assert not hasattr(plain, "label")
    plain.run({"image": IMAGE[None]})
    ((start, end),) = spans
    assert start <= end


def slow_predictor(seconds, streams=1):
    network = FakeBackend.of_colours(CITYSCAPES, SIZE, head="labels")
    at_work, most, lock = [], [], threading.Lock()

    def run(feed):
        with lock:
            at_work.append(1)
            most.append(len(at_work))
        time.sleep(seconds)
        with lock:
            at_work.pop()
        return network.run(feed)

    backend = FakeBackend(network.inputs, network.outputs, run)
    metadata = ArtefactMetadata(CITYSCAPES, SIZE, "labels", "fp32")
    return Predictor(backend, metadata, streams=streams), most


def measured(predictor, label_all, images):
    feed = Feed(FRAMES, {"name": "x"}, {}, label_all, note_runs(predictor.backend))
    for _ in range(2):
        feed.turn(images)
    return feed.measurement(images).values, feed.spans


def test_images_a_second_of_a_network_of_known_speed():
    predictor, most = slow_predictor(0.02)
    values, _ = measured(predictor, lambda total: stream([IMAGE], predictor, total), 10)
    assert most == [1] * 20
    assert 5 < values["images_per_s"] <= 50
    assert values["pass"]["runs"] == 2
    assert 0 < values["busy_percent"] <= 100
    assert 0 < values["cpu_percent"] < 110


def test_two_streams_work_at_once():
    predictor, most = slow_predictor(0.03, streams=2)
    _, spans = measured(predictor, lambda total: stream([IMAGE], predictor, total), 10)
    assert max(most) == 2
    assert len(spans) == 10  # of the last pass alone


def test_a_network_that_waits_is_not_busy():
    predictor, _ = slow_predictor(0.01)

    def label_all(total):
        for _ in range(total):
            predictor.predict(IMAGE)
            time.sleep(0.03)

    assert measured(predictor, label_all, 5)[0]["busy_percent"] < 60


def test_batches_cover_every_image_and_the_last_may_be_smaller():
    sizes = []

    class Seen:
        def predict_batch(self, images):
            sizes.append(len(images))

    batches([IMAGE], 4, Seen(), 10)
    assert sizes == [4, 4, 2]


def test_feeds_are_passed_over_in_turn():
    order = []

    def labels(name):
        def label_all(images):
            order.append((name, images))
            spans.append((0.0, 1.0))

        return label_all

    spans = []
    feeds = [Feed(FRAMES, {"name": n}, {"way": n}, labels(n), spans) for n in "ab"]
    run_in_turn(feeds, 2, 5)
    assert order == [("a", 3), ("b", 3), *[("a", 5), ("b", 5)] * 2]  # 3 to warm up
    assert [len(feed.passes) for feed in feeds] == [2, 2]


def test_batches_share_the_model_of_one_stream(artefact):
    frames = [np.zeros((96, 128, 3), np.uint8)]
    told = {"threads": 1, "scope": [FRAMES], "streams": [1, 2], "batch": [3], "rounds": 1}
    arguments = argparse.Namespace(**told, images=4)
    where = Run(artefact, "onnxruntime", "cpu")
    with ExitStack() as stack:
        feeds = list(open_feeds(arguments, where, frames, [], stack))
        for feed in feeds:
            feed.turn(4)
            feed.setting["runs"] = len(feed.spans)
    runs = [(feed.setting["way"], feed.setting["runs"]) for feed in feeds]
    assert runs == [("1 stream", 4), ("2 streams", 4), ("batches of 3", 2)]
    assert feeds[0].spans is feeds[2].spans


def test_the_command_measures_streams_batches_and_files(artefact, tmp_path, run):
    out = tmp_path / "throughput.jsonl"
    argv = ["--runtime", "onnxruntime", "--size", "96x128", "--images", "4", "--rounds", "2"]
    done = run(
        "benchmark", "throughput", artefact, *argv, "--batch", "3", "--json", out, "--threads", "1"
    )
    assert done.code == 0, done.err
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["scope"] for each in found] == ["frames-to-labels"] * 3 + ["files-to-files"] * 2
    assert [each["subject"]["streams"] for each in found] == [1, 2, 1, 1, 2]
    assert [each["setting"]["batch"] for each in found] == [1, 1, 3, 1, 1]
    assert found[3]["setting"]["format"] == "jpg, png"
    for each in found:
        seconds = sum(each["values"]["pass"]["samples_ms"]) / 1e3
        assert each["values"]["images_per_s"] == pytest.approx(8 / seconds, rel=0.01)
        assert each["subject"]["threads"] == 1


def test_a_file_that_fails_ends_it(tmp_path):
    backend = FakeBackend.of_colours(CITYSCAPES, SIZE)
    backend.fail_with = "out of memory"
    write_image(tmp_path / "a.png", IMAGE)
    (tmp_path / "results").mkdir()
    items = find_items([str(tmp_path / "a.png")], tmp_path / "results")
    predictor = Predictor(backend, ArtefactMetadata(CITYSCAPES, SIZE, "logits", "fp32"))
    with pytest.raises(BackendError, match="out of memory"):
        files(items, predictor, 1)


def test_wrong_options_are_one_line(artefact, tmp_path, run):
    for argv, told in (
        (["--scope", "all"], "expected frames-to-labels or files-to-files"),
        (["--streams", "0"], "is not a whole number of 1 or more"),
        (["--batch", "1,x"], "is not a whole number of 1 or more"),
        (["--json", str(tmp_path)], "a folder of that name is there"),
    ):
        done = run("benchmark", "throughput", artefact, *argv)
        assert done.code == 2
        assert told in done.err
    done = run("benchmark", "throughput", tmp_path / "no.onnx")
    assert "there is no" in done.err
    (tmp_path / "x.engine").write_bytes(b"")
    done = run("benchmark", "throughput", tmp_path / "x.engine", "--size", "64x64", "--threads", 1)
    assert "x.engine is an engine" in done.err
    done = run("benchmark", "throughput", tmp_path, "--size", "64x64")
    assert done.code == 2
    assert "no artefact in" in done.err
