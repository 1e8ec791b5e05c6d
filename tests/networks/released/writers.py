"""Writes files in the released forms: random weights for every layer of the published table.

Caffe files are written by Google's protobuf library from the schema below, and Python 2's pickles
by Python's own pickler, so that neither knows anything of the readers that are tested.
"""

from __future__ import annotations

import io
import pickle
import struct

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# message -> its fields: (name, number, type, repeated)
SCHEMA = {
    "Shape": [("dim", 1, "int64", True)],
    "Blob": [
        ("num", 1, "int32", False),
        ("channels", 2, "int32", False),
        ("height", 3, "int32", False),
        ("width", 4, "int32", False),
        ("data", 5, "float", True),
        ("diff", 6, "float", True),
        ("shape", 7, "Shape", False),
        ("double_data", 8, "double", True),
    ],
    "Convolution": [("num_output", 1, "uint32", False)],
    "Layer": [
        ("name", 1, "string", False),
        ("type", 2, "string", False),
        ("bottom", 3, "string", True),
        ("loss_weight", 5, "float", True),
        ("blobs", 7, "Blob", True),
        ("convolution_param", 106, "Convolution", False),
    ],
    "OldLayer": [
        ("bottom", 2, "string", True),
        ("name", 4, "string", False),
        ("type", 5, "int32", False),
        ("blobs", 6, "Blob", True),
        ("blobs_lr", 7, "float", True),
    ],
    "Net": [
        ("name", 1, "string", False),
        ("layers", 2, "OldLayer", True),
        ("input_dim", 4, "int32", True),
        ("layer", 100, "Layer", True),
    ],
}


def _net(packed: bool):
    """The class of the message Net, with its numbers packed or not."""
    field = descriptor_pb2.FieldDescriptorProto
    package = f"caffe_{'packed' if packed else 'loose'}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    for message, rows in SCHEMA.items():
        added = file.message_type.add(name=message)
        for name, number, kind, repeated in rows:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            item = added.field.add(name=name, number=number, label=label)
            if kind in SCHEMA:
                item.type, item.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                item.type = getattr(field, f"TYPE_{kind.upper()}")
                if repeated and kind != "string":
                    item.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Net"))


NETS = {packed: _net(packed) for packed in (True, False)}


def caffe(layers, old=False, packed=True, four=False, double=False) -> bytes:
    """A .caffemodel.

    Args:
        layers: (name, type, arrays) of each layer.
        old: write V1's `layers`.
        packed: one field for all numbers of a blob.
        four: write the four numbers of a shape that came before `shape`.
        double: write float64.
    """
    net = NETS[packed](name="ICNet", input_dim=[1, 3, 1025, 2049])
    for name, kind, arrays in layers:
        layer = net.layers.add(name=name, type=4) if old else net.layer.add(name=name, type=kind)
        layer.bottom.append("below")
        if old:
            layer.blobs_lr.extend([1.0, 2.0])
        else:
            layer.convolution_param.num_output = 7
            layer.loss_weight.append(0.5)
        for array in arrays:
            blob = layer.blobs.add()
            (blob.double_data if double else blob.data).extend(array.ravel().tolist())
            if four:
                shape = (1, 1, 1, 1, *array.shape)[-4:]
                blob.num, blob.channels, blob.height, blob.width = shape
            else:
                blob.shape.dim.extend(array.shape)
    return net.SerializeToString()


def shapes(rows, width=0.5, classes=19):
    """Released layer name -> shapes of its arrays, from the published table at some width."""

    def channels(count: str, row) -> int:
        if count == "3":
            return 3
        head = row["name"] == "conv6_cls" and count == row["out_channels"]
        return classes if head else round(int(count) * width / 0.5)

    found = {}
    for row in rows:
        out = channels(row["out_channels"], row)
        if row["type"] == "Convolution":
            kernel = int(row["kernel_h"]), int(row["kernel_w"])
            found[row["name"]] = [(out, channels(row["in_channels"], row), *kernel)]
            found[row["name"]] += [(out,)] * int(row["bias"])
        elif row["type"] == "BN":
            found[row["name"]] = [(1, out, 1, 1)] * 4
    for name, cin in (("conv6_sub4", 256), ("conv6_sub2", 128)):  # in the files, not in the table
        found[name] = [(classes, round(cin * width / 0.5), 1, 1), (classes,)]
    return found


def weights(rows, width=0.5, classes=19, seed=0):
    """Random arrays, float32, with batch norm, that keep activations near 1 in every layer.

    The first convolutions see pixels, of a deviation near 70; the last one of a bottleneck is kept
    small, so that sixteen of them in a row do not grow.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for name, wanted in shapes(rows, width, classes).items():
        pixels = 70.0 if name.removesuffix("/bn") in ("conv1_1_3x3_s2", "conv1_sub1") else 1.0
        if name.endswith("/bn"):
            shape = wanted[0]
            arrays = [
                rng.uniform(0.7, 1.3, shape) * (0.3 if "increase" in name else 1.0),
                rng.normal(0, 0.2, shape),
                rng.normal(0, 0.2, shape) * pixels,
                rng.uniform(0.6, 1.5, shape) * pixels**2,
            ]
        else:
            fan_in = np.prod(wanted[0][1:])
            arrays = [rng.normal(0, (2 / fan_in) ** 0.5, wanted[0])]
            arrays += [rng.normal(0, 0.2, shape) for shape in wanted[1:]]
        found[name] = [array.astype(np.float32) for array in arrays]
    return found


def merged(found):
    """The same weights with every batch norm merged into its convolution, as the authors do it."""
    result = {}
    for name, arrays in found.items():
        if name.endswith("/bn"):
            continue
        if f"{name}/bn" in found:
            bn = [a.astype(np.float64).reshape(-1) for a in found[f"{name}/bn"]]
            factor = bn[0] / np.sqrt(bn[3] + 1e-5)
            weight = arrays[0] * factor[:, None, None, None]
            arrays = [weight.astype(np.float32), (bn[1] - bn[2] * factor).astype(np.float32)]
        result[name] = arrays
    return result


def as_layers(found):
    """Layers as the authors' build of Caffe names their types, with some that hold nothing."""
    layers = [("data", "ImageSegData", [])]
    for name, arrays in found.items():
        kind = "BNData" if name.endswith("/bn") else "ConvolutionData"
        layers.append((name, "HoleConvolutionData" if "conv5" in name else kind, arrays))
        layers.append((f"{name}/relu", "ReLU", []))
    return layers


def as_dict(found):
    """The NumPy form: kernels H x W x I x O, vectors, `NAME_bn`."""
    result = {}
    for name, arrays in found.items():
        if name.endswith("/bn"):
            keys = ("scale", "offset", "mean", "variance")
            entry = dict(zip(keys, (a.reshape(-1) for a in arrays), strict=True))
        else:
            entry = dict(zip(("weights", "biases"), arrays, strict=False))
            entry["weights"] = arrays[0].transpose(2, 3, 1, 0)
        result[name.replace("/", "_")] = entry
    return result


class Python2(pickle._Pickler):
    """Pickles text and bytes as Python 2 does its `str`."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_old(self, value) -> None:
        raw = value if isinstance(value, bytes) else value.encode("ascii")
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_old


def npy(value, protocol=None, python2=False, old_numpy=False) -> bytes:
    """An .npy of a dict, by NumPy itself or with a pickle of another age."""
    file = io.BytesIO()
    np.save(file, np.array(value, dtype=object), allow_pickle=True)
    if protocol is None and not python2:
        return file.getvalue()
    file.seek(0)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    header, body = file.getvalue()[: file.tell()], io.BytesIO()
    array = np.empty((), object)
    array[()] = value
    (Python2 if python2 else pickle.Pickler)(body, 2 if python2 else protocol).dump(array)
    text = body.getvalue()
    if old_numpy:
        text = text.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    return header + text
