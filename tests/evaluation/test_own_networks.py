"""Parity, verify and evaluate of networks that the kit does not know, with small modules."""

import json
from dataclasses import replace

import numpy as np
import pytest

from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import ImageError, InputError, ModelError
from icnet_deploy.evaluation.float_network import OnnxNetwork, PytorchNetwork
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.images import write_image, write_labels
from icnet_deploy.metadata import ArtefactMetadata, read_onnx_metadata, stamped
from icnet_deploy.networks.own.opened import open_network
from icnet_deploy.networks.own.request import NetworkRequest
from icnet_deploy.runtime.predictor import Predictor
from tests.fakes.own_modules import FIVE, TWO, build

MODULE = "tests.fakes.own_modules"
SIZE = (64, 96)
FEW = ("--limit", 8)
ODD = [(64, 96), (101, 77), (150, 40), (33, 120), (128, 192)]


@pytest.fixture(scope="session")
def exported(tmp_path_factory, one_thread):
    """A function that exports a network of `own_modules`: the file and its checkpoint."""
    folder = tmp_path_factory.mktemp("own")
    made = {}

    def export(factory="five", head="logits", half=False, size=SIZE, **said):
        key = json.dumps([factory, head, half, size, said])
        if key in made:
            return made[key]
        labels = TWO if factory == "one" else FIVE
        fit = said.pop("fit", "stretch")
        expects = {"mean": [104, 117, 124], "scale": [1 / 60] * 3, "channels": "bgr", "fit": fit}
        request = NetworkRequest(f"{MODULE}:{factory}", said, None, labels, expects)
        checkpoint = open_network(request, size)
        path = build(folder / f"{len(made)}.onnx", checkpoint, size, head, half)
        made[key] = path, checkpoint
        return made[key]

    return export


@pytest.fixture
def folder(exported, tmp_path):
    """A function that puts exports into a folder: name -> what `exported` takes."""

    def folder(name="own", **files):
        path = tmp_path / name
        path.mkdir()
        for file, how in files.items():
            (path / f"{file}.onnx").write_bytes(exported(**how)[0].read_bytes())
        return path

    return folder


@pytest.fixture
def own_data(tmp_path):
    """A folder of labelled images of odd shapes, in the classes of FIVE."""
    root = tmp_path / "data"
    for index, size in enumerate(ODD):
        scene = draw_scene(index, (max(64, size[0]), max(64, size[1])))
        image, labels = scene.image[: size[0], : size[1]], scene.labels[: size[0], : size[1]]
        write_image(root / f"images/val/{index}.png", image)
        write_labels(
            root / f"labels/val/{index}.png",
            np.where(labels < 19, labels % 5, 255).astype(np.uint8),
        )
    (tmp_path / "five.json").write_text(json.dumps(FIVE.to_dict()))
    return root


def wrong(run, *arguments):
    done = run(*arguments)
    assert (done.code, done.out) == (2, ""), done
    (line,) = done.err.splitlines()
    return line


def test_a_folder_that_holds_the_parent_needs_no_flag(run, folder, tmp_path):
    release = folder(full={}, half={"half": True})
    out, page = tmp_path / "v.json", tmp_path / "v.html"
    done = run("verify", release, *FEW, "--json", out, "--report", page)
    assert done.code == 0, done
    told = json.loads(out.read_text())
    reference = told["parity"]["reference"]
    assert (reference["kind"], reference["name"]) == ("onnxruntime", "full.onnx")
    assert reference["classes_shown"] == 5
    assert {row["runtime"] for row in told["parity"]["rows"]} == {
        "onnxruntime",
        "openvino",
        "rounded",
    }
    for row in told["parity"]["rows"]:
        (miou,) = [one for one in row["findings"] if one["what"] == "mIoU"]
        assert (row["verdict"], miou["verdict"]) == ("within", "within")
    for shown in (done.out, page.read_text()):
        assert "full.onnx; this run does not compare it with the PyTorch network" in shown
        assert "the network has other classes than they have" in shown
    with Predictor.open(release) as predictor:
        assert predictor.predict(draw_scene(1, SIZE).image).label_set == FIVE


def test_the_network_is_the_reference_that_was_named(run, folder, tmp_path):
    release = folder(full={}, half={"half": True})
    out = tmp_path / "v.json"
    network = ("--network", f"{MODULE}:five")
    done = run("verify", release, *FEW, *network, "--json", out)
    assert done.code == 0, done
    told = json.loads(out.read_text())
    assert (told["reference"]["kind"], told["verdict"]) == ("pytorch", "within")
    assert f"reference: {MODULE}:five" in done.out


def test_a_network_of_other_weights_is_refused(run, exported, tmp_path):
    from safetensors.torch import save_file

    path, checkpoint = exported()
    state = checkpoint.network.module.state_dict()
    save_file(state, tmp_path / "same.safetensors")
    save_file(state | {"last.bias": state["last.bias"] + 1}, tmp_path / "other.safetensors")
    write_image(tmp_path / "photos/a.png", draw_scene(2, SIZE).image)
    where = ("--images", tmp_path / "photos", "--runtime", "onnxruntime")
    network = (*where, "--network", f"{MODULE}:five", "--weights")
    line = wrong(run, "parity", path, *network, tmp_path / "other.safetensors")
    assert "give the artefact's own weights with --weights" in line
    assert run("parity", path, *network, tmp_path / "same.safetensors").code == 0


def test_a_file_that_is_worse_is_past_without_labels(run, folder):
    """A class that is given to another on part of the image is no tie."""
    import onnx
    from onnx import numpy_helper

    release = folder(full={}, worse={"half": True})
    path = release / "worse.onnx"
    metadata, model = read_onnx_metadata(path), onnx.load(path)
    bias = next(t for t in model.graph.initializer if list(t.dims) == [5])
    values = numpy_helper.to_array(bias).copy()
    values[1] += 0.5
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    path.write_bytes(stamped(model.SerializeToString(), metadata))
    done = run("verify", release, "--limit", 12)
    assert done.code == 1
    assert "past: worse.onnx" in done.err


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("how", [
    {}, {"head": "labels"}, {"fit": "letterbox"}, {"fit": "letterbox", "head": "labels"},
])  # fmt: skip
def test_the_reference_and_the_runtimes_agree_on_images_of_any_shape(exported, runtime, how):
    path, checkpoint = exported(**how)
    reference = Reference(PytorchNetwork(checkpoint), SIZE)
    onnx = Reference(OnnxNetwork(exported(**{**how, "head": "logits"})[0]), None).at(SIZE)
    with Predictor.open(path, runtime, "cpu", cached=False) as predictor:
        for index, (height, width) in enumerate(ODD):
            image = draw_scene(index, (max(64, height), max(64, width))).image[:height, :width]
            labels = predictor.predict(image).labels
            for one in (reference, onnx):
                answer = one.finish(one.infer(image), (height, width), how.get("head", "logits"))
                rows, cols = np.nonzero(labels != answer.labels)
                assert (answer.margins(rows, cols) < 1e-3).all(), (height, width)
                assert len(rows) < 20


def test_a_letterbox_scores_no_border(exported):
    """The map is made at the model's size, its border cut off, and the rest resized."""
    _, checkpoint = exported(fit="letterbox")
    reference = Reference(PytorchNetwork(checkpoint), SIZE)
    image = draw_scene(3, (64, 64)).image
    inferred = reference.infer(image)
    assert (inferred.size, inferred.content) == (SIZE, (64, 64))
    answer = reference.answer(image)
    assert (answer.labels.shape, answer.upsampled, answer.content) == ((64, 64), SIZE, (64, 64))
    narrow = reference.answer(image[:, :20])
    assert (narrow.content, narrow.labels.shape) == ((64, 20), (64, 20))
    rows, cols = np.array([5, 60]), np.array([0, 19])
    best = np.sort(_dense(narrow.logits), axis=0)[-2:, rows, cols]
    np.testing.assert_allclose(narrow.margins(rows, cols), best[1] - best[0], atol=1e-6)


def _dense(logits):
    import torch

    double = torch.from_numpy(logits)[None].double()
    return torch.nn.functional.interpolate(double, size=SIZE, mode="bilinear")[0].numpy()


def test_at_a_free_size_sides_are_multiples(exported):
    _, checkpoint = exported(size=None, multiple=16)
    reference = Reference(PytorchNetwork(checkpoint), None)
    image = draw_scene(0, (100, 160)).image
    with pytest.raises(ImageError, match="multiples of 16"):
        reference.labels(image)
    assert reference.labels(image[:96]).shape == (96, 160)
    with pytest.raises(InputError, match=f"{MODULE}:five takes .* multiples of 16"):
        reference.at((100, 160))
    boxed = Reference(PytorchNetwork(exported(size=None, multiple=16, fit="letterbox")[1]), None)
    assert boxed.infer(image)[1:] == ((112, 160), (100, 160))
    assert boxed.labels(image).shape == (100, 160)


def test_an_onnx_file_is_the_reference_at_its_own_size(run, exported, folder, tmp_path):
    half, _ = exported(half=True)
    write_image(tmp_path / "photos/a.png", draw_scene(2, SIZE).image)
    where = ("--images", tmp_path / "photos", "--runtime", "onnxruntime")
    out = tmp_path / "p.json"
    done = run("parity", half, *where, "--reference", exported()[0], "--json", out)
    assert done.code == 0, done
    assert json.loads(out.read_text())["reference"]["kind"] == "onnxruntime"
    larger = folder(a={"size": (96, 128)}) / "a.onnx"
    line = wrong(run, "parity", half, *where, "--reference", larger)
    assert "takes only 96x128, but the comparison needs 64x96" in line
    assert "--network" in line
    line = wrong(run, "parity", half, *where, "--reference", half)
    assert "it is fp16 and gives logits; expected a float32 file that gives logits" in line
    both = OnnxNetwork(exported()[0], larger)
    for size in (SIZE, (96, 128)):
        assert Reference(both, None).at(size).labels(draw_scene(1, size).image).shape == size
    with pytest.raises(ModelError, match="give the artefact's own float32 file with --reference"):
        both.require_origin(half, replace(both.metadata, weights_sha256="0" * 64), "1" * 64)
    child = replace(both.metadata, weights_sha256=None, parent_sha256=both.identity["onnx"][0])
    both.require_origin(half, child, "1" * 64)


def test_what_names_no_reference_says_how_to(run, folder):
    release = folder(half={"half": True}, labels={"head": "labels"})
    line = wrong(run, "verify", release)
    for option in ("--network PACKAGE.MODULE:FACTORY", "--weights FILE", "--reference FILE.onnx"):
        assert option in line


def test_artefacts_that_say_unlike_things_are_of_two_networks(run, exported, tmp_path):
    stretch, box, one = (
        exported(**how)[0] for how in ({}, {"fit": "letterbox"}, {"factory": "one"})
    )
    write_image(tmp_path / "photos/a.png", draw_scene(2, SIZE).image)
    where = ("--images", tmp_path / "photos", "--network", f"{MODULE}:five")
    line = wrong(run, "parity", stretch, box, *where)
    assert f"{stretch} and {box} are from two networks, as their preprocessing differs" in line
    line = wrong(run, "parity", one, *where, "--threshold", 0.7)
    assert "--threshold differs from the threshold of" in line
    line = wrong(run, "parity", one, *where, "--preprocessing", "imagenet")
    assert "--preprocessing differs from the preprocessing of" in line
    line = wrong(run, "parity", one, *where, "--reference", stretch)
    assert "--reference and --network both name the reference" in line
    assert "cannot read the model" in wrong(run, "parity", tmp_path / "none.onnx", *where)
    line = wrong(run, "parity", one, *where[:2], "--preprocessing", "imagenet")
    assert "needs --network PACKAGE.MODULE:FACTORY also" in line


def test_two_classes_of_one_channel(run, folder, tmp_path):
    out = tmp_path / "v.json"
    release = folder(full={"factory": "one"}, half={"factory": "one", "half": True})
    done = run("verify", release, *FEW, "--network", f"{MODULE}:one", "--json", out)
    assert done.code == 0, done
    told = json.loads(out.read_text())
    assert (told["verdict"], told["parity"]["reference"]["classes_shown"]) == ("within", 2)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_network_is_scored_as_its_artefact(run, exported, own_data, tmp_path, fit):
    (tmp_path / "expects.json").write_text(
        json.dumps(read_onnx_metadata(exported(fit=fit)[0]).preprocessing)
    )
    data = ("--dataset", "folder", "--data", own_data, "--label-set", tmp_path / "five.json")
    network = ("--network", f"{MODULE}:five", "--preprocessing", tmp_path / "expects.json")
    out, other = tmp_path / "a.json", tmp_path / "b.json"
    done = run("evaluate", *data, *network, "--size", "64x96", "--json", out)
    assert done.code == 0, done
    assert run("evaluate", exported(fit=fit)[0], *data, "--json", other).code == 0
    told, artefact = (json.loads(path.read_text()) for path in (out, other))
    assert told["model"] == f"{MODULE}:five"
    assert told["sha256"] == read_onnx_metadata(exported()[0]).weights_sha256
    assert told["runtime"] == "pytorch"
    assert told["protocol"] == artefact["protocol"]
    assert ("border" in told["protocol"]["image_resize"]) is (fit == "letterbox")
    assert told["score"]["miou_percent"] == pytest.approx(
        artefact["score"]["miou_percent"], abs=0.02
    )
    both = run("evaluate", *data, *network, "--size", "64x96", "--against", exported(fit=fit)[0])
    assert both.code == 0, both


def test_bad_requests_of_evaluate(run, exported, own_data, tmp_path):
    data = ("--dataset", "folder", "--data", own_data, "--label-set", tmp_path / "five.json")
    network = ("--network", f"{MODULE}:five", "--preprocessing", "imagenet")
    path = exported()[0]
    assert "both name the model" in wrong(run, "evaluate", path, *data, *network)
    assert "there is no model to score" in wrong(run, "evaluate", *data)
    assert "needs --network; a checkpoint is given as MODEL" in wrong(
        run, "evaluate", path, *data, "--weights", "a.pth"
    )
    assert "give --preprocessing" in wrong(run, "evaluate", *data, *network[:2])
    line = wrong(run, "evaluate", *data, *network, "--runtime", "openvino")
    assert "runs in PyTorch" in line


def test_the_metadata_of_a_network_are_those_of_its_artefact(exported):
    path, checkpoint = exported()
    metadata = PytorchNetwork(checkpoint).metadata
    assert isinstance(metadata, ArtefactMetadata)
    assert metadata.weights_sha256 == read_onnx_metadata(path).weights_sha256
