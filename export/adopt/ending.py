"""How a foreign network ends: where its logits are, and what it makes of them."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from icnet_deploy.errors import LabelSetError, ModelError
from icnet_deploy.export.adopt.foreign_file import ForeignFile, opset_of
from icnet_deploy.export.passes.common import attributes_of, makers_of

Size = tuple[int, int]
Shape = tuple[int, ...]

_SAME = ("Identity", "Cast")
_ONES = ("Squeeze", "Unsqueeze", "Reshape", "Gather")
_RISING = ("Softmax", "LogSoftmax", "Sigmoid")
"""What leaves the largest of the classes the largest."""

_RESIZES = ("Resize", "Upsample")
_ABOVE = ("Greater", "GreaterOrEqual")
_PASSED = (*_SAME, *_ONES, *_RISING, *_RESIZES, *_ABOVE, "Transpose", "ArgMax")

_RULES = {
    b"half_pixel": "half-pixel",
    b"pytorch_half_pixel": "half-pixel",
    b"align_corners": "aligned-corners",
}
"""A bilinear Resize's coordinates -> the rule of `metadata.UPSAMPLINGS` that says the same."""

_COORDINATES = 11
"""The first opset whose Resize says where its pixels lie."""

_EVEN = 0.5
_PAIR = 2  # one channel of logits tells two classes apart


@dataclass(frozen=True)
class Repeat:
    """A resize of the label map by the nearest pixel.

    Attributes:
        node: it.
        factors: how much higher and wider it makes the map.
    """

    node: onnx.NodeProto
    factors: tuple[float, float]


@dataclass(frozen=True)
class Ending:
    """Where the logits of a network are, and what is behind them.

    Attributes:
        tensor: their name in the file; of `labels`, that of the label map.
        layout: of the logits, an axis a letter, e.g. `NCHW`; `NHW` of one channel, `CHW` or `HWC`
            of one image, `HW` of one channel of one image; empty of `labels`.
        head: `logits`, or `labels` where nothing says what the map was made of.
        channels: of the logits; 0 of `labels`.
        taken_off: the operators behind the logits that the artefact does without, last first.
        upsampling: the rule of the bilinear Resize among them; None: there is none.
        repeats: the resizes of the label map among them, last first.
        threshold: of one channel, what it is compared with in the file; None: with nothing.
        probability: whether the values of the one channel are probabilities.
        wide: whether the logits are float64.
        seen: of `labels`, the tensor that an ArgMax makes them of; empty: there is none.
        shape: of `labels`, that of the map at the size that the file was run at.
    """

    tensor: str
    layout: str
    head: str = "logits"
    channels: int = 0
    taken_off: tuple[str, ...] = ()
    upsampling: str | None = None
    repeats: tuple[Repeat, ...] = ()
    threshold: float | None = None
    probability: bool = False
    wide: bool = False
    seen: str = ""
    shape: Shape = ()

    def shift(self, said: float | None) -> float:
        """What the one channel is above where a pixel is of the second class.

        Args:
            said: the probability from which on it is; None: what the file compares it with, or 0.5.
        """
        if said is None and self.threshold is not None:
            return self.threshold
        share = _EVEN if said is None else said
        return share if self.probability else math.log(share / (1 - share))

    def share(self, said: float | None) -> float:
        """The same as a probability."""
        shift = self.shift(said)
        return shift if self.probability else 1 / (1 + math.exp(-shift))


def chain(model: onnx.ModelProto, output: str) -> list[onnx.NodeProto]:
    """The operators that a network may end in, from its output back to the first other one."""
    makers, constants = makers_of(model.graph), _constants_in(model)
    nodes = []
    while (node := makers.get(output)) is not None and node.op_type in _PASSED:
        if not node.input or node.input[0] in constants:
            break
        nodes.append(node)
        output = node.input[0]
    return nodes


def rules_of(model: onnx.ModelProto) -> set[str]:
    """The rules of all bilinear Resizes of a graph; empty names of those that no rule says."""
    if opset_of(model) < _COORDINATES:
        return set()
    resizes = (attributes_of(node) for node in model.graph.node if node.op_type == "Resize")
    return {
        _RULES.get(values.get("coordinate_transformation_mode", b"half_pixel"), "")
        for values in resizes
        if values.get("mode") == b"linear"
    }


def _constants_in(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    """The constants of a graph, be they initializers or nodes: name -> value."""
    values = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            values[node.output[0]] = node.attribute[0].t
    small = {name: t for name, t in values.items() if math.prod(t.dims) <= _SMALL}
    arrays = {name: numpy_helper.to_array(t) for name, t in small.items()}
    return {name: arrays.get(name, np.zeros(0)) for name in values}


_SMALL = 64
"""Values of a constant that an ending may depend on; larger ones are weights."""


def require_classes(largest: int, classes: int, path: Path) -> None:
    """LabelSetError where a label map of a file holds what is no class of the label set."""
    if largest >= classes:
        raise LabelSetError(
            f"the label map of {path} holds {largest}, but the label set has only the classes 0 to "
            f"{classes - 1}: give the label set of the network with --label-set"
        )


def is_channels_last(labels: Shape) -> bool:
    """Whether a label map of this shape is H x W x 1."""
    return len(labels) == 3 and labels[2] == 1 != labels[0]


class Endings:
    """All that can be made of a network's end, from the one that leaves most off.

    Args:
        file: it.
        seen: the tensors of `chain` at one size: name -> values.
        size: (height, width) in pixels that they were seen at.
        classes: how many the label set has.

    Raises:
        LabelSetError: the network has another number of classes.
        ModelError: its output is neither logits nor a label map.
    """

    def __init__(
        self, file: ForeignFile, seen: Mapping[str, np.ndarray[Any, Any]], size: Size, classes: int
    ) -> None:
        self._file, self._size, self._classes = file, size, classes
        self._seen, self._constants = seen, _constants_in(file.model)

    def find(self) -> list[Ending]:
        """The endings, of which those that are not exact are to be passed over."""
        nodes = chain(self._file.model, self._file.output)
        made = next((i for i, node in enumerate(nodes) if node.op_type == "ArgMax"), None)
        whole = [node.op_type for node in nodes]
        if made is not None:
            seen, off = str(nodes[made].input[0]), tuple(whole[: made + 1])
            repeats = self._repeats(nodes[:made])
            if repeats is None or attributes_of(nodes[made]).get("select_last_index"):
                return self._labels(seen)
            axis = self._axis(nodes[made])
            start = Ending(seen, "", taken_off=off, repeats=repeats)
            return [*self._behind(start, nodes[made + 1 :], axis), *self._labels(seen)]
        above = next((i for i, node in enumerate(nodes) if node.op_type in _ABOVE), None)
        bound = None if above is None else self._bound(nodes[above])
        repeats = None if bound is None else self._repeats(nodes[:above])
        if above is not None and repeats is not None:
            seen, off = str(nodes[above].input[0]), tuple(whole[: above + 1])
            start = Ending(seen, "", taken_off=off, repeats=repeats, threshold=bound)
            behind = self._behind(start, nodes[above + 1 :], None)
        else:
            behind = []
        if self._dtype(self._file.output).kind != "f":
            return [*behind, *self._labels("")]
        start = Ending(self._file.output, "")
        untouched = self._finished(self._placed(start, None))
        return [*(behind or self._logits(start, nodes, None)), untouched]

    def _behind(
        self, start: Ending, nodes: Sequence[onnx.NodeProto], axis: int | None
    ) -> list[Ending]:
        """As `_logits`, of what a label map was made of; none where that has not four axes."""
        with suppress(ModelError):
            return self._logits(start, nodes, axis)
        return []

    def _dtype(self, tensor: str) -> np.dtype[Any]:
        return np.asarray(self._seen[tensor]).dtype

    def _shape(self, tensor: str) -> Shape:
        return tuple(np.shape(self._seen[tensor]))

    def _axis(self, node: onnx.NodeProto) -> int:
        axis = int(attributes_of(node).get("axis", 0))
        return axis % len(self._shape(node.input[0]))

    def _bound(self, node: onnx.NodeProto) -> float | None:
        value = self._constants.get(node.input[1], np.zeros(0))
        return float(value.reshape(-1)[0]) if value.size == 1 else None

    def _labels(self, seen: str) -> list[Ending]:
        shape, classes = self._shape(self._file.output), self._classes
        if len(self._sides(self._file.output)) != 2:
            raise ModelError(
                f"for an image of {self._size[0]}x{self._size[1]}, {self._file.path} gives "
                f"{self._dtype(self._file.output)} of {shape}; expected logits, N x C x h x w, or "
                "the class of each pixel: export the network so that it gives them"
            )
        require_classes(int(np.max(self._seen[self._file.output])), classes, self._file.path)
        if seen and len(self._shape(seen)) != len("NCHW"):
            seen = ""
        return [Ending(self._file.output, "", "labels", seen=seen, shape=shape)]

    def _repeats(self, nodes: Sequence[onnx.NodeProto]) -> tuple[Repeat, ...] | None:
        """The resizes of a label map; None where something else happens to it."""
        repeats = []
        for node in nodes:
            if node.op_type in (*_RISING, *_ABOVE):
                return None
            before, after = self._sides(node.input[0]), self._sides(node.output[0])
            if node.op_type not in _RESIZES:
                if before != after:
                    return None
                continue
            if attributes_of(node).get("mode", b"nearest") != b"nearest" or len(before) != 2:
                return None
            if len(after) != 2:
                return None
            repeats.append(Repeat(node, (after[0] / before[0], after[1] / before[1])))
        return tuple(repeats)

    def _sides(self, tensor: str) -> Shape:
        """The sides of a label map, without the batch and what is 1."""
        shape = self._shape(tensor)
        if len(shape) > 2:
            shape = shape[:-1] if is_channels_last(shape) else shape[1:]
        return tuple(s for s in shape if s != 1)

    def _logits(
        self, start: Ending, nodes: Sequence[onnx.NodeProto], axis: int | None
    ) -> list[Ending]:
        """Endings at logits, from their tensor on back; `axis` is that of the classes there."""
        at, found = self._placed(start, axis), list[Ending]()
        for node in nodes:
            kind, before = node.op_type, str(node.input[0])
            if kind in _ABOVE or kind == "ArgMax":
                break
            if kind in _RISING and at.upsampling is not None:
                break
            if self._dtype(before).kind != "f":  # a mask, made float
                break
            off = (*at.taken_off, kind)
            if kind == "Sigmoid" and at.threshold is not None:
                if not 0 < at.threshold < 1:
                    break
                at = replace(at, threshold=math.log(at.threshold / (1 - at.threshold)))
            if kind in _RESIZES:
                rule = self._rule(node)
                if rule is None or at.upsampling is not None:
                    break
                found.append(at)
                at = replace(at, upsampling=rule)
            elif kind == "Transpose":
                order = attributes_of(node).get("perm", ())
                if len(order) != len(at.layout):
                    break
                letters = {int(axis): at.layout[index] for index, axis in enumerate(order)}
                at = replace(at, layout="".join(letters[i] for i in range(len(order))))
            elif kind in _ONES:
                sides = [tuple(s for s in self._shape(n) if s != 1) for n in (before, at.tensor)]
                if sides[0] != sides[1]:
                    break
                try:
                    at = self._placed(replace(at, tensor=before), None)
                except ModelError:
                    break
            at = replace(at, tensor=before, taken_off=off)
        return [self._finished(one) for one in (at, *found)]

    def _finished(self, ending: Ending) -> Ending:
        """The ending with what its values are."""
        wide = self._dtype(ending.tensor) == np.float64
        return replace(ending, probability=self._is_probability(ending.tensor), wide=wide)

    def _is_probability(self, tensor: str) -> bool:
        """Whether a tensor is resized of a sigmoid, or never leaves 0..1."""
        values = np.asarray(self._seen[tensor])
        if values.min() >= 0 and values.max() <= 1:
            return True
        kinds = [node.op_type for node in chain(self._file.model, tensor)]
        after = next((k for k in kinds if k not in (*_SAME, *_ONES, *_RESIZES, "Transpose")), "")
        return after == "Sigmoid"

    def _rule(self, node: onnx.NodeProto) -> str | None:
        """By which the label map does what a Resize does to the logits; None: by none."""
        values = attributes_of(node)
        before, after = self._shape(node.input[0]), self._shape(node.output[0])
        if node.op_type != "Resize" or self._file.opset < _COORDINATES:
            return None
        plain = values.get("mode", b"nearest") == b"linear" and not values.get("antialias")
        plain = plain and not values.get("exclude_outside") and len(before) == len(after) == 4
        if not plain or self._size not in (after[2:], after[1:3]) or before == after:
            return None
        return _RULES.get(values.get("coordinate_transformation_mode", b"half_pixel"))

    def _placed(self, ending: Ending, axis: int | None) -> Ending:
        """The ending with the layout and the channels of its logits."""
        shape = self._shape(ending.tensor)
        layout = self._short_layout(shape)
        if not layout and len(shape) != 4:
            raise ModelError(
                f"for an image of {self._size[0]}x{self._size[1]}, {self._file.path} has the "
                f"tensor {ending.tensor} of {shape}; expected logits, N x C x h x w or N x h x w "
                "x C: export the network so that it gives them"
            )
        if not layout:
            axis = self._class_axis(shape) if axis is None else axis
            if axis not in (1, 3) or shape[axis] not in self._fitting():
                raise LabelSetError(self._refusal(shape, axis))
            layout = "NCHW" if axis == 1 else "NHWC"
        sides = dict(zip(layout, shape, strict=True))
        if sides["H"] > self._size[0] or sides["W"] > self._size[1]:
            raise ModelError(
                f"for an image of {self._size[0]}x{self._size[1]}, {self._file.path} has logits of "
                f"{sides['H']}x{sides['W']}; expected logits that are not larger than the image: "
                "export the network without the step that enlarges them"
            )
        return replace(ending, layout=layout, channels=sides.get("C", 1))

    def _short_layout(self, shape: Shape) -> str:
        """The layout of logits that lack the batch or the channels; empty of all others."""
        fitting = self._fitting()
        if len(shape) == 2:
            return "HW" if 1 in fitting else ""
        if len(shape) != 3:
            return ""
        if 1 in fitting and shape[0] == 1:
            return "NHW"
        return "CHW" if shape[0] in fitting else "HWC" if shape[2] in fitting else ""

    def _fitting(self) -> tuple[int, ...]:
        several = (self._classes,) if self._classes > 1 else ()
        return (*several, 1) if self._classes == _PAIR else several

    def _class_axis(self, shape: Shape) -> int | None:
        """Where the classes are: at an axis of their number, the others in the image's shape."""
        fits = [axis for axis in (1, 3) if shape[axis] in self._fitting()]
        if len(fits) == 2:
            fits.sort(key=lambda axis: self._slant(shape, axis))
        return fits[0] if fits else None

    def _slant(self, shape: Shape, axis: int) -> float:
        """How far the sides are from the image's ratio."""
        high, wide = shape[2:] if axis == 1 else shape[1:3]
        return abs(math.log(high * self._size[1] / (wide * self._size[0])))

    def _refusal(self, shape: Shape, axis: int | None) -> str:
        axis = min((1, 3), key=lambda a: self._slant(shape, a)) if axis is None else axis
        count = shape[axis]
        channels = "1 channel, which means two classes" if count == 1 else f"{count} channels"
        return (
            f"{self._file.path} has logits of {channels} (its output is {shape} for "
            f"{self._size[0]}x{self._size[1]} pixels), but the label set has {self._classes} "
            "classes: give the label set of the network with --label-set"
        )
