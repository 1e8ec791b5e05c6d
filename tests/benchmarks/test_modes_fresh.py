"""Fresh processes: how long to the first label map, and what they hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from icnet_deploy.benchmarks.processes import fresh_worker
from icnet_deploy.benchmarks.processes.fresh import STAGES, Fresh, measure_fresh, run_fresh
from icnet_deploy.errors import BackendError, InputError
from icnet_deploy.evaluation.pairing import Run
from icnet_deploy.files import sha256

ARGUMENTS = ("--runtime", "openvino", "--size", "96x128", "--rounds", "1")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_processes_are_started_cold_and_cached_in_turn(artefact):
    calls = []

    def run_one(each, image, cache, threads, **memory):
        assert np.load(image).shape == (96, 128, 3)
        calls.append((each.runtime, cache, any(cache.iterdir())))
        (cache / "kept").touch()
        facts = {"precision": "fp32", "runtime": each.runtime, "device": "cpu"}
        return Fresh({"total": float(len(calls))}, {}, each.path, facts)

    runs = [Run(artefact, runtime, "cpu") for runtime in ("onnxruntime", "openvino")]
    image = np.zeros((96, 128, 3), np.uint8)

    def values(processes):
        return {"turns": [one.seconds["total"] for one in processes]}

    rows = measure_fresh("start", runs, image, values, rounds=2, threads=1, run_one=run_one)
    # One of each that does not count, then cold and cached, each round in a folder of its own.
    turn = [(p.runtime, left) for p in runs for left in (False, True)]
    assert [(runtime, left) for runtime, _, left in calls] == [*turn[::2], *turn, *turn]
    caches = [cache for _, cache, _ in calls]
    assert caches[2] == caches[3] != caches[6] == caches[7]
    assert not any(cache.exists() for cache in caches)
    assert [(r.subject["runtime"], r.setting["cache"], r.values["turns"]) for r in rows] == [
        ("onnxruntime", "cold", [3, 7]),
        ("onnxruntime", "cached", [4, 8]),
        ("openvino", "cold", [5, 9]),
        ("openvino", "cached", [6, 10]),
    ]
    assert rows[0].subject["sha256"] == sha256(artefact)
    assert "runs" not in rows[0].setting


def test_start_is_timed_stage_by_stage(artefact, tmp_path, run):
    out = tmp_path / "start.jsonl"
    done = run("benchmark", "start", artefact, *ARGUMENTS, "--json", out)
    assert done.code == 0, done.err
    found = lines(out)
    assert [each["setting"]["cache"] for each in found] == ["cold", "cached"]
    for each in found:
        values = each["values"]
        assert values["total"]["runs"] == 1
        parts = sum(np.array(values[stage]["samples_ms"]) for stage in STAGES)
        total = np.array(values["total"]["samples_ms"])
        # The total ends when the line is read, a moment after the last stage.
        assert (parts < total).all()
        assert (total - parts < 1000).all()
        assert min(values["import"]["samples_ms"]) > 1
        assert each["subject"]["runtime"] == "openvino"
    assert "cached" in done.out


def test_memory_grows_from_import_to_peak(artefact, tmp_path, run):
    wheel = tmp_path / "x.whl"
    wheel.write_bytes(bytes(1234))
    out = tmp_path / "memory.jsonl"
    arguments = ("--runs", "2", "--wheel", wheel, "--json", out)
    done = run("benchmark", "memory", artefact, *ARGUMENTS, *arguments)
    assert done.code == 0, done.err
    cold, cached = (each["values"] for each in lines(out))
    for values in (cold, cached):
        assert 10e6 < values["import_bytes"] < values["load_bytes"] < values["peak_bytes"] < 2e9
        assert values["file_bytes"] == artefact.stat().st_size
        assert values["wheel_bytes"] == 1234


def test_the_image_counts(artefact, tmp_path):
    held = []
    for height in (96, 6000):
        np.save(tmp_path / "image.npy", np.zeros((height, 2000, 3), np.uint8))
        one = run_fresh(
            Run(artefact, "onnxruntime", "cpu"), tmp_path / "image.npy", tmp_path, memory=True
        )
        held.append(one.resident)
    # 36 MB, which are read after the import and before the model.
    assert held[1]["load"] - held[0]["load"] == pytest.approx(5904 * 2000 * 3, rel=0.2)
    assert held[1]["import"] == pytest.approx(held[0]["import"], rel=0.1)


def test_what_the_process_says_of_an_error_is_said_here(artefact, tmp_path, run):
    done = run("benchmark", "start", artefact, "--runtime", "nothing", *ARGUMENTS[2:])
    assert done.code == 2
    assert "unknown runtime 'nothing'" in done.err
    assert done.err.count("\n") == 1
    np.save(tmp_path / "image.npy", np.zeros((4, 4), np.float32))
    with pytest.raises(InputError, match="float32"):
        run_fresh(Run(artefact, "onnxruntime", "cpu"), tmp_path / "image.npy", tmp_path)


def test_a_process_that_dies_is_told_with_its_last_line(artefact, tmp_path):
    worker = tmp_path / "worker.py"
    where = Run(artefact, "openvino", "cpu")
    for source, words in (
        ("raise SystemError('it broke')", r"openvino: the process ended with 1: .*it broke"),
        ("import os; os.kill(os.getpid(), 9)", "killed by the system"),
        ("import os; os.kill(os.getpid(), 15)", "ended by the signal SIGTERM"),
        ("print('no JSON')", "the process ended with 0"),
    ):
        worker.write_text(source)
        with pytest.raises(BackendError, match=words):
            run_fresh(where, tmp_path / "x.npy", tmp_path, worker=str(worker))


def test_of_a_folder_the_fastest_is_chosen_and_the_cache_is_left_to_the_next(release, tmp_path):
    np.save(tmp_path / "image.npy", np.zeros((96, 128, 3), np.uint8))
    cache = tmp_path / "cache"
    where = Run(release, "openvino", "auto")
    one = run_fresh(where, tmp_path / "image.npy", cache)
    assert one.file == release / "street.onnx"
    assert any(cache.rglob("*.blob"))

    def run_one(*_):
        return one

    image = np.zeros((96, 128, 3), np.uint8)
    row, _ = measure_fresh("start", [where], image, lambda _: {}, 1, run_one=run_one)
    assert (row.name, row.subject["file"]) == ("auto: street", "street.onnx")
    assert (row.subject["auto"], row.subject["runtime"]) == (True, "openvino")
    assert row.subject["sha256"] == sha256(release / "street.onnx")


def test_a_wheel_that_is_not_there(artefact, run):
    done = run("benchmark", "memory", artefact, "--wheel", "no.whl")
    assert done.code == 2
    assert "there is no wheel no.whl" in done.err


def test_the_worker_imports_no_more_than_a_program_does():
    source = Path(fresh_worker.__file__).read_text(encoding="utf-8")
    before = source.split("def serve")[0]
    assert "icnet_deploy" not in before.replace('"""', "")
    assert "icnet_deploy.benchmarks" not in source
