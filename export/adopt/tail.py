"""What is put behind a foreign network: its logits N x C x h x w, or its label map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.export.adopt.ending import Ending, Repeat, is_channels_last
from icnet_deploy.export.adopt.foreign_file import ForeignFile, opset_of
from icnet_deploy.export.adopt.nodes import rename
from icnet_deploy.export.deployed import LARGEST_SUM, NO_CLASS
from icnet_deploy.export.passes.common import makers_of

_AXES_AS_INPUT = 13
"""The first opset whose Squeeze and ReduceSum take their axes as an input."""

_SCALES_AS_INPUT = 9  # of an Upsample; an opset before has them as an attribute
_WHERE = 9  # the first opset that has it
_PLACED = 11  # the first opset whose Resize has a region of interest


def with_tail(file: ForeignFile, ending: Ending, threshold: float | None) -> onnx.ModelProto:
    """The file's graph with one output, `logits` or `labels`, in the file's own opset.

    `logits` are float32 N x C x h x w, of one channel two: zero, and by how much the channel is
    above the threshold. `labels` are uint8 N x H x W, 255 of an image whose logits are not finite,
    where these are known.

    Args:
        file: it.
        ending: where its logits are.
        threshold: of one channel, as `Ending.shift` takes it.
    """
    tail = _Tail(file)
    if ending.head == "labels":
        tail.labels(ending)
    else:
        tail.logits(ending, threshold)
    return tail.model


class _Tail:
    """A copy of a model, to which nodes are added, in an opset from 7 on."""

    def __init__(self, file: ForeignFile) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(file.model)
        self._opset = opset_of(file.model)
        self._taken = makers_of(self.model.graph).keys() | {
            value.name for value in (*self.model.graph.initializer, *self.model.graph.input)
        }

    def logits(self, ending: Ending, threshold: float | None) -> None:
        """Adds what makes the logits of an ending."""
        at = ending.tensor
        if ending.wide:
            at = self._add("Cast", [at], to=TensorProto.FLOAT)
        missing = "".join(axis for axis in "NC" if axis not in ending.layout)
        if missing:
            at = self._add("Unsqueeze", [at], axes=list(range(len(missing))))
        layout = missing + ending.layout
        if layout != "NCHW":
            at = self._add("Transpose", [at], perm=[layout.index(axis) for axis in "NCHW"])
        for repeat in reversed(ending.repeats):
            at = self._repeat(at, repeat)
        if ending.channels == 1:
            if shift := ending.shift(threshold):
                at = self._add("Sub", [at, self._constant(np.array(shift, np.float32))])
            nothing = self._add("Mul", [at, self._constant(np.array(0, np.float32))])
            at = self._add("Concat", [nothing, at], axis=1)
        self._finish(at, "logits", TensorProto.FLOAT, ["N", "C", "h", "w"])

    def labels(self, ending: Ending) -> None:
        """Adds what makes a label map of the file's own, and looks at its logits."""
        at, shape = ending.tensor, ending.shape
        if len(shape) == 2:
            at = self._add("Unsqueeze", [at], axes=[0])
        elif is_channels_last(shape):
            at = self._add("Transpose", [at], perm=[2, 0, 1])
        elif ones := [axis for axis, side in enumerate(shape) if axis and side == 1]:
            at = self._add("Squeeze", [at], axes=ones[: len(shape) - 3])
        at = self._add("Cast", [at], to=TensorProto.FLOAT)
        if ending.seen and self._opset >= _WHERE:
            total = self._add("ReduceSum", [ending.seen], axes=[1, 2, 3], keepdims=0)
            whole = self._add("Abs", [total])
            limit = self._constant(np.array(LARGEST_SUM, np.float32))
            finite = self._add("Less", [whole, limit])
            finite = self._add("Unsqueeze", [finite], axes=[1, 2])
            at = self._add("Where", [finite, at, self._constant(np.array(NO_CLASS, np.float32))])
        at = self._add("Cast", [at], to=TensorProto.UINT8)
        self._finish(at, "labels", TensorProto.UINT8, ["N", "H", "W"])

    def _repeat(self, tensor: str, repeat: Repeat) -> str:
        node = repeat.node
        scales = np.array([1, 1, *repeat.factors], np.float32)
        kept = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name != "scales"}
        if self._opset < _SCALES_AS_INPUT:
            return self._add(node.op_type, [tensor], **kept, scales=scales.tolist())
        kept.pop("axes", None)
        inputs = [tensor, self._constant(scales)]
        if self._opset >= _PLACED:
            inputs.insert(1, self._constant(np.zeros(0, np.float32)))
        return self._add(node.op_type, inputs, **kept)

    def _constant(self, value: np.ndarray[Any, Any]) -> str:
        name = self._fresh("constant")
        self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node; its axes are an input or an attribute, as the opset has it."""
        inputs = list(inputs)
        if "axes" in attributes and self._opset >= _AXES_AS_INPUT:
            inputs.append(self._constant(np.array(attributes.pop("axes"), np.int64)))
        name = self._fresh(kind)
        node = helper.make_node(kind, inputs, [name], name=f"{name}_node", **attributes)
        self.model.graph.node.append(node)
        return name

    def _fresh(self, name: str) -> str:
        count = sum(each.startswith("adopted_") for each in self._taken)
        name = f"adopted_{name}_{count}"
        self._taken.add(name)
        return name

    def _finish(self, tensor: str, head: str, kind: int, sides: Sequence[str]) -> None:
        """Makes a tensor the one output, under the name of the head."""
        graph = self.model.graph
        rename(graph, head, f"{head}_inside")
        tensor = f"{tensor}_inside" if tensor == head else tensor
        graph.node.append(helper.make_node("Identity", [tensor], [head], name=f"{head}_node"))
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info(head, kind, list(sides)))
