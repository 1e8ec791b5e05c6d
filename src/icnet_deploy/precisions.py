"""The precisions of artefacts: one row each, which says all that depends on it.

Whoever needs to know what a precision is for asks its row; nobody compares names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Precision:
    """What there is to know of a precision.

    Attributes:
        name: as the metadata of an artefact has it.
        bits: of a weight.
        rank: among artefacts of one network the lower is the likelier to be the fastest.
        tie_margin: the reference's two best logits within this are a tie.
        miou_points: how far mIoU may be from the reference's, in points (hundredths).
        class_points: how far the IoU of one class may be, in points; None: not held.
        agreement: the least share of pixels that agree with the reference, 0..1; None: not held.
        runtimes: those whose kernels it is placed for; empty: all.
        refused: where it cannot run -> why, in words: the name of a runtime and of a device, as
            "onnxruntime, cuda", or `engines`, for every runtime of engines.
        rounded: whether a CPU computes it in more bits than a GPU.
        calibrated: whether its ranges were measured on images, of which the metadata must tell.
    """

    name: str
    bits: int
    rank: int
    tie_margin: float
    miou_points: float
    class_points: float | None = None
    agreement: float | None = None
    runtimes: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    rounded: bool = False
    calibrated: bool = False

    def meant_for(self, runtime: str) -> bool:
        """Whether its kernels are there."""
        return not self.runtimes or runtime in self.runtimes

    def refusal(self, runtime: str, device: str, engines: bool = False) -> str | None:
        """Why it does not run on a runtime's device, or None.

        Args:
            runtime: its name.
            device: `cpu` or `cuda`.
            engines: whether the runtime runs engines, which are built beforehand.
        """
        return self.refused.get(f"{runtime}, {device}") or (
            self.refused.get("engines") if engines else None
        )


_NO_INTEGERS = "ONNX Runtime has no integer convolution on CUDA"

PRECISIONS: Mapping[str, Precision] = {
    row.name: row
    for row in (
        Precision("fp32", 32, 3, tie_margin=1e-3, miou_points=0.01, agreement=0.9999),
        Precision("fp16", 16, 2, tie_margin=0.05, miou_points=0.02, rounded=True),
        Precision(
            "int8",
            8,
            0,
            tie_margin=0.25,
            miou_points=0.3,
            class_points=1.0,
            runtimes=("openvino", "tensorrt", "tensorrt-rtx"),
            refused={"onnxruntime, cuda": _NO_INTEGERS},
            calibrated=True,
        ),
        Precision(
            "int8-ort",
            8,
            1,
            tie_margin=0.25,
            miou_points=0.3,
            class_points=1.0,
            runtimes=("onnxruntime", "openvino"),
            refused={
                "onnxruntime, cuda": _NO_INTEGERS,
                "engines": "TensorRT's parser refuses it, since its activations are uint8",
            },
            calibrated=True,
        ),
    )
}
"""Name -> row, the likely most exact first."""


def precision_of(name: str | None) -> Precision | None:
    """The row of a name; None for one that is not known, such as an engine's without a sidecar."""
    return PRECISIONS.get(name or "")
