"""`python with_tensorflow.py DIR`: tiny networks of Keras, by tf2onnx at opset 11 and others.

In an environment of its own:

    python -m venv tf && tf/bin/pip install tensorflow-cpu tf2onnx
    tf/bin/python with_tensorflow.py DIR

Images and logits have their channels last. The networks are not trained.
"""

import sys
from pathlib import Path

import tensorflow as tf
import tf2onnx

CLASSES = 5
HEIGHT, WIDTH = 64, 96
raw = tf.raw_ops


def linear(x, size, **how):
    return raw.ResizeBilinear(images=x, size=size, **how)


def cropped(x, size):
    count = tf.shape(x)[0]
    boxes = tf.tile(tf.constant([[0.1, 0.05, 0.95, 0.9]]), [count, 1])
    return tf.image.crop_and_resize(x, boxes, tf.range(count), size, extrapolation_value=0.5)


RESIZES = {
    "half": lambda x, size: linear(x, size, half_pixel_centers=True),
    "aligned": lambda x, size: linear(x, size, align_corners=True),
    "asymmetric": linear,
    "nearest": lambda x, size: raw.ResizeNearestNeighbor(
        images=x, size=size, half_pixel_centers=True
    ),
    "nearest-legacy": lambda x, size: raw.ResizeNearestNeighbor(images=x, size=size),
    "crop": cropped,
}


class Net(tf.Module):
    """Two strides, a depthwise convolution, and a resize inside and at the end."""

    def __init__(self, inner, end):
        super().__init__(name="net")
        tf.keras.utils.set_random_seed(3)
        layers = tf.keras.layers
        self.inner, self.end = inner, end
        self.stem = layers.Conv2D(12, 3, 2, "same", activation="relu6", name="stem")
        self.norm = layers.BatchNormalization(name="stem_bn")
        self.depthwise = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2, name="wide")
        self.down = layers.Conv2D(16, 3, 2, "same", activation="relu", name="down")
        self.mix = layers.Conv2D(16, 3, 1, "same", activation="relu", name="mix")
        self.classifier = layers.Conv2D(CLASSES, 1, name="classifier")

    def logits(self, x):
        with tf.name_scope("encoder"):
            high = self.depthwise(self.norm(self.stem(x)))
            low = self.down(high)
        low = RESIZES[self.inner](low, [HEIGHT // 2, WIDTH // 2])
        return self.classifier(self.mix(tf.concat([high, low], -1)))

    def settle(self):
        """Weights with which each class wins somewhere."""
        images = tf.random.stateless_normal((4, HEIGHT, WIDTH, 3), (1, 2))
        logits = self.logits(images).numpy()
        kernel, bias = self.classifier.get_weights()
        spread = logits.std((0, 1, 2)) / 3
        self.classifier.set_weights([kernel / spread, (bias - logits.mean((0, 1, 2))) / spread])

    def __call__(self, x):
        logits = self.logits(x)
        if self.end == "logits":
            return logits
        if self.end == "softmax":
            return tf.nn.softmax(RESIZES["half"](logits, [HEIGHT, WIDTH]))
        if self.end == "argmax":
            return tf.argmax(RESIZES["aligned"](logits, [HEIGHT, WIDTH]), -1, tf.int32)
        return RESIZES[self.end](logits, [HEIGHT, WIDTH])


def write(folder, name, inner, end, opset=11, batch=None):
    network = Net(inner, end)
    network.settle()
    spec = tf.TensorSpec((batch, HEIGHT, WIDTH, 3), tf.float32, name="images")
    tf2onnx.convert.from_function(
        tf.function(network, input_signature=[spec]),
        [spec],
        opset=opset,
        output_path=str(folder / f"tensorflow-{name}.onnx"),
    )


def main(folder):
    write(folder, "half", "half", "half")
    write(folder, "aligned", "aligned", "aligned", batch=1)
    write(folder, "asymmetric", "asymmetric", "asymmetric")
    write(folder, "nearest", "nearest", "nearest")
    write(folder, "nearest-legacy", "nearest-legacy", "logits", opset=9)
    write(folder, "crop", "crop", "logits")
    write(folder, "softmax", "half", "softmax", opset=13)
    write(folder, "argmax", "asymmetric", "argmax", opset=15)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
