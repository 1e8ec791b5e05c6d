"""The runtime is light: what it imports, when, and how long that takes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest

import icnet_deploy.runtime

BLOCKER = """
import sys

class Blocker:
    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"blocked: {name}")

def block(*names):
    sys.meta_path.insert(0, Blocker(names))
"""


def python(script, *arguments):
    """Runs a script in a fresh interpreter and returns the last line that it prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER + script, *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_module_imports_with_numpy_alone():
    script = """
block("torch", "onnx", "onnxruntime", "openvino", "cv2", "tqdm", "matplotlib", "tensorrt")
import json, pkgutil
from importlib import import_module
import icnet_deploy.runtime as runtime
names = [m.name for m in pkgutil.walk_packages(runtime.__path__, "icnet_deploy.runtime.")]
for name in names:
    import_module(name)
print(json.dumps(names))
"""
    names = python(script)
    assert "icnet_deploy.runtime.backends.onnxruntime.session" in names
    assert "icnet_deploy.runtime.predict.command" in names


def test_a_prediction_needs_numpy_opencv_and_one_runtime(tiny_model):
    script = """
block("torch", "onnx", "matplotlib", "tqdm")
import json
import numpy as np
from icnet_deploy import Predictor
with Predictor.from_onnx(sys.argv[1], sys.argv[2], "cpu") as predictor:
    predictor.predict(np.zeros((80, 80, 3), np.uint8)).overlay()
print(json.dumps([m for m in ("onnxruntime", "openvino") if m in sys.modules]))
"""
    for runtime in ("onnxruntime", "openvino"):
        assert python(script, tiny_model(), runtime) == [runtime]


@pytest.mark.parametrize(
    "use",
    [
        "Predictor.open(sys.argv[1], 'openvino').close()",
        "Predictor.open(sys.argv[1], 'onnxruntime').close()",
        "examine()",
        "threads = [Thread(target=core) for _ in range(4)]; "
        "[one.start() for one in threads]; [one.join() for one in threads]",
    ],
    ids=["openvino", "onnxruntime", "the doctor", "threads"],
)
def test_nobody_is_told_that_it_is_used(tiny_model, use, tmp_path, monkeypatch):
    """Both runtimes by themselves make files in the home, and send usage statistics.

    OpenVINO in a process, ONNX Runtime from 1.29 on in a thread, with a file's name and hash.
    """
    pytest.importorskip("openvino_telemetry")
    script = f"""
import json
from threading import Thread
from icnet_deploy import Predictor
from icnet_deploy.runtime.backends.openvino.backend import core
from icnet_deploy.runtime.machine import examine
{use}
told = [name for name in sys.modules if name.startswith("openvino_telemetry")]
import openvino_telemetry  # whoever else wants it has it
print(json.dumps(told))
"""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "home").mkdir()
    # Where they would send nothing by themselves, and what this process has set already.
    for silent in ("CI", "TF_BUILD", "GITHUB_ACTIONS", "JENKINS_URL", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(silent, raising=False)
    assert python(script, tiny_model()) == []
    assert list((tmp_path / "home").iterdir()) == []
    assert list(tmp_path.glob("cache/[!i]*")) == []  # icnet-deploy's own may be there


def test_importing_the_package_is_quick_and_imports_nothing():
    script = """
import json, time
start = time.perf_counter()
import icnet_deploy.runtime
seconds = time.perf_counter() - start
heavy = ("numpy", "cv2", "onnxruntime", "openvino", "torch", "onnx", "matplotlib", "tqdm")
print(json.dumps([seconds, [name for name in heavy if name in sys.modules]]))
"""
    seconds, loaded = python(script)
    assert loaded == []
    assert seconds < 0.3


def test_every_name_of_the_room_is_there():
    room = icnet_deploy.runtime
    assert sorted(room.__all__) == sorted(room._HOMES)
    for name in room.__all__:
        home = import_module(f"icnet_deploy.runtime.{room._HOMES[name]}")
        assert getattr(room, name) is getattr(home, name)
    assert not hasattr(room, "no_such_name")
