"""`python with_torch.py DIR`: tiny networks of PyTorch, by both of its exporters.

They are not trained: their weights are drawn, so that every class wins somewhere.
"""

import sys
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 5


class Net(nn.Module):
    """A few convolutions, a branch of half the size, and one of the ways to end."""

    def __init__(self, end="logits", inner="half", classes=CLASSES):
        super().__init__()
        self.end, self.inner = end, inner
        self.stem = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(12, 12, 3, 1, 2, dilation=2, groups=12, bias=False),
            nn.BatchNorm2d(12),
            nn.Hardswish(),
            nn.Conv2d(12, 12, 1),
        )
        self.down = nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1), nn.PReLU(16))
        self.mix = nn.Conv2d(28, 16, 3, 1, 1)
        self.classifier = nn.Conv2d(16, classes, 1)

    def forward(self, x):
        size = x.shape[2:]
        high = self.depthwise(self.stem(x))
        low = resized(self.down(high), high.shape[2:], self.inner)
        logits = self.classifier(F.relu(self.mix(torch.cat([high, low], 1))))
        if self.end == "logits":
            return logits
        if self.end in MODES:
            return resized(logits, size, self.end)
        if self.end == "softmax":
            return torch.softmax(resized(logits, size, "half"), 1)
        if self.end == "softmax first":
            return resized(torch.softmax(logits, 1), size, "half")
        if self.end == "sigmoid":
            return torch.sigmoid(resized(logits, size, "half"))
        if self.end == "argmax":
            return resized(logits, size, "aligned").argmax(1)
        if self.end == "argmax, then nearest":
            labels = logits.argmax(1, keepdim=True).float()
            return F.interpolate(labels, scale_factor=2.0, mode="nearest")[:, 0].to(torch.int32)
        if self.end == "above":
            return (torch.sigmoid(logits) > 0.4).squeeze(1)
        raise ValueError(self.end)


MODES = {
    "half": {"mode": "bilinear", "align_corners": False},
    "aligned": {"mode": "bilinear", "align_corners": True},
    "cubic": {"mode": "bicubic", "align_corners": False},
    "nearest": {"mode": "nearest"},
}


def resized(x, size, how):
    return F.interpolate(x, size=tuple(size), **MODES[how])


def settled(*arguments, **named):
    """A network whose classes each win somewhere."""
    torch.manual_seed(1)
    network = Net(*arguments, **named).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    images = torch.randn(4, 3, 64, 96)
    end, network.end = network.end, "logits"
    with torch.no_grad():
        network(images)
        network.eval()
        logits = network(images)
        spread = logits.std((0, 2, 3))
        network.classifier.bias -= logits.mean((0, 2, 3))
        network.classifier.weight /= spread[:, None, None, None]
        network.classifier.bias /= spread
        network.classifier.weight *= 3
        network.classifier.bias *= 3
    network.end = end
    return network


def script(out, network, opset, size=(64, 96), free=False, half=False):
    """Writes a file with torch's TorchScript exporter."""
    axes = {0: "batch", 2: "height", 3: "width"} if free else {}
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, *size, dtype=torch.float16 if half else torch.float32),),
        out,
        dynamo=False,
        opset_version=opset,
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": axes, "output": {0: "batch"}} if free else None,
    )


def dynamo(out, network, opset, size=(64, 96), free=(), external=False):
    """Writes a file with torch's dynamo exporter."""
    names = {0: "batch", 2: "height", 3: "width"}
    shape = {axis: torch.export.Dim(names[axis], min=1) for axis in free if axis == 0}
    shape |= {axis: 4 * torch.export.Dim(names[axis], min=8) for axis in free if axis}
    torch.onnx.export(
        network,
        (torch.zeros(2 if free else 1, 3, *size),),
        out,
        dynamo=True,
        opset_version=opset,
        external_data=external,
        dynamic_shapes=(shape,) if free else None,
    )
    without_traces(out)


def without_traces(file):
    """Takes the lines of this file out, by path, that the dynamo exporter notes of each node."""
    model = onnx.load(file, load_external_data=False)
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
    file.write_bytes(model.SerializeToString())


def main(folder):
    dynamo(folder / "dynamo-free.onnx", settled("half"), 18, free=(0, 2, 3))
    dynamo(folder / "dynamo-external.onnx", settled("logits", "nearest"), 20, external=True)
    dynamo(folder / "dynamo-softmax.onnx", settled("softmax", "aligned"), 23)
    for end in ("half", "aligned", "cubic", "nearest"):
        script(folder / f"script-{end}.onnx", settled(end, end), 11)
    script(folder / "script-argmax.onnx", settled("argmax"), 11)
    script(folder / "script-argmax-nearest.onnx", settled("argmax, then nearest"), 13)
    script(folder / "script-softmax-first.onnx", settled("softmax first"), 12)
    script(folder / "script-sigmoid.onnx", settled("sigmoid", classes=1), 11)
    script(folder / "script-above.onnx", settled("above", classes=1), 14)
    script(folder / "script-upsample.onnx", settled("nearest", "half"), 9)
    script(folder / "script-free.onnx", settled("aligned"), 17, free=True)
    script(folder / "script-float16.onnx", settled("half").half(), 17, half=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
