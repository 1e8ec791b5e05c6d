"""Frames at a fixed rate: what is labelled, dropped and late, on a clock of the test's own."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from fake_backend import FakeBackend

from icnet_deploy.benchmarks.modes.paced import feed
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import Predictor

SIZE = (64, 64)
ALL = ("due", "labelled", "dropped", "late")
IMAGES = [np.full((*SIZE, 3), value, np.uint8) for value in range(4)]


class Clock:
    """Time that passes only while somebody sleeps or a network runs."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def predictor_that_takes(seconds, wait, seen):
    """A predictor on a fake backend whose n-th run takes `seconds[n]`, the last one ever after."""
    network = FakeBackend.of_colours(CITYSCAPES, SIZE, head="labels")

    def slow(feed):
        seen.append(int(feed["image"][0, 0, 0, 0]))
        wait(seconds[min(len(seen), len(seconds)) - 1])
        return network.run(feed)

    backend = FakeBackend(network.inputs, network.outputs, slow)
    return Predictor(backend, ArtefactMetadata(CITYSCAPES, SIZE, "labels", "fp32"))


def fed(seconds, rate, duration, deadline=None):
    clock, seen, past = Clock(), [], []
    predictor = predictor_that_takes(seconds, clock.pass_by, seen)
    told = feed(
        predictor.predict, IMAGES, rate, duration, deadline, past.append, clock, clock.pass_by
    )
    assert sum(past) == told.due  # a bar comes to its end
    return told, seen


def counts(told, *names):
    return tuple(told.values()[f"{name}_frames"] for name in names)


def test_a_fast_network_labels_every_frame_in_time():
    told, seen = fed([0.03], rate=10, duration=1)
    assert seen == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert counts(told, *ALL) == (10, 10, 0, 0)
    assert told.latencies == pytest.approx([0.03] * 10)
    assert np.diff(told.finished) == pytest.approx([0.1] * 9)
    values = told.values()
    assert values["missed_percent"] == 0
    assert values["jitter_std_ms"] == pytest.approx(0, abs=1e-3)


def test_a_slow_network_takes_the_newest_frame_and_drops_the_others():
    told, seen = fed([0.26], rate=10, duration=1)
    # It is free again at 0.26 s (frame 2 has waited since 0.2), 0.52 (5), 0.78 (7), 1.04 (9).
    assert seen == [n % 4 for n in (0, 2, 5, 7, 9)]
    assert counts(told, *ALL) == (10, 5, 5, 5)
    assert told.latencies == pytest.approx([0.26, 0.32, 0.28, 0.34, 0.4])
    assert told.values()["missed_percent"] == 100


def test_one_slow_frame_does_not_delay_all_that_follow():
    told, seen = fed([0.02, 0.35, 0.02], rate=10, duration=1)
    # Frame 1, due at 0.1 s, ends at 0.45; then 4 (due at 0.4), and 5 waits until it is due.
    assert seen == [n % 4 for n in (0, 1, 4, 5, 6, 7, 8, 9)]
    assert told.latencies == pytest.approx([0.02, 0.35, 0.07, 0.02, 0.02, 0.02, 0.02, 0.02])
    assert counts(told, "dropped", "late") == (2, 1)
    gaps = np.array([0.43, 0.02, 0.05, 0.1, 0.1, 0.1, 0.1]) - 0.1
    assert told.values()["jitter_std_ms"] == pytest.approx(1e3 * gaps.std(), abs=0.01)


def test_the_deadline_may_be_longer_than_a_period():
    told, _ = fed([0.26], rate=10, duration=1, deadline=0.33)
    assert counts(told, "dropped", "late") == (5, 2)
    assert told.values()["missed_percent"] == 70


def test_a_third_of_a_second_cannot_be_reckoned_exactly_and_no_frame_is_lost_by_it():
    for rate in (3, 7, 29.97, 60):
        told, _ = fed([0.0], rate=rate, duration=20)
        assert counts(told, "due", "labelled") == (round(20 * rate),) * 2


def test_p99_is_told_where_a_hundred_samples_can_tell_it():
    few, many = (fed([0.01], rate=100, duration=n)[0].values() for n in (0.5, 2))
    assert "p99_ms" not in few["latency"]
    assert "jitter_p99_ms" not in few
    assert many["latency"]["p99_ms"] == pytest.approx(10)
    assert many["jitter_p99_ms"] == pytest.approx(0, abs=1e-3)


def test_it_holds_its_rate_by_the_real_clock():
    seen = []
    predictor = predictor_that_takes([0.001], time.sleep, seen)
    start = time.perf_counter()
    told = feed(predictor.predict, IMAGES, rate=50, seconds=0.5)
    assert 0.48 <= time.perf_counter() - start < 1.5
    assert told.due == 25
    assert len(told.latencies) == len(seen)
    assert min(told.latencies) >= 0.001  # no frame is labelled before it is due


def test_the_command_writes_a_line_for_each_rate(artefact, tmp_path, run):
    out = tmp_path / "paced.jsonl"
    argv = ["--runtime", "onnxruntime", "--size", "96x128", "--rate", "20,40", "--seconds", "0.2"]
    done = run("benchmark", "paced", artefact, *argv, "--deadline", "1000", "--json", out)
    assert done.code == 0, done.err
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["setting"]["rate_per_s"] for each in found] == [20, 40]
    for each, due in zip(found, (4, 8), strict=True):
        values = each["values"]
        assert values["due_frames"] == due
        assert values["labelled_frames"] + values["dropped_frames"] == due
        assert each["scope"] == "due-to-labels"
        assert each["setting"]["deadline_ms"] == 1000
    assert "due-to-labels" in done.out


@pytest.mark.parametrize("rate", ["0", "-1", "fast", "nan", "10,,20", "inf"])
def test_a_rate_is_a_number_above_zero(rate, artefact, run):
    done = run("benchmark", "paced", artefact, f"--rate={rate}")
    assert done.code == 2
    assert "is not a number above 0" in done.err
