"""Fresh processes: how long to the first label map, and what they hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from icnet_deploy.benchmarks.processes import fresh
from icnet_deploy.benchmarks.processes.fresh import STAGES, run_fresh
from icnet_deploy.errors import BackendError, InputError
from icnet_deploy.evaluation.pairing import Pair
from icnet_deploy.files import sha256
from icnet_deploy.runtime.auto.verdicts import Verdict, Verdicts, write_verdicts

ARGUMENTS = ("--runtime", "openvino", "--size", "96x128", "--rounds", "2")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_start_is_timed_cold_and_cached_in_turn(artefact, tmp_path, run, monkeypatch):
    calls, plain = [], fresh.run_fresh

    def seen(each, image, cache, *rest):
        before = sorted(cache.rglob("*"))
        answer = plain(each, image, cache, *rest)
        calls.append((cache, bool(before), any(cache.rglob("*.blob"))))
        return answer

    monkeypatch.setattr(fresh, "run_fresh", seen)
    out = tmp_path / "start.jsonl"
    done = run("benchmark", "start", artefact, *ARGUMENTS, "--json", out)
    assert done.code == 0, done.err
    # One that does not count, then cold and cached, each round in a folder of its own; the cold one
    # finds nothing and leaves a compiled model.
    assert [found for _, found, _ in calls] == [False, False, True, False, True]
    assert all(left for _, _, left in calls)
    assert calls[1][0] == calls[2][0] != calls[3][0] == calls[4][0]
    assert not any(cache.exists() for cache, _, _ in calls)
    found = lines(out)
    assert [each["setting"]["cache"] for each in found] == ["cold", "cached"]
    for each in found:
        values = each["values"]
        assert values["total"]["runs"] == 2
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
    done = run("benchmark", "memory", artefact, *ARGUMENTS[:-1], "1", *arguments)
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
            Pair(artefact, "onnxruntime", "cpu"), tmp_path / "image.npy", tmp_path, memory=True
        )
        held.append(one.resident)
    # 36 MB, which are read after the import and before the model.
    assert held[1]["load"] - held[0]["load"] == pytest.approx(5904 * 2000 * 3, rel=0.2)
    assert held[1]["import"] == pytest.approx(held[0]["import"], rel=0.1)


def test_what_the_process_says_of_an_error_is_said_here(artefact, tmp_path, run):
    done = run("benchmark", "start", artefact, "--runtime", "nothing", "--rounds", "1")
    assert done.code == 2
    assert "unknown runtime 'nothing'" in done.err
    assert done.err.count("\n") == 1
    np.save(tmp_path / "image.npy", np.zeros((4, 4), np.float32))
    with pytest.raises(InputError, match="float32"):
        run_fresh(Pair(artefact, "onnxruntime", "cpu"), tmp_path / "image.npy", tmp_path)


def test_a_process_that_dies_is_told_with_its_last_line(artefact, tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    pair = Pair(artefact, "openvino", "cpu")
    worker.write_text("raise SystemError('it broke')")
    monkeypatch.setattr(fresh.fresh_worker, "__file__", str(worker))
    with pytest.raises(BackendError, match=r"openvino: the process ended with 1: .*it broke"):
        run_fresh(pair, tmp_path / "x.npy", tmp_path)
    worker.write_text("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(BackendError, match="killed by the system"):
        run_fresh(pair, tmp_path / "x.npy", tmp_path)


def test_of_a_folder_the_fastest_is_chosen_cold_and_remembered_cached(artefact, tmp_path, run):
    folder = tmp_path / "release"
    folder.mkdir()
    shutil.copy(artefact, folder / "street.onnx")
    told = (sha256(artefact), "openvino", "cpu", True, "", 0.0, "2 images", "0.3 points")
    write_verdicts(folder, Verdicts((Verdict("street.onnx", *told, "2026-01-01", "a processor"),)))
    out = tmp_path / "start.jsonl"
    done = run("benchmark", "start", folder, *ARGUMENTS[2:-1], "1", "--json", out)
    assert done.code == 0, done.err
    for each in lines(out):
        row = each["subject"]
        assert (row["name"], row["file"]) == ("auto: street", "street.onnx")
        assert (row["runtime"], row["sha256"]) == ("openvino", sha256(artefact))


def test_a_wheel_that_is_not_there(artefact, run):
    done = run("benchmark", "memory", artefact, "--wheel", "no.whl")
    assert done.code == 2
    assert "there is no wheel no.whl" in done.err


def test_the_worker_imports_no_more_than_a_program_does():
    source = Path(fresh.fresh_worker.__file__).read_text(encoding="utf-8")
    before = source.split("def serve")[0]
    assert "icnet_deploy" not in before.replace('"""', "")
    assert "icnet_deploy.benchmarks" not in source
