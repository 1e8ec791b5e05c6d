"""The placements keep their contract; and what is each one's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper
from placement_contract import PlacementContract, calibration, images, network

from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.quantize import quantize


def as_written(model):
    """The answer to one image, every operator by itself: fused ones round sums otherwise."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"image": images()[0][None]})[0]


def copied(model):
    return onnx.ModelProto.FromString(model.SerializeToString())


class TestInt8(PlacementContract):
    name = "int8"
    pairs = {  # noqa: RUF012
        "planes": {"conv1"},
        "relu1": {"pool"},
        "pool": {"conv2", "sum1"},
        "relu2": {"conv3"},
        "relu3": {"conv5"},
        "relu4": {"conv6"},
        "conv5": {"sum2"},
    }

    def test_the_mean_is_subtracted_after_the_resize(self):
        model = copied(network())
        order = [n.name for n in model.graph.node]
        assert self.placement.arrange(model)
        onnx.checker.check_model(model, full_check=True)
        assert [n.name for n in model.graph.node if n.name in order] == order  # it says what fuses
        graph = Graph(model)
        assert graph.producers["small"].op_type == "Sub"
        assert graph.producers["planes"].input[0] == "centred"
        assert not self.placement.arrange(model)

    def test_of_another_layout_the_mean_stays_where_it_is(self):
        model = copied(network())
        nodes = {n.op_type: n for n in model.graph.node if n.op_type in ("Sub", "Transpose")}
        nodes["Sub"].op_type, nodes["Transpose"].op_type = "Transpose", "Sub"
        assert not self.placement.arrange(model)

    def test_rounding_before_the_max_pool_changes_no_bit(self):
        graph = self.quantized()
        model = copied(graph.model)
        graph = Graph(model)
        [pool] = graph.nodes("MaxPool")
        dequantize = graph.producers[pool.input[0]]
        assert dequantize.op_type == "DequantizeLinear"
        before = as_written(model)
        pool.input[0] = graph.producers[dequantize.input[0]].input[0]
        assert as_written(model).tobytes() == before.tobytes()

    def test_of_the_shipped_network_each_sum_has_one_input_with_a_pair(self, quantized):
        graph = Graph(quantized("int8"))
        made = {n.output[0] for n in graph.nodes("Conv") if graph.only_reader(n.output[0])}
        sums = [n for n in graph.nodes("Add") if made.intersection(n.input)]
        through = [[name.endswith("_dq") for name in n.input].count(True) for n in sums]
        assert through == [1] * 18  # of 16 bottlenecks and 2 CFFs
        for node in graph.nodes("Conv"):
            assert graph.readers[node.output[0]][0].op_type in (
                "Relu",
                "Add",
                "QuantizeLinear",
                "Resize",  # the classifier
                "AveragePool",  # conv5_4_k1
            )


class TestInt8Ort(PlacementContract):
    name = "int8-ort"
    pairs = dict.fromkeys(
        ("planes", "pool", "relu1", "relu2", "relu3", "relu4", "relu5", "conv3", "conv5", "conv6")
    )

    def test_of_the_shipped_network_all_but_the_ends_find_integer_kernels(
        self, quantized, tmp_path
    ):
        """What ONNX Runtime makes of the file: the operators that it runs."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.log_severity_level = 3
        onnxruntime.InferenceSession(quantized("int8-ort").SerializeToString(), options)
        ran = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
        assert ran.count("QLinearConv") == len(Graph(quantized("int8-ort")).nodes("Conv")) - 2
        assert ran.count("QLinearAdd") == 18

    def test_the_bias_of_a_filter_that_is_nothing_is_not_cut_off(self):
        """Of a dead filter a bias of int32 would have steps of 1e-17."""
        model = copied(network())
        constants = {t.name: t for t in model.graph.initializer}
        weight = numpy_helper.to_array(constants["network.conv2.weight"]).copy()
        bias = numpy_helper.to_array(constants["network.conv2.bias"]).copy()
        weight[:2], bias[:2] = 0, (0.5, -3.0)
        for name, value in (("network.conv2.weight", weight), ("network.conv2.bias", bias)):
            constants[name].CopyFrom(numpy_helper.from_array(value, name))
        ranges = replace(calibration().ranges(), factors={})
        graph = Graph(quantize(model, ranges, self.name))
        [whole, step] = [graph.constants[f"network.conv2.weight_bias_q{e}"] for e in ("", "_scale")]
        written = numpy_helper.to_array(whole) * numpy_helper.to_array(step).astype(np.float64)
        np.testing.assert_allclose(written[:2], bias[:2], rtol=1e-6)


def test_every_placement_has_a_suite():
    assert {suite.name for suite in PlacementContract.__subclasses__()} >= PLACEMENTS.keys()
