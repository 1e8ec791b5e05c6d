"""What must work where torch is not installed."""

import subprocess
import sys

import pytest

import icnet_deploy.evaluation
from icnet_deploy.errors import pip_install

BLOCKED = """
import sys

sys.modules.update(dict.fromkeys(("torch", "onnx", "safetensors")))
from icnet_deploy.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def run(*arguments):
    command = [sys.executable, "-c", BLOCKED, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["evaluate", "parity"])
def test_help(name):
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "--dataset" in done.stdout
    assert "example:" in done.stdout


def test_an_onnx_file_is_scored(artefact, scenes):
    done = run("evaluate", artefact, "--dataset", "scenes", "--data", scenes, "--limit", 1)
    assert done.returncode == 0, done.stderr
    assert "mIoU" in done.stdout


def test_parity_says_what_it_lacks(artefact, scenes):
    done = run("parity", artefact, "--dataset", "scenes", "--data", scenes, "--limit", 1)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert pip_install("benchmark") in done.stderr


def test_every_name_of_the_room_is_there():
    room = icnet_deploy.evaluation
    assert room.__all__ == sorted(room.__all__)
    for name in room.__all__:
        assert getattr(room, name) is not None
