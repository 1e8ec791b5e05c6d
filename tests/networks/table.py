"""The released network's table of layers, and an evaluation of it that knows nothing of ours."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
import torch.nn.functional as F

Row = dict[str, str]


def layers() -> list[Row]:
    """Every layer in order, with its inputs, geometry and output size."""
    lines = Path(__file__).with_name("released_layers.csv").read_text().splitlines()
    return list(csv.DictReader(lines[1:]))


def evaluate(rows: list[Row], data: torch.Tensor, weights: dict[str, list[torch.Tensor]]):
    """Runs the table at 1025x2049.

    Args:
        rows: the table.
        data: float 1 x 3 x 1025 x 2049.
        weights: released layer name -> its tensors: convolutions (weight[, bias]), batch norms
            (slope, bias, mean, variance).

    Returns:
        The output of every layer that is not computed in place, by name.
    """
    values: dict[str, torch.Tensor] = {"data": data}
    for row in rows:
        name, kind = row["name"], row["type"]
        inputs = [values[b] for b in row["bottoms"].split("|") if b]
        if kind == "Input":
            continue
        out = _layer(row, inputs, weights)
        # In-place layers (batch norm, ReLU) overwrite their input's name.
        values[row["bottoms"] if kind in ("BN", "ReLU") else name] = out
        assert out.shape[1:] == (
            int(row["out_channels"]),
            int(row["out_h"]),
            int(row["out_w"]),
        ), name
    return values


def _layer(row: Row, inputs: list[torch.Tensor], weights) -> torch.Tensor:
    x, kind = inputs[0], row["type"]
    if kind == "Scale":  # data_sub1: three factors, 1 by default
        return x
    if kind == "Convolution":
        stored = weights[row["name"]]
        bias = stored[1] if row["bias"] == "1" else None
        geometry = int(row["stride_h"]), int(row["pad_h"]), int(row["dilation"])
        return F.conv2d(x, stored[0], bias, *geometry)
    if kind == "BN":
        slope, bias, mean, variance = weights[row["name"]]
        return F.batch_norm(x, mean, variance, slope, bias, eps=float(row["bn_eps"]))
    if kind == "ReLU":
        return F.relu(x)
    if kind == "Eltwise":
        return torch.stack(inputs).sum(0)
    if kind == "Pooling":
        kernel = int(row["kernel_h"]), int(row["kernel_w"])
        stride = int(row["stride_h"]), int(row["stride_w"])
        if row["pool"] == "MAX":
            return F.max_pool2d(x, kernel, stride, int(row["pad_h"]), ceil_mode=True)
        return F.avg_pool2d(x, kernel, stride, ceil_mode=True)
    assert kind == "Interp", kind
    height, width = x.shape[2:]
    factor = int(row["interp_factor"] or 0)
    size = {
        "shrink": lambda: ((height - 1) // factor + 1, (width - 1) // factor + 1),
        "zoom": lambda: ((height - 1) * factor + 1, (width - 1) * factor + 1),
        "size": lambda: (int(row["interp_h"]), int(row["interp_w"])),
    }[row["interp_rule"]]()
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
