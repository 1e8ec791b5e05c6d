"""A foreign file on ONNX Runtime, as it is, and what it says of tensors inside it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from icnet_deploy.errors import BackendError, ModelError
from icnet_deploy.export.adopt.foreign_file import ForeignFile, brief

Array = npt.NDArray[Any]
Size = tuple[int, int]


class Original:
    """A foreign file, or its graph with more behind it, on ONNX Runtime on the CPU.

    Args:
        file: it.
        model: the graph that is run; None: the file's own.
        tensors: what of it is wanted, outputs or not.

    Raises:
        ModelError: ONNX Runtime does not load it.
    """

    def __init__(
        self, file: ForeignFile, tensors: Sequence[str], model: onnx.ModelProto | None = None
    ) -> None:
        import onnxruntime

        self.file, self._tensors = file, list(dict.fromkeys(tensors))
        asked = onnx.ModelProto()
        asked.CopyFrom(file.model if model is None else model)
        there = {value.name for value in asked.graph.output}
        more = [onnx.ValueInfoProto(name=name) for name in self._tensors if name not in there]
        asked.graph.output.extend(more)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised
        try:
            self._session = onnxruntime.InferenceSession(
                asked.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of a kind of its own for each of its codes
            raise ModelError(
                f"ONNX Runtime does not load {file.path}, so an artefact cannot be compared with "
                f"it: {brief(error)}"
            ) from error

        [image] = self._session.get_inputs()
        self._image, self._dtype = image.name, _DTYPES[image.type]

    def run(self, pixels: npt.NDArray[np.float32]) -> dict[str, Array]:
        """What it gives for images: tensor -> values.

        Args:
            pixels: float32 N x 3 x H x W, as the network expects them.

        Raises:
            BackendError: ONNX Runtime fails on images of this size.
        """
        images = pixels if self.file.layout == "NCHW" else pixels.transpose(0, 2, 3, 1)
        images = np.ascontiguousarray(images).astype(self._dtype)
        together = self.file.batch or len(images)
        parts = []
        for index in range(0, len(images), together):
            one = images[index : index + together]
            lacking = together - len(one)
            fed = np.concatenate([one, np.repeat(one[-1:], lacking, 0)]) if lacking else one
            try:
                answers = self._session.run(self._tensors, {self._image: fed})
            except Exception as error:  # of a kind of its own for each of its codes
                height, width = pixels.shape[2:]
                raise BackendError(
                    f"{self.file.path} does not run on {len(fed)} image{'s' * (len(fed) > 1)} of "
                    f"{height}x{width}: {brief(error)}"
                ) from error
            parts.append([a[: len(one)] for a in answers] if lacking else answers)
        joined = [np.concatenate(a) if len(a) > 1 else a[0] for a in zip(*parts, strict=True)]
        return dict(zip(self._tensors, joined, strict=True))


_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


def normalised(
    images: npt.NDArray[np.uint8], preprocessing: Mapping[str, Any]
) -> npt.NDArray[np.float32]:
    """What a network expects of images, float32 N x 3 x H x W, in NumPy.

    Args:
        images: uint8 N x H x W x 3, RGB.
        preprocessing: of `networks.preprocessing.Preprocessing.to_dict`, as metadata have it.
    """
    pixels = images.astype(np.float32).transpose(0, 3, 1, 2)
    if preprocessing.get("channels") == "bgr":
        pixels = pixels[:, ::-1]
    mean, scale = (
        np.array(preprocessing[name], np.float32).reshape(1, 3, 1, 1) for name in ("mean", "scale")
    )
    return np.ascontiguousarray((pixels - mean) * scale, np.float32)
