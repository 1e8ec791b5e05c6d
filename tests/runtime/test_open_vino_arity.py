"""A node that lacks an input ends the process in OpenVINO's reader: it is found before."""

from __future__ import annotations

import pytest

from icnet_deploy.errors import ModelError
from icnet_deploy.runtime.backends.openvino.arity import _NONE, NEEDED, require_inputs

onnx = pytest.importorskip("onnx")
OLDEST = 13


def needed(schema):
    """The inputs that a schema cannot do without: the first ones that are not optional."""
    option = onnx.defs.OpSchema.FormalParameterOption
    count = 0
    for each in schema.inputs:
        if each.option == option.Single:
            count += 1
            continue
        return count + (each.option == option.Variadic and each.min_arity > 0)
    return count


def test_the_table_is_that_of_the_schemas():
    of = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            of.setdefault(schema.name, {})[schema.since_version] = needed(schema)
    least = {}
    for name, versions in of.items():
        oldest = max((v for v in versions if v <= OLDEST), default=0)
        least[name] = min(count for v, count in versions.items() if v >= oldest)
    known = {name: NEEDED.get(name, 0 if name in _NONE else 1) for name in least}
    assert known == least


def model(tmp_path, *nodes):
    made = onnx.helper.make_graph(nodes, "g", [], [])
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(made), path)
    return path


def test_nodes_that_lack_inputs(tmp_path):
    node = onnx.helper.make_node
    require_inputs(model(tmp_path, node("Pad", ["x", "y"], ["z"]), node("Constant", [], ["y"])))
    require_inputs(model(tmp_path, node("Any", [], ["z"], domain="of.others")))
    require_inputs(model(tmp_path, node("Resize", ["x", "", "y"], ["z"])))
    for inputs in (["x"], ["x", ""], ["", "y"], []):
        path = model(tmp_path, node("Pad", inputs, ["z"], name="p"))
        with pytest.raises(ModelError, match=r"node 'p' \(Pad\) has \d of the 2 inputs"):
            require_inputs(path)
    inner = onnx.helper.make_graph([node("Conv", ["x"], ["z"])], "inner", [], [])
    with pytest.raises(ModelError, match=r"\(Conv\) has 1 of the 2"):
        require_inputs(model(tmp_path, node("If", ["c"], ["z"], then_branch=inner)))


def test_what_is_no_onnx_file(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x3a\xff\xff\xff\x01")
    for name in ("a.onnx", "none.onnx"):
        with pytest.raises(ModelError):
            require_inputs(tmp_path / name)


def test_a_clip_needs_a_bound(tmp_path):
    node = onnx.helper.make_node
    for inputs in (["x", "low"], ["x", "", "high"], ["x", "low", "high"]):
        require_inputs(model(tmp_path, node("Clip", inputs, ["z"])))
    for inputs in (["x"], ["x", ""], ["x", "", ""]):
        with pytest.raises(ModelError, match=r"\(Clip\) has no bound"):
            require_inputs(model(tmp_path, node("Clip", inputs, ["z"])))
