"""What the tests share: a file that makes label maps, and a folder that was verified."""

import dataclasses
import shutil

import pytest

from icnet_deploy.files import sha256
from icnet_deploy.metadata import read_onnx_metadata, stamped
from icnet_deploy.runtime.auto.verdicts import Verdict, Verdicts, write_verdicts


@pytest.fixture(scope="session")
def labels_graph(tmp_path_factory, artefact):
    """The artefact with a head that makes label maps, as an export's: no second export is made."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(artefact)
    scales = helper.make_tensor("out_scales", TensorProto.FLOAT, [4], [1, 1, 4, 4])
    model.graph.initializer.append(scales)
    how = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
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


@pytest.fixture
def release(artefact, tmp_path):
    """A folder with one artefact, which was verified on OpenVINO."""
    folder = tmp_path / "release"
    folder.mkdir()
    shutil.copy(artefact, folder / "street.onnx")
    told = (sha256(artefact), "openvino", "cpu", True, "", 0.0, "2 images", "0.3 points")
    write_verdicts(folder, Verdicts((Verdict("street.onnx", *told, "2026-01-01", "a processor"),)))
    return folder
