"""Permutations of channels: OpenVINO 2026.4 folds them wrongly, in the form that others write."""

import numpy as np
import pytest
from onnx import helper
from random_graphs import RandomGraph

from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.placements.permutations import count_from_last

ORDER = (3, 0, 5, 2, 7, 1, 4, 6)


def behind_a_convolution(kind, *constants, count=8, outputs=(), **attributes):
    """A node that reads what a convolution makes, and another behind it."""
    made = RandomGraph(0)
    made.conv(count, 3)
    given = [made.last, *map(made.constant, constants)]
    names = list(outputs) or ["moved"]
    made.nodes.append(helper.make_node(kind, given, names, "moved", **attributes))
    joined = [names[i] for i in (1, 2, 0)] if len(names) == 3 else names
    made.to(made.node("Concat", *joined, axis=1) if len(names) > 1 else names[0])
    made.channels = len(constants[0]) if constants else count
    made.conv(4, 3)
    return Graph(made.model())


def axis_of(graph, kind):
    [node] = graph.nodes(kind)
    return next(a.i for a in node.attribute if a.name == "axis")


def test_an_order_that_is_not_its_own_inverse_counts_its_axis_from_the_last():
    graph = behind_a_convolution("Gather", np.int64(ORDER), axis=1)
    assert count_from_last(graph)
    assert axis_of(graph, "Gather") == -3
    assert not count_from_last(graph)


@pytest.mark.parametrize("count", [3, 12])
def test_so_does_what_joins_three_parts_again(count):
    parts = ("a", "b", "c")
    graph = behind_a_convolution("Split", count=count, outputs=parts, axis=1, num_outputs=3)
    assert count_from_last(graph)
    assert axis_of(graph, "Concat") == -3


@pytest.mark.parametrize("order", [range(8), range(7, -1, -1), (1, 0, 2, 3, 4, 5, 7, 6), (3, 2)])
def test_others_stay(order):
    graph = behind_a_convolution("Gather", np.int64(order), axis=1)
    assert not count_from_last(graph)
    assert axis_of(graph, "Gather") == 1
