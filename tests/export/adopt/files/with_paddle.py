"""`python with_paddle.py DIR`: tiny networks of PaddlePaddle, by paddle2onnx.

In an environment of its own:

    python -m venv paddle && paddle/bin/pip install paddlepaddle paddle2onnx
    paddle/bin/python with_paddle.py DIR

The networks are not trained.
"""

import sys
import tempfile
from pathlib import Path

import paddle
import paddle2onnx
from paddle import nn
from paddle.nn import functional as F

CLASSES = 5


class Net(nn.Layer):
    """A few convolutions, one of them transposed, and one of the ways to end."""

    def __init__(self, end):
        super().__init__()
        self.end = end
        self.stem = nn.Sequential(nn.Conv2D(3, 12, 3, 2, 1), nn.BatchNorm2D(12), nn.Hardswish())
        self.down = nn.Sequential(nn.Conv2D(12, 16, 3, 2, 1), nn.PReLU(16))
        self.up = nn.Conv2DTranspose(16, 12, 4, 2, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2D(1), nn.Conv2D(12, 12, 1), nn.Hardsigmoid())
        self.classifier = nn.Conv2D(12, CLASSES, 1)

    def logits(self, x):
        high = self.stem(x)
        high = high * self.gate(high)
        return self.classifier(F.relu(high + self.up(self.down(high))))

    def forward(self, x):
        logits = self.logits(x)
        if self.end == "logits":
            return logits
        size = paddle.shape(x)[2:]
        if self.end == "argmax":
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
            return paddle.argmax(logits, axis=1, dtype="int32")
        aligned = self.end == "aligned"
        out = F.interpolate(logits, size, mode="bilinear", align_corners=aligned)
        return F.softmax(out, axis=1) if self.end == "softmax" else out

    def settle(self):
        """Weights with which each class wins somewhere."""
        images = paddle.randn([4, 3, 64, 96])
        self.train()
        for _ in range(60):
            self.logits(images)
        self.eval()
        logits = self.logits(images)
        spread = logits.std(axis=[0, 2, 3]) / 3
        bias = (self.classifier.bias - logits.mean(axis=[0, 2, 3])) / spread
        self.classifier.weight.set_value(self.classifier.weight / spread.reshape([-1, 1, 1, 1]))
        self.classifier.bias.set_value(bias)


def write(folder, end, shape, opset):
    paddle.seed(2)
    network = Net(end)
    network.settle()
    with tempfile.TemporaryDirectory() as temporary:
        stem = f"{temporary}/net"
        spec = [paddle.static.InputSpec(shape, "float32", "x")]
        paddle.jit.save(network, stem, input_spec=spec)
        model = Path(f"{stem}.json")
        model = model if model.exists() else Path(f"{stem}.pdmodel")
        paddle2onnx.export(
            str(model),
            f"{stem}.pdiparams",
            str(folder / f"paddle-{end}.onnx"),
            opset_version=opset,
        )


def main(folder):
    write(folder, "argmax", [1, 3, 64, 96], 11)
    write(folder, "aligned", [-1, 3, -1, -1], 13)
    write(folder, "logits", [-1, 3, 64, 96], 16)
    write(folder, "softmax", [-1, 3, -1, -1], 11)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
