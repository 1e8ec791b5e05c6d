"""The writers of released files, and the published table, as fixtures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the training room needs torch")
pytest.importorskip("google.protobuf", reason="Caffe files are written with protobuf")

HERE = Path(__file__).parent


def _load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def writers():
    return _load("released_writers", HERE / "writers.py")


@pytest.fixture(scope="session")
def table():
    return _load("released_table", HERE.parent / "table.py")


@pytest.fixture(scope="session")
def rows(table):
    """The published definition with batch norm."""
    return table.layers()


@pytest.fixture
def file(tmp_path):
    """Writes a file of some content, and returns its path."""

    def write(content: bytes, name: str = "net.caffemodel") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write
