"""`python with_onnx.py DIR`: a tiny network written by hand, of Resizes that no exporter writes.

Its weights are drawn, so that every class wins somewhere.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CLASSES = 5


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs, [output], output, **attributes)


def write(file, opset=11):
    generator = np.random.default_rng(5)
    constants = {
        "stem.weight": generator.normal(size=(12, 3, 3, 3)) * 0.3,
        "mix.weight": generator.normal(size=(16, 24, 3, 3)) * 0.1,
        "classifier.weight": generator.normal(size=(CLASSES, 16, 1, 1)),
        "classifier.bias": np.zeros(CLASSES),
        "region": np.array([0, 0, 0.1, 0.05, 1, 1, 0.9, 0.95]),
        "twice": np.array([1, 1, 2, 2]),
        "half": np.array([1, 1, 0.5, 0.5]),
        "nowhere": np.array([]),
    }
    crop = "tf_crop_and_resize"
    nodes = [
        node("Conv", ["image", "stem.weight"], "stem", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["stem"], "high"),
        node(
            *("Resize", ["high", "region", "half"], "cropped"),
            mode="linear",
            coordinate_transformation_mode=crop,
            extrapolation_value=0.5,
        ),
        node(
            *("Resize", ["cropped", "nowhere", "twice"], "low"),
            mode="cubic",
            coordinate_transformation_mode="align_corners",
            cubic_coeff_a=-0.5,
        ),
        node("Concat", ["high", "low"], "both", axis=1),
        node("Conv", ["both", "mix.weight"], "mixed", pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["mixed"], "labels"),  # a name that an artefact gives to its head
        node("Conv", ["labels", "classifier.weight", "classifier.bias"], "small"),
        node(
            *("Resize", ["small", "nowhere", "twice"], "logits"),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="round_prefer_ceil",
        ),
    ]
    arrays = {name: np.asarray(value, np.float32) for name, value in constants.items()}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 96])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES, 64, 96])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6, producer_name="by hand"
    )
    settle(model)
    onnx.save(model, file)


def settle(model):
    """Weights of the classifier with which each class wins somewhere."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    image = np.random.default_rng(6).normal(size=(1, 3, 64, 96)).astype(np.float32)
    [logits] = session.run(None, {"image": image})
    spread = logits.std((0, 2, 3)) / 3
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name == "classifier.weight":
            values = values / spread[:, None, None, None]
        elif tensor.name == "classifier.bias":
            values = (values - logits.mean((0, 2, 3))) / spread
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))


if __name__ == "__main__":
    write(Path(sys.argv[1]) / "hand-resizes.onnx")
