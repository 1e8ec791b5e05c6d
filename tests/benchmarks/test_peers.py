"""Peers: each does our job before it is timed, and says what it is."""

import functools
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from icnet_deploy.benchmarks.peers.pytorch import open_pytorch
from icnet_deploy.benchmarks.peers.registry import PEERS, Peer, open_peer
from icnet_deploy.benchmarks.peers.runtimes import (
    benchmark_app,
    open_bare_openvino,
    open_onnxruntime,
    open_openvino,
    values_of_report,
)
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import (
    BackendError,
    CheckFailed,
    DeviceError,
    ImageError,
    InputError,
    MissingPackage,
    ModelError,
    UnavailableError,
)
from icnet_deploy.evaluation.float_network import OnnxNetwork, PytorchNetwork
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.files import sha256
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.networks.own.opened import open_network
from icnet_deploy.networks.own.request import NetworkRequest
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import Subject
from tests.fakes.own_modules import FIVE, build

SIZE = (96, 128)
BARE = ["openvino-bare", "openvino-bare-core"]

RECORDED = {  # by benchmark_app of OpenVINO 2026.4.1, options and set-up cut
    "configuration_setup": {"target device": "CPU", "API": "sync", "batch size": "1"},
    "execution_results": {
        "read model time (ms)": "87.63",
        "reshape model time (ms)": "30.47",
        "compile model time (ms)": "932.61",
        "first inference time (ms)": "532.29",
        "total execution time (ms)": "3169.99",
        "total number of iterations": "16",
        "latency (ms)": "196.88",
        "avg latency": "197.35",
        "min latency": "151.08",
        "max latency": "251.06",
        "throughput": "5.05",
    },
}


@pytest.fixture(scope="module")
def image():
    return draw_scene((3, 1), SIZE).image


@pytest.fixture(scope="module")
def expected(checkpoint, image):
    return Reference(checkpoint, SIZE).labels(image)


def test_every_peer_that_labels_images_gives_our_label_map(
    checkpoint, labels_graph, image, expected
):
    opened = [
        open_pytorch("pytorch", checkpoint, 1),
        open_pytorch("pytorch-channels-last", checkpoint, 1),
        open_onnxruntime("onnxruntime", labels_graph, SIZE, 1),
        open_openvino("openvino", labels_graph, SIZE, 1),
    ]
    for each in opened:
        with each as peer:
            labels = peer.answer(image)
            assert (labels.dtype, labels.shape) == (np.uint8, SIZE), peer
            assert np.mean(labels == expected) > 0.999, peer
            assert set(peer.label(image)) == {"total"}
            assert peer.label(image)["total"] > 0
            assert peer.scope == "image-to-labels"


def test_half_precision_is_nearly_the_same_and_says_so(checkpoint, image, expected):
    with open_pytorch("pytorch-fp16", checkpoint, 1) as peer:
        assert peer.facts["precision"] == "fp16"
        assert np.mean(peer.answer(image) == expected) > 0.98
        half = peer.answer(image)
    with open_pytorch("pytorch-fp16", checkpoint, 1, head="logits") as peer:
        logits = peer.answer(image)
        assert (logits.dtype, logits.shape) == (np.float16, (19, 24, 32))
    assert half.dtype == np.uint8


def test_a_device_that_is_not_there_is_refused(checkpoint):
    for device, kind in (("tpu", InputError), ("cuda", DeviceError)):
        if device == "cuda" and torch.cuda.is_available():
            continue
        with pytest.raises(kind, match=device.replace("cuda", "CUDA")):
            open_pytorch("pytorch", checkpoint, 1, device).__enter__()


def test_torch_compile_takes_all_of_it_in_one_graph(checkpoint, image, expected, monkeypatch):
    graphs = []

    def backend(graph, _inputs):  # in place of the C++ compiler, which takes half a minute
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    with open_pytorch("torch-compile", checkpoint, 1) as peer:
        assert np.mean(peer.answer(image) == expected) > 0.999
        peer.answer(image)
    assert len(graphs) == 1
    names = " ".join(str(node.target) for node in graphs[0].graph.nodes)
    assert "argmax" in names
    assert "interpolate" in names


def test_torch_compile_without_a_compiler_says_so(checkpoint, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with (
        pytest.raises(UnavailableError, match="there is no no-such-compiler"),
        open_peer("torch-compile", None, SIZE, 1, weights=checkpoint),
    ):
        pass


def test_channels_last_is_so(checkpoint, image, monkeypatch):
    seen = []
    plain = torch.nn.functional.conv2d

    def conv2d(x, weight, *rest):
        seen.append([t.is_contiguous(memory_format=torch.channels_last) for t in (x, weight)])
        return plain(x, weight, *rest)

    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    with open_pytorch("pytorch-channels-last", checkpoint, 1) as peer:
        peer.answer(image)
    assert seen[0] == [True, True]
    seen.clear()
    with open_pytorch("pytorch", checkpoint, 1) as peer:
        peer.answer(image)
    assert seen[0] == [False, False]


def test_threads_are_those_asked_for_and_put_back(checkpoint, labels_graph):
    before = torch.get_num_threads()
    with open_peer("pytorch", None, SIZE, before + 1, weights=checkpoint) as subject:
        assert subject.facts["threads"] == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with open_peer("openvino", labels_graph, SIZE, 1, weights=checkpoint) as subject:
        assert subject.facts["threads"] == 1


def test_an_artefact_with_labels_is_run_as_it_is(checkpoint, labels_graph, image):
    with open_peer("onnxruntime", labels_graph, SIZE, 1, weights=checkpoint) as subject:
        assert subject.facts == {
            "name": "onnxruntime",
            "file": "labels.onnx",
            "sha256": sha256(labels_graph),
            "precision": "fp32",
            "runtime": "onnxruntime",
            "device": "cpu",
            "threads": 1,
        }
        assert subject.label(image)["total"] > 0
        with pytest.raises(ImageError, match="96 x 128 x 3; got uint8 of shape"):
            subject.label(image[:64])


def test_any_other_artefact_is_exported_with_labels_once(artefact, checkpoint, labels_graph):
    made = []

    def export(opened, out, size):
        made.append((opened.path, size))
        out.write_bytes(labels_graph.read_bytes())

    for name in ("onnxruntime", "openvino"):
        for given in (artefact, None):
            with open_peer(name, given, SIZE, 1, weights=checkpoint, export=export) as subject:
                assert subject.facts["file"] == "random-labels.onnx"
    assert made == [(checkpoint, SIZE)]


@pytest.mark.parametrize("name", BARE)
def test_a_bare_peer_is_our_network_alone(name, artefact, image):
    with Predictor.from_onnx(artefact, "openvino", "cpu") as predictor:
        ours = predictor.predict(image).labels
    with open_bare_openvino(name, artefact, SIZE, 1) as peer:
        assert np.mean(peer.answer(image) == ours) > 0.999
    with open_peer(name, artefact, SIZE, 1) as subject:
        assert subject.scope == "network"
        assert subject.facts["name"] == f"random, {name}"
        assert subject.facts["precision"] == read_onnx_metadata(artefact).precision
        assert subject.label(image)["total"] > 0


def test_the_clock_of_a_bare_peer_is_around_the_inference_alone(artefact, image, monkeypatch):
    import openvino

    order = []
    plain = openvino.InferRequest.infer

    def infer(self, *args, **options):
        order.append(list(self.get_input_tensor().shape))
        return plain(self, *args, **options)

    def clock():
        order.append("clock")
        return 0.0

    monkeypatch.setattr(openvino.InferRequest, "infer", infer)
    with open_bare_openvino("openvino-bare-core", artefact, SIZE, 1, clock) as peer:
        peer.label(image)
    raw, planes = [1, *SIZE, 3], [1, 3, *SIZE]
    assert order == [raw, "clock", planes, "clock"]


def test_nothing_is_cut_off_a_graph_without_preprocessing(describe):
    def other(graph):
        graph.input[0].type.tensor_type.elem_type = 1  # float32, so that Relu takes it
        cast = next(node for node in graph.node if "image" in node.input)
        cast.op_type = "Relu"
        del cast.attribute[:]

    path = describe("other.onnx", other)
    with (
        pytest.raises(ModelError, match="no preprocessing after its input: use openvino-bare"),
        open_bare_openvino("openvino-bare-core", path, SIZE, 1),
    ):
        pass


def test_a_peer_that_does_another_job_is_not_timed(checkpoint):
    @contextmanager
    def upside_down(name, weights, threads, device):
        with open_pytorch(name, weights, threads, device) as peer:
            yield replace(peer, answer=lambda image: peer.answer(image)[::-1])

    peers = {"pytorch": Peer("upside down", "weights", upside_down)}
    with (
        pytest.raises(CheckFailed, match=r"pytorch labels .* so it is not timed"),
        open_peer("pytorch", None, SIZE, 1, weights=checkpoint, peers=peers),
    ):
        pass


def test_a_failure_is_told_as_ours(checkpoint):
    def fails(image):
        raise RuntimeError("out of memory")

    @contextmanager
    def failing(name, weights, threads, device):
        yield Subject({"name": name}, fails, answer=fails)

    peers = {"failing": Peer("it fails", "weights", failing)}
    with (
        pytest.raises(BackendError, match="failing failed as it ran: out of memory"),
        open_peer("failing", None, SIZE, 1, weights=checkpoint, peers=peers),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("caffe", "'caffe' is not a peer; peers that take turns: pytorch, "),
        ("benchmark_app", "times itself and takes no turns"),
        ("openvino-bare", "needs an artefact: name an ONNX file"),
    ],
)
def test_a_wrong_request(name, message):
    with pytest.raises(InputError, match=message), open_peer(name, None, SIZE):
        pass


def test_an_artefact_of_other_weights_is_refused(describe, checkpoint):
    other = describe("other.onnx", weights_sha256="0" * 64)
    with (
        pytest.raises(InputError, match=r"other.onnx was not made from the checkpoint"),
        open_peer("pytorch", other, SIZE, 1, weights=checkpoint),
    ):
        pass


@pytest.fixture(scope="module")
def own(one_thread):
    """A network of a user's own, and a folder's worth of what it is exported to."""
    expects = {"mean": [104, 117, 124], "scale": [1 / 60] * 3, "channels": "bgr"}
    request = NetworkRequest("tests.fakes.own_modules:five", {}, None, FIVE, expects)
    return PytorchNetwork(open_network(request, (64, 96)))


def test_a_network_of_ones_own_is_run_in_pytorch(own, tmp_path):
    artefact = build(tmp_path / "a.onnx", own.checkpoint)
    with open_peer("pytorch", artefact, (64, 96), 1, weights=own) as subject:
        assert subject.facts["sha256"] == own.checkpoint.sha256
        assert subject.facts["file"] == "tests.fakes.own_modules:five"
    with open_peer("pytorch-fp16", None, (64, 96), 1, weights=own):
        pass
    assert own.checkpoint.network.module.last.weight.dtype == torch.float32  # it ran a copy
    labels = build(tmp_path / "l.onnx", own.checkpoint, head="labels")
    for name in ("onnxruntime", "openvino"):
        with open_peer(name, labels, (64, 96), 1, weights=own) as subject:
            assert subject.facts["file"] == "l.onnx"

    made = []

    def export(checkpoint, out, size):
        made.append((checkpoint, out.name, size))
        build(out, checkpoint, size, "labels")

    with open_peer("onnxruntime", artefact, (64, 96), 1, weights=own, export=export):
        pass
    assert made == [(own.checkpoint, "five-labels.onnx", (64, 96))]


def test_what_a_peer_cannot_do_with_an_onnx_file_alone_is_said(own, tmp_path):
    artefact = build(tmp_path / "a.onnx", own.checkpoint)
    labels = build(tmp_path / "l.onnx", own.checkpoint, head="labels")
    network = OnnxNetwork(artefact)
    with open_peer("openvino", labels, (64, 96), 1, weights=network) as subject:
        assert subject.facts["file"] == "l.onnx"
    for name, words in (
        ("pytorch", "the reference a.onnx is no PyTorch network: give --network"),
        ("openvino", "also name one that `icnet export --head labels` wrote"),
    ):
        with (
            pytest.raises(InputError, match=words),
            open_peer(name, artefact, (64, 96), 1, weights=network),
        ):
            pass


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_missing_package_is_named(name, labels_graph, checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with (
        pytest.raises(MissingPackage, match=f"{name!r}, which is not installed"),
        open_peer(name, labels_graph, SIZE, 1, weights=checkpoint),
    ):
        pass


def test_nothing_heavy_is_imported_before_a_peer_is_opened():
    code = (
        "import sys, icnet_deploy.benchmarks.peers.registry\n"
        "print(*{'torch', 'onnx', 'onnxruntime', 'openvino'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_every_peer_is_told_in_a_sentence():
    assert all(peer.what and bool(peer.open) != bool(peer.time) for peer in PEERS.values())


def test_a_recorded_report_of_benchmark_app_is_read():
    assert values_of_report(RECORDED) == {
        "median_ms": 196.88,
        "mean_ms": 197.35,
        "min_ms": 151.08,
        "max_ms": 251.06,
        "first_ms": 532.29,
    }
    with pytest.raises(BackendError, match=r"does not know .*latency \(ms\)"):
        values_of_report({"execution_results": {"throughput": "5"}})


def test_benchmark_app_runs(artefact):
    found = benchmark_app(artefact, 1, 1)
    assert (found.kind, found.scope) == ("latency", "network")
    assert 0 < found.values["min_ms"] <= found.values["median_ms"] <= found.values["max_ms"]
    assert found.subject["name"] == "random, benchmark_app"
    assert found.subject["threads"] == 1
    assert found.setting["own_process"]
    assert found.setting["size"] == list(SIZE)
    assert found.setting["runs"] > 1


def test_benchmark_app_says_why_it_failed(describe):
    def unknown(graph):
        next(node for node in graph.node if node.op_type == "Conv").op_type = "NoSuchOperator"

    said = "-- Conversion is failed for: Conv|.* rank has to be known"  # newer, older ones
    with pytest.raises(BackendError, match=rf"benchmark_app failed on .*: ({said})"):
        benchmark_app(describe("broken.onnx", unknown), 1, 1)


def test_benchmark_app_needs_a_size(describe):
    with pytest.raises(InputError, match="takes any"):
        benchmark_app(describe("free.onnx", size=None), 1, 1)
