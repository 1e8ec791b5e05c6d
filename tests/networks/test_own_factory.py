"""`PACKAGE.MODULE:FACTORY`: what is found, what is called, and what is said where it is not."""

from __future__ import annotations

import sys

import pytest

torch = pytest.importorskip("torch", reason="a network of one's own needs torch")

from icnet_deploy.errors import InputError  # noqa: E402
from icnet_deploy.networks.own.factory import build_module  # noqa: E402

SOURCE = """
from torch import nn

VERSION = 3
ready = nn.Conv2d(3, 5, 1)

class Zoo:
    @staticmethod
    def make(classes=4):
        return nn.Conv2d(3, classes, 1)

def build(classes, width=8):
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.Conv2d(width, classes, 1))

def broken(classes):
    raise KeyError("layer4")

def pair():
    return nn.Conv2d(3, 5, 1), "preprocessing"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with modules of a user's; the modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = set(sys.modules)
    (tmp_path / "own_nets.py").write_text(SOURCE)
    (tmp_path / "own_pack").mkdir()
    (tmp_path / "own_pack" / "inner.py").write_text(SOURCE)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("factory", "arguments", "classes"),
    [
        ("own_nets:build", {"classes": 7, "width": 2}, 7),
        ("own_pack.inner:build", {"classes": 6}, 6),
        ("own_nets:Zoo.make", {}, 4),
        ("own_nets:ready", {}, 5),
        ("own_nets:nn.Conv2d", {"in_channels": 3, "out_channels": 9, "kernel_size": 1}, 9),
    ],
)
def test_a_network_comes_from_the_current_folder(here, factory, arguments, classes):
    network = build_module(factory, arguments)
    assert network(torch.zeros(1, 3, 2, 2)).shape[1] == classes


REFUSED = {  # what is named and is not there: tests/test_command.py
    "own_nets": "--network own_nets is not PACKAGE.MODULE:NAME",
    "own_absent:build": "--network own_absent:build: there is no module own_absent",
    "own_nets:Zoo.absent": "own_nets.Zoo has no absent",
    "own_nets:VERSION": "int VERSION, which cannot be called; expected a function or a class",
    "own_nets:build": r"does not take the arguments {}: missing a required argument: 'classes'; "
    r"it takes \(classes, width=8\): give them with --network-args",
    "own_nets:pair": "returned a value of tuple, expected a torch.nn.Module",
}


@pytest.mark.parametrize("factory", REFUSED)
def test_what_is_no_factory_is_said(here, factory):
    with pytest.raises(InputError, match=REFUSED[factory]):
        build_module(factory, {})


def test_wrong_arguments_and_a_failing_factory_are_said(here):
    with pytest.raises(InputError, match="unexpected keyword argument 'depth'; it takes"):
        build_module("own_nets:build", {"classes": 3, "depth": 2})
    with pytest.raises(
        InputError, match=r"KeyError: 'layer4' \(own_nets.py, line 16\): correct it there"
    ):
        build_module("own_nets:broken", {"classes": 3})
    with pytest.raises(
        InputError, match="is a network, not a function that builds one, so it takes no arguments"
    ):
        build_module("own_nets:ready", {"classes": 3})
