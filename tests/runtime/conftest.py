"""Tiny models and pictures for them, for the tests of the runtimes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_model import build_model, draw_blocks, save_model

from icnet_deploy.labels import LabelSet
from icnet_deploy.metadata import ArtefactMetadata

TinyModel = Callable[..., Path]


@pytest.fixture
def tiny_model(tmp_path: Path) -> TinyModel:
    """A function that writes a tiny ONNX file, with `build_model`'s options, and names it."""
    made = 0

    def make(**options: Any) -> Path:
        nonlocal made
        made += 1
        return build_model(tmp_path / f"tiny{made}.onnx", **options)

    return make


@pytest.fixture
def write_graph(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes nodes of a test's own as a file, whose metadata may not be true."""

    def write(
        nodes: list[Any],
        output: tuple[Any, ...],
        label_set: LabelSet,
        head: str = "logits",
        constants: Any = (),
        size: tuple[int, int] | None = (64, 96),
        half: bool = False,
    ) -> Path:
        from onnx import TensorProto as T
        from onnx import helper as h

        image = h.make_tensor_value_info("image", T.UINT8, ["N", *(size or ("H", "W")), 3])
        kind = T.UINT8 if head == "labels" else T.FLOAT16 if half else T.FLOAT
        result = h.make_tensor_value_info(head, kind, list(output))
        graph = h.make_graph(nodes, "own", [image], [result], list(constants))
        metadata = ArtefactMetadata(label_set, size, head, "fp32")
        count = len(list(tmp_path.iterdir()))
        return save_model(tmp_path / f"own{count}.onnx", graph, metadata)

    return write


@pytest.fixture
def without(monkeypatch: Any) -> Callable[..., None]:
    """A function that hides installed packages, as if they were not there."""

    def hide(*packages: str) -> None:
        for package in packages:
            monkeypatch.setitem(sys.modules, package, None)

    return hide


@pytest.fixture
def broken(monkeypatch: Any, tmp_path: Path) -> Callable[[str], None]:
    """A function that puts a package in the place of the real one, which does not import."""

    def put(package: str) -> None:
        folder = tmp_path / "broken"
        folder.mkdir()
        (folder / f"{package}.py").write_text("raise ImportError('its library is missing')")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, package, raising=False)

    return put


@pytest.fixture
def blocks() -> Callable[..., Any]:
    """The function `draw_blocks`."""
    return draw_blocks


@pytest.fixture(scope="session")
def key_pair(tmp_path_factory: Any) -> Callable[..., tuple[Path, Path]]:
    """A function that makes a private and a public key, on P-256 unless it is told a curve."""
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    from cryptography.hazmat.primitives import serialization as s

    def make(curve: Any = None, password: bytes | None = None) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp("keys")
        key = ec.generate_private_key(curve or ec.SECP256R1())
        hidden = s.BestAvailableEncryption(password) if password else s.NoEncryption()
        private, public = folder / "key.pem", folder / "key.pub"
        private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, hidden))
        form = s.PublicFormat.SubjectPublicKeyInfo
        public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, form))
        return private, public

    return make


@pytest.fixture(scope="session")
def keys(key_pair: Any) -> tuple[Path, Path]:
    """The private and the public key of somebody who is trusted."""
    pytest.importorskip("model_signing", reason="signatures need the extra [sign]")
    return key_pair()
