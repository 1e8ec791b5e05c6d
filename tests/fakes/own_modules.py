"""Networks as a user brings them: plain PyTorch modules, and the factories that give them."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.evaluation.float_network import PytorchNetwork
from icnet_deploy.export.passes import to_half
from icnet_deploy.labels import LabelSet
from icnet_deploy.metadata import stamped
from icnet_deploy.networks.preprocessing import STREET

FIVE = LabelSet("five", tuple("abcde"), tuple((40 * i, 250 - 40 * i, 90) for i in range(5)))
TWO = LabelSet("two", ("back", "front"), ((0, 0, 0), (255, 255, 255)))


class Small(nn.Module):
    """Three convolutions of stride 4, and a resize to the image's size by half-pixel centres.

    Its weights are random, the same each time, and such that all classes occur on drawn scenes.
    """

    def __init__(self, channels, multiple=1):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.first = nn.Conv2d(3, 12, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(12)
            self.second = nn.Conv2d(12, 12, 3, stride=2, padding=1)
            self.last = nn.Conv2d(12, channels, 1)
        self.multiple = multiple
        self.eval()
        with torch.no_grad():
            logits = self.small(STREET.tensor(draw_scene(0, (64, 96)).image))
            mean, deviation = logits.mean((0, 2, 3)), logits.std((0, 2, 3))
            self.last.weight.mul_((3 / deviation)[:, None, None, None])
            self.last.bias.sub_(mean).mul_(3 / deviation)

    def small(self, image):
        return self.last(self.second(self.norm(self.first(image)).relu()).relu())

    def forward(self, image):
        if any(side % self.multiple for side in image.shape[2:]):
            raise ValueError(f"sides must be multiples of {self.multiple}")
        return F.interpolate(
            self.small(image), image.shape[2:], mode="bilinear", align_corners=False
        )


def five(multiple=1):
    """Five classes."""
    return Small(5, multiple)


def one():
    """One channel of logits."""
    return Small(1)


def build(path, checkpoint, size=(64, 96), head="logits", half=False):
    """Writes what an export of `Small` is: its graph, and what it says of itself. In no time.

    Args:
        path: the ONNX file.
        checkpoint: of a `Small`, as `open_network` gives it.
        size: (height, width), or None for any, which is for logits alone.
        head: `logits` or `labels`.
        half: in float16.
    """
    import onnx
    from onnx import TensorProto as T
    from onnx import helper as h
    from onnx import numpy_helper

    network, expects = checkpoint.network, checkpoint.preprocessing
    weights = {name: v.numpy() for name, v in network.module.state_dict().items() if v.ndim}
    weights["mean"] = np.array(expects.mean, np.float32).reshape(1, 3, 1, 1)
    weights["scale"] = np.array(expects.scale, np.float32).reshape(1, 3, 1, 1)
    weights["order"] = np.array([2, 1, 0] if expects.channels == "bgr" else [0, 1, 2])
    norm = [f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    one = network.module.last.out_channels == 1
    how = {"strides": [2, 2], "pads": [1] * 4}
    nodes = [
        h.make_node("Cast", ["image"], ["pixels"], to=T.FLOAT),
        h.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        h.make_node("Gather", ["planes", "order"], ["ordered"], axis=1),
        h.make_node("Sub", ["ordered", "mean"], ["centred"]),
        h.make_node("Mul", ["centred", "scale"], ["input"]),
        h.make_node("Conv", ["input", "first.weight", "first.bias"], ["a"], **how),
        h.make_node("BatchNormalization", ["a", *norm], ["b"]),
        h.make_node("Relu", ["b"], ["c"]),
        h.make_node("Conv", ["c", "second.weight", "second.bias"], ["d"], **how),
        h.make_node("Relu", ["d"], ["e"]),
        h.make_node("Conv", ["e", "last.weight", "last.bias"], ["f" if one else "logits"]),
    ]
    if one:
        nodes += [
            h.make_node("Sub", ["f", "f"], ["zero"]),
            h.make_node("Concat", ["zero", "f"], ["logits"], axis=1),
        ]
    n, sides = network.num_classes, size or ("H", "W")
    output = h.make_tensor_value_info("logits", T.FLOAT, ["N", n, None, None])
    if head == "labels":
        weights["scales"] = np.array([1, 1, 4, 4], np.float32)
        nodes += [
            h.make_node("Resize", ["logits", "", "scales"], ["dense"], mode="linear"),
            h.make_node("ArgMax", ["dense"], ["best"], axis=1, keepdims=0),
            h.make_node("Cast", ["best"], ["labels"], to=T.UINT8),
        ]
        output = h.make_tensor_value_info("labels", T.UINT8, ["N", *sides])
    image = h.make_tensor_value_info("image", T.UINT8, ["N", *sides, 3])
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = h.make_graph(nodes, "small", [image], [output], constants)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    if half:
        to_half(model, [])
    metadata = replace(
        PytorchNetwork(checkpoint).metadata,
        size=size,
        head=head,
        precision="fp16" if half else "fp32",
        stride=4,
        threshold=0.5 if one else None,
        tools={"onnx": "1"},
    )
    path.write_bytes(stamped(model.SerializeToString(), metadata))
    return path
