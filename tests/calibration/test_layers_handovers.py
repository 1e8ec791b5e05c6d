"""Which tensors blocks hand on, and what a float32 block makes of what it is given."""

from __future__ import annotations

import numpy as np
import onnx
import placement_contract as small
from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.calibration.calibrate import open_session
from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.quantize import quantize
from icnet_deploy.calibration.sensitivity.handovers import Handovers, given_as, places, shown
from icnet_deploy.calibration.sensitivity.layers import Noise


def by_name(model):
    return {one.block.name: one for one in Handovers(model, {"architecture": "small"}).blocks}


def test_a_block_takes_and_makes_what_passes_between_blocks():
    blocks = by_name(small.network())
    made = {name: one.made for name, one in blocks.items()}
    assert made == {
        "conv4": ("relu4",),
        "conv1": ("pool",),  # the pool and the ReLU are of the layer before them
        "conv2": ("relu2",),
        "conv3": ("relu3",),
        "conv5": ("conv5",),
        "conv6": ("relu5",),  # the sum is of the branch that runs last
        "classifier": ("logits",),
    }
    assert {name: one.taken for name, one in blocks.items()} == {
        "conv4": (),
        "conv1": (),
        "conv2": ("pool",),
        "conv3": ("pool", "relu2"),
        "conv5": ("relu3",),
        "conv6": ("relu4", "conv5"),
        "classifier": ("relu5",),
    }


def test_of_a_graph_that_answers_labels_the_last_layer_is_what_is_compared():
    model = onnx.ModelProto.FromString(small.network().SerializeToString())
    model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["labels"], axis=1))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("labels", TensorProto.INT64, None))
    assert by_name(model)["classifier"].made == ("classifier",)


def test_a_block_apart_makes_of_what_it_is_given_what_the_block_does():
    model = small.network()
    parts = Handovers(model, {"architecture": "small"})
    tensors = [name for one in parts.blocks for name in one.made]
    image = small.images()[0][None]
    values = dict(
        zip(
            tensors, open_session(shown(model, tensors)).run(tensors, {"image": image}), strict=True
        )
    )
    session = open_session(parts.apart(tensors))
    given = {name: given_as(name) for name in tensors if name != "logits"}
    assert {value.name for value in session.get_inputs()} == {"image", *given.values()}

    def apart(**changes):
        feed = {own: changes.get(name, values[name]) for name, own in given.items()}
        return dict(zip(tensors, session.run(tensors, {"image": image, **feed}), strict=True))

    for name, value in apart().items():
        np.testing.assert_allclose(value, values[name], atol=1e-3)
    halved = apart(relu3=values["relu3"] / 2)
    different = [n for n in tensors if not np.allclose(halved[n], values[n], atol=1e-3)]
    assert different == ["conv5"]  # and what follows is given its own input
    bias = Graph(model).array("network.conv5.bias").reshape(1, -1, 1, 1)
    wanted = (values["conv5"] - bias) / 2 + bias
    np.testing.assert_allclose(halved["conv5"], wanted, atol=1e-3)


def test_in_an_8_bit_graph_a_tensor_is_what_its_pair_makes_of_it():
    ranges = small.calibration().ranges()
    graph = quantize(small.network(), ranges, "int8-ort")
    found = places(graph, ["pool", "relu2", "classifier", "logits", "nowhere"])
    assert found == {
        "pool": "pool_dq",
        "relu2": "relu2_dq",  # the ReLU itself is left out of this graph
        "classifier": "classifier",
        "logits": "logits",
    }


def test_noise_is_a_share_of_the_signal_over_all_images():
    noise = Noise()
    noise.add(np.float32([3, 4]), np.float32([3, 4]))
    assert noise.share == 0
    noise.add(np.float32([5, 0]), np.float32([5, 1]))
    assert noise.share == 1 / 50
    noise.add(np.float32([1, 1]), np.float32([np.inf, 1]))
    assert noise.share == np.inf
    assert Noise().share is None
    nothing = Noise()
    nothing.add(np.float32([0, 0]), np.float32([1, 0]))
    assert nothing.share is None


def test_a_layer_of_numbered_weights_is_called_by_its_bias():
    def named(weight, *bias, name="Gemm_7"):
        node = helper.make_node("Gemm", ["x", weight, *bias], ["y"], name)
        constants = [
            numpy_helper.from_array(np.ones((2, 2), np.float32), n) for n in (weight, *bias)
        ]
        graph = helper.make_graph([node], "g", [], [], constants)
        return Graph(helper.make_model(graph)).layer(graph.node[0])

    assert named("val_3", "network.head.query.bias") == "head.query"
    assert named("network.head.key.weight", "network.head.query.bias") == "head.key"
    assert named("val_3", "val_4") == named("val_3") == "Gemm_7"
    assert named("val_3", name="/head/query/Gemm") == "head.query"
