"""`tools/gpu_check` without a GPU: what it runs, and results that outlive failures."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from host_cuda import HostCuda

from icnet_deploy.runtime.auto.folder import read_artefacts
from tools.gpu_check import command as gpu_check
from tools.gpu_check import kernel as kernels
from tools.gpu_check import steps
from tools.gpu_check.found import floor_of
from tools.gpu_check.steps import Setting, run_python


@pytest.fixture
def setting(tmp_path):
    return Setting("cpu", (64, 128), tmp_path)


class Runs:
    """Notes what would be run, and writes what each command would."""

    def __init__(self, fails=()):
        self.calls, self.limits, self.fails = [], [], fails

    def __call__(self, arguments, limit, folder=None):
        self.calls.append(arguments)
        self.limits.append(limit)
        if any(word in arguments for word in self.fails):
            return "", f"exit code 2: {arguments[2]} failed"
        if "--json" in arguments:
            out = Path(arguments[arguments.index("--json") + 1])
            kind = arguments[3] if arguments[2] == "benchmark" else arguments[2]
            out.write_text(json.dumps({"kind": kind, "of": arguments[3]}) + "\n")
        if "build-engine" in arguments:
            Path(arguments[arguments.index("-o") + 1]).write_bytes(b"engine")
        return "1 passed", ""


@pytest.fixture
def on_gpu(tmp_path, describe):
    """A setting of a GPU, with a float32 and an INT8 file, and what it runs."""
    folder = tmp_path / "artefacts"
    folder.mkdir()
    for precision in ("fp32", "int8", "int8-ort"):
        describe(f"{precision}.onnx", precision=precision).rename(folder / f"{precision}.onnx")
    setting = Setting("cuda", (96, 128), tmp_path, read_artefacts(folder), run=Runs())
    (tmp_path / "scenes").mkdir()
    return setting


def test_the_floor_is_the_larger_of_operations_and_bytes():
    ceilings = {"copy_bytes_per_s": 1e3, "macs_per_s_32_bits": 1e3, "macs_per_s_16_bits": 1e9}
    floor = floor_of(5_000, 100, (2, 5), ceilings)
    assert floor["32 bits"]["fewest_bytes"] == 4 * 100 + 4 * 10
    assert floor["32 bits"]["floor_ms"] == 5_000  # bound by operations
    assert floor["16 bits"]["floor_ms"] == 240  # bound by bytes
    assert "floor_ms" not in floor["8 bits"]


def test_parity_leaves_out_what_the_device_cannot_run(on_gpu):
    results = steps.parity(on_gpu)
    assert results["fp32.onnx"]["kind"] == "parity"
    for name in ("int8.onnx", "int8-ort.onnx"):
        assert "no integer convolution" in results[name]["left_out"]
    (call,) = on_gpu.run.calls
    assert call[call.index("--device") + 1] == "cuda"


def test_speed_is_measured_beside_pytorch_and_by_batches(on_gpu):
    results = steps.speed(on_gpu)
    assert [row["kind"] for row in results["latency"]["rows"]] == ["latency"]
    latency, throughput = on_gpu.run.calls
    assert latency[latency.index("--peers") + 1] == "pytorch,pytorch-channels-last"
    assert throughput[throughput.index("--batch") + 1] == "1,4,8"
    assert not [word for word in latency if "int8" in word]


def test_engines_are_built_compared_and_timed(on_gpu):
    results = steps.engines(on_gpu)
    assert list(results) == ["tensorrt-rtx", "tensorrt"]
    rows = results["tensorrt"]
    assert rows["int8.onnx"]["bytes"] == len(b"engine")
    assert rows["int8.onnx"]["parity"]["kind"] == "parity"
    assert "uint8" in rows["int8-ort.onnx"]["left_out"]
    assert rows["speed"]["latency"]["rows"]


def test_an_engine_that_is_not_built_stops_no_other(on_gpu):
    on_gpu.run = Runs(fails=("tensorrt-rtx",))
    results = steps.engines(on_gpu)
    assert results["tensorrt-rtx"]["fp32.onnx"] == {"error": "exit code 2: build-engine failed"}
    assert "speed" not in results["tensorrt-rtx"]
    assert "error" not in results["tensorrt"]["fp32.onnx"]


def test_a_rehearsal_builds_and_compiles_nothing(setting):
    assert "left_out" in steps.engines(setting)
    assert "left_out" in steps.compiled(setting)
    assert "--artefacts" in steps.parity(setting)["left_out"]
    assert "--artefacts" in steps.speed(setting)["left_out"]


def test_a_step_that_fails_is_recorded_and_the_next_goes_on(setting):
    saved = []
    setting.save = lambda: saved.append(json.loads(json.dumps(setting.results)))

    def fails(setting):
        setting.results["kernel"] = {"part": 1}
        raise RuntimeError("no memory")

    known = {"kernel": (fails, ""), "parity": (lambda setting: {"done": 1}, "")}
    gpu_check.run_steps(setting, ["kernel", "parity"], known)
    assert setting.results["kernel"] == {"part": 1, "error": "RuntimeError: no memory"}
    assert setting.results["parity"] == {"done": 1}
    assert "parity" not in saved[0]
    assert "kernel" in saved[0]


def test_when_the_time_is_up_nothing_begins(on_gpu):
    on_gpu.deadline = time.monotonic() - 1
    gpu_check.run_steps(on_gpu, ["kernel"])
    assert on_gpu.results["kernel"] == {"left_out": "the time was up"}
    on_gpu.results["kernel"] = {"found": "before"}
    gpu_check.run_steps(on_gpu, ["kernel"])
    assert on_gpu.results["kernel"] == {"found": "before"}
    assert steps.parity(on_gpu)["fp32.onnx"] == {"left_out": "the time was up"}
    assert steps.speed(on_gpu)["latency"] == {"left_out": "the time was up"}
    assert on_gpu.run.calls == []


def test_what_runs_ends_with_the_time(on_gpu):
    on_gpu.deadline = time.monotonic() + 50
    steps.parity(on_gpu)
    assert 40 < on_gpu.run.limits[0] <= 50
    printed, failed = run_python(["-c", "import time; time.sleep(60)"], 0.5)
    assert (printed, failed[:14]) == ("", "exit code 124:")
    assert "timed out" in failed


def test_a_process_that_dies_says_how():
    printed, failed = run_python(["-c", "import os; print(1, flush=True); os.abort()"], 60)
    assert (printed, failed) == ("1\n", "exit code -6: ")
    assert run_python(["-c", "raise SystemExit('lost')"], 60) == ("", "exit code 1: lost")


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_the_kernel_is_compared_with_the_dense_way(setting, kind):
    logits = np.random.default_rng(0).normal(size=(19, 16, 32)).astype(kind)
    cuda = HostCuda()
    results = kernels.run_kernel(cuda, logits, setting, 1)
    assert results == {"pixels_that_differ": 0, "bytes": logits.nbytes + 64 * 128}
    assert cuda.live == 0


def test_a_kernel_that_is_wrong_is_told(setting, monkeypatch):
    logits = np.ones((2, 4, 4), np.float32)
    wrong = lambda logits, size: np.ones(size, np.uint8)  # noqa: E731
    monkeypatch.setattr(kernels, "label_map_dense", wrong)
    assert kernels.run_kernel(HostCuda(), logits, setting, 1)["pixels_that_differ"] == 64 * 128


def test_the_tests_closing_line_and_failures_are_kept(setting, tmp_path):
    (tmp_path / "test_it.py").write_text("def test_bad():\n    assert 0\n")
    results = steps.run_tests(setting, ["-ra", "--rootdir=."], tmp_path)
    assert "1 failed" in results["closing"]
    assert "test_bad" in results["failed"][0]
    assert results["error"].startswith("exit code 1")


def test_plan_needs_no_gpu(capsys):
    assert gpu_check.main(["--plan", "--only", "speed,found"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("found:") < printed.index("speed:")
    assert "kernel:" not in printed


@pytest.mark.parametrize(
    "request_",
    [["--only", "nothing"], ["--batch", "0"], ["--device", "cpu", "--out", "gpu-a.json"]],
)
def test_what_cannot_be_done_is_refused(request_):
    assert gpu_check.main(request_) == 2


def test_a_rehearsal_measures_and_a_second_call_adds_to_the_file(artefact, tmp_path, capsys):
    """Every command for real, but those that need a GPU."""
    folder, out = tmp_path / "artefacts", tmp_path / "rehearsal.json"
    folder.mkdir()
    (folder / "net.onnx").write_bytes(artefact.read_bytes())
    given = ["--device", "cpu", "--out", str(out), "--size", "96x128", "--rounds", "1"]
    small = ["--artefacts", str(folder), "--images", "1", "--batch", "1"]
    assert gpu_check.main([*given, *small, "--only", "found,kernel,parity"]) == 0
    results = json.loads(out.read_text())
    assert results["found"]["floor"]["8 bits"]["floor_ms"] > 0
    assert results["kernel"]["float16"]["pixels_that_differ"] == 0
    # The file's checkpoint is not here, so that the file itself, on the CPU, is the reference.
    reference = results["parity"]["net.onnx"]["reference"]
    assert (reference["kind"], reference["name"]) == ("onnxruntime", "net.onnx")
    assert gpu_check.main([*given, *small, "--only", "speed"]) == 0
    added = json.loads(out.read_text())
    assert {row["kind"] for row in added["speed"]["latency"]["rows"]} == {"latency"}
    assert added["speed"]["throughput"]["rows"]
    assert added["kernel"] == results["kernel"]
    printed = capsys.readouterr().out
    assert "This was a rehearsal on the CPU" in printed
    assert "frames/s" in printed
    other = ["--device", "cpu", "--out", str(out), "--only", "kernel", "--size", "64x128"]
    assert gpu_check.main(other) == 2
    assert json.loads(out.read_text()) == added


def test_rows_that_failed_are_counted():
    results = {"rehearsal": False, "parity": {"a": {"error": "no"}, "b": {"agreement": 1.0}}}
    lines = gpu_check.summary_text(results).splitlines()
    assert lines[-2:] == ["failed: parity, a: no", "done, 1 failed"]
