"""A model of one convolution that labels by the nearest palette colour, and pictures for it.

It computes what `FakeBackend.of_colours` does, less a constant a pixel, so that the real runtimes
can be held to the fake.
"""

from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.integrity import KEY
from icnet_deploy.labels import CITYSCAPES, LabelSet
from icnet_deploy.metadata import ArtefactMetadata


def build_model(
    path: Path,
    size: tuple[int, int] | None = (64, 96),
    head: str = "logits",
    label_set: LabelSet = CITYSCAPES,
    batch: int | None = None,
    half: str = "no",
    describe: dict[str, Any] | None = None,
    input_name: str = "image",
    stride: int = 4,
) -> Path:
    """Writes Cast -> Transpose -> Conv of a stride (-> Resize -> argmax -> Cast).

    `half`: "out", logits leave it as float16; "inside", they are float16 on their way.
    """
    from onnx import TensorProto as T
    from onnx import helper as h

    colours = np.array(label_set.palette, np.float32)
    weights = (2 * colours / 255).reshape(-1, 3, 1, 1)
    bias = -np.square(colours).sum(axis=1) / 255
    constants = [
        h.make_tensor("weights", T.FLOAT, weights.shape, weights.ravel()),
        h.make_tensor("bias", T.FLOAT, bias.shape, bias),
    ]
    conv = "scores" if head == "labels" or half != "no" else "logits"
    nodes = [
        h.make_node("Cast", [input_name], ["pixels"], to=T.FLOAT),
        h.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        h.make_node("Conv", ["planes", "weights", "bias"], [conv], strides=[stride, stride]),
    ]
    free: tuple[Any, Any] = ("H", "W")
    height, width = size or free
    n, kind = batch or "N", T.FLOAT
    grid = [-(-s // stride) if isinstance(s, int) else s.lower() for s in (height, width)]
    shape = [n, len(label_set), *grid]
    if half == "out":
        nodes.append(h.make_node("Cast", ["scores"], ["logits"], to=T.FLOAT16))
        kind = T.FLOAT16
    elif half == "inside":
        nodes.append(h.make_node("Cast", ["scores"], ["half_scores"], to=T.FLOAT16))
        nodes.append(h.make_node("Cast", ["half_scores"], ["logits"], to=T.FLOAT))
    if head == "labels":
        scales = np.array([1, 1, height / grid[0], width / grid[1]], np.float32)
        constants.append(h.make_tensor("scales", T.FLOAT, [4], scales))
        how = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
        nodes += [
            h.make_node("Resize", ["scores", "", "scales"], ["dense"], **how),
            h.make_node("ReduceMax", ["dense"], ["best"], axes=[1]),
            h.make_node("Equal", ["dense", "best"], ["is_best"]),
            h.make_node("Where", ["is_best", "index", "none"], ["places"]),
            h.make_node("ReduceMin", ["places"], ["lowest"], axes=[1], keepdims=0),
            h.make_node("Cast", ["lowest"], ["labels"], to=T.UINT8),
        ]
        index = np.arange(len(label_set), dtype=np.float32)
        constants.append(h.make_tensor("index", T.FLOAT, [1, len(index), 1, 1], index))
        constants.append(h.make_tensor("none", T.FLOAT, [], [255.0]))
        shape, kind = [n, height, width], T.UINT8
    image = h.make_tensor_value_info(input_name, T.UINT8, [n, height, width, 3])
    output = h.make_tensor_value_info(head, kind, shape)
    told = {"label_set": label_set, "size": size, "head": head, "precision": "fp32"}
    metadata = ArtefactMetadata(**(told | (describe or {})))
    return save_model(path, h.make_graph(nodes, "tiny", [image], [output], constants), metadata)


def save_model(path: Path, graph: Any, metadata: ArtefactMetadata) -> Path:
    """Writes a graph with its metadata to an ONNX file."""
    import onnx
    from onnx import helper as h

    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, metadata.to_json()
    onnx.save(model, path)
    return path


def draw_blocks(size: tuple[int, int], seed: int = 0, block: int = 16) -> Any:
    """A picture of blocks in Cityscapes' colours: uint8 H x W x 3, RGB."""
    rows, columns = -(-size[0] // block), -(-size[1] // block)
    classes = np.random.default_rng(seed).integers(0, 19, (rows, columns))
    palette = np.array(CITYSCAPES.palette, np.uint8)
    large = palette[classes].repeat(block, axis=0).repeat(block, axis=1)
    return np.ascontiguousarray(large[: size[0], : size[1]])
