"""Files whose logits or labels lack the batch or the channels, or have the channels last."""

import numpy as np
import pytest
from adopted_files import behind, labels_of, put_behind
from onnx import TensorProto, helper

from icnet_deploy.errors import ModelError
from icnet_deploy.metadata import read_onnx_metadata


@pytest.mark.parametrize(
    "change", [behind("Cast", TensorProto.DOUBLE), behind("Squeeze", axes=[0])], ids=["64", "CHW"]
)
def test_logits_of_float64_and_without_a_batch(take, changed, adopted, change):
    out, _ = take(changed(change), upsampling="none")
    assert (labels_of(out) == labels_of(adopted("script-half")[0])).mean() > 0.9999


def turned(*order, kind=None, **attributes):
    """A change: the logits of one image in another order, and an operator behind."""

    def change(model):
        given = "turned" if kind else "output"
        nodes = [
            helper.make_node("Squeeze", ["before"], ["one"], axes=[0]),
            helper.make_node("Transpose", ["one"], [given], perm=order),
        ]
        if kind:
            nodes.append(helper.make_node(kind, [given], ["output"], **attributes))
            value = helper.make_tensor_value_info("output", TensorProto.INT64, None)
            model.graph.output[0].CopyFrom(value)
        put_behind(model, *nodes)

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("script-sigmoid", behind("Squeeze", axes=[0, 1])),
        ("script-sigmoid", turned(1, 2, 0)),
        ("script-half", turned(1, 2, 0)),
        ("script-half", turned(1, 2, 0, kind="ArgMax", axis=2, keepdims=1)),
    ],
    ids=["HW", "HW1", "HWC", "HWC to HW1"],
)
def test_logits_of_one_image_in_any_order(take, changed, adopted, name, change):
    path = changed(change, name)
    out, _ = take(path.rename(path.with_name(f"{name}.onnx")))
    metadata = read_onnx_metadata(out)
    assert (metadata.head, metadata.upsampling) == ("logits", "half-pixel")
    assert np.array_equal(labels_of(out), labels_of(adopted(name)[0]))


def test_a_label_map_of_one_channel_whose_logits_are_not_to_be_had(take, changed, adopted):
    def change(model):
        how = {"axis": 1, "keepdims": 0, "select_last_index": 1}
        put_behind(
            model,
            helper.make_node("ArgMax", ["before"], ["map"], **how),
            helper.make_node("Reshape", ["map", "shape"], ["output"]),
            shape=np.array([64, 96, 1], np.int64),
        )
        model.opset_import[0].version = 12
        value = helper.make_tensor_value_info("output", TensorProto.INT64, None)
        model.graph.output[0].CopyFrom(value)

    out, _ = take(changed(change))
    assert read_onnx_metadata(out).head == "labels"
    assert (labels_of(out) == labels_of(adopted("script-half")[0])).mean() > 0.9999


def test_rows_and_columns_turned_are_refused(take, changed):
    with pytest.raises(
        ModelError, match="logits of 96x64; expected logits that are not larger than the image"
    ):
        take(changed(turned(2, 1, 0)))
