"""Artefacts and machines that several tests of scores and parity need."""

from __future__ import annotations

import shutil
import sys

import pytest


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """Two scenes of another size than any artefact here."""
    from icnet_deploy.data.scenes import write_scenes

    root = tmp_path_factory.mktemp("large")
    write_scenes(root, 2, (130, 200), 0, "val")
    return root


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """No test takes what another, or a user of this machine, left below the cache."""
    monkeypatch.setenv("ICNET_CACHE", "off")


@pytest.fixture(scope="session")
def dozen(tmp_path_factory):
    """As many images as say something of others, small: a data set."""
    from icnet_deploy.data import open_dataset
    from icnet_deploy.data.scenes import write_scenes

    root = tmp_path_factory.mktemp("dozen")
    write_scenes(root, 12, (48, 64), 0, "val")
    return open_dataset("scenes", root)


@pytest.fixture
def uninstall(monkeypatch):
    """A function that takes packages away from this machine until the test ends."""

    def uninstall(*packages):
        for package in packages:
            monkeypatch.setitem(sys.modules, package, None)

    return uninstall


@pytest.fixture
def release(artefact, checkpoint, tmp_path):
    """A folder with the float32 artefact and its checkpoint."""
    folder = tmp_path / "release"
    folder.mkdir()
    shutil.copy(artefact, folder / "a.onnx")
    shutil.copy(checkpoint, folder)
    return folder


@pytest.fixture
def add(release, describe):
    """A function that puts a copy of the artefact with other metadata or graph into the folder."""

    def add(name, *change, **fields):
        made = describe("made.onnx", *change, **fields)
        shutil.copy(made, release / name)
        return release / name

    return add
