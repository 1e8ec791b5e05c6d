"""An artefact of which one byte differs is refused, wherever the byte lies."""

from __future__ import annotations

import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from icnet_deploy.errors import ModelError
from icnet_deploy.files import sha256
from icnet_deploy.integrity import artefact_digest, artefact_sha256
from icnet_deploy.metadata import read_onnx_metadata, stamped
from icnet_deploy.protobuf import varint
from icnet_deploy.runtime import Predictor

ARCHIVE = Path(__file__).parent / "old_files" / "0.1.0.tar.xz"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """An INT8 file of version 0.1.0, which has no digest."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extract("release/tiny-logits-int8-ort.onnx", folder, filter="data")
    return folder / "release" / "tiny-logits-int8-ort.onnx"


@pytest.fixture
def model(old, tmp_path):
    """The same file, stamped."""
    path = tmp_path / "model.onnx"
    path.write_bytes(stamped(old.read_bytes(), read_onnx_metadata(old)))
    return path


def test_a_file_without_a_digest_is_read_as_before(old):
    assert read_onnx_metadata(old).digest == ""


def test_a_stamped_file_is_read_and_says_its_digest(model, old):
    found = read_onnx_metadata(model)
    assert len(found.digest) == 64
    assert found.weights_sha256 == read_onnx_metadata(old).weights_sha256


def test_stamping_again_changes_nothing(model):
    content = model.read_bytes()
    assert stamped(content, read_onnx_metadata(model)) == content


def test_a_stamped_file_is_one_that_onnx_reads(model, old):
    onnx = pytest.importorskip("onnx", reason="needs the onnx package")
    new, before = onnx.load(model), onnx.load(old)
    assert new.graph == before.graph
    assert len(new.metadata_props) == len(before.metadata_props)


def _with_bit(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_is_found(model):
    content = model.read_bytes()
    random = np.random.default_rng(0)
    metadata = content.index(b'{"calibration_images')
    anywhere = random.integers(0, 8 * len(content), 300)
    in_metadata = random.integers(8 * metadata, 8 * len(content), 300)
    at_the_start = random.integers(0, 8 * 200, 100)
    for bit in (*anywhere, *in_metadata, *at_the_start):
        model.write_bytes(_with_bit(content, int(bit)))
        with pytest.raises(ModelError):
            read_onnx_metadata(model)


def test_every_bit_that_says_that_there_is_a_digest_is_found(model):
    """A key that is damaged must not make the file one without a digest."""
    content = model.read_bytes()
    for word in (b'"digest": ', b'"stamped": true', b'"schema": 1', b"icnet_deploy\x12"):
        start = content.rindex(word)
        for bit in range(8 * start, 8 * (start + len(word))):
            model.write_bytes(_with_bit(content, bit))
            with pytest.raises(ModelError):
                read_onnx_metadata(model)


def test_a_block_of_zeros_is_found(model):
    content = model.read_bytes()
    for start in np.linspace(0, len(content) - 4096, 50).astype(int):
        model.write_bytes(content[:start] + bytes(4096) + content[start + 4096 :])
        with pytest.raises(ModelError):
            read_onnx_metadata(model)


def test_what_is_appended_is_found(model):
    """Fields of the same number are merged: a graph that is appended adds nodes to the first."""
    content = model.read_bytes()
    for more in (content, b"\x3a\x00", b"\x72\x04\x0a\x02xx", content[-5000:]):
        model.write_bytes(content + more)
        with pytest.raises(ModelError):
            read_onnx_metadata(model)


def test_a_predictor_refuses_it_with_what_to_do(model):
    content = model.read_bytes()
    model.write_bytes(_with_bit(content, 8 * (len(content) // 2)))
    with pytest.raises(ModelError, match=r"not the file that was written.*copy the whole file"):
        Predictor.from_onnx(model)


@pytest.fixture
def external(old, tmp_path):
    """A stamped file whose weights lie in a file beside it."""
    onnx = pytest.importorskip("onnx", reason="external data are made with the onnx package")
    path = tmp_path / "external.onnx"
    onnx.save(onnx.load(old), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    path.write_bytes(stamped(path.read_bytes(), read_onnx_metadata(old), tmp_path))
    return path


def test_external_data_are_part_of_it(external):
    assert read_onnx_metadata(external).digest
    weights = external.with_name("w.bin")
    content = weights.read_bytes()
    for byte in (0, len(content) // 2, len(content) - 1):
        weights.write_bytes(_with_bit(content, 8 * byte))
        with pytest.raises(ModelError, match="not the file that was written"):
            read_onnx_metadata(external)


def test_external_data_that_are_missing_or_elsewhere_are_refused(external):
    weights = external.with_name("w.bin")
    moved = external.parent / "elsewhere.bin"
    weights.rename(moved)
    with pytest.raises(ModelError, match=r"w\.bin are missing"):
        read_onnx_metadata(external)
    with pytest.raises(ModelError, match=r"w\.bin are missing"):
        artefact_sha256(external)
    content = external.read_bytes()
    assert b"w.bin" in content
    external.write_bytes(content.replace(b"w.bin", b"../w."))
    with pytest.raises(ModelError, match="outside of its folder"):
        artefact_digest(external)


def test_the_digest_of_all_that_is_executed(external, old):
    assert artefact_sha256(old) == sha256(old)
    assert artefact_digest(external)[1] == [external, external.with_name("w.bin")]
    before = artefact_sha256(external)
    weights = external.with_name("w.bin")
    weights.write_bytes(_with_bit(weights.read_bytes(), 100))
    assert artefact_sha256(external) != before != sha256(external)


def test_a_mark_that_two_blocks_share_is_found(external):
    at = external.read_bytes().index(b"location")
    for cut in range(at + 1, at + 8):
        assert artefact_digest(external, block=cut)[1][1:] == [external.with_name("w.bin")]


def test_the_word_location_in_a_name_is_no_external_file(old, tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs the onnx package")
    model = onnx.load(old)
    model.graph.doc_string = "location"
    path = tmp_path / "named.onnx"
    path.write_bytes(stamped(model.SerializeToString(), read_onnx_metadata(old)))
    assert artefact_digest(path)[1] == [path]
    assert read_onnx_metadata(path).digest


def test_weights_that_are_not_finite_are_found_where_there_is_no_digest(old, tmp_path):
    """OpenVINO makes a zero of NaN: no answer would tell."""
    onnx = pytest.importorskip("onnx", reason="needs the onnx package")
    model = onnx.load(old)
    [bias] = [t for t in model.graph.initializer if t.data_type == 1 and len(t.dims) == 1][:1]
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] = np.nan
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, tmp_path / "nan.onnx")
    with pytest.raises(ModelError, match="not numbers"):
        Predictor.from_onnx(tmp_path / "nan.onnx")


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


@pytest.mark.parametrize("depth", [60, 1000])
def test_graphs_within_graphs_are_no_error_of_python(old, tmp_path, depth):
    """A file without a digest is looked through, and one that names external data, too."""
    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))
    for inside in (b"", field(8, b"location")):  # a graph's own name
        path = tmp_path / "deep.onnx"
        path.write_bytes(old.read_bytes() + field(7, graph + inside))
        with suppress(ModelError):
            assert read_onnx_metadata(path).digest == ""
        path.write_bytes(stamped(path.read_bytes(), read_onnx_metadata(old)))
        assert read_onnx_metadata(path).digest


def test_halves_that_are_no_halves_are_no_error_of_python(old, tmp_path):
    tensor = b"\x08\x01\x10\x0a" + field(5, varint(70_000)) + field(8, b"half")
    path = tmp_path / "halves.onnx"
    path.write_bytes(old.read_bytes() + field(7, field(5, tensor)))
    assert read_onnx_metadata(path).digest == ""


def test_external_data_deeper_than_a_runtime_reads_are_none(tmp_path):
    graph = field(5, field(13, field(1, b"location") + field(2, b"absent.data")))
    for _ in range(1500):
        graph = field(1, field(5, field(6, graph)))
    path = tmp_path / "deep.onnx"
    path.write_bytes(field(7, graph))
    assert artefact_digest(path) == (sha256(path), [path])
