"""What a graph is made into before it is quantized."""

from itertools import pairwise

import numpy as np
from onnx import helper, numpy_helper

from icnet_deploy.calibration.calibrate import open_session
from icnet_deploy.calibration.graph import Graph, plain

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(size=(1, 4, 8, 8)).astype(np.float32)


def model_of(nodes, **constants):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", 1, IMAGE.shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def answer(model):
    return open_session(model).run(["y"], {"image": IMAGE})[0]


def weights(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def test_shared_weights_are_copied_and_keep_the_name_of_their_layer():
    node = helper.make_node
    model = model_of(
        [
            node("Conv", ["image", "head.weight", "head.bias"], ["a"], "first"),
            node("Conv", ["a", "head.weight", "head.bias"], ["b"], "second"),
            node("Add", ["a", "b"], ["y"], "sum"),
        ],
        **{"head.weight": weights(4, 4, 1, 1), "head.bias": weights(4)},
    )
    assert not Graph(model).weighted()
    graph = Graph(plain(model))
    assert [graph.layer(one.node) for one in graph.weighted()] == ["head", "head.2"]
    assert not graph.weighted(["head"])
    np.testing.assert_array_equal(answer(graph.model), answer(model))


def test_weights_that_are_moved_before_they_are_used_are_constants():
    node = helper.make_node
    shape = numpy_helper.from_array(np.int64([4, 4, 1, 1]), "")
    model = model_of(
        [
            node("Constant", [], ["shape"], "shape", value=shape),
            node("Transpose", ["matrix"], ["turned"], "turn", perm=[1, 0]),
            node("Reshape", ["turned", "shape"], ["weight"], "reshape"),
            node("Identity", ["bias"], ["same"], "same"),
            node("Conv", ["image", "weight", "same"], ["y"], "conv"),
        ],
        matrix=weights(4, 4),
        bias=weights(4),
    )
    graph = Graph(plain(model))
    assert [n.op_type for n in graph.model.graph.node] == ["Conv"]
    assert set(graph.constants) == {"weight", "same"}
    np.testing.assert_array_equal(answer(graph.model), answer(model))


def test_every_node_has_a_name_of_its_own():
    node = helper.make_node
    model = model_of(
        [
            node("Relu", ["image"], ["a"]),
            node("Relu", ["a"], ["b"], "same"),
            node("Relu", ["b"], ["c"], "same"),
            node("Relu", ["c"], ["y"], "Relu_a"),
        ]
    )
    names = [n.name for n in plain(model).graph.node]
    assert len(set(names)) == 4
    assert all(names)
    assert names[3] == "Relu_a"


def test_a_graph_in_that_form_is_not_copied():
    model = model_of([helper.make_node("Relu", ["image"], ["y"], "relu")])
    assert plain(model) is model


def test_what_computes_sizes_is_not_named_as_an_operator_in_float():
    node = helper.make_node
    model = model_of(
        [
            node("Conv", ["image", "w"], ["a"], "first"),
            node("Shape", ["a"], ["size"], "size"),
            node("Slice", ["size", "two", "four"], ["sides"], "sides"),
            node("Concat", ["one_four", "sides"], ["whole"], "whole", axis=0),
            node("Erf", ["a"], ["e"], "erf"),
            node("Resize", ["e", "", "", "whole"], ["r"], "resize", mode="nearest"),
            node("Conv", ["r", "v"], ["y"], "last"),
        ],
        w=weights(4, 4, 1, 1),
        v=weights(4, 4, 1, 1),
        two=np.int64([2]),
        four=np.int64([4]),
        one_four=np.int64([1, 4]),
    )
    assert Graph(model).others_than({"Resize"}) == {"Erf": 1}


def test_graphs_of_many_ways_are_walked_through():
    """Sums of a tensor and itself, before the first layer and behind the last: 2**60 ways each."""
    names = ["image", *(f"a{i}" for i in range(60)), "made", *(f"b{i}" for i in range(59)), "y"]
    nodes = [
        helper.make_node("Conv", [given, "w"], [name], "layer")
        if name == "made"
        else helper.make_node("Add", [given, given], [name], name)
        for given, name in pairwise(names)
    ]
    graph = Graph(model_of(nodes, w=weights(4, 4, 1, 1)))
    assert graph.image_layers() == {"w": False}
    assert graph.float_layers() == ("w",)
