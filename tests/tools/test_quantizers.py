"""The comparison of quantizers: what is made, scored, timed and judged."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from fake_backend import FakeBackend
from onnx import TensorProto, helper
from tiny_model import build_model

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.errors import BackendError, InputError
from icnet_deploy.files import sha256
from icnet_deploy.labels import LabelSet
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import TensorSpec
from tools.quantizers import make, record, scores, settings, tables, times, verdicts
from tools.quantizers.__main__ import main
from tools.quantizers.folder import Made, Network, file_digest, made
from tools.quantizers.scores import FLOAT, Scored, Scores
from tools.quantizers.settings import OURS, RECIPES, Recipe, recipes
from tools.quantizers.verdicts import Timed

CLASSES = LabelSet("two", ("road", "sky"), ((0, 0, 0), (1, 1, 1)))
METADATA = ArtefactMetadata(CLASSES, (8, 10), "logits", "fp32", upsampling="none")
WORKERS = Path(make.__file__).parent / "workers"


def brightness(wrong):
    """Says the class of a pixel by its brightness, and errs in some."""

    def network(feed):
        if wrong is None:
            raise BackendError("no kernel for it\nand more")
        sky = (feed["image"][..., 0] > 127).astype(np.float32)
        sky[:, 0, :wrong] = 1 - sky[:, 0, :wrong]
        return {"logits": np.stack([1 - sky, sky], axis=1)}

    image = TensorSpec("image", (1, 8, 10, 3), np.dtype(np.uint8))
    logits = TensorSpec("logits", (1, 2, 8, 10), np.dtype(np.float32))
    return FakeBackend((image,), (logits,), network)


class Street(Dataset):
    """Two images of two classes."""

    def __len__(self):
        return 2

    def __iter__(self):
        image = np.zeros((8, 10, 3), np.uint8)
        image[4:] = 255
        for name in ("one", "two"):
            yield Sample(name, image, (image[..., 0] > 127).astype(np.uint8))


STREET = Street("two", "val", CLASSES, (), lambda path: None)


@pytest.fixture
def network(tmp_path):
    model = tmp_path / "street-fp32.onnx"
    model.write_bytes(b"float32")
    folder = tmp_path / "peers" / "street"
    folder.mkdir(parents=True)
    data = ("--dataset", "folder", "--data", "streets", "--limit", "2")
    one = Network(folder, model, sha256(model), data, 8, 4)
    one.write()
    np.save(one.images, np.zeros((8, 8, 10, 3), np.uint8))
    return one


WRONG = {"ours": 1, "peer": 2, "slow": 0, "lame": None}


@pytest.fixture
def opened(monkeypatch, network):
    """A file's stem says in how many pixels it errs; what was opened is listed."""
    files = []

    def open_backend(runtime, path, device, threads, cached):
        files.append((runtime, path.stem))
        return brightness(WRONG.get(path.stem, 0))

    monkeypatch.setattr(scores, "open_backend", open_backend)
    monkeypatch.setattr(scores, "version", lambda runtime: "1")
    monkeypatch.setattr(scores.time, "process_time", lambda: 0.0)
    for stem, quantizer in (("ours", OURS), ("peer", "NNCF"), ("slow", "NNCF"), ("lame", "NNCF")):
        path = network.subfolder("files") / f"{stem}.onnx"
        path.write_text(stem)
        words = settings.DEFAULT if quantizer == OURS else stem
        row = Made(quantizer, words, ("onnxruntime",), 1.0, path.name, file_digest(path))
        row.write(path.with_suffix(".json"))
    Made("onnxsim", "its default", ("onnxruntime",), 1.0, error="it fell").write(
        network.subfolder("files") / "onnxsim.json"
    )
    return files


def test_each_recipe_has_a_file_of_its_own_and_a_script_that_makes_it():
    assert len({each.stem for each in RECIPES}) == len(RECIPES)
    for each in RECIPES:
        assert (each.quantizer == OURS) == (each.worker == "")
        assert not each.worker or (WORKERS / f"{each.worker}.py").is_file()
        own = each.settings.get("backend") == "openvino"
        assert each.runtimes == (("openvino",) if own else settings.RUNTIMES)
        assert each.ending == (".xml" if own else ".onnx")


@pytest.mark.parametrize("operator", ["Softmax", "Relu"])
def test_some_recipes_are_for_attention_only(operator):
    node = helper.make_node(operator, ["x"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    found = recipes(model)
    assert any(each.attention for each in found) == (operator == "Softmax")
    assert {each.quantizer for each in found} == {each.quantizer for each in RECIPES}


def test_a_folder_says_what_its_files_are_made_of(network):
    assert Network.read(network.folder) == network
    assert network.name == "street"
    # What is scored is no matter of calibration.
    assert network.quantize_options == ["--dataset", "folder", "--data", "streets"]
    network.model.write_bytes(b"another")
    with pytest.raises(InputError, match="make them again"):
        Network.read(network.folder)


def test_recording_a_folder_that_was_not_made_is_refused(tmp_path, capsys):
    assert main(["record", str(tmp_path), "--json", str(tmp_path)]) == 2
    assert "`make`" in capsys.readouterr().err


def test_a_file_of_openvino_is_known_by_both_of_its_files(tmp_path):
    (tmp_path / "net.xml").write_text("graph")
    (tmp_path / "net.bin").write_text("weights")
    before = file_digest(tmp_path / "net.xml")
    (tmp_path / "net.bin").write_text("other weights")
    assert file_digest(tmp_path / "net.xml") != before


PEERS = (
    Recipe("ONNX Runtime", "its default", "with_onnxruntime"),
    Recipe("NNCF", "mixed", "with_nncf", {"preset": "mixed"}),
)


@pytest.fixture
def jobs(monkeypatch):
    """What processes were asked for; they fail, and name a path, where a job's `settings` do."""
    asked = []

    def run_tool(command, timeout=None, cwd=None):
        asked.append(command)
        if "quantize" in command:
            Path(command[command.index("-o") + 1]).write_bytes(b"ours")
            return subprocess.CompletedProcess(command, 0, "", "")
        job = json.loads(command[-1])
        if job["settings"]:
            last = f"log\nValueError: {job['work']}/x.onnx is no good\n"
            return subprocess.CompletedProcess(command, 1, "", last)
        Path(job["out"]).write_bytes(b"theirs")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(make, "run_tool", run_tool)
    monkeypatch.setattr(make, "recipes", lambda model: [Recipe(OURS, "its default"), *PEERS])
    monkeypatch.setattr(make.onnx, "load", lambda path: None)
    return asked


def test_a_peer_that_fails_is_a_row_with_its_reason(network, jobs):
    make.make_all(network, Path("nncf/python"))
    rows = {(row.quantizer, row.settings): row for row in made(network)}
    assert rows["ONNX Runtime", "its default"].file == "onnx-runtime-its-default.onnx"
    failed = rows["NNCF", "mixed"]
    assert failed.file == ""
    assert failed.error == "ValueError: work/x.onnx is no good"
    assert [command[0] for command in jobs if "-P" in command][1] == "nncf/python"


def test_ours_is_made_in_each_placement_and_run_everywhere(network, jobs):
    make.make_all(network, None, quantizers=[OURS])
    files = {(row.settings, *row.runtimes): row.file for row in made(network)}
    assert files == {
        (f"its default, {placement}", runtime): f"icnet-deploy-its-default-{placement}.onnx"
        for placement in ("int8", "int8-ort")
        for runtime in settings.RUNTIMES
    }


def test_what_was_made_is_not_made_again_but_ours_is(network, jobs):
    make.make_all(network, None)
    assert len(jobs) == 3  # two placements and ONNX Runtime's: nobody named an NNCF
    make.make_all(network, None)
    assert len(jobs) == 5
    make.make_all(network, None, quantizers=["ONNX Runtime"], again=True)
    assert len(jobs) == 6


def test_a_peer_that_takes_too_long_is_a_row(network, jobs, monkeypatch):
    late = subprocess.CompletedProcess([], 124, "", "")
    monkeypatch.setattr(make, "run_tool", lambda *arguments: late)
    make.make_all(network, None, quantizers=["ONNX Runtime"], timeout=5)
    assert next(made(network)).error == "no file after 5 s"


def test_a_score_is_kept_while_the_file_is_the_same(network, opened):
    found = record.score_all(network, Scores(network, STREET, METADATA))["onnxruntime"]
    by_name = {each.made.settings: each for each in found if not each.error}
    assert by_name["its default"].agreement == 159 / 160 - 1 / 160  # one of 80 in each image
    assert by_name["peer"].agreement == 1 - 2 / 80
    errors = {each.made.quantizer: each.error for each in found if each.error}
    assert errors == {"NNCF": "no kernel for it", "onnxsim": "it fell"}
    opened.clear()
    (network.folder / "files" / "peer.onnx").write_text("changed")
    row = next(row for row in made(network) if row.settings == "peer")
    again = Scores(network, STREET, METADATA)
    again.of(by_name["its default"].made, "onnxruntime")
    digest = file_digest(network.folder / "files" / "peer.onnx")
    again.of(Made(**{**vars(row), "sha256": digest}), "onnxruntime")
    assert [stem for _, stem in opened] == ["street-fp32", "peer"]


def test_a_score_on_openvino_is_of_what_the_backend_makes_of_a_file(network, opened, monkeypatch):
    row = next(row for row in made(network) if row.settings == "peer")
    found = Scores(network, STREET, METADATA)
    opened.clear()
    for _ in range(2):
        found.of(row, "openvino")
        found.of(row, "onnxruntime")
        monkeypatch.setattr(scores, "PREPARED", 0)
    assert [runtime for runtime, _ in opened] == ["openvino", "onnxruntime", "openvino"]


def scored(quantizer, name, wrong, rough=1.0):
    """A file that gives so many of 1,000 labels otherwise, in each of 12 images."""
    alike = [(1000 - wrong - index % 2, 1000) for index in range(12)]
    counts = [SimpleNamespace(name=str(i), group=str(i)) for i in range(12)]
    return Scored(Made(quantizer, name, (), 0.0), "onnxruntime", counts, alike, rough)


def timed(quantizer, name, wrong, milliseconds):
    seconds = [milliseconds * (1 + 0.001 * (i % 3)) for i in range(20)]
    return Timed(scored(quantizer, name, wrong), dict.fromkeys(times.CLOCKS, seconds))


def test_the_best_peer_has_the_most_labels_alike_of_those_that_gain_time():
    exact = timed(FLOAT, "-", 0, 10.0)
    peers = [timed("A", "all in float", 1, 10.1), timed("B", "x", 20, 5), timed("B", "y", 30, 4)]
    assert verdicts.best_of(peers, exact) is peers[1]
    assert verdicts.best_of(peers[:1], exact) is peers[0]  # nobody gains any
    assert verdicts.best_of([], exact) is None
    late = replace(peers[1], seconds={**peers[1].seconds, "wall": exact.seconds["wall"]})
    assert verdicts.best_of([peers[0], late], exact) is late  # on one thread it gains


@pytest.mark.parametrize(
    ("wrong", "milliseconds", "alike", "slower", "holds"),
    [
        (10, 5.0, "more", False, True),
        (20, 5.05, "more", False, True),
        (10, 5.2, "more", True, False),
        (30, 4.0, "fewer", False, False),
    ],
)
def test_ours_holds_where_it_has_as_many_labels_alike_and_is_not_slower(
    wrong, milliseconds, alike, slower, holds
):
    peer = timed("NNCF", "histogram", 20, 5.0)
    found = verdicts.verdict(timed(OURS, "its default", wrong, milliseconds), peer)
    assert (found["alike"], found["slower"], found["holds"]) == (alike, slower, holds)
    assert (found["peer"], found["settings"]) == ("NNCF", "histogram")
    assert found["alike_difference_points"]["value"] == pytest.approx((20 - wrong) / 10)


def judged(alike, holds):
    return {"alike_percent": alike, "against_best_peer": {"holds": holds}}


def test_a_row_counts_the_better_of_our_files_that_holds_by_itself():
    holds, fast, more = judged(99.1, True), judged(98.9, True), judged(99.5, False)
    peer = {"alike_percent": 100.0}
    assert verdicts.best_of_ours([peer, more, fast, holds]) is holds
    # Labels of one file and the time of another do not make a file that holds.
    assert verdicts.best_of_ours([judged(98.0, False), peer, more]) is more
    assert verdicts.best_of_ours([peer]) is None


def test_fewer_labels_alike_within_the_interval_are_as_many():
    ours, peer = scored(OURS, "its default", 20), scored("NNCF", "x", 20)
    varied = [(same + (40 if i == 3 else -4), of) for i, (same, of) in enumerate(ours.alike)]
    ours = Scored(ours.made, ours.runtime, ours.counts, varied)
    found = verdicts.alike_difference(ours, peer)
    assert found.value < 0 < found.high


def test_of_each_peer_the_best_three_that_gain_time_are_timed():
    files = [scored(FLOAT, "-", 0, 10.0), scored(OURS, "its default", 50, 20.0)]
    files += [scored("NNCF", str(i), 10 + i, 12.0 if i == 0 else 5.0) for i in range(6)]
    files += [Scored(Made("onnxsim", "its default", (), 0.0), "onnxruntime", error="it fell")]
    names = [each.made.settings for each in record.shortlist(files)]
    assert names == ["-", "its default", "0", "1", "2", "3"]


def test_a_ratio_has_an_interval_over_rounds():
    found = times.ratio([2.0, 2.2, 1.8, 2.0, 2.1], [1.0] * 5)
    assert found["value"] == 2.0
    assert 1.8 <= found["low"] <= 2.0 <= found["high"] <= 2.2
    assert times.ratio([1.0] * 4, [2.0] * 4) == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_a_network_is_recorded_by_runtime_with_a_verdict(network, opened, monkeypatch):
    speeds = {"street-fp32": 10, "ours": 4, "peer": 5, "slow": 11}

    def time_all(files, runtime, images, rounds, clock):
        return {name: [speeds[path.stem]] * rounds for name, path in files.items()}

    monkeypatch.setattr(record, "time_all", time_all)
    monkeypatch.setattr(record, "machine", dict)
    result = record.record(network, STREET, METADATA, 3)
    row = next(row for row in result["rows"] if row["runtime"] == "onnxruntime")
    one = {c["settings"]: c for c in row["candidates"] if c["quantizer"] != "onnxsim"}
    assert [name for name in one if one[name].get("best_peer")] == ["peer"]  # "slow" gains nothing
    assert one["its default"]["time_to_float32"]["wall"]["value"] == 0.4
    found = one["its default"]["against_best_peer"]
    assert found["holds"]
    assert found["time_to_peer"]["processor"]["value"] == 0.8
    assert row["ours"] == {"settings": "its default", "holds": True}
    assert "ours" not in next(row for row in result["rows"] if row["runtime"] == "openvino")
    lines = tables.markdown([{"kind": "evaluate"}, result]).splitlines()
    assert len(lines) == 5
    assert lines[2].startswith("| street on ONNX Runtime | icnet-deploy | its default |")
    assert lines[2].endswith("points, time 0.80 and 0.80 |")
    assert "| **NNCF** | peer |" in lines[3]
    assert "| onnxsim | its default | it fell |" in lines[4]


def test_the_table_shows_the_file_of_ours_that_counts():
    ratios = {clock: {"value": 0.5, "low": 0.4, "high": 0.6} for clock in times.CLOCKS}
    points = {"value": 0.1, "low": 0.0, "high": 0.2}
    shown = {"miou_difference_points": points, "time_to_float32": ratios}
    found = {"alike_difference_points": points, "time_to_peer": ratios}
    candidates = [
        {"quantizer": OURS, "settings": "its default, int8", "alike_percent": 99.5, **shown}
        | {"against_best_peer": found | {"holds": False}},
        {"quantizer": OURS, "settings": "its default, int8-ort", "alike_percent": 99.1, **shown}
        | {"against_best_peer": found | {"holds": True}},
        {"quantizer": "NNCF", "settings": "x", "alike_percent": 99.0, "best_peer": True, **shown},
    ]
    row = {"runtime": "openvino", "candidates": candidates}
    result = {"kind": "quantizers", "schema": 3, "network": "street", "rows": [row]}
    lines = tables.markdown([result]).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| street on OpenVINO | icnet-deploy | its default, int8-ort |")
    assert "| yes: " in lines[2]


def test_a_record_of_before_files_were_timed_beside_float32_is_read():
    row = {"quantizer": OURS, "ranges": "mse", "runtime": "openvino", "alike_percent": 99.5}
    row["miou_difference_points"] = -0.5
    text = tables.markdown([{"kind": "quantizers", "schema": 2, "rows": [row]}])
    assert "| icnet on OpenVINO | icnet-deploy | mse | -0.50 | 99.50 | - | - |" in text


@pytest.fixture
def small(tmp_path):
    """A job for a network of one convolution."""
    build_model(tmp_path / "model.onnx", (8, 10), stride=1)
    images = np.random.default_rng(1).integers(0, 256, (6, 8, 10, 3)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    paths = {"model": "model.onnx", "images": "images.npy", "out": "out.onnx"}
    return {name: str(tmp_path / file) for name, file in paths.items()} | {"work": str(tmp_path)}


@pytest.mark.parametrize(
    ("worker", "how"),
    [
        ("with_onnxruntime", {}),
        ("with_onnxruntime", {"ranges": "Percentile", "percentile": 99.9, "operators": ["Conv"]}),
        ("with_onnxsim", {"method": "mse", "full_graph": True, "equalize": True}),
    ],
)
def test_a_peer_writes_a_file_with_8_bit_weights(worker, how, small, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # peers write beside themselves
    spec = importlib.util.spec_from_file_location(worker, WORKERS / f"{worker}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make({**small, "settings": how})
    written = onnx.load(small["out"])
    operators = [node.op_type for node in written.graph.node]
    assert "DequantizeLinear" in operators
    assert any(each.data_type == TensorProto.INT8 for each in written.graph.initializer)
