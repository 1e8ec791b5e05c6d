"""The paper's tables on two narrow networks at 96x128: what is measured, and what is told of it."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import statistics
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from tqdm import tqdm

from icnet_deploy.benchmarks.paper import networks as paper_networks
from icnet_deploy.benchmarks.paper.command import run as run_paper
from icnet_deploy.benchmarks.paper.measure import fits, measure, time_in_turn
from icnet_deploy.benchmarks.paper.networks import NETWORKS, TABLES, build, networks_of, tables_of
from icnet_deploy.benchmarks.paper.tables import markdown, result_tables, statement
from icnet_deploy.benchmarks.paper.worker import Job, Worker, open_network
from icnet_deploy.data import ConfusionMatrix, open_dataset
from icnet_deploy.errors import BackendError, DeviceError, pip_install
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.files import sha256
from icnet_deploy.runtime.backends.onnxruntime.session import cuda_works

SIZE = (96, 128)
PAIR = ("pspnet50-half", "sub124")


@pytest.fixture
def narrow(monkeypatch):
    """Table 4 has two networks, an eighth as wide as the full ones."""
    for name in PAIR:
        network = NETWORKS[name]
        thin = paper_networks.PaperNetwork(
            network.title, {**network.description, "width": 0.125}, network.paper
        )
        monkeypatch.setitem(NETWORKS, name, thin)
    table = paper_networks.PaperTable((4,), "Table 4", PAIR, PAIR[0])
    monkeypatch.setattr(paper_networks, "TABLES", (table,))


class Recording(Worker):
    """Notes whose turn it was."""

    turns: ClassVar[list[int]] = []

    def turn(self):
        self.turns.append(self.pid)
        return super().turn()


@pytest.fixture(scope="module")
def cache():
    return {}


@pytest.fixture
def measured(narrow, cache, artefact, checkpoint, scenes, tmp_path_factory):
    """One run of the command, and the order in which the processes had their turns."""
    if not cache:
        folder = tmp_path_factory.mktemp("paper")
        Recording.turns = []

        def export(out, weights, size, head):
            assert (weights, size, head) == (checkpoint, SIZE, "logits")  # as the artefact's were
            shutil.copy(artefact, out)

        out, page = folder / "paper.json", folder / "paper.html"
        argv = [
            *("--table", 4, "--runtime", "onnxruntime", "--runs", 3, "--size", "96x128"),
            *("--threads", 1, "--checkpoint", f"sub124={checkpoint}"),
            *("--dataset", "scenes", "--data", scenes, "--json", out, "--report", page),
        ]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            measure_all = partial(measure, open_worker=Recording, export=export)
            assert run_paper([str(each) for each in argv], measure_all) == 0
        result = json.loads(out.read_text())
        cache["all"] = (result, printed.getvalue(), page.read_text(), Recording.turns)
    return cache["all"]


def test_the_networks_run_in_turn(measured):
    result, _, _, order = measured
    assert len(set(order)) == 2
    assert order == order[:2] * 3
    assert result["open_together"] is True
    assert "the networks take turns" in result["scope"]["order"]


def test_the_json_has_raw_samples_versions_and_scopes(measured):
    result = measured[0]
    assert (result["schema"], result["kind"]) == (1, "paper")
    assert (result["runtime"], result["device"], result["threads"]) == ("onnxruntime", "cpu", 1)
    assert (result["size"], result["batch"], result["tables"]) == ([96, 128], 1, [4])
    assert {"onnxruntime", "python", "icnet-deploy"} <= set(result["versions"])
    assert result["machine"]["cores"] >= 1
    assert {"time", "memory", "graph", "weights"} <= set(result["scope"])
    assert set(result["networks"]) == set(PAIR)
    for found in result["networks"].values():
        samples = found["time"]["samples_ms"]
        assert len(samples) == found["time"]["runs"] == 3
        assert found["time"]["median_ms"] == pytest.approx(statistics.median(samples), abs=0.002)
        assert min(samples) <= found["time"]["p10_ms"] <= found["time"]["p90_ms"] <= max(samples)
        assert 1e5 < found["memory_bytes"] < 1e8
        assert found["failure"] is None


def test_a_network_is_scored_where_a_checkpoint_is_given_alone(measured, checkpoint, scenes):
    result, out, _, _ = measured
    reference, matrix = Reference(checkpoint, SIZE), ConfusionMatrix(19)
    for sample in open_dataset("scenes", scenes):
        matrix.add(reference.labels(sample.image), sample.labels)
    expected = 100 * matrix.miou()
    found = result["networks"]["sub124"]
    assert found["score"]["miou_percent"] == pytest.approx(expected, abs=0.01)
    assert found["score"]["protocol"]["images"] == 3
    assert found["checkpoint"] == {"file": checkpoint.name, "sha256": sha256(checkpoint)}
    assert result["networks"]["pspnet50-half"]["score"] is None
    assert re.search(rf"^sub124 = ICNet +{expected:.1f} +67\.7 ", out, re.MULTILINE)
    assert re.search(r"^PSPNet50, half the kernels +- +67\.9 ", out, re.MULTILINE)


def test_every_number_stands_beside_the_papers(measured):
    result = measured[0]
    (table,) = result_tables(result).values()
    time = {name: result["networks"][name]["time"]["median_ms"] for name in PAIR}
    row = table.rows[1]
    cells = {}
    for column, cell in zip(table.header, row, strict=True):
        cells.setdefault(column, []).append(cell)
    assert cells["paper"] == ["67.7", "33", "30.3", "5.2", "1.6"]
    assert cells["ms"] == [f"{time['sub124']:.1f}"]
    assert cells["frames/s"] == [f"{1e3 / time['sub124']:.2f}"]
    assert cells["speed-up"] == [f"{time['pspnet50-half'] / time['sub124']:.1f}"]


def test_the_statement_follows_from_the_numbers(measured):
    result = json.loads(json.dumps(measured[0]))
    told, networks = result["comparison"], result["networks"]
    assert told["memory_ratio"] == pytest.approx(
        networks["pspnet50-half"]["memory_bytes"] / networks["sub124"]["memory_bytes"], abs=1e-3
    )
    for times, words in ((5.3, "5.2 is reached"), (5.1, "5.2 is not reached")):
        networks["pspnet50-half"]["time"]["median_ms"] = times
        networks["sub124"]["time"]["median_ms"] = 1.0
        assert words in statement(result)[0]
    for share, words in ((5.9, "5.8 is reached"), (4.0, "5.8 is not reached")):
        networks["pspnet50-half"]["memory_bytes"] = int(share * 1e6)
        networks["sub124"]["memory_bytes"] = 1_000_000
        assert words in statement(result)[1]
    networks["sub124"]["time"] = None
    assert statement(result) == []


def test_the_page_and_the_markdown_hold_the_same_table(measured):
    result, _, page, _ = measured
    assert page.startswith("<!doctype html>")
    text = markdown([{"kind": "evaluate"}, result])
    (table,) = result_tables(result).values()
    for cell in table.rows[0]:
        assert f">{cell}</td>" in page
        assert f"| {cell} " in text
    for line in statement(result):
        assert line in text
    assert "clear_refs" not in markdown([]) == "No result is recorded yet.\n"


def test_parameters_and_multiply_adds_are_those_of_the_module(measured, narrow):
    import torch

    network, counted = build("pspnet50-half"), []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda m, _, out: counted.append(out.numel() * m.weight[0].numel())
            )
    with torch.inference_mode():
        network(torch.zeros(1, 3, *SIZE))
    found = measured[0]["networks"]["pspnet50-half"]
    assert found["gmac"] == pytest.approx(sum(counted) / 1e9, abs=1e-3)
    assert found["parameters"] == sum(p.numel() for p in network.parameters())
    assert 0 < found["live_bytes"] < found["kept_bytes"]


def job(artefact, name="sub124", runtime="onnxruntime"):
    return Job(name, runtime, "cpu", 1, SIZE, "logits", artefact, None)


def timed(artefact, names, together, open_worker):
    found = {name: {"failure": None, "time": None} for name in PAIR}
    jobs = {name: job(artefact, name) for name in names}
    with tqdm(disable=True) as bar:
        time_in_turn(jobs, 2, found, together, bar, open_worker)
    return found


def test_a_killed_process_is_told_of_and_the_others_go_on(artefact):
    victims = []

    class Killed(Worker):
        def turn(self):
            if not victims:
                victims.append(self.pid)
                os.kill(self.pid, signal.SIGKILL)
            return super().turn()

    found = timed(artefact, PAIR, True, Killed)
    assert "memory runs out" in found["pspnet50-half"]["failure"]
    assert found["pspnet50-half"]["time"] is None
    assert found["sub124"]["time"]["runs"] == 2


def test_without_the_memory_for_all_each_run_has_a_fresh_process(artefact):
    Recording.turns = []
    found = timed(artefact, ["sub124"], False, Recording)
    assert len(set(Recording.turns)) == found["sub124"]["time"]["runs"] == 2


def test_whether_all_fit():
    assert fits([300, 400], 1000)
    assert not fits([400, 500], 1000)
    assert not fits([1, None], 1000)
    assert not fits([1], None)


def test_a_graph_that_cannot_be_loaded_fails_by_itself(tmp_path):
    with pytest.raises(BackendError, match=r"none\.onnx"):
        Worker(job(tmp_path / "none.onnx"))


@pytest.mark.parametrize("head", ["logits", "labels"])
def test_pytorch_runs_networks_whose_activations_stay_in_scale(narrow, head):
    one = Job("sub124", "pytorch", "cpu", None, SIZE, head, Path("unused"), None)
    with ExitStack() as stack:
        values = open_network(one, stack)()
    if head == "labels":
        assert (values.shape, values.dtype) == (SIZE, np.uint8)
    else:
        assert values.shape == (19, 24, 32)
        assert 1e-2 < values.std() < 1e4
        smallest = np.abs(values[values != 0]).min()
        assert smallest > np.finfo(np.float32).tiny


def test_random_weights_are_the_same_every_time(narrow):
    first, second = (build("sub124").state_dict() for _ in range(2))
    assert all(bool((first[name] == second[name]).all()) for name in first)


def test_the_tables_hold_the_papers_networks():
    assert [t.numbers for t in TABLES] == [(1,), (2,), (3, 4)]
    assert tables_of([3, 4]) == [TABLES[2]]
    assert networks_of(tables_of([1, 2, 3, 4])) == list(NETWORKS)
    widths = [NETWORKS[name].description["width"] for name in TABLES[1].rows]
    assert widths == [1.0, 0.5, 0.25]
    assert [NETWORKS[n].description["downsampling"] for n in TABLES[0].rows] == [8, 16, 32]


@pytest.mark.skipif(cuda_works(), reason="CUDA is here")
@pytest.mark.parametrize("runtime", ["auto", "onnxruntime"])
def test_a_missing_gpu_is_said_before_anything_is_exported(runtime, capsys):
    def begun(*_):
        raise AssertionError("the work has begun")

    with pytest.raises(DeviceError, match="asked for CUDA"):
        run_paper(["--runtime", runtime, "--device", "cuda"], begun)


def test_bad_requests(run, checkpoint, scenes, tmp_path, monkeypatch):
    def wrong(*arguments):
        done = run("benchmark", *arguments)
        assert (done.code, done.out) == (2, ""), done
        assert done.err.count("\n") == 1
        return done.err

    assert "no benchmark 'papers'; known: latency, " in wrong("papers")
    assert "no table 5; known: 1, 2, 3, 4" in wrong("paper", "--table", 5)
    assert "unknown runtime 'abacus'; known: auto, pytorch" in wrong("paper", "--runtime", "abacus")
    assert "unknown device 'tpu'" in wrong("paper", "--runtime", "pytorch", "--device", "tpu")
    data = ("--dataset", "scenes", "--data", scenes)
    assert "scores checkpoints only: give --checkpoint" in wrong("paper", *data)
    assert "--dataset and --data need each other" in wrong("paper", "--dataset", "scenes")
    assert "expected NETWORK=FILE" in wrong("paper", "--checkpoint", checkpoint)
    none = tmp_path / "none.safetensors"
    assert "there is no such file" in wrong("paper", "--checkpoint", f"sub4={none}")
    other = wrong("paper", "--checkpoint", f"sub4={checkpoint}")
    assert "stages sub124, expected sub4" in other
    away = wrong("paper", "--table", 1, "--checkpoint", f"sub4={checkpoint}")
    assert "is in no table that is measured" in away
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert pip_install("openvino") in wrong("paper", "--runtime", "openvino")


def test_help(run):
    done = run("benchmark", "--help")
    assert done.code == 0
    assert re.search(r"^  paper ", done.out, re.MULTILINE)
    assert run("benchmark").code == 2
    done = run("benchmark", "paper", "--help")
    assert done.code == 0
    assert all(name in done.out for name in NETWORKS)
