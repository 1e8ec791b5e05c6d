"""The release gate: what passes, what does not, and that one bad file does not stop the others."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from icnet_deploy.data import content_hash
from icnet_deploy.data.scenes import dataset as drawn
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.data.scenes.dataset import drawn_scenes
from icnet_deploy.errors import pip_install
from icnet_deploy.evaluation.pairing import default_runtimes
from icnet_deploy.evaluation.parity.report import Failure
from icnet_deploy.evaluation.verify import command
from icnet_deploy.evaluation.verify import record as recording
from icnet_deploy.evaluation.verify.folder import read_folder
from icnet_deploy.evaluation.verify.looks import Looks
from icnet_deploy.files import sha256
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime import machine
from icnet_deploy.runtime.auto.verdicts import NAME as RECORD
from icnet_deploy.runtime.auto.verdicts import Entry, Verdicts, read_verdicts, write_verdicts

FEW = ("--limit", "2")


def test_a_folder_in_order_passes(run, release, tmp_path):
    (release / "README.md").write_text("read me")
    (release / "older").mkdir()
    out, page = tmp_path / "v.json", tmp_path / "v.html"
    done = run("verify", release, *FEW, "--json", out, "--report", page)
    assert done.code == 0, done
    assert "checkpoints, not artefacts: random.safetensors" in done.out
    assert "not artefacts: README.md, older/" in done.out
    assert f"2 images of scenes drawn with seed {drawn.SEED}, label sizes 96x128" in done.out
    told = json.loads(out.read_text())
    assert (told["kind"], told["verdict"], told["failures"]) == ("verify", "within", [])
    assert (told["schema"], told["looks"]) == (2, None)
    (file,) = told["artefacts"]
    assert file["verdict"] == "within"
    assert file["sha256"] == sha256(release / "a.onnx")
    assert file["metadata"]["precision"] == "fp32"
    assert [row["runtime"] for row in told["parity"]["rows"]] == default_runtimes()
    assert "1 of 1 within" in page.read_text()


def test_bad_files_are_named_and_the_others_go_on(run, release, add, tmp_path):
    whole = (release / "a.onnx").read_bytes()
    (release / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (release / "text.onnx").write_text("not a model")
    (release / "e.engine").write_bytes(b"plan")
    model = onnx.load(release / "a.onnx")
    del model.metadata_props[:]
    onnx.save(model, release / "foreign.onnx")
    add("other.onnx", weights_sha256="ab" * 32)
    add("silent.onnx", tools={}, network={})
    classes = read_onnx_metadata(release / "a.onnx").label_set
    add("misnamed.onnx", label_set=dataclasses.replace(classes, name="towns"))

    def rename(graph):
        graph.node[5].op_type = "NoSuchOperator"

    add("operator.onnx", rename)
    out, page = tmp_path / "v.json", tmp_path / "v.html"
    done = run("verify", release, *FEW, "--json", out, "--report", page)
    assert done.code == 1
    bad = ["cut", "e", "foreign", "misnamed", "operator", "other", "silent", "text"]
    names = [f"{name}.engine" if name == "e" else f"{name}.onnx" for name in bad]
    assert done.err == (
        f"icnet: error: 8 of 9 artefacts do not pass (failed: {', '.join(names)})\n"
    )
    told = json.loads(out.read_text())
    why = {}
    for failure in told["failures"]:
        why.setdefault(failure["name"], failure["reason"])  # of the first runtime
    assert "not a whole ONNX file" in why["cut.onnx"]
    assert "not a whole ONNX file" in why["text.onnx"]
    assert "TensorRT" in why["e.engine"]
    assert "not one that icnet-deploy wrote" in why["foreign.onnx"]
    assert "ab" * 32 in why["other.onnx"]
    assert "does not state the network, the tools that wrote it" in why["silent.onnx"]
    assert "(label set towns, 19 classes)" in why["misnamed.onnx"]
    assert "NoSuchOperator" in why["operator.onnx"]
    assert {row["artefact"] for row in told["parity"]["rows"]} == {str(release / "a.onnx")}
    assert told["verdict"] == "failed"
    for said in ("8 of 9 failed", "1 of 9 within"):
        assert said in page.read_text()


def test_verdicts_are_recorded_whether_it_passes_or_not(run, release, add, uninstall):
    add("other.onnx", weights_sha256="ab" * 32)
    add("c.onnx", precision="int8", calibration_images=("0" * 64,))
    uninstall("openvino")
    done = run("verify", release, *FEW)
    assert done.code == 1
    assert f"the verdicts are recorded, for `auto`, in {release / RECORD}" in done.out
    known = read_verdicts(release)
    passed = known.of(sha256(release / "a.onnx"), "onnxruntime", "cpu")
    assert passed.passed
    assert (passed.file, passed.reason) == ("a.onnx", "")
    assert abs(passed.miou_points) <= 0.01
    assert passed.miou_difference_points["groups"] == 2
    assert passed.scored_on.startswith("2 images of scenes")
    assert passed.limits.startswith("mIoU at most 0.01 points lower or higher")
    assert "onnxruntime" in passed.versions
    assert set(passed.cpu_flags) == set(machine.cpu()["flags"])
    assert known.of(passed.sha256, "openvino", "cpu") is None
    failed = known.of(sha256(release / "other.onnx"), "onnxruntime", "cpu")
    assert not failed.passed
    assert "ab" * 32 in failed.reason
    # a runtime that is missing says nothing of the file
    assert known.of(sha256(release / "c.onnx"), "openvino", "cpu") is None


def test_verdicts_on_drawn_scenes_replace_none_on_a_data_set(run, release):
    digest, rest = sha256(release / "a.onnx"), ["limits", "2026-11-30", "a processor"]
    on_images = "80 images of folder val, 128x192"
    known = Entry("a.onnx", digest, "openvino", "cpu", "within", "", 0.0, on_images, *rest)
    write_verdicts(release, Verdicts((known,)))
    done = run("verify", release, *FEW)
    kept = f"{release / RECORD} keeps its verdicts on {on_images}: verdicts on drawn scenes do not"
    assert kept in done.out
    now = read_verdicts(release)
    assert now.of(digest, "openvino", "cpu").scored_on == on_images
    assert now.of(digest, "onnxruntime", "cpu").scored_on.startswith("2 images of scenes")
    drawn = dataclasses.replace(
        known, scored_on="80 images of scenes drawn with seed 90000, 96x128"
    )
    write_verdicts(release, Verdicts((drawn,)))
    assert "keeps its verdicts" not in run("verify", release, *FEW).out
    assert read_verdicts(release).of(digest, "openvino", "cpu").scored_on.startswith("2 images")


def test_a_record_is_renewed_and_no_stray_file(run, release):
    record = Entry(
        "a.onnx", sha256(release / "a.onnx"), "openvino", "cpu", "past", "it failed", None,
        *[""] * 4,
    )  # fmt: skip
    write_verdicts(release, Verdicts((record,)))
    done = run("verify", release, *FEW)
    assert "\nnot artefacts" not in done.out
    assert read_verdicts(release).of(record.sha256, "openvino", "cpu").passed


def test_two_that_record_at_once_both_are_in_the_record(tmp_path, monkeypatch):
    """Each reads what is there before it writes: without a turn one would lose the other's."""
    artefacts = [
        SimpleNamespace(
            path=tmp_path / name, sha256=name[0] * 64, file=SimpleNamespace(is_engine=0)
        )
        for name in ("a.onnx", "b.onnx")
    ]
    folder = SimpleNamespace(path=tmp_path, artefacts=artefacts)
    read, slow = recording.read_verdicts, threading.Barrier(2)

    def read_slowly(path):
        known = read(path)
        with contextlib.suppress(threading.BrokenBarrierError):
            slow.wait(0.5)  # until the other has read, too, if it may
        return known

    def record(name):
        failure = Failure(name, "fp32", "openvino", "96x128", "it failed")
        recording.record(SimpleNamespace(folder=folder, rows=[], failures=[failure], untried=[]))

    monkeypatch.setattr(recording, "read_verdicts", read_slowly)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(record, ("a.onnx", "b.onnx")))
    assert {entry.file for entry in read_verdicts(tmp_path).entries} == {"a.onnx", "b.onnx"}


def test_a_record_that_cannot_be_written_is_told(run, release):
    (release / RECORD).mkdir()
    done = run("verify", release, *FEW)
    assert done.code == 0
    assert "not recorded, so `auto` will not use these files" in done.out


def test_nothing_but_broken_files(run, release, tmp_path):
    (release / "a.onnx").write_bytes(b"")
    out, page = tmp_path / "v.json", tmp_path / "v.html"
    done = run("verify", release, *FEW, "--json", out, "--report", page)
    assert done.code == 1
    assert json.loads(out.read_text())["parity"] is None
    assert "Nothing could be compared" in page.read_text()


@pytest.fixture
def with_worse(release, add):
    """The folder, and in it `b.onnx`, of which a class is given where others were."""
    from onnx import numpy_helper

    def corrupt(graph):
        bias = next(t for t in graph.initializer if t.name.endswith("conv6_cls.bias"))
        values = numpy_helper.to_array(bias) + np.eye(1, 19, 10, dtype=np.float32)[0]
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))

    add("b.onnx", corrupt)
    return release


def known_of(release, name):
    return read_verdicts(release).of(sha256(release / name), "onnxruntime", "cpu")


def test_a_file_past_its_budget_fails_at_the_first_look(run, with_worse, tmp_path):
    out, page = tmp_path / "v.json", tmp_path / "v.html"
    done = run("verify", with_worse, "--json", out, "--report", page)
    assert done.code == 1
    assert done.err == "icnet: error: 1 of 2 artefacts do not pass (past: b.onnx)\n"
    basis = done.out.splitlines()[0]
    assert basis.startswith("10 images in 10 groups; for mIoU they count as ")
    assert "Undecided" not in basis
    assert "b.onnx on onnxruntime: past its budget: " in done.out
    assert "\nlooks: after 10, 20, 40 and 80 scenes; the intervals of each" in done.out
    assert "called within in at most about 0.625 % of cases" in done.out
    assert "Stopped after 10 scenes: every row is decided" in done.out
    told = json.loads(out.read_text())
    assert told["verdict"] == "past"
    assert {a["file"]: a["verdict"] for a in told["artefacts"]} == {
        "a.onnx": "within",
        "b.onnx": "past",
    }
    assert told["looks"]["ended_after"] == told["parity"]["protocol"]["images"] == 10
    assert told["parity"]["level"] == told["looks"]["level"] == 0.9875
    entry = known_of(with_worse, "b.onnx")
    assert (entry.verdict, entry.undecided) == ("past", "")
    assert "points lower" in entry.reason
    html = page.read_text()
    assert html.index("1 of 2 past") < html.index(basis) < html.index("<h2")
    assert html.count(basis) == 1


def test_what_few_images_do_not_decide_fails_only_a_release(run, with_worse, tmp_path):
    out, page = tmp_path / "v.json", tmp_path / "v.html"
    done = run("verify", with_worse, *FEW, "--json", out, "--report", page)
    assert (done.code, done.err) == (0, "")
    basis = done.out.splitlines()[0]
    assert basis.startswith("2 images: too few")
    assert "Undecided: b.onnx on onnxruntime" in basis
    told = json.loads(out.read_text())
    assert told["verdict"] == "undecided"
    assert [a["verdict"] for a in told["artefacts"]] == ["within", "undecided"]
    assert "1 of 2 undecided" in page.read_text()
    entry = known_of(with_worse, "b.onnx")
    assert (entry.verdict, entry.passed, entry.reason) == ("undecided", True, "")
    assert "more images would decide" in entry.undecided
    again = run("verify", with_worse, *FEW, "--undecided", "fail")
    assert again.code == 1
    assert again.err == "icnet: error: 1 of 2 artefacts do not pass (undecided: b.onnx)\n"
    assert known_of(with_worse, "b.onnx").passed


def test_a_run_that_time_ends_goes_on(run, with_worse, tmp_path, monkeypatch):
    monkeypatch.setenv("ICNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "_LOOKS", Looks(counts=(2, 3), seconds=0))
    done = run("verify", with_worse)
    assert done.code == 0
    assert "Stopped after 2 scenes: the next look would take too long" in done.out
    assert "To continue, give the same command with --resume" in done.out
    monkeypatch.setattr(command, "_LOOKS", Looks(counts=(2, 3)))
    again = run("verify", with_worse, "--resume")
    kept = "icnet: 2 images of an earlier run are kept: this one continues after them"
    assert again.err.splitlines()[0] == kept
    assert "Stopped after 3 scenes" in again.out
    assert "hold in 97.5 % of cases" in again.out  # the price of both looks
    assert not [*(tmp_path / "cache" / "scores").iterdir()]


@pytest.mark.parametrize("images", [FEW, ()], ids=["a number", "looks"])
def test_scored_images_are_not_calibrated_on(run, release, add, images):
    digest = content_hash(draw_scene((drawn.SEED, 1), (96, 128)).image)
    add("seen.onnx", precision="int8", calibration_images=(digest,))
    done = run("verify", release, *images)
    assert done.code == 1
    assert "the image scene_001 was used to calibrate" in done.out
    assert "1 of 2 artefacts do not pass (failed: seen.onnx)" in done.err


def test_int8_without_its_calibration_or_its_runtime(run, release, add, uninstall):
    add("blind.onnx", precision="int8")
    add("c.onnx", precision="int8", calibration_images=("0" * 64,))
    uninstall("openvino")
    done = run("verify", release, *FEW)
    assert done.code == 1
    assert "blind.onnx: its metadata does not state its calibration images" in done.out
    assert pip_install("openvino") in done.out
    assert "2 of 3 artefacts do not pass (failed: blind.onnx, c.onnx)" in done.err


def test_parents_are_followed(release, add):
    parent = sha256(release / "a.onnx")
    add("child.onnx", parent_sha256=parent)
    add("orphan.onnx", parent_sha256="c" * 64)
    add("changeling.onnx", parent_sha256=parent, head="labels")
    found = {a.path.name: a for a in read_folder(release).artefacts}
    assert "made from a.onnx" in found["child.onnx"].notes
    assert found["child.onnx"].problems == []
    assert any("is not in the folder" in note for note in found["orphan.onnx"].notes)
    assert found["orphan.onnx"].problems == []
    (problem,) = found["changeling.onnx"].problems
    assert "but has another head" in problem


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{tmp}/nowhere",), "does not exist"),
        (("{tmp}",), "no artefact in"),
        (("{release}", "--dataset", "scenes"), "--dataset scenes needs --data also"),
        (("{release}", "--group-by", "^a"), "--group-by ^a is for a data set, but"),
        (("{release}", "--split", "val"), "--split val is for a data set, but"),
        (("{release}", "--dataset", "kitti", "--data", "{tmp}"), "unknown data set"),
        (("{release}", "--weights", "{tmp}/none.safetensors"), "there is no such file"),
        (("{release}", "--max-miou-drop", "-1"), "--max-miou-drop"),
    ],
)
def test_wrong_requests(run, release, tmp_path, arguments, said):
    done = run("verify", *(a.format(tmp=tmp_path, release=release) for a in arguments))
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_artefacts_of_a_checkpoint_that_is_not_there(run, release, checkpoint, add):
    (release / checkpoint.name).unlink()
    add("a.onnx", precision="fp16")  # else it would be the reference itself
    done = run("verify", release)
    assert done.code == 2
    assert "--weights" in done.err


def test_drawn_scenes_are_a_data_set():
    scenes = drawn_scenes(3, (64, 96))
    assert len(scenes) == len(list(scenes)) == 3
    assert scenes[1].image.shape == (64, 96, 3)
    assert (scenes[1].labels == drawn_scenes(2, (64, 96))[1].labels).all()
    assert not (scenes[0].image == scenes[1].image).all()


def test_what_a_killed_process_left_is_named_and_no_artefact(run, release, tmp_path):
    whole = (release / "a.onnx").read_bytes()
    left = [".a.4242.tmp.onnx", ".icnet-0123456789abcdef.tmp"]
    for name in left:
        (release / name).write_bytes(whole[: len(whole) // 2])
    (release / ".random.4242.tmp.safetensors").write_bytes(b"")
    (release / ".hidden.onnx").write_bytes(whole)
    out = tmp_path / "v.json"
    done = run("verify", release, *FEW, "--json", out)
    assert done.code == 0, done
    left.insert(1, ".random.4242.tmp.safetensors")
    left.sort()
    assert f"left by a killed process, to be deleted: {', '.join(left)}" in done.out
    told = json.loads(out.read_text())
    assert [file["file"] for file in told["artefacts"]] == ["a.onnx"]
    assert told["leftovers"] == left
    assert told["not_artefacts"] == [".hidden.onnx"]
