"""The reader of Caffe files, on files that Google's protobuf wrote and on what is no such file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icnet_deploy.errors import ModelError
from icnet_deploy.networks.released.caffemodel import caffe_layers
from icnet_deploy.networks.released.importer import read_layers
from icnet_deploy.networks.released.layer import Unusable

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(4, 3, 2, 2)).astype(np.float32)
BIAS = RNG.normal(size=4).astype(np.float32)
STATISTICS = [RNG.normal(size=(1, 4, 1, 1)).astype(np.float32) for _ in range(4)]
LAYERS = [
    ("data", "ImageSegData", []),
    ("conv", "ConvolutionData", [KERNEL, BIAS]),
    ("conv/bn", "BNData", STATISTICS),
    ("conv/relu", "ReLU", []),
]


@pytest.mark.parametrize("old", [False, True], ids=["layer", "layers"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "loose"])
@pytest.mark.parametrize("double", [False, True], ids=["float", "double"])
def test_every_number_is_read(writers, file, old, packed, double):
    path = file(writers.caffe(LAYERS, old=old, packed=packed, double=double))
    (conv, bn), form = read_layers(path)
    assert form == "caffe"
    assert (conv.name, bn.name) == ("conv", "conv/bn")
    for layer, arrays in ((conv, [KERNEL, BIAS]), (bn, STATISTICS)):
        assert list(layer.blobs) == [str(i) for i in range(len(arrays))]
        for found, wanted in zip(layer.blobs.values(), arrays, strict=True):
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, wanted)
            assert found.shape == wanted.shape


def test_a_shape_of_four_numbers_is_read(writers, file):
    (conv, _), _ = read_layers(file(writers.caffe(LAYERS, old=True, four=True)))
    assert [a.shape for a in conv.blobs.values()] == [(4, 3, 2, 2), (1, 1, 1, 4)]
    np.testing.assert_array_equal(conv.blobs["1"].ravel(), BIAS)


def test_a_cut_gives_whole_layers_or_an_error(writers, file):
    content = writers.caffe(LAYERS)
    whole = 0
    for end in range(len(content)):
        try:
            layers, _ = read_layers(file(content[:end]))
        except ModelError:
            continue
        whole += 1
        assert [layer.name for layer in layers] == ["conv", "conv/bn"][: len(layers)]
        assert all(np.isfinite(blob).all() for layer in layers for blob in layer.blobs.values())
    assert 1 <= whole <= 3  # protobuf has no end mark: a cut between two layers cannot be seen


def npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, a=BIAS)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npz(), "zip archive"),
        (b"<!DOCTYPE html>\n<html><title>Too many users</title>", "web page.*download"),
        (b"\n\n <html>\xc3\xa9", "web page"),
        (b'name: "ICNet"\nlayer {\n', "text.*prototxt"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"\x1f\x8b\x08" + bytes(50), "gzip"),
        (b"\x80\x02}q\x00", "bare pickle"),
        (b"", "empty"),
        (b"\x00" * 64, "not a whole file"),
        (b"\xff" * 64, "not a whole file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a whole file"),
        (b"\x08\xb0\xea\x01\x12\x05a.b.c", "state of a solver"),
        (b"\x0a\x05ICNet", "no weights"),
    ],
)
def test_another_kind_of_file_is_named(content, words, file):
    with pytest.raises(ModelError, match=words):
        read_layers(file(content))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.caffemodel", tmp_path):
        with pytest.raises(ModelError, match="cannot read the weights"):
            read_layers(path)


def test_a_shape_must_fit_its_numbers(writers, file):
    net = writers.NETS[True]()
    blob = net.layer.add(name="conv").blobs.add(data=[1.0, 2.0])
    blob.shape.dim.extend([2, 3])
    with pytest.raises(ModelError, match=r"'conv' has the shape \[2, 3\], but 2 numbers"):
        read_layers(file(net.SerializeToString()))
    blob.shape.dim[:] = [-1, -2]
    with pytest.raises(ModelError, match="but 2 numbers"):
        read_layers(file(net.SerializeToString()))


def test_one_name_for_two_layers_is_refused(writers, file):
    with pytest.raises(ModelError, match="two layers are called 'conv'"):
        read_layers(file(writers.caffe([*LAYERS, LAYERS[1]])))


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_no_content_does_anything_but_be_refused(content):
    inside = b"\xa2\x06" + bytes([len(content)]) + content  # NetParameter.layer
    for whole in (content, inside):
        try:
            caffe_layers(whole)
        except (Unusable, EOFError, ValueError):
            continue
