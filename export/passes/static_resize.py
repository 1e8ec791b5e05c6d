"""Resizes of a known size that compute their size when they run, given constant scales instead.

With a free batch the exporter writes the size of every Resize as Concat(Shape(x), height x width):
work for each run, and nodes that a plain net would not have. The `axes` attribute of opset 18
would say it best, but TensorRT's parser refuses it when the batch is free. Scales are read by all.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from icnet_deploy.export.passes.shapes import shapes_of


def static_resize(model: onnx.ModelProto) -> bool:
    """Replaces the `sizes` of each Resize whose heights and widths are known by `scales`.

    Needs: 4-D Resizes with aligned corners, where the interpolation depends on sizes alone. The
    output's size is floor(input * scale), so a quarter of a pixel is added before dividing:
    neither rounding of the quotient nor of the product can then reach another whole number.
    After it: no such Resize has `sizes`; what computed them is left for `simplify` to remove.

    Returns:
        Whether it changed the model.
    """
    shapes = shapes_of(model)
    changed = False
    for index, node in enumerate(model.graph.node):
        if node.op_type != "Resize" or len(node.input) < 4:
            continue
        before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
        if before is None or after is None or None in (*before[2:], *after[2:]):
            continue
        scales = [1.0, 1.0]
        scales += [(o + 0.25) / i for o, i in zip(after[2:], before[2:], strict=True) if o and i]
        name = f"{node.output[0]}_scales_{index}"
        model.graph.initializer.append(numpy_helper.from_array(np.array(scales, np.float32), name))
        inputs = [node.input[0], "", name]
        del node.input[:]
        node.input.extend(inputs)
        changed = True
    return changed
