"""What both file formats come down to: named layers with named tensors."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """A layer that holds something.

    Attributes:
        name: as the file has it, e.g. `conv1_1_3x3_s2/bn`.
        blobs: its tensors, float32, convolutions' kernels as O x I x H x W. Their names are `0`,
            `1`, ... in Caffe's form; `weights`, `biases`, `scale`, `offset`, `mean` and `variance`
            in NumPy's. None where the file has something that is not numbers.
    """

    name: str
    blobs: Mapping[str, Array | None]


class Unusable(Exception):
    """What a file is instead of weights; it reads on after the file's name."""


_MAGIC = {
    b"PK\x03\x04": "a zip archive (an .npz, or PyTorch's .pth): unpack it, or give the file that "
    "it was made from",
    b"\x89HDF": "an HDF5 file: save the net from Caffe as a binary .caffemodel",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file that it stands for",
}
_PICKLE = "a bare pickle: save its dict with numpy.save, as an .npy"
_MAGIC |= {b"\x80" + bytes([protocol]): _PICKLE for protocol in (2, 3, 4, 5)}


def kind_of(head: bytes) -> str | None:
    """Says in words what a file is that holds no weights, from its first bytes, and what to do."""
    for magic, words in _MAGIC.items():
        if head.startswith(magic):
            return words
    if not head:
        return "empty: download it again"
    if any(byte < 32 and byte not in b"\t\r\n" for byte in head):
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    if head.lstrip().startswith(b"<"):
        return "a web page: download the file itself"
    return "text (a .prototxt describes a net and holds no weights): give the binary file"
