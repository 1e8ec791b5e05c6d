"""What works where the heavy libraries are missing."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from icnet_deploy.cli import COMMANDS
from icnet_deploy.errors import pip_install

BLOCK = '''
import contextlib, importlib, importlib.util, io, json, pkgutil, sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    """Finds what is not blocked: the rest is missing, to imports and to `find_spec` alike."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in BLOCKED else super().find_spec(name, path, target)

BLOCKED = set(sys.argv[1].split())
sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
'''

TRAINING = "torch torchvision onnx onnxscript onnxsim onnx_ir pytorch_lightning safetensors"
EVERYTHING_ELSE = (
    f"{TRAINING} openvino tensorrt tensorrt_rtx cuda matplotlib tqdm PIL av scipy pandas"
)


def python(blocked, script):
    """Runs a script in a fresh interpreter without some packages; returns what it prints, read."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + script, blocked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_block_blocks():
    script = """
answer = []
for name in ("torch", "torch.nn", "onnx"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        answer.append(name)
assert importlib.util.find_spec("torch") is None
print(json.dumps(answer))
"""
    assert python(TRAINING, script) == ["torch", "torch.nn", "onnx"]


def test_every_module_of_the_runtime_imports_without_torch():
    script = """
import icnet_deploy.runtime as room
names = [m.name for m in pkgutil.walk_packages(room.__path__, room.__name__ + ".")]
for name in names:
    importlib.import_module(name)
print(json.dumps(names))
"""
    names = python(TRAINING, script)
    assert "icnet_deploy.runtime.predictor" in names
    assert "icnet_deploy.runtime.backends.onnxruntime.session" in names


@pytest.fixture(scope="module")
def helps():
    """Command -> (exit code, stdout) of its `--help`, in one interpreter without torch."""
    script = """
from icnet_deploy.cli import COMMANDS, main
answer = {}
for name in COMMANDS:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        answer[name] = [main([name, "--help"])]
    answer[name].append(out.getvalue())
print(json.dumps(answer))
"""
    return python(TRAINING, script)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help_without_torch(name, helps):
    code, text = helps[name]
    assert code == 0
    assert f"usage: icnet {name}" in text
    assert "example:" in text


def test_a_runtime_needs_numpy_opencv_and_onnx_runtime_alone():
    if find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed")
    script = """
import icnet_deploy.runtime, onnxruntime
from icnet_deploy import Predictor
from icnet_deploy.runtime import Predictor as same
print(json.dumps([Predictor is same, sorted(BLOCKED & set(sys.modules))]))
"""
    assert python(EVERYTHING_ELSE, script) == [True, []]


def test_the_root_imports_no_library():
    script = """
import icnet_deploy, icnet_deploy.cli, icnet_deploy.errors, icnet_deploy.labels
import icnet_deploy.metadata, icnet_deploy.files, icnet_deploy.command
print(json.dumps([n for n in ("numpy", "cv2", "icnet_deploy.runtime") if n in sys.modules]))
"""
    assert python(f"{EVERYTHING_ELSE} numpy cv2 onnxruntime", script) == []


def test_data_and_scenes_need_numpy_opencv_and_tqdm():
    script = """
from icnet_deploy.data import open_dataset
from icnet_deploy.data.scenes import draw_scene
print(json.dumps(draw_scene(0, (64, 64)).labels.shape))
"""
    blocked = EVERYTHING_ELSE.replace(" tqdm ", " ") + " onnxruntime"
    assert python(blocked, script) == [64, 64]


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [(["export", "-o", "x.onnx"], "export"), (["train", "-o", "x.safetensors"], "train")],
)
def test_a_command_that_needs_torch_names_the_extra_that_brings_it(arguments, extra, tmp_path):
    if arguments[0] == "train":
        arguments = [*arguments, "--dataset", "scenes", "--data", str(tmp_path)]
    script = f"""
from icnet_deploy.cli import main
err = io.StringIO()
with contextlib.redirect_stderr(err):
    code = main({arguments!r})
print(json.dumps([code, err.getvalue()]))
"""
    code, err = python(TRAINING, script)
    assert code == 2
    assert err.count("\n") == 1
    assert pip_install(extra) in err
