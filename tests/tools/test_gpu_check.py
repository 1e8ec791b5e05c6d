"""`tools/gpu_check` without a GPU: planning, the floor, results that outlive failures."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from host_cuda import HostCuda
from safetensors import safe_open
from safetensors.torch import load_file

from icnet_deploy.errors import BackendError
from icnet_deploy.evaluation import pairing
from icnet_deploy.networks.checkpoint import SHIPPED
from icnet_deploy.runtime.cuda.base import Gpu
from icnet_deploy.runtime.cuda.labels import source
from tools.gpu_check import command as gpu_check
from tools.gpu_check import kernel as kernels
from tools.gpu_check.bare import read_safetensors
from tools.gpu_check.engines import stream_clock
from tools.gpu_check.floor import floor, floor_of
from tools.gpu_check.marked import run_tests
from tools.gpu_check.setting import Setting
from tools.gpu_check.speed import contest, time_all
from tools.gpu_check.subjects import Subject
from tools.gpu_check.torch_cuda import TorchCuda

FRAME = np.zeros((64, 128, 3), np.uint8)


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

    monkeypatch.setattr("tools.gpu_check.floor.floor", fails)
    monkeypatch.setattr("tools.gpu_check.kernel.kernel", lambda setting: {"done": 1})
    gpu_check.run_steps(setting, ["floor", "kernel"])
    assert setting.results["floor"] == {"part": 1, "error": "RuntimeError: no memory"}
    assert setting.results["kernel"] == {"done": 1}
    assert "kernel" not in saved[0]
    assert "floor" in saved[0]


def test_when_the_time_is_up_nothing_begins(setting):
    setting.deadline = time.monotonic() - 1
    gpu_check.run_steps(setting, ["kernel"])
    assert setting.results["kernel"] == {"left_out": "the time was up"}
    setting.results["kernel"] = {"found": "before"}
    gpu_check.run_steps(setting, ["kernel"])
    assert setting.results["kernel"] == {"found": "before"}


def test_the_time_is_looked_at_between_contestants(setting, monkeypatch):
    """What is open when it is up has a turn; no other is opened, and no other batch begun."""
    monkeypatch.setattr(Setting, "scenes", lambda self, count: [SimpleNamespace(image=FRAME)])
    setting.batches, order = (1, 4), []

    @contextmanager
    def opener(frames, name):
        order.append(name)
        if name == "slow":
            setting.deadline = 0
        if name == "bad":
            raise RuntimeError("no memory")
        yield [Subject(name, scope, "fp32", lambda: None) for scope in ("host", "device")]

    names = ("bad", "first", "slow", "never")
    openers = [(name, lambda frames, name=name: opener(frames, name)) for name in names]
    told = contest(setting, "speed", openers)
    assert order == ["bad", "first", "slow"]
    assert [(row["name"], row["time"]["runs"]) for row in told["batch 1"]["rows"]] == [
        ("first", 1)
    ] * 2
    assert told["batch 1"]["failed"] == {"bad": "RuntimeError: no memory"}
    assert set(told["batch 1"]["left_out"]) == {"slow, host", "slow, device", "never"}
    assert "rows" not in told["batch 4"]
    assert gpu_check.failures({"speed": told}) == ["speed, batch 1, bad: RuntimeError: no memory"]


def test_tf32_reaches_the_session(monkeypatch, tmp_path):
    asked = []

    @contextmanager
    def from_onnx(*given, **named):
        asked.append((given, named))
        yield

    monkeypatch.setattr(pairing.Predictor, "from_onnx", from_onnx)
    for tf32 in (False, True):
        with pairing.open_pair(pairing.Pair(tmp_path, "onnxruntime", "cuda", tf32)):
            pass
    assert asked == [
        ((tmp_path, "onnxruntime", "cuda"), {"tf32": tf32, "cached": False})
        for tf32 in (False, True)
    ]


def test_contestants_take_turns_and_one_that_raises_has_no_later_one(setting):
    order, failures = [], {}

    def work(name):
        order.append(name)
        if name == "b" and order.count("b") > 2:
            raise ValueError("lost")

    subjects = [Subject(n, "host", "fp32", lambda n=n: work(n)) for n in "abc"]
    setting.results["floor"] = {"fp32": {"floor_ms": 1e-9}}
    saved = []
    rows = time_all(setting, subjects, failures, 4, 2, saved.append)
    assert "".join(order) == "aabbcc" + "aabcc"
    assert [row["time"]["runs"] for rows in saved for row in rows] == [1, 1, 1, 2, 1, 2]
    assert [row["name"] for row in rows] == ["a", "b", "c"]
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


class TestTorchCuda:
    """The kernel over torch and ctypes, for a machine without an adapter."""

    @pytest.fixture
    def cuda(self):
        made = TorchCuda.__new__(TorchCuda)
        made.gpu, made._kernels = Gpu(0, "H100", (9, 0)), {}
        return made

    def test_the_kernel_compiles(self, cuda):
        """By the real NVRTC, which needs no GPU."""
        nvrtc = pytest.importorskip("nvidia.cu13")
        cuda._nvrtc = ctypes.CDLL(str(Path(nvrtc.__path__[0]) / "lib" / "libnvrtc.so.13"))
        assert cuda._compile(source())[:4] == b"\x7fELF"
        with pytest.raises(BackendError, match=r"cannot compile a kernel: .*type specifier"):
            cuda._compile("nonsense")

    def test_the_driver_is_given_what_the_arguments_hold(self, cuda):
        given = []

        def launch(kernel, *sides_and_rest):
            *sides, stream, places, extra = sides_and_rest
            address = ctypes.cast(places[0], ctypes.POINTER(ctypes.c_uint64))[0]
            side = ctypes.cast(places[1], ctypes.POINTER(ctypes.c_int32))[0]
            given.append(([one.value for one in sides], stream.value, address, side, extra))
            return len(given) - 1

        def told(status, text):
            ctypes.cast(text, ctypes.POINTER(ctypes.c_char_p))[0] = b"out of time"

        cuda._driver = SimpleNamespace(cuLaunchKernel=launch, cuGetErrorString=told)
        arguments = [np.uint64(2**40 + 1), np.int32(-7)]
        stream = SimpleNamespace(handle=2**35)
        cuda.launch(ctypes.c_void_p(5), (3, 4), (32, 8), arguments, stream)
        assert given == [([3, 4, 1, 32, 8, 1, 0], 2**35, 2**40 + 1, -7, None)]
        with pytest.raises(BackendError, match="cuLaunchKernel failed: out of time"):
            cuda.launch(ctypes.c_void_p(5), (3, 4), (32, 8), arguments, stream)

    @pytest.mark.gpu
    def test_on_a_gpu_it_gives_the_dense_label_map(self):
        if not torch.cuda.is_available():
            pytest.skip("torch finds no GPU")
        logits = np.random.default_rng(0).normal(size=(19, 16, 32)).astype(np.float32)
        told = kernels.run_kernel(TorchCuda(), logits, Setting("cuda", (64, 128)), 1)
        assert told["pixels_that_differ"] == 0


def test_an_engine_is_timed_on_its_own_stream():
    cuda = HostCuda()
    with cuda.current():
        stream = cuda.stream()
    clock = stream_clock(SimpleNamespace(_cuda=cuda, _stream=stream))
    ran = []
    works = [lambda: ran.append(1)] * 3
    taken = clock(lambda: [cuda.enqueue(stream.handle, work) for work in works])
    assert ran == [1] * 3
    assert taken >= 3e-3  # this stand-in's milliseconds are works done


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the scenes of a rehearsal."""
    made = tmp_path_factory.mktemp("artefacts")
    given = ["--artefacts", str(made), "--draw", "--size", "64x128", "--images", "1"]
    assert gpu_check.main(given) == 0
    return made


BARE = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        there = name.split(".")[0] not in {BLOCKED}
        return self.finder.find_spec(name, path, target) if there else None
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
sys.path.insert(0, ROOT)
import icnet_deploy
icnet_deploy.__path__.append(CLONE)
from tools.gpu_check.command import main
raise SystemExit(main(sys.argv[1:]))
"""


def test_a_bare_machine_runs_what_needs_no_artefact(folder, tmp_path):
    """A machine with torch and NumPy, and nothing that this repository brings."""
    out = tmp_path / "rehearsal.json"
    clone = str(Path(__file__).parents[2])
    blocked = "safetensors cv2 tqdm onnx onnxscript onnxsim onnxruntime openvino matplotlib PIL"
    text = BARE.replace("{BLOCKED}", repr(set(blocked.split()) | {"pytorch_lightning"}))
    text = text.replace("ROOT", repr(clone + "/src")).replace("CLONE", repr(clone))
    steps = ["--device", "cpu", "--size", "64x128", "--only", "found,floor,kernel,speed"]
    given = ["--artefacts", str(folder), "--batch", "1", "--rounds", "1", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", text, *steps, *given],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    told = json.loads(out.read_text())
    assert told["found"]["stood_in"] == ["tqdm", "safetensors"]
    assert told["floor"]["int8"]["floor_ms"] > 0
    assert told["kernel"]["float16"]["pixels_that_differ"] == 0
    scopes = {row["scope"] for row in told["speed"]["batch 1"]["rows"]}
    assert scopes == {"host", "device", "network"}
    assert "A rehearsal on the CPU" in done.stdout


def test_checkpoints_are_read_as_safetensors_reads_them():
    tensors, metadata = read_safetensors(SHIPPED)
    wanted = load_file(SHIPPED)
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)
    with safe_open(SHIPPED, "pt") as file:
        assert metadata == file.metadata()


def test_a_second_call_adds_to_the_file(tmp_path, monkeypatch):
    out, bad = tmp_path / "rehearsal.json", {"error": "ValueError: lost"}
    monkeypatch.setattr("tools.gpu_check.floor.floor", lambda setting: {"a": 1})
    monkeypatch.setattr("tools.gpu_check.parity.parity", lambda setting: {"b": bad})
    given = ["--device", "cpu", "--out", str(out), "--only"]
    assert gpu_check.main([*given, "parity"]) == 1
    assert gpu_check.main([*given, "floor"]) == 0
    told = json.loads(out.read_text())
    assert told["floor"] == {"a": 1}
    assert told["parity"] == {"b": bad}
    assert gpu_check.main([*given, "floor", "--size", "64x128"]) == 2
    assert json.loads(out.read_text()) == told


def test_rows_that_failed_are_counted(capsys):
    results = {"rehearsal": False, "parity": {"a": {"error": "no"}, "b": {"agreement": 1.0}}}
    told = gpu_check.summary_text(results)
    assert told.splitlines()[-2:] == ["failed: parity, a: no", "done, 1 failed"]
