"""Latency: in turn, with a scope, beside peers, and from a folder."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from icnet_deploy.benchmarks.measurement import read_measurements
from icnet_deploy.benchmarks.peers.registry import PEERS, Peer, open_peers, peer_names, time_outside
from icnet_deploy.benchmarks.subjects import open_artefact
from icnet_deploy.errors import BackendError, CheckFailed
from icnet_deploy.evaluation.pairing import Run
from icnet_deploy.files import sha256
from icnet_deploy.networks.own.opened import open_network
from icnet_deploy.networks.own.request import NetworkRequest
from icnet_deploy.timing import WARMUP, Subject, measure
from tests.fakes.own_modules import FIVE, build

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SMALL = ("--rounds", "4", "--size", "96x128")


def test_every_model_has_its_row(artefact, tmp_path, run):
    out = tmp_path / "latency.jsonl"
    done = run("benchmark", "latency", artefact, *SMALL, "--json", out, "--threads", 1)
    assert done.code == 0, done.err
    found = read_measurements(out)
    assert [each.subject["runtime"] for each in found] == ["onnxruntime", "openvino"]
    for each in found:
        assert (each.kind, each.scope, each.name) == ("latency", "image-to-labels", "random")
        assert each.setting == {"size": [96, 128], "batch": 1, "warmup": WARMUP, "rounds": 4}
        assert (each.subject["sha256"], each.subject["threads"]) == (sha256(artefact), 1)
        samples = each.values["total"]["samples_ms"]
        assert len(samples) == 4
        assert each.values["total"]["median_ms"] == pytest.approx(np.median(samples), abs=0.01)
        stages = [told["samples_ms"] for stage, told in each.values.items() if stage != "total"]
        assert np.allclose(np.sum(stages, axis=0), samples, atol=0.01)
    assert "of 4 runs each, in turn, after 3 warm-up runs" in done.out
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
        open_artefact(Run(artefact, "onnxruntime", "cpu"), 1) as good,
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


@pytest.mark.parametrize("lead_in", [0, 1])
def test_images_are_taken_in_turn_and_are_the_same_for_all(lead_in):
    seen = {"a": [], "b": []}
    order = []

    def labels(name):
        def label(image):
            order.append(name)
            seen[name].append(int(image[0, 0, 0]))
            return {"total": float(len(order))}

        return label

    images = [np.full((2, 2, 3), value, np.uint8) for value in (5, 6)]
    subjects = [Subject({"name": name}, labels(name)) for name in seen]
    rows = measure(subjects, images, 3, lead_in)
    turns = [*(6, 5), *(5, 6), *(6, 5)] if lead_in else [5, 6, 5]
    assert seen["a"] == seen["b"] == [5, 6, 5, *turns]
    runs = 1 + lead_in
    assert order == ["a"] * WARMUP + ["b"] * WARMUP + (["a"] * runs + ["b"] * runs) * 3
    last = [2 * WARMUP + runs * turn for turn in range(1, 7)]  # of each turn, which is counted
    assert [1e3 * s for s in rows[0].stages["total"]] == pytest.approx(last[::2])
    assert [1e3 * s for s in rows[1].stages["total"]] == pytest.approx(last[1::2])


def test_peers_take_turns_and_who_cannot_is_left_out_with_a_sentence(
    labels_graph, checkpoint, tmp_path, run, monkeypatch
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    out = tmp_path / "out.jsonl"
    names = "torch-compile,onnxruntime,openvino-bare"
    options = ("--runtime", "openvino", "--peers", names, "--threads", 2, "--json", out)
    done = run("benchmark", "latency", labels_graph, *SMALL, *options, "--weights", checkpoint)
    assert done.code == 0, done.err
    rows = [(each.name, each.scope, each.subject["threads"]) for each in read_measurements(out)]
    assert rows == [
        ("labels", "image-to-labels", 2),
        ("onnxruntime", "image-to-labels", 2),
        ("labels, openvino-bare", "network", 2),
    ]
    assert "torch-compile is left out: torch.compile needs a C++ compiler" in done.err
    assert "across scopes: labels on openvino, cpu, 2 threads (image-to-labels) takes" in done.out


def test_the_network_of_the_peers_is_named_or_found(tmp_path, run):
    expects = {"mean": [104, 117, 124], "scale": [1 / 60] * 3, "channels": "bgr"}
    request = NetworkRequest("tests.fakes.own_modules:five", {}, None, FIVE, expects)
    path = build(tmp_path / "own.onnx", open_network(request, (64, 96)))
    small = ("--rounds", "2", "--size", "64x96", "--runtime", "onnxruntime", "--peers")
    out = tmp_path / "out.jsonl"
    network = ("--network", request.factory, "--json", out)
    done = run("benchmark", "latency", path, *small, "pytorch", *network)
    assert done.code == 0, done.err
    assert [each.name for each in read_measurements(out)] == ["own", "pytorch"]
    done = run("benchmark", "latency", path, *small, "pytorch")
    assert done.code == 2
    assert "the reference own.onnx is no PyTorch network: give --network" in done.err


def test_a_peer_that_was_named_alone_must_run(artefact, checkpoint, run, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    options = ("--weights", checkpoint, "--peers")
    for name, words in (
        ("torch-compile", "needs a C++ compiler"),
        ("nosuch", "no peer nosuch; known: py"),
    ):
        done = run("benchmark", "latency", artefact, *SMALL, *options, name)
        assert done.code == 2
        assert words in done.err


def test_a_whole_peer_gets_the_file_that_makes_its_labels(artefact, labels_graph):
    opened = []

    @contextmanager
    def open_one(name, path, size, threads, *, weights, device):
        opened.append((name, path, device))
        yield Subject({"name": name}, lambda image: {"total": 2.0})

    runs = [Run(artefact, "openvino", "cpu"), Run(labels_graph, "openvino", "cpu")]
    names = peer_names("onnxruntime,openvino-bare")
    how = {"size": (96, 128), "device": "cuda", "open_one": open_one}
    with ExitStack() as stack:
        assert len(open_peers(names, runs, stack, **how)) == 3
        open_peers(names, runs[:1], stack, **how)
    assert opened == [
        ("onnxruntime", labels_graph, "cpu"),  # it runs nowhere else
        ("openvino-bare", artefact, "cpu"),
        ("openvino-bare", labels_graph, "cpu"),
        ("onnxruntime", artefact, "cpu"),  # which tells whose weights
        ("openvino-bare", artefact, "cpu"),
    ]


def test_all_is_every_peer_and_those_that_time_themselves_run_before(monkeypatch, artefact):
    def alone(path, seconds, threads):
        return (path.name, threads)

    monkeypatch.setitem(PEERS, "benchmark_app", Peer("a tool", "artefact", time=alone))
    here = [name for name, peer in PEERS.items() if "cpu" in peer.devices]
    assert peer_names("all") == here
    assert peer_names("all", "cuda") == list(PEERS)
    runs = [Run(artefact, runtime, "cpu") for runtime in ("onnxruntime", "openvino")]
    assert time_outside(here, runs, (96, 128), 2) == [("random.onnx", 2)]


def test_a_folder_stands_for_what_is_fastest_in_it(release, artefact, tmp_path, run):
    out = tmp_path / "out.jsonl"
    options = ("--precision", "fp32", "--json", out, "--threads", 1)
    done = run("benchmark", "latency", release, artefact, "--runtime", "openvino", *SMALL, *options)
    assert done.code == 0, done.err
    file, chosen = read_measurements(out)
    assert (file.name, file.subject.get("auto")) == ("random", None)
    assert (chosen.name, chosen.subject["auto"]) == ("auto: street", True)
    assert (chosen.subject["file"], chosen.subject["runtime"]) == ("street.onnx", "openvino")
    done = run("benchmark", "latency", release, *SMALL, "--precision", "fp16")
    assert done.code == 2
    assert "fp16" in done.err


def test_the_plot_and_the_report_come_with_it(artefact, tmp_path, run):
    recorded = json.loads((RESULTS / "parity-scenes-1024x2048.json").read_text())
    row = recorded["rows"][0] | {"artefact": artefact.name, "sha256": sha256(artefact)}
    parity, plot = tmp_path / "parity.json", tmp_path / "plot.svg"
    parity.write_text(json.dumps(recorded | {"rows": [row], "references": []}))
    options = ("--miou", parity, "--plot", plot, "--report", tmp_path / "report.html")
    done = run("benchmark", "latency", artefact, *SMALL, *options)
    assert done.code == 0, done.err
    assert plot.read_text().count("<circle") == 2
    assert "Frames a second against mIoU" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--plot", "plot.svg"), "with --miou"),
        (("--miou", "no.json"), "cannot read no.json"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(run, options, words):
    done = run("benchmark", "latency", "no-such-file.onnx", *options)
    assert done.code == 2
    assert words in done.err


def test_a_missing_file_and_images_of_two_sizes_are_one_line(artefact, tmp_path, run):
    from icnet_deploy.images import write_image

    assert "there is no" in run("benchmark", "latency", tmp_path / "no.onnx", *SMALL).err
    for side in (64, 96):
        write_image(tmp_path / f"{side}.png", np.zeros((side, 96, 3), np.uint8))
    images = ("--image", tmp_path / "64.png", "--image", tmp_path / "96.png")
    done = run("benchmark", "latency", artefact, *images)
    assert done.code == 2
    assert "2 sizes (64x96, 96x96)" in done.err
