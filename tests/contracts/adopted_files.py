"""Files that other programs wrote, changed, and what their artefacts give for one scene."""

from onnx import TensorProto, helper, numpy_helper

from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.runtime.predictor import Predictor

SCENE = draw_scene(3, (64, 96)).image


def put_behind(model, *nodes, **constants):
    """Nodes behind everything: they read `before` and some constants, and make `output`."""
    graph = model.graph
    graph.node[-1].output[0] = "before"
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())
    graph.node.extend(nodes)


def behind(kind, to=None, **attributes):
    """A change: an operator behind everything; `to`: the type of what it gives."""

    def change(model):
        more = {} if to is None else {"to": to}
        put_behind(model, helper.make_node(kind, ["before"], ["output"], **more, **attributes))
        value = helper.make_tensor_value_info("output", to or TensorProto.FLOAT, None)
        model.graph.output[0].CopyFrom(value)

    return change


def labels_of(out):
    with Predictor.open(out, "onnxruntime", "cpu") as predictor:
        return predictor.predict(SCENE).labels
