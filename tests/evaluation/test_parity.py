import json
from types import SimpleNamespace

import numpy as np
import pytest

from icnet_deploy.data import content_hash, open_dataset
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation import pairing
from icnet_deploy.evaluation.parity.run import compare
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.metadata import read_onnx_metadata

ON_SCENES = ("--dataset", "scenes", "--data")
PIXELS = 3 * 96 * 128


class Spoilt:
    """A predictor that answers as the reference does, but for what `spoil` does to the labels."""

    device = "cpu"

    def __init__(self, metadata, runtime, reference, spoil):
        self.metadata, self.runtime = metadata, runtime
        self.reference, self.spoil = reference, spoil
        self.images = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def predict(self, image):
        labels = self.reference.labels(image)
        self.spoil(self.images, labels)
        self.images += 1
        return SimpleNamespace(labels=labels)


@pytest.fixture
def spoilt(monkeypatch, checkpoint):
    """Puts a predictor with spoilt labels in the place of the real one."""

    def install(spoil):
        def from_onnx(path, runtime, device, **options):
            metadata = read_onnx_metadata(path)
            return Spoilt(metadata, runtime, Reference(checkpoint, metadata.size), spoil)

        monkeypatch.setattr(pairing, "Predictor", SimpleNamespace(from_onnx=from_onnx))

    return install


def flip(count):
    """Changes labels where the truth is not known, in the first image."""

    def spoil(index, labels):
        if index == 0:
            labels.reshape(-1)[:count] = (labels.reshape(-1)[:count] + 1) % 19

    return spoil


def test_the_exported_artefact_is_the_model(run, artefact, checkpoint, scenes, tmp_path):
    out = tmp_path / "parity.json"
    done = run("parity", artefact, *ON_SCENES, scenes, "--weights", checkpoint, "--json", out)
    assert done.code == 0, done
    told = json.loads(out.read_text())
    assert told["schema"] == 1
    keys = {"versions", "machine", "protocol", "budgets", "references", "rows"}
    assert keys <= set(told)
    assert [row["runtime"] for row in told["rows"]] == pairing.default_runtimes()
    for row in told["rows"]:
        assert row["verdict"] == "pass"
        assert row["pixels"] == PIXELS
        assert row["agreeing_percent"] >= 99.99
        assert abs(row["miou_difference_points"]) <= 0.01
        assert row["differing_pixels"] == row["ties"] + row["flips"]
        assert row["size"] == [96, 128]
        assert row["tie_margin"] == 1e-3
        assert row["protocol"]["model_size"] == "96x128"
    (reference,) = told["references"]
    assert reference["size"] == [96, 128]
    assert len(reference["weights_sha256"]) == 64
    # The scenes and the network are such that a parity of nothing with nothing cannot pass.
    assert sum(iou not in (None, 0) for iou in reference["score"]["iou_percent"].values()) >= 5


def test_a_corrupted_artefact_is_caught(run, describe, checkpoint, scenes, tmp_path):
    from onnx import numpy_helper

    def corrupt(graph):
        """Adds 0.3 to the bias of one class, the last of the vectors of 19."""
        bias = [t for t in graph.initializer if list(t.dims) == [19]][-1]
        values = numpy_helper.to_array(bias).copy()
        values[10] += 0.3
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))

    path = describe("corrupt.onnx", corrupt)
    out, report = tmp_path / "parity.json", tmp_path / "parity.html"
    arguments = ("--weights", checkpoint, "--runtime", "onnxruntime")
    done = run("parity", path, *ON_SCENES, scenes, *arguments, "--json", out, "--report", report)
    assert done.code == 1
    assert done.err == "icnet: error: 1 of 1 rows are past their budget\n"
    assert "past budget: corrupt.onnx on onnxruntime" in done.out
    (row,) = json.loads(out.read_text())["rows"]
    assert row["verdict"] == "fail"
    assert row["breaches"]
    assert row["flips"] > 0
    assert "past budget" in report.read_text()


@pytest.mark.parametrize(("count", "code"), [(3, 0), (4, 1)])
def test_the_budget_of_agreement(run, spoilt, artefact, checkpoint, scenes, count, code):
    assert 3 <= PIXELS * 1e-4 < 4
    spoilt(flip(count))
    arguments = ("--weights", checkpoint, "--runtime", "onnxruntime")
    done = run("parity", artefact, *ON_SCENES, scenes, *arguments)
    assert done.code == code
    assert ("of pixels agree" in done.out) == (code == 1)


def test_the_budget_of_miou(run, spoilt, describe, checkpoint, scenes):
    """An FP16 artefact may flip what is not scored, and not a hundred labelled pixels."""
    path = describe("half.onnx", precision="fp16")
    arguments = (*ON_SCENES, scenes, "--weights", checkpoint, "--runtime", "onnxruntime")
    spoilt(flip(1000))
    assert run("parity", path, *arguments).code == 0

    def spoil(index, labels):
        labels[-10:, :100] = 0

    spoilt(spoil)
    done = run("parity", path, *arguments)
    assert done.code == 1
    assert "mIoU differs" in done.out


def test_a_labeller_that_answers_one_class_is_caught(run, spoilt, describe, checkpoint, scenes):
    path = describe("int8.onnx", precision="int8")
    spoilt(lambda index, labels: labels.fill(0))
    arguments = (*ON_SCENES, scenes, "--weights", checkpoint, "--runtime", "onnxruntime")
    done = run("parity", path, *arguments)
    assert done.code == 1
    assert "IoU of" in done.out


def add_label_head(graph):
    """Upsamples to 96x128 and takes the largest, as the export's second head does."""
    from onnx import TensorProto, helper

    scales = helper.make_tensor("out_scales", TensorProto.FLOAT, [4], [1, 1, 4, 4])
    how = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    graph.initializer.append(scales)
    graph.node.extend(
        [
            helper.make_node("Resize", ["logits", "", "out_scales"], ["dense"], **how),
            helper.make_node("ArgMax", ["dense"], ["best"], axis=1, keepdims=0),
            helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
        ]
    )
    del graph.output[:]
    shape = ["N", 96, 128]
    graph.output.append(helper.make_tensor_value_info("labels", TensorProto.UINT8, shape))


def test_both_heads_are_held_to_a_reference_of_their_own(
    run, artefact, describe, checkpoint, tmp_path
):
    """On images of another size the label map of the graph is resized, the logits are not."""
    from icnet_deploy.data.scenes import write_scenes

    write_scenes(tmp_path / "large", 1, (150, 200), 0, "val")
    labels = describe("labels.onnx", add_label_head, head="labels")
    out = tmp_path / "parity.json"
    arguments = ("--weights", checkpoint, "--runtime", "onnxruntime", "--json", out)
    done = run("parity", artefact, labels, *ON_SCENES, tmp_path / "large", *arguments)
    assert done.code == 0, done
    rows = json.loads(out.read_text())["rows"]
    assert [row["head"] for row in rows] == ["logits", "labels"]
    words = [row["protocol"]["logits_resize"] for row in rows]
    assert words[0] != words[1]
    assert "nearest" in words[1]


def test_two_files_of_one_name_are_told_apart(run, spoilt, artefact, checkpoint, scenes, tmp_path):
    (tmp_path / "a").mkdir()
    other = tmp_path / "a" / artefact.name
    other.write_bytes(artefact.read_bytes())
    spoilt(flip(0))
    arguments = ("--weights", checkpoint, "--runtime", "onnxruntime")
    done = run("parity", artefact, other, artefact, *ON_SCENES, scenes, *arguments)
    assert done.code == 0
    assert str(artefact) in done.out
    assert str(other) in done.out
    assert done.out.count(str(artefact)) == 1  # naming one twice is naming it once


def wrong(run, *arguments):
    done = run("parity", *arguments)
    assert done.code == 2, done
    (line,) = done.err.splitlines()
    assert line.startswith("icnet: error: ")
    assert done.out == ""
    return line


def test_images_of_the_calibration_are_refused(run, describe, checkpoint, scenes):
    sample = open_dataset("scenes", scenes)[2]
    digests = (content_hash(sample.image),)
    path = describe("int8.onnx", precision="int8", calibration_images=digests)
    line = wrong(run, path, *ON_SCENES, scenes, "--weights", checkpoint)
    assert f"the image {sample.name} was used to calibrate" in line


def test_an_artefact_of_another_checkpoint_is_refused(run, describe, checkpoint, scenes):
    arguments = (*ON_SCENES, scenes, "--weights", checkpoint)
    other = describe("other.onnx", weights_sha256="ab" * 32)
    assert f"SHA-256 {'ab' * 32}" in wrong(run, other, *arguments)
    unknown = describe("unknown.onnx", weights_sha256=None)
    assert "does not say which checkpoint" in wrong(run, unknown, *arguments)


def test_bad_requests(run, artefact, describe, checkpoint, scenes, tmp_path):
    def refused(model=artefact, dataset="scenes", data=scenes, extra=()):
        told = ("--dataset", dataset, "--data", data, "--weights", checkpoint)
        return wrong(run, model, *told, *extra)

    (tmp_path / "empty").mkdir()
    assert "no scenes images" in refused(data=tmp_path / "empty")
    assert "does not exist" in refused(data=tmp_path / "nowhere")
    assert "unknown data set 'kitti'" in refused(dataset="kitti")
    assert "none.onnx" in refused(tmp_path / "none.onnx")
    assert "unknown runtime 'abacus'" in refused(extra=("--runtime", "abacus"))
    engine = tmp_path / "model.engine"
    assert "cannot read the engine" in refused(engine)
    assert "compared on nothing" in refused(engine, extra=("--runtime", "openvino"))
    assert "precision 'int4'" in refused(describe("int4.onnx", precision="int4"))
    told = refused(extra=("--weights", tmp_path / "none.safetensors"))
    assert "there is no such file" in told
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(extra=("--report", tmp_path / "file" / "a.html"))


def test_a_runtime_that_is_not_installed_is_left_out_unless_it_is_named(
    run, monkeypatch, artefact, checkpoint, scenes
):
    from icnet_deploy.runtime.backends import registry as backends

    real = backends._installed
    monkeypatch.setattr(backends, "_installed", lambda name: name != "openvino" and real(name))
    assert pairing.default_runtimes() == ["onnxruntime"]
    arguments = (*ON_SCENES, scenes, "--weights", checkpoint, "--runtime", "openvino")
    assert "icnet-deploy[openvino]" in wrong(run, artefact, *arguments)


def test_engines_go_to_the_runtimes_of_engines_and_need_no_other(monkeypatch, tmp_path, artefact):
    engine = tmp_path / "a.engine"
    monkeypatch.setattr(pairing, "default_runtimes", lambda: pytest.fail("only ONNX needs one"))
    assert pairing.pair([engine]).pairs == [(engine, "auto", "cuda", False)]
    found = pairing.pair([engine, artefact], ["openvino", "tensorrt-rtx"])
    assert found.pairs == [
        (engine, "tensorrt-rtx", "cuda", False),
        (artefact, "openvino", "auto", False),
    ]
    assert found.left_out[0] == ("a.engine on openvino: an engine runs on tensorrt or tensorrt-rtx")
    assert "it runs engines, and this is an ONNX file" in found.left_out[1]
    assert list(pairing.pair([engine], ["openvino"]).without) == [engine]
    with pytest.raises(InputError, match="leave --device cpu away"):
        pairing.pair([engine], device="cpu")


def test_the_reference_does_not_see_what_the_artefact_did(spoilt, artefact, checkpoint, scenes):
    """Rows do not share arrays: what one predictor does to its labels is its own."""
    spoilt(lambda index, labels: labels.fill(0))
    dataset = open_dataset("scenes", scenes)
    pairs = [pairing.Pair(artefact, runtime, "cpu") for runtime in ("a", "b")]
    rows, _ = compare(pairs, dataset, weights=checkpoint)
    for row in rows:
        assert np.isfinite(row.miou_points())
        assert row.reference.images == 3
        assert row.reference.confusion.iou()[0] != row.score.confusion.iou()[0]
