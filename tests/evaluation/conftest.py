"""Artefacts and machines that several tests of scores and parity need."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from icnet_deploy.metadata import read_onnx_metadata, stamped


@pytest.fixture(scope="session")
def graph_labels(artefact, tmp_path_factory):
    """The artefact with the label map in its graph, as the export's second head makes it."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(artefact)
    scales = helper.make_tensor("out_scales", TensorProto.FLOAT, [4], [1, 1, 4, 4])
    how = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    model.graph.initializer.append(scales)
    model.graph.node.extend(
        [
            helper.make_node("Resize", ["logits", "", "out_scales"], ["dense"], **how),
            helper.make_node("ArgMax", ["dense"], ["best"], axis=1, keepdims=0),
            helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
        ]
    )
    del model.graph.output[:]
    shape = ["N", 96, 128]
    model.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.UINT8, shape))
    metadata = dataclasses.replace(read_onnx_metadata(artefact), head="labels")
    path = tmp_path_factory.mktemp("labels") / "labels.onnx"
    path.write_bytes(stamped(model.SerializeToString(), metadata))
    return path


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """Two scenes of another size than any artefact here."""
    from icnet_deploy.data.scenes import write_scenes

    root = tmp_path_factory.mktemp("large")
    write_scenes(root, 2, (130, 200), 0, "val")
    return root


@pytest.fixture
def uninstall(monkeypatch):
    """A function that takes packages away from this machine until the test ends."""

    def uninstall(*packages):
        for package in packages:
            monkeypatch.setitem(sys.modules, package, None)

    return uninstall
