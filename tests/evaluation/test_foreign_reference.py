"""The file that artefacts were adopted from, as their reference."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytest.importorskip("onnxsim", reason="adopting needs onnxsim")
pytest.importorskip("torch", reason="adopting needs torch")

from quick_scenes import quick_scene

from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.evaluation.foreign_network import is_foreign, open_foreign
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.export import check
from icnet_deploy.export.adopt.adoption import adopt
from icnet_deploy.export.adopt.request import Request
from icnet_deploy.images import write_image, write_labels
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.labels import label_set_of
from icnet_deploy.metadata import read_onnx_metadata, stamped
from icnet_deploy.networks.preprocessing import Preprocessing
from icnet_deploy.runtime.predictor import Predictor

FILES = Path(__file__).parents[1] / "export" / "adopt" / "files"
FIVE = label_set_of({"name": "five", "names": list("abcde")}, "this test")
RULE = Preprocessing((120.0, 115.0, 110.0), (1 / 60, 1 / 58, 1 / 62), "bgr")
SCENE = draw_scene(4, (64, 96)).image


@pytest.fixture(scope="module")
def adopted(tmp_path_factory, one_thread):
    """A function that adopts a file of `files`: the file and the artefact."""
    folder = tmp_path_factory.mktemp("adopted")
    made = {}
    patch = pytest.MonkeyPatch()  # most of the time goes into drawing scenes
    patch.setattr(check, "draw_scene", quick_scene)

    def get(name):
        if name not in made:
            path, out = FILES / f"{name}.onnx", folder / f"{name}.onnx"
            adopt(path, out, Request(FIVE, RULE))
            made[name] = path, out
        return made[name]

    yield get
    patch.undo()


@pytest.mark.parametrize("name", ["tensorflow-argmax", "dynamo-external"])
def test_the_file_itself_answers_as_its_artefact(adopted, name):
    path, out = adopted(name)
    said = read_onnx_metadata(out)
    network = open_foreign(path, [said])
    answer = Reference(network, network.metadata.size or (64, 96)).answer(SCENE)
    with Predictor.open(out, "onnxruntime", "cpu") as predictor:
        assert np.array_equal(predictor.predict(SCENE).labels, answer.labels)
    assert answer.logits.shape == (5, 32, 48)
    assert network.origin.sha256 == artefact_sha256(path) == said.weights_sha256
    assert network.identity != open_foreign(path, [replace(said, threshold=0.4)]).identity
    network.require_origin(out, said, "")
    with pytest.raises(ModelError, match="was made from weights with SHA-256"):
        network.require_origin(out, replace(said, weights_sha256="0" * 64), "")


def test_another_file_is_refused(adopted):
    path, out = adopted("tensorflow-argmax")
    said = read_onnx_metadata(out)
    other = FILES / "tensorflow-half.onnx"
    assert is_foreign(other)
    assert not is_foreign(out)
    assert not is_foreign(FILES / "none.onnx")
    with pytest.raises(ModelError, match="was written by another program, and no artefact here"):
        open_foreign(other, [said])
    with pytest.raises(InputError, match="takes only 64x96, but the comparison needs 96x64"):
        Reference(open_foreign(path, [said]), (96, 64))


@pytest.fixture(scope="module")
def folder(adopted, tmp_path_factory):
    """A folder with an artefact and a changed one, and labelled images in five classes."""
    path, out = adopted("tensorflow-argmax")
    tmp_path = tmp_path_factory.mktemp("release")
    release = tmp_path / "release"
    release.mkdir()
    (release / "good.onnx").write_bytes(out.read_bytes())
    model = onnx.load(out)
    weights = [node for node in model.graph.node if node.op_type == "Conv"][-1].input[1]
    tensor = next(t for t in model.graph.initializer if t.name == weights)
    values = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(-values, tensor.name))
    (release / "bad.onnx").write_bytes(stamped(model.SerializeToString(), read_onnx_metadata(out)))
    for index in range(3):
        scene = draw_scene(index, (64, 96))
        write_image(tmp_path / f"data/images/val/{index}.png", scene.image)
        labels = np.where(scene.labels < 19, scene.labels % 5, 255).astype(np.uint8)
        write_labels(tmp_path / f"data/labels/val/{index}.png", labels)
    (tmp_path / "five.json").write_text(json.dumps(FIVE.to_dict()))
    return release, path, tmp_path


def test_verify_holds_artefacts_to_the_file(run, folder):
    release, path, tmp_path = folder
    result = tmp_path / "result.json"
    data = ("--dataset", "folder", "--data", tmp_path / "data", "--json", result)
    more = ("--label-set", tmp_path / "five.json", "--undecided", "pass")
    done = run("verify", release, "--reference", path, *data, *more)
    assert done.code == 1, done
    assert "bad.onnx" in done.err
    assert "good.onnx" not in done.err
    assert "the reference is tensorflow-argmax.onnx as tf2onnx" in done.out
    done = run("verify", release, "--weights", path, *data, *more)
    assert done.code == 2
    assert "is an ONNX file; expected a checkpoint" in done.err


def test_evaluate_compares_an_artefact_with_the_file(run, folder):
    release, path, tmp_path = folder
    result = tmp_path / "result.json"
    data = ("--dataset", "folder", "--data", tmp_path / "data", "--json", result)
    more = ("--label-set", tmp_path / "five.json")
    done = run("evaluate", release / "good.onnx", "--against", path, *data, *more)
    assert done.code == 0, done
    first, second = json.loads(result.read_text())["models"]
    assert first["score"]["miou_percent"] == second["score"]["miou_percent"]
    assert second["runtime"] == "onnxruntime"
    assert "(adopted, tensorflow-argmax.onnx, opset 15, tf2onnx 1.17.0; onnxruntime" in done.out
