"""The reader of the NumPy form: every age of pickle is read, and nothing in one is run."""

from __future__ import annotations

import io
import os
import pickle

import numpy as np
import pytest

from icnet_deploy.errors import ModelError
from icnet_deploy.networks.released.importer import read_layers

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 3, 2, 4)).astype(np.float32)  # H x W x I x O
NET = {
    "conv": {"weights": KERNEL, "biases": np.arange(4.0)},
    "conv_bn": {"scale": np.asfortranarray(np.ones((2, 2), ">f4")), "step": np.float32(3)},
    "extra": {"text": "a note", "none": None},
}
AGES = [
    {},
    {"protocol": 4},
    {"protocol": 3},
    {"protocol": 2},
    {"protocol": 2, "old_numpy": True},
    {"python2": True, "old_numpy": True},
]


@pytest.mark.parametrize("age", AGES, ids=str)
def test_every_age_of_pickle_is_read(writers, file, age):
    read, form = read_layers(file(writers.npy(NET, **age)))
    layers = {layer.name: layer.blobs for layer in read}
    assert form == "numpy"
    assert list(layers) == ["conv", "conv_bn", "extra"]
    np.testing.assert_array_equal(layers["conv"]["weights"], KERNEL.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(layers["conv"]["biases"], np.arange(4.0))
    np.testing.assert_array_equal(layers["conv_bn"]["scale"], np.ones((2, 2)))
    assert layers["conv_bn"]["step"] == 3
    assert layers["extra"] == {"text": None, "none": None}
    assert all(blob.dtype == np.float32 for blob in layers["conv"].values())


def test_names_may_be_bytes(writers, file):
    content = writers.npy({b"conv": {b"weights": KERNEL}}, protocol=3)
    [layer], _ = read_layers(file(content))
    assert (layer.name, list(layer.blobs)) == ("conv", ["weights"])


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(flag):
    """Objects that would make the file `flag` if they were unpickled, or read files, or worse."""
    array = np.zeros(2, np.float32)
    return {
        "system": Calls(os.system, f"touch {flag}"),
        "eval": Calls(eval, f"open({str(flag)!r}, 'w')"),
        "open": Calls(open, str(flag), "w"),
        "numpy.save": Calls(np.save, str(flag), array),
        "numpy.load": Calls(np.load, str(flag)),
        "numpy.testing": Calls(np.testing.measure, f"open({str(flag)!r}, 'w')"),
        "numpy.fromfile": Calls(np.fromfile, "/dev/zero", np.uint8, 1),
        "getattr": Calls(getattr, array, "tofile"),
        "class": Calls(type, "A", (), {}),
        "function": np.linalg.norm,
    }


@pytest.mark.parametrize("name", attacks(""))
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_is_no_array_is_refused_and_not_run(writers, file, tmp_path, name, protocol):
    flag = tmp_path / "flag.npy"
    attack = attacks(flag)[name]
    for value in ({"conv": {"weights": attack}}, attack):
        content = writers.npy(value, protocol=protocol)
        with pytest.raises(ModelError, match="refused, and nothing was run"):
            read_layers(file(content))
        assert not flag.exists()


def raw(body: bytes) -> bytes:
    """An .npy with a hand-written pickle."""
    out = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue() + body


@pytest.mark.parametrize(
    "body",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"Vname\nP7\n.",  # a persistent object
        b"\x80\x02\x82\x01.",  # an entry of copyreg's table
    ],
)
def test_hand_written_programs_are_refused(body, file):
    with pytest.raises(ModelError):
        read_layers(file(raw(body)))


def test_a_forged_dtype_is_refused(file):
    """Objects said to be plain numbers: NumPy would take the bytes for addresses."""
    body = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01K\x01\x85cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08AAAAAAAAtb."
    )
    with pytest.raises(ModelError, match="'O8' where numbers are due"):
        read_layers(file(raw(body)))


@pytest.mark.parametrize(
    "body", [b"\x80\x02Nr\xff\xff\xff\x1f.", b"\x80\x02N}r\xff\xff\xff\x7f0.", b"Np2147483647\n."]
)
def test_a_place_beyond_the_file_takes_no_memory(file, body):
    """The unpickler would take memory for all places before it, 2 to 17 GB."""
    with pytest.raises(ModelError, match=r"the place \d+ in a file of fewer bytes"):
        read_layers(file(raw(body)))


def test_stand_ins_cannot_be_changed(file):
    """BUILD on what a name resolves to, as the pickle of `(None, {"order": 1})` as its state."""
    body = b"\x80\x02cnumpy\ndtype\nN}X\x05\x00\x00\x00orderK\x01s\x86b."
    with pytest.raises(ModelError, match="not a whole"):
        read_layers(file(raw(body)))


def test_a_cut_is_refused(writers, file):
    content = writers.npy({"conv": {"weights": np.ones(3, np.float32)}})
    for end in range(len(content)):
        with pytest.raises(ModelError):
            read_layers(file(content[:end]))


@pytest.mark.parametrize("value", [[1, 2], "conv", 3])
def test_what_is_no_dict_is_refused(writers, file, value):
    with pytest.raises(ModelError, match="not a dict of layers"):
        read_layers(file(writers.npy(value, protocol=4)))


def test_a_plain_array_is_refused(file):
    out = io.BytesIO()
    np.save(out, np.ones(3))
    with pytest.raises(ModelError, match="array of float64, not a dict"):
        read_layers(file(out.getvalue()))


def test_a_bare_pickle_is_refused(file):
    with pytest.raises(ModelError, match="bare pickle"):
        read_layers(file(pickle.dumps(NET)))
