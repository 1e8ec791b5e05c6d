import json
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from icnet_deploy.data import content_hash, open_dataset
from icnet_deploy.data.photos import photos
from icnet_deploy.errors import InputError, MissingPackage, pip_install
from icnet_deploy.evaluation import pairing
from icnet_deploy.evaluation.pairing import Pairing, Run
from icnet_deploy.evaluation.parity.report import headline, sentences
from icnet_deploy.evaluation.parity.run import compare
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.auto.folder import ArtefactFile

ON_SCENES = ("--dataset", "scenes", "--data")
PIXELS = 3 * 96 * 128


class Spoilt:
    """A predictor that answers as the reference does, but for what `spoil` does to the labels."""

    device = "cpu"

    def __init__(self, metadata, runtime, reference, spoil):
        self.metadata, self.runtime = metadata, runtime
        self.reference, self.spoil = reference, spoil
        self.images = 0

    def predict(self, image):
        labels = self.reference.labels(image)
        self.spoil(self.images, labels)
        self.images += 1
        return SimpleNamespace(labels=labels)


@pytest.fixture
def spoilt(checkpoint, scenes):
    """A function that compares files whose labels are spoilt: their rows."""

    def compare_spoilt(spoil, *paths, runtimes=("onnxruntime",), data=None, **options):
        @contextmanager
        def opener(run):
            metadata = read_onnx_metadata(run.path)
            yield Spoilt(metadata, run.runtime, Reference(checkpoint, metadata.size), spoil)

        runs = [Run(path, runtime, "cpu") for path in paths for runtime in runtimes]
        known = Pairing({path: ArtefactFile(path) for path in paths}, runs)
        options |= {"strict": True, "opener": opener}
        reference = Reference(checkpoint, None)
        return compare(known, data or open_dataset("scenes", scenes), reference, **options)[0]

    return compare_spoilt


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
    assert told["schema"] == 2
    keys = {"versions", "machine", "protocol", "budgets", "references", "rows"}
    assert keys <= set(told)
    assert [row["runtime"] for row in told["rows"]] == pairing.default_runtimes()
    for row in told["rows"]:
        assert row["verdict"] != "past"
        assert row["pixels"] == PIXELS
        assert row["agreeing_percent"] >= 99.99
        assert abs(row["miou_difference_points"]["value"]) <= 0.01
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
    name = "corrupt.onnx on onnxruntime"
    assert done.err == f"icnet: error: 1 of 1 are past their budget: {name}\n"
    assert f"{name}: past its budget: " in done.out
    (row,) = json.loads(out.read_text())["rows"]
    assert row["verdict"] == "past"
    assert "past" in [finding["verdict"] for finding in row["findings"]]
    assert row["flips"] > 0
    assert "1 of 1 past" in report.read_text()


def each(count):
    """Changes so many labels of every image where the truth is not known."""

    def spoil(index, labels):
        labels.reshape(-1)[:count] = (labels.reshape(-1)[:count] + 1) % 19

    return spoil


@pytest.mark.parametrize(("spoil", "verdict"), [
    (each(1), "within"),
    (flip(3), "undecided"),  # all in one of three images
    (flip(4), "undecided"),
    (each(4), "past"),
])  # fmt: skip
def test_the_budget_of_agreement(spoilt, artefact, spoil, verdict):
    assert 3 <= PIXELS * 1e-4 < 4
    (row,) = spoilt(spoil, artefact)
    (finding,) = [one for one in row.judgement().findings if one.what == "pixels alike"]
    assert finding.verdict == verdict
    assert row.judgement().verdict == verdict


def test_the_budget_of_miou(spoilt, describe, dozen):
    """An FP16 artefact may flip what is not scored, and not a hundred labelled pixels an image."""
    path = describe("half.onnx", precision="fp16")
    (row,) = spoilt(flip(1000), path)
    assert row.judgement().verdict == "within"

    def worse(index, labels):
        labels[labels == labels[-1, 0]] = 0

    (row,) = spoilt(worse, path, data=dozen)
    assert row.breaches()[0].startswith("mIoU ")


def test_a_labeller_that_answers_one_class_is_caught(spoilt, describe, dozen):
    path = describe("int8.onnx", precision="int8")
    (row,) = spoilt(lambda index, labels: labels.fill(0), path, data=dozen)
    assert row.judgement().verdict == "past"


def test_a_look_ends_the_run(spoilt, artefact, dozen):
    """It sees the rows after each image; what is judged is what was seen so far."""
    seen = []

    def look(images, rows):
        seen.append((images, [row.differences().images for row in rows]))
        return images == 3

    rows = spoilt(each(1), artefact, runtimes=("a", "b"), data=dozen, level=0.99, look=look)
    assert seen == [(1, [1, 1]), (2, [2, 2]), (3, [3, 3])]
    assert [row.score.images for row in rows] == [3, 3]
    assert rows[0].differences().level == 0.99


def test_photos_are_compared_by_the_references_own_map(spoilt, describe, dozen):
    """What may be lost of people's labels limits nothing; pixels alike are what is judged."""
    path = describe("int8.onnx", precision="int8")

    def worse(index, labels):
        labels[labels == labels[-1, 0]] = 0

    (row,) = spoilt(worse, path, data=photos(dozen.root / "leftImg8bit"))
    assert {score for score in row.reference.confusion.iou() if score == score} == {1.0}
    assert row.miou_points() < -1
    assert row.differences().miou.high <= 0  # nobody beats the reference by its own map
    assert row.score.protocol().label_resize.startswith("there are no labels")
    assert row.score.protocol().images_sha256 == row.reference.protocol().images_sha256
    assert (row.judgement().findings, row.judgement().verdict) == ((), "undecided")
    (sentence,) = sentences(row)
    assert "it has no limit" in sentence
    assert "--min-agreement" in sentence
    no_limit = "int8.onnx on onnxruntime (it has no limit; --min-agreement PERCENT sets one)."
    assert headline([row]).endswith(f"Undecided: {no_limit}")


def test_a_run_on_photos(run, artefact, checkpoint, scenes, tmp_path):
    out, report = tmp_path / "parity.json", tmp_path / "parity.html"
    arguments = ("--images", scenes / "leftImg8bit", "--weights", checkpoint, "--json", out)
    one = ("--runtime", "onnxruntime", "--limit", 2)
    done = run("parity", artefact, *arguments, *one, "--report", report, "--min-agreement", 99)
    assert done.code == 0, done
    assert done.out.startswith("2 images in one group")
    result = json.loads(out.read_text())
    assert not result["labelled"]
    (row,) = result["rows"]
    assert row["score"]["miou_percent"] > 99
    assert row["agreement"]["value"] == pytest.approx(row["agreeing_percent"] / 100)
    assert [(each["what"], each["limit"]) for each in row["findings"]] == [
        ("pixels alike", "at least 99 %")
    ]
    assert "The images have no labels" in report.read_text()
    for shown in (done.out, report.read_text()):
        assert "2 photos of the folder leftImg8bit" in shown
    given = ("--min-agreement", 100, "--undecided", "fail")
    assert run("parity", artefact, *arguments, *one, *given).code == (row["differing_pixels"] > 0)


def test_both_heads_are_held_to_a_reference_of_their_own(
    run, artefact, labels_graph, checkpoint, large, tmp_path
):
    """On images of another size the label map of the graph is resized, the logits are not."""
    out = tmp_path / "parity.json"
    arguments = ("--weights", checkpoint, "--runtime", "onnxruntime", "--json", out)
    done = run("parity", artefact, labels_graph, *ON_SCENES, large, "--limit", 1, *arguments)
    assert done.code == 0, done
    rows = json.loads(out.read_text())["rows"]
    assert [row["head"] for row in rows] == ["logits", "labels"]
    words = [row["protocol"]["logits_resize"] for row in rows]
    assert words[0] != words[1]
    assert "nearest" in words[1]


def test_two_files_of_one_name_are_told_apart(spoilt, artefact, tmp_path):
    other = tmp_path / artefact.name
    other.write_bytes(artefact.read_bytes())
    assert [row.name for row in spoilt(flip(0), artefact)] == [artefact.name]
    rows = spoilt(flip(0), artefact, other)
    assert [row.name for row in rows] == [str(artefact), str(other)]
    runs = pairing.pair([artefact, other, artefact], ["onnxruntime"]).runs
    assert [each.path for each in runs] == [artefact, other]  # naming one twice is naming it once


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
    assert "cannot be compared on any runtime" in refused(engine, extra=("--runtime", "openvino"))
    assert "precision 'int4'" in refused(describe("int4.onnx", precision="int4"))
    told = refused(extra=("--weights", tmp_path / "none.safetensors"))
    assert "there is no such file" in told
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(extra=("--report", tmp_path / "file" / "a.html"))


def test_a_runtime_that_is_not_installed_is_left_out_unless_it_is_named(
    run, uninstall, artefact, checkpoint, scenes
):
    uninstall("openvino")
    assert pairing.default_runtimes() == ["onnxruntime"]
    arguments = (*ON_SCENES, scenes, "--weights", checkpoint, "--runtime", "openvino")
    assert pip_install("openvino") in wrong(run, artefact, *arguments)


def test_engines_go_to_the_runtimes_of_engines_and_need_no_other(uninstall, tmp_path, artefact):
    engine = tmp_path / "a.engine"
    uninstall("openvino", "onnxruntime")
    assert pairing.pair([engine]).runs == [(engine, "auto", "auto", False)]
    found = pairing.pair([engine, artefact], ["openvino", "tensorrt-rtx"])
    assert found.runs == [
        (engine, "tensorrt-rtx", "auto", False),
        (artefact, "openvino", "auto", False),
    ]
    assert found.left_out[0] == ("a.engine on openvino: an engine runs on tensorrt or tensorrt-rtx")
    assert "it runs engines, but this is an ONNX file" in found.left_out[1]
    assert list(pairing.pair([engine], ["openvino"]).without) == [engine]
    (asked,) = pairing.pair([engine], device="cpu").runs
    with pytest.raises(InputError, match="leave out --device cpu"), pairing.open_run(asked):
        pass
    with pytest.raises(MissingPackage, match="icnet parity"):
        pairing.pair([artefact])


def test_the_reference_does_not_see_what_the_artefact_did(spoilt, artefact):
    """Rows do not share arrays: what one predictor does to its labels is its own."""
    rows = spoilt(lambda index, labels: labels.fill(0), artefact, runtimes=("a", "b"))
    assert [row.runtime for row in rows] == ["a", "b"]
    for row in rows:
        assert np.isfinite(row.miou_points())
        assert row.reference.images == 3
        assert row.reference.confusion.iou()[0] != row.score.confusion.iou()[0]
