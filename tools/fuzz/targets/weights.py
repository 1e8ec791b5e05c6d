"""Files of weights: checkpoints, what `torch.save` wrote, and the released forms."""

import csv
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from icnet_deploy.protobuf import varint
from tools.fuzz.corpus import old_files
from tools.fuzz.mutate.raw import changed_bytes
from tools.fuzz.mutate.tree import changed_json, changed_tree, dumps, loads
from tools.fuzz.mutate.wire import changed_message
from tools.fuzz.target import Run, Target

_KEY = "icnet_deploy"
_MOST_BODY = 1 << 20
_LAYERS = Path("tests/networks/released_layers.csv")


def _checkpoints() -> list[bytes]:
    """Headers of safetensors files; their numbers are zeros, which `_whole` puts behind them."""
    file = old_files()["tiny.safetensors"]
    header = loads(file[8 : 8 + int.from_bytes(file[:8], "little")])
    few = {
        "__metadata__": {_KEY: "{}"},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    }
    return [json.dumps(header).encode(), json.dumps(few).encode()]


def _changed_checkpoint(data: bytes, rng: Random) -> bytes:
    """Another header, or another description of the network in it."""
    try:
        header = loads(data)
        description = loads(header["__metadata__"][_KEY].encode())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return changed_json(data, rng)
    if rng.random() < 0.3:
        return changed_json(data, rng)
    text = dumps(changed_tree(description, rng)).encode("utf-8", "replace").decode()
    header["__metadata__"][_KEY] = text
    return json.dumps(header).encode()


def _whole(header: bytes) -> bytes:
    """A safetensors file of that header, all of its numbers 0."""
    end = 0
    try:
        entries = loads(header)
        end = max(int(one["data_offsets"][1]) for k, one in entries.items() if k[:1] != "_")
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError):
        pass
    except RecursionError:
        pass
    padded = header + b" " * (-len(header) % 8)
    return len(padded).to_bytes(8, "little") + padded + bytes(max(0, min(end, _MOST_BODY)))


def _prepare_checkpoint(folder: Path) -> Run:
    from icnet_deploy.networks.checkpoint import load_checkpoint

    path = folder / "net.safetensors"

    def run(data: bytes) -> Iterator[str]:
        path.write_bytes(_whole(data))
        load_checkpoint(path).network.description(guidance=False)
        yield "loaded"

    return run


def _saved() -> list[bytes]:
    import torch

    state = {"a.weight": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.float16)}
    values: list[Any] = [
        state,
        {"model": state, "optimizer": {"state": {}}, "epoch": 3},
        {"state_dict": {"net": {"x": torch.zeros(())}}},
        [1, 2],
    ]
    files = []
    for value in values:
        for zipped in (True, False):
            stream = io.BytesIO()
            torch.save(value, stream, _use_new_zipfile_serialization=zipped)
            files.append(stream.getvalue())
    return [*files, _whole(_checkpoints()[1])]


def _changed_saved(data: bytes, rng: Random) -> bytes:
    """In an archive another pickle or other numbers, with right checksums."""
    if not data.startswith(b"PK") or rng.random() < 0.2:
        return changed_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # an archive that was changed before
        return changed_bytes(data, rng)
    if not members:
        return changed_bytes(data, rng)
    pickles = [name for name in members if name.endswith(".pkl")]
    name = rng.choice(pickles if pickles and rng.random() < 0.7 else list(members))
    way = rng.randrange(8)
    if way == 0:
        del members[name]
    elif way == 1:
        members[name.replace("data", rng.choice(("code/a", "..", "é")))] = members.pop(name)
    else:
        members[name] = changed_pickle(members[name], rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for each, content in members.items():
            archive.writestr(zipfile.ZipInfo(each), content)  # which has no time of now
    return stream.getvalue()


_OPCODES = (
    *(b"(", b".", b"0", b"1", b"2", b"N", b"}", b"]", b")", b"\x85", b"\x86", b"\x87", b"\x88"),
    *(b"R", b"b", b"Q", b"o", b"a", b"e", b"s", b"u", b"\x81", b"\x92", b"q\x01", b"h\x01"),
    *(b"K\x05", b"M\xff\xff", b"J\xff\xff\xff\xff", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"),
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nzeros\n", b"cnumpy\nndarray\n"),
    *(b"X\x02\x00\x00\x00ab", b"\x8c\x01a", b"r\xff\xff\xff\x7f", b"j\x01\x00\x00\x00", b"t", b"l"),
)


def changed_pickle(data: bytes, rng: Random) -> bytes:
    """A pickle with operations put in, or other bytes."""
    if rng.random() < 0.5:
        return changed_bytes(data, rng)
    at = rng.randrange(len(data) + 1)
    many = rng.choice((1, 1, 2, 5000))
    return data[:at] + rng.choice(_OPCODES) * many + data[at + rng.choice((0, 0, 1)) :]


def _prepare_saved(folder: Path) -> Run:
    from icnet_deploy.networks.own.weight_file import is_dense, read_states

    path = folder / "net.pth"

    def run(data: bytes) -> Iterator[str]:
        path.write_bytes(data)
        for state in read_states(path):
            for tensor in state.tensors.values():
                is_dense(tensor)
            str(state)
        yield "loaded"

    return run


def _message(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def _blob(array: np.ndarray) -> bytes:
    dims = _message(7, _message(1, b"".join(varint(side) for side in array.shape)))
    return dims + _message(5, array.astype("<f4").tobytes())


def _layer(name: bytes, *arrays: np.ndarray) -> bytes:
    return _message(100, _message(1, name) + b"".join(_message(7, _blob(each)) for each in arrays))


def _released_names() -> list[str]:
    """Names of layers, as the authors published them: some of the first, and the last."""
    lines = _LAYERS.read_text("utf-8").splitlines()[2:]
    names = [line.partition(",")[0] for line in lines]
    return [*names[:4], names[-1]]


def _narrow(channels: str) -> int:
    """A sixteenth of a released layer's, and at least 8; all colours and classes."""
    return int(channels) if channels in ("3", "19") else max(8, int(channels) // 16)


def _whole_net() -> dict[str, list[np.ndarray]]:
    """A narrow ICNet: name of each layer in the authors' files -> its arrays."""
    # The heads of the two lower branches are in the files, and not in the table of layers.
    shapes = {
        f"conv6_{branch}": [(19, _narrow(channels), 1, 1), (19,)]
        for branch, channels in (("sub4", "256"), ("sub2", "128"))
    }
    lines = _LAYERS.read_text("utf-8").splitlines()[1:]
    for row in csv.DictReader(lines):
        if row["type"] in ("Convolution", "BN"):
            out = _narrow(row["out_channels"])
            shapes[row["name"]] = [(1, out, 1, 1)] * 4
        if row["type"] == "Convolution":
            sides = int(row["kernel_h"]), int(row["kernel_w"])
            weights = (out, _narrow(row["in_channels"]), *sides)
            shapes[row["name"]] = [weights, *[(out,)] * int(row["bias"])]
    rng = np.random.default_rng(0)
    return {name: [rng.random(s, np.float32) for s in each] for name, each in shapes.items()}


def _caffe() -> list[bytes]:
    """A whole net, and small ones, a part of whose layers are ICNet's."""
    names = [name.encode() for name in _released_names()]
    new = b"".join(_layer(name, np.full((2, 3, 3, 3), 0.5), np.full(2, 0.5)) for name in names)
    old = b"".join(
        _message(2, _message(4, name) + _message(6, b"\x08\x01\x10\x01\x18\x01\x20\x02" + _data(2)))
        for name in names
    )
    whole = b"".join(_layer(name.encode(), *each) for name, each in _whole_net().items())
    return [whole, _message(1, b"net") + new, old, new + old]


def _data(count: int) -> bytes:
    return _message(5, struct.pack(f"<{count}f", *range(count)))


def _as_dict(net: dict[str, list[np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """The NumPy form: kernels H x W x I x O, the arrays of batch norm by name."""
    found = {}
    for name, arrays in net.items():
        if name.endswith("/bn"):
            vectors = [array.reshape(-1) for array in arrays]
            entry = dict(zip(("scale", "offset", "mean", "variance"), vectors, strict=True))
        else:
            entry = dict(zip(("weights", "biases"), arrays, strict=False))
            entry["weights"] = arrays[0].transpose(2, 3, 1, 0)
        found[name.replace("/", "_")] = entry
    return found


def _numpy() -> list[bytes]:
    layer = {"weights": np.ones((3, 3, 3, 2), np.float32), "biases": np.zeros(2)}
    batch_norm = {"mean": np.zeros(2, np.float32), "variance": np.ones(2), "scale": np.float32(1)}
    first = _released_names()[1]
    few = {first: layer, f"{first}_bn": batch_norm}
    values: list[Any] = [_as_dict(_whole_net()), few, {"a": 1}, [1]]
    files = []
    for value in values:
        stream = io.BytesIO()
        np.save(stream, np.array(value, dtype=object), allow_pickle=True)
        files.append(stream.getvalue())
        # As Python 2 wrote them.
        start = stream.getvalue()[:128]
        files.append(start + pickle.dumps(np.array(value, dtype=object), protocol=2))
    return files


def _changed_numpy(data: bytes, rng: Random) -> bytes:
    if rng.random() < 0.15:
        return changed_bytes(data, rng)
    return data[:128] + changed_pickle(data[128:], rng)


def _prepare_released(name: str) -> Callable[[Path], Run]:
    def prepare(folder: Path) -> Run:
        from icnet_deploy.labels import CITYSCAPES
        from icnet_deploy.networks.released.importer import read_released, save_released

        path = folder / name

        def run(data: bytes) -> Iterator[str]:
            path.write_bytes(data)
            released = read_released(path)
            yield "read"
            save_released(released, folder / "net.safetensors", CITYSCAPES)
            yield "imported"

        return run

    return prepare


TARGETS = (
    Target(
        "checkpoint",
        "checkpoints (`.safetensors`)",
        _checkpoints,
        _changed_checkpoint,
        _prepare_checkpoint,
        20_000,
    ),
    Target(
        "weights",
        "weights of own networks (`.pth`)",
        _saved,
        _changed_saved,
        _prepare_saved,
        40_000,
    ),
    Target(
        "caffemodel",
        "released weights (`.caffemodel`)",
        _caffe,
        changed_message,
        _prepare_released("net.caffemodel"),
        10_000,
    ),
    Target(
        "numpy",
        "released weights (`.npy`)",
        _numpy,
        _changed_numpy,
        _prepare_released("net.npy"),
        40_000,
    ),
)
