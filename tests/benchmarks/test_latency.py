"""Latency: in turn, with a scope, beside peers, and from a folder."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from icnet_deploy.benchmarks import subjects as subjects
from icnet_deploy.benchmarks.measurement import read_measurements
from icnet_deploy.benchmarks.peers import chosen as latency_peers
from icnet_deploy.benchmarks.peers.chosen import ChosenPeers
from icnet_deploy.benchmarks.subjects import open_artefact
from icnet_deploy.errors import BackendError, CheckFailed, InputError, MissingPackage
from icnet_deploy.evaluation.pairing import Pair
from icnet_deploy.files import sha256
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import WARMUP, Subject, measure

SMALL = ("--rounds", "4", "--size", "96x128")


def test_models_are_timed_in_turn(artefact, tmp_path, monkeypatch, run):
    order = []
    plain = Predictor.predict

    def seen(self, image):
        order.append(self.runtime)
        return plain(self, image)

    monkeypatch.setattr(Predictor, "predict", seen)
    out = tmp_path / "latency.jsonl"
    done = run("benchmark", "latency", artefact, *SMALL, "--json", out, "--threads", 1)
    assert done.code == 0, done.err
    both = ["onnxruntime", "openvino"]
    warmup = [name for name in both for _ in range(WARMUP)]
    assert order == warmup + [name for name in both for _ in range(2)] * 4  # one of 2 is counted
    found = read_measurements(out)
    assert [each.subject["runtime"] for each in found] == both
    for each in found:
        assert (each.kind, each.scope, each.name) == ("latency", "image-to-labels", "random")
        assert each.setting == {"size": [96, 128], "batch": 1, "warmup": WARMUP, "rounds": 4}
        assert (each.subject["sha256"], each.subject["threads"]) == (sha256(artefact), 1)
        samples = each.values["total"]["samples_ms"]
        assert len(samples) == 4
        assert each.values["total"]["median_ms"] == pytest.approx(np.median(samples), abs=0.01)
        stages = [told["samples_ms"] for stage, told in each.values.items() if stage != "total"]
        assert np.allclose(np.sum(stages, axis=0), samples, atol=0.01)
    assert "4 runs each, in turn, after 3 to warm up" in done.out
    assert "label map in memory" in done.out


def test_one_that_fails_is_named(artefact):
    class Failing:
        calls = 0

        def label(self, image):
            self.calls += 1
            if self.calls > WARMUP:
                raise BackendError("out of memory")
            return {"total": 1.0}

    failing = Subject({"name": "a", "runtime": "a runtime"}, Failing().label)
    with (
        open_artefact(Pair(artefact, "onnxruntime", "cpu"), 1) as good,
        pytest.raises(CheckFailed, match="a on a runtime: out of memory"),
    ):
        measure([good, failing], [np.zeros((96, 128, 3), np.uint8)], 2)


def test_who_was_before_does_not_matter():
    """A run after which a thread goes on for 60 ms, as those of runtimes do, costs itself alone."""
    end = [0.0]

    def busy():
        while time.perf_counter() < end[0]:
            pass

    def spinning(image):
        end[0] = time.perf_counter() + 0.06
        threading.Thread(target=busy, daemon=True).start()
        return {"total": 60.0}

    def disturbed(image):
        return {"total": 1.0 if time.perf_counter() > end[0] else 99.0}

    rows = [Subject({"name": "a"}, spinning), Subject({"name": "b"}, disturbed)]
    _, after = measure(rows, [np.zeros((2, 2, 3), np.uint8)], 2)
    assert after.stages["total"] == [0.001, 0.001]


def test_images_are_taken_in_turn_and_are_the_same_for_all():
    seen = {"a": [], "b": []}

    def labels(name):
        return lambda image: seen[name].append(int(image[0, 0, 0])) or {"total": 1.0}

    images = [np.full((2, 2, 3), value, np.uint8) for value in (5, 6)]
    measure([Subject({"name": name}, labels(name)) for name in seen], images, 3)
    assert seen["a"] == seen["b"] == [5, 6, 5, *(6, 5), *(5, 6), *(6, 5)]


@pytest.fixture
def peers(monkeypatch):
    """Peers that take 2 ms, or say why they cannot run here; what each was opened with."""
    opened = []
    missing = MissingPackage("torch", extra="benchmark", purpose="the peer pytorch")
    broken = {"pytorch": missing, "torch-compile": InputError("no compiler")}

    @contextmanager
    def open_peer(name, artefact, size, threads, *, weights):
        if name in broken:
            raise broken[name]
        opened.append((name, artefact, size, threads))
        scope = "network" if "bare" in name else "image-to-labels"
        subject = {"name": name, "runtime": name, "sha256": artefact and sha256(artefact)}
        yield Subject(subject, lambda image: {"total": 2.0}, scope)

    monkeypatch.setattr(latency_peers, "open_peer", open_peer)
    return opened


def test_peers_take_turns_and_who_cannot_is_left_out_with_a_sentence(peers, artefact, run):
    names = "pytorch,onnxruntime,openvino-bare"
    options = ("--runtime", "openvino", "--peers", names, "--threads", 2)
    done = run("benchmark", "latency", artefact, *SMALL, *options)
    assert done.code == 0, done.err
    assert [(name, size, threads) for name, _, size, threads in peers] == [
        ("onnxruntime", (96, 128), 2),
        ("openvino-bare", (96, 128), 2),
    ]
    assert peers[1][1] == artefact
    assert "pytorch is left out: the peer pytorch needs the package 'torch'" in done.err
    assert "across scopes: random on openvino, cpu, 2 threads (image-to-labels) takes" in done.out


def test_a_peer_that_was_named_alone_must_run(peers, artefact, run):
    for name, words in (("pytorch", "needs the package"), ("nosuch", "no peer nosuch; known: py")):
        done = run("benchmark", "latency", artefact, *SMALL, "--peers", name)
        assert done.code == 2
        assert words in done.err


def test_a_whole_peer_gets_the_file_that_makes_its_labels(peers, artefact, describe):
    whole = describe("labels.onnx", head="labels")
    pairs = [Pair(artefact, "openvino", "cpu"), Pair(whole, "openvino", "cpu")]
    chosen = ChosenPeers.from_text("onnxruntime,openvino-bare", (96, 128), None, None)
    with ExitStack() as stack:
        assert len(chosen.open(pairs, stack)) == 3
        chosen.open(pairs[:1], stack)
    assert [(name, path) for name, path, _, _ in peers] == [
        ("onnxruntime", whole),
        ("openvino-bare", artefact),
        ("openvino-bare", whole),
        ("onnxruntime", artefact),  # which tells whose weights
        ("openvino-bare", artefact),
    ]


def test_all_is_every_peer_and_those_that_time_themselves_run_before(monkeypatch, artefact):
    def alone(path, seconds, threads):
        return (path.name, threads)

    monkeypatch.setattr(latency_peers, "OUTSIDE", {"benchmark_app": alone})
    chosen = ChosenPeers.from_text("all", (96, 128), 2, None)
    assert chosen.names == tuple(latency_peers.PEERS)
    pairs = [Pair(artefact, runtime, "cpu") for runtime in ("onnxruntime", "openvino")]
    assert chosen.outside(pairs) == [("random.onnx", 2)]


def test_a_folder_stands_for_what_is_fastest_in_it(artefact, tmp_path, monkeypatch, run):
    asked = []

    def from_folder(folder, runtime, device, threads, *, precision):
        asked.append((folder, runtime, precision))
        predictor = Predictor.from_onnx(artefact, "openvino", "cpu", threads)
        predictor.choice = SimpleNamespace(winner=SimpleNamespace(file=artefact.name))
        return predictor

    monkeypatch.setattr(subjects.Predictor, "from_folder", from_folder)
    out = tmp_path / "out.jsonl"
    options = ("--precision", "fp32", "--precision", "int8", "--json", out)
    done = run("benchmark", "latency", artefact.parent, *SMALL, *options)
    assert done.code == 0, done.err
    assert asked == [(artefact.parent, "auto", "fp32"), (artefact.parent, "auto", "int8")]
    for each in read_measurements(out):
        assert each.name == "auto: random"
        assert each.subject["auto"] is True
        assert (each.subject["file"], each.subject["runtime"]) == (artefact.name, "openvino")


def test_the_plot_and_the_report_come_with_it(artefact, scenes, checkpoint, tmp_path, run):
    parity, plot = tmp_path / "parity.json", tmp_path / "plot.svg"
    data = ("--dataset", "scenes", "--data", scenes, "--limit", 1)
    assert run("parity", artefact, "--weights", checkpoint, *data, "--json", parity).code == 0
    options = ("--miou", parity, "--plot", plot, "--report", tmp_path / "report.html")
    done = run("benchmark", "latency", artefact, *SMALL, *options)
    assert done.code == 0, done.err
    assert plot.read_text().count("<circle") == 2
    assert "Frames a second against mIoU" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--plot", "plot.svg"), "with --miou"),
        (("--miou", "no.json"), "cannot read mIoU from no.json"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(artefact, run, monkeypatch, options, words):
    monkeypatch.setattr("icnet_deploy.benchmarks.modes.latency.measure", None)
    done = run("benchmark", "latency", artefact, *options)
    assert done.code == 2
    assert words in done.err


def test_a_missing_file_and_images_of_two_sizes_are_one_line(artefact, tmp_path, run):
    from icnet_deploy.images import write_image

    assert "there is no" in run("benchmark", "latency", tmp_path / "no.onnx").err
    for side in (64, 96):
        write_image(tmp_path / f"{side}.png", np.zeros((side, 96, 3), np.uint8))
    images = ("--image", tmp_path / "64.png", "--image", tmp_path / "96.png")
    done = run("benchmark", "latency", artefact, *images)
    assert done.code == 2
    assert "2 sizes (64x96, 96x96)" in done.err
