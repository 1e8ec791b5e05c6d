"""`benchmarks/gpu_check.py` without a GPU: planning, the floor, results that outlive failures."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from icnet_deploy.benchmarks import gpu_check
from icnet_deploy.benchmarks.gpu import kernel as kernels
from icnet_deploy.benchmarks.gpu.engines import run_tests
from icnet_deploy.benchmarks.gpu.floor import floor, floor_of
from icnet_deploy.benchmarks.gpu.setting import Setting
from icnet_deploy.benchmarks.gpu.speed import time_all
from icnet_deploy.benchmarks.gpu.subjects import Subject
from icnet_deploy.runtime.cuda.host import HostCuda


@pytest.fixture
def setting():
    return Setting("cpu", (64, 128), rounds=2)


def test_the_floor_is_the_larger_of_operations_and_bytes():
    ceilings = {"copy_bytes_per_s": 1e3, "fp32_macs_per_s": 1e3, "fp16_macs_per_s": 1e9}
    told = floor_of(5_000, 100, 200, (2, 5), ceilings)
    assert told["fp32"]["fewest_bytes"] == 4 * 100 + 4 * 10
    assert told["fp32"]["bytes_with_activations"] == 440 + 2 * 4 * 200
    assert told["fp32"]["floor_ms"] == 5_000  # bound by operations
    assert told["fp16"]["floor_ms"] == 240  # bound by bytes
    assert "floor_ms" not in told["int8"]


def test_the_floor_of_the_network_grows_with_the_frame(setting):
    small, large = floor(setting), floor(Setting("cpu", (128, 256)))
    assert small["parameters"] == large["parameters"]
    assert large["macs"] > 3 * small["macs"]
    assert large["activations"] > 3 * small["activations"]


def test_a_step_that_fails_is_recorded_and_the_next_goes_on(setting, monkeypatch):
    saved = []
    setting.save = lambda: saved.append(json.loads(json.dumps(setting.results)))

    def fails(setting):
        setting.results["floor"] = {"part": 1}
        raise RuntimeError("no memory")

    monkeypatch.setattr("icnet_deploy.benchmarks.gpu.floor.floor", fails)
    monkeypatch.setattr("icnet_deploy.benchmarks.gpu.kernel.kernel", lambda setting: {"done": 1})
    gpu_check.run_steps(setting, ["floor", "kernel"])
    assert setting.results["floor"] == {"part": 1, "error": "RuntimeError: no memory"}
    assert setting.results["kernel"] == {"done": 1}
    assert "kernel" not in saved[0]
    assert "floor" in saved[0]


def test_when_the_time_is_up_nothing_begins(setting):
    setting.deadline = time.monotonic() - 1
    gpu_check.run_steps(setting, ["kernel"])
    assert setting.results["kernel"] == {"left_out": "the time was up"}


def test_contestants_take_turns_and_one_that_raises_has_no_later_one(setting):
    order, failures = [], {}

    def work(name):
        order.append(name)
        if name == "b" and order.count("b") > 2:
            raise ValueError("lost")

    subjects = [Subject(n, "host", "fp32", lambda n=n: work(n)) for n in "abc"]
    setting.results["floor"] = {"fp32": {"floor_ms": 1e-9}}
    rows = time_all(setting, subjects, failures, 4)
    assert "".join(order) == "abc" + "aabbcc" + "aacc"
    assert [row["name"] for row in rows] == ["a", "c"]
    assert failures == {"b, host": "ValueError: lost"}
    assert rows[0]["time"]["runs"] == 2


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_the_kernel_is_compared_with_the_dense_way(setting, kind):
    logits = np.random.default_rng(0).normal(size=(19, 16, 32)).astype(kind)
    cuda = HostCuda()
    told = kernels.run_kernel(cuda, logits, setting, 1)
    assert told == {"pixels_that_differ": 0, "bytes": logits.nbytes + 64 * 128}
    assert cuda.live == 0


def test_a_kernel_that_is_wrong_is_told(setting, monkeypatch):
    dense = "icnet_deploy.runtime.labelmap.label_map_dense"
    logits = np.ones((2, 4, 4), np.float32)
    monkeypatch.setattr(dense, lambda logits, size: np.ones(size, np.uint8))
    assert kernels.run_kernel(HostCuda(), logits, setting, 1)["pixels_that_differ"] == 64 * 128


def test_the_tests_closing_line_and_failures_are_kept(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_bad():\n    assert 0\n")
    told = run_tests(["-ra", "--rootdir=."], tmp_path)
    assert told["exit"] == 1
    assert "1 failed" in told["closing"]
    assert "test_bad" in told["failed"][0]


def test_plan_needs_no_gpu(capsys):
    assert gpu_check.main(["--plan", "--only", "speed,floor"]) == 0
    told = capsys.readouterr().out
    assert told.index("floor:") < told.index("speed:")
    assert "kernel:" not in told


@pytest.mark.parametrize(
    "request_",
    [["--only", "nothing"], ["--batch", "0"], ["--device", "cpu", "--out", "gpu-a.json"]],
)
def test_what_cannot_be_done_is_refused(request_):
    assert gpu_check.main(request_) == 2


def test_a_rehearsal_writes_its_file(tmp_path, capsys):
    out = tmp_path / "rehearsal.json"
    steps = ["--device", "cpu", "--size", "64x128", "--only", "floor,kernel,speed", "--batch", "1"]
    assert gpu_check.main([*steps, "--rounds", "1", "--out", str(out)]) == 0
    told = json.loads(out.read_text())
    assert told["rehearsal"] is True
    scopes = {row["scope"] for row in told["speed"]["batch 1"]["rows"]}
    assert scopes == {"host", "device", "network"}
    assert told["kernel"]["float16"]["pixels_that_differ"] == 0
    assert "A rehearsal on the CPU" in capsys.readouterr().out
