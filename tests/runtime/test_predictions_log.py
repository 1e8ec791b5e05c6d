"""`predictions.jsonl`: what became of each file, and that a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from icnet_deploy.files import PREDICTION_LOG
from icnet_deploy.images import read_grey, write_image
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.runtime.predict.command import main

SIZE = (64, 96)
ENDINGS = ("_labels.png", "_colour.png", "_overlay.jpg")


@pytest.fixture
def photos(blocks, tmp_path):
    """Three images, one of them below another folder."""
    folder = tmp_path / "photos"
    for name, seed in (("a.png", 1), ("b.png", 2), ("inner/c.png", 3)):
        write_image(folder / name, np.roll(blocks(SIZE), 7 * seed, 1))
    return folder


@pytest.fixture
def model(tiny_model):
    return tiny_model()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def predict(model, photos, out):
    """Runs the command on the images; its exit code."""

    def run(*options, inputs=(photos,), model=model, runtime="onnxruntime"):
        words = [*inputs, "--model", model, "-o", out, "--runtime", runtime, *options]
        return main([str(word) for word in words])

    return run


def lines(out):
    return [json.loads(line) for line in (out / PREDICTION_LOG).read_text().splitlines()]


def stamps(out):
    """When each result was written."""
    found = (path for path in out.rglob("*") if path.is_file() and path.name != PREDICTION_LOG)
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in found}


def done_again(out, before):
    """The images of which a result was written since."""
    after = stamps(out)
    changed = {name for name in after if after[name] != before.get(name)}
    return sorted({name.rpartition("_")[0] for name in changed})


def test_a_line_says_what_became_of_a_file(predict, model, photos, out):
    assert predict() == 0
    assert [line["name"] for line in lines(out)] == ["a.png", "b.png", "inner/c.png"]
    for line in lines(out):
        base = line["name"].removesuffix(".png")
        content = (photos / line["name"]).read_bytes()
        labels = read_grey(out / f"{base}_labels.png")
        assert line["sha256"] == hashlib.sha256(content).hexdigest()
        assert line["artefact_sha256"] == artefact_sha256(model)
        assert (line["state"], line["error"]) == ("done", None)
        assert line["milliseconds"] > 0
        assert line["results"] == [f"{base}{ending}" for ending in ENDINGS]
        assert list(line["shares"]) == list(CITYSCAPES.names)
        for index, name in enumerate(CITYSCAPES.names):
            assert line["shares"][name] == pytest.approx((labels == index).mean(), abs=1e-6)


def test_what_is_done_is_skipped_and_said(predict, out, photos, blocks, capfd):
    assert predict() == 0
    before, written = stamps(out), (out / PREDICTION_LOG).read_bytes()
    write_image(photos / "d.png", blocks(SIZE))
    capfd.readouterr()
    assert predict() == 0
    said = capfd.readouterr().out
    assert "3 of 4 images were labelled before by this artefact: skipped" in said
    assert "1 input labelled" in said
    assert done_again(out, before) == ["d"]
    assert (out / PREDICTION_LOG).read_bytes().startswith(written)
    assert predict() == 0
    assert "4 of 4 images" in capfd.readouterr().out


def test_overwrite_does_all_again(predict, out, capfd):
    assert predict() == 0
    before = stamps(out)
    capfd.readouterr()
    assert predict("--overwrite") == 0
    assert "skipped" not in capfd.readouterr().out
    assert done_again(out, before) == ["a", "b", "inner/c"]
    assert len(lines(out)) == 3


@pytest.mark.parametrize(
    "options", [("--label-ids",), ("--unsure-below", "0.3"), ("--tiles",), ("--max-megapixels", 9)]
)
def test_options_that_change_the_results_count(predict, out, options):
    assert predict() == 0
    before = stamps(out)
    assert predict(*options) == 0
    same = options[0] == "--max-megapixels"
    assert done_again(out, before) == ([] if same else ["a", "b", "inner/c"])
    assert len(lines(out)) == 3  # the newest of each
    before = stamps(out)
    assert predict(*options) == 0
    assert done_again(out, before) == []


def test_another_artefact_runtime_or_version_counts(predict, tiny_model, out, monkeypatch):
    assert predict() == 0
    everything = ["a", "b", "inner/c"]
    for change in ({"model": tiny_model(stride=8)}, {"runtime": "openvino"}):
        before = stamps(out)
        assert predict(**change) == 0
        assert done_again(out, before) == everything
    assert predict() == 0
    monkeypatch.setattr("icnet_deploy.runtime.predict.log.__version__", "99")
    before = stamps(out)
    assert predict() == 0
    assert done_again(out, before) == everything


def test_a_changed_image_and_a_lost_result_are_done_again(predict, out, photos, blocks):
    assert predict() == 0
    before = stamps(out)
    write_image(photos / "a.png", blocks(SIZE)[::-1])
    (out / "b_overlay.jpg").unlink()
    assert predict() == 0
    assert done_again(out, before) == ["a", "b"]
    assert len(lines(out)) == 3


def test_a_file_of_another_name_that_takes_its_results_place_is_done(predict, out, photos, blocks):
    assert predict(inputs=[photos / "a.png"]) == 0
    (photos / "a.png").rename(photos / "a.bmp")  # of the same bytes
    before = stamps(out)
    assert predict(inputs=[photos / "a.bmp"]) == 0
    assert done_again(out, before) == ["a"]
    assert [line["name"] for line in lines(out)] == ["a.bmp"]


def test_a_file_that_failed_is_tried_again(predict, out, photos, blocks, capfd):
    good = (photos / "b.png").read_bytes()
    (photos / "b.png").write_bytes(good[: len(good) // 2])
    for _ in range(2):
        assert predict() == 2
        assert "b.png" in capfd.readouterr().err
        bad = {line["name"]: line for line in lines(out)}["b.png"]
        assert (bad["state"], bad["results"], bad["shares"]) == ("failed", [], {})
        assert "b.png" in bad["error"]
        assert len(lines(out)) == 3
    (photos / "b.png").write_bytes(good)
    before = stamps(out)
    assert predict() == 0
    assert done_again(out, before) == ["b"]
    assert {line["state"] for line in lines(out)} == {"done"}


def test_a_line_that_a_kill_cut_off_is_done_again(predict, out):
    assert predict() == 0
    whole = (out / PREDICTION_LOG).read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in (last + 1, last + 40, len(whole) - 2, len(whole) - 1):
        (out / PREDICTION_LOG).write_bytes(whole[:end])
        before = stamps(out)
        assert predict() == 0
        assert done_again(out, before) in (["inner/c"], [] if end == len(whole) - 1 else None)
        assert [line["name"] for line in lines(out)] == ["a.png", "b.png", "inner/c.png"]


@pytest.mark.parametrize(
    "damage", [b"\0" * 200, b"\xff\xfe{", b"[1]", b'{"schema": 1}', b"9" * 9999]
)
def test_damaged_lines_are_done_again(predict, out, damage):
    assert predict() == 0
    first, _, third = (out / PREDICTION_LOG).read_bytes().splitlines()
    (out / PREDICTION_LOG).write_bytes(b"\n".join([first, damage, third, b""]))
    before = stamps(out)
    assert predict() == 0
    assert done_again(out, before) == ["b"]
    assert len(lines(out)) == 3


def test_somebody_elses_file_of_that_name_is_left_alone(predict, out, capfd):
    out.mkdir()
    (out / PREDICTION_LOG).write_text('{"image": "a.png", "label": "street"}\n')
    assert predict() == 2
    assert "not a record of `icnet predict`" in capfd.readouterr().err
    assert [path.name for path in out.iterdir()] == [PREDICTION_LOG]
    assert "street" in (out / PREDICTION_LOG).read_text()


def test_a_first_line_that_was_cut_off_is_ours(predict, out):
    out.mkdir()
    (out / PREDICTION_LOG).write_bytes(b'{"schema": 1, "na')
    assert predict() == 0
    assert len(lines(out)) == 3


def test_pages_and_animations(predict, tmp_path, blocks, out, capfd):
    frames = [Image.fromarray(np.roll(blocks(SIZE), 9 * i, 1)) for i in range(3)]
    frames[0].save(tmp_path / "scan.tif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "walk.gif", save_all=True, append_images=frames[1:])
    inputs = [tmp_path / "scan.tif", tmp_path / "walk.gif"]
    assert predict(inputs=inputs) == 0
    pages, animation = lines(out)
    assert len(pages["results"]) == 9
    assert animation["results"] == ["walk_overlay.mp4"]
    for line in (pages, animation):
        assert sum(line["shares"].values()) == pytest.approx(1, abs=1e-4)
    before = stamps(out)
    assert predict(inputs=inputs) == 0
    assert done_again(out, before) == []
    assert "2 of 2 images were labelled before" in capfd.readouterr().out


RUN = """
import os, signal, sys
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.predict.command import main
label, runs = Predictor.predict, []
def predict(self, image):
    runs.append(1)
    if len(runs) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return label(self, image)
Predictor.predict = predict
sys.exit(main(sys.argv[2:]))
"""


def start(kill, *words):
    command = [sys.executable, "-c", RUN, str(kill), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_run_goes_on_where_it_was(predict, model, blocks, tmp_path, out, capfd):
    folder = tmp_path / "many"
    for number in range(40):
        write_image(folder / f"{number:02}.png", np.roll(blocks(SIZE), number, 1))
    words = [folder, "--model", model, "-o", out, "--runtime", "onnxruntime"]
    killed = start(30, *words)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    known = [line["name"] for line in lines(out)]  # each is a whole line
    assert 1 <= len(known) < 30
    before = stamps(out)
    assert predict(inputs=[folder]) == 0
    said = capfd.readouterr().out
    assert f"{len(known)} of 40 images were labelled before by this artefact: skipped" in said
    again = set(done_again(out, before))
    assert again == {f"{number:02}" for number in range(40)} - {name[:2] for name in known}
    assert sorted(line["name"] for line in lines(out)) == [f"{n:02}.png" for n in range(40)]
    assert len(stamps(out)) == 120  # and nothing of a temporary name


def test_several_processes_write_one_log(model, photos, out):
    """As `xargs -P 3 -n 1 icnet predict` does."""
    options = ("--model", model, "-o", out, "--runtime", "onnxruntime")
    names = ("a.png", "b.png", "inner/c.png")
    running = [start(0, photos / name, *options) for name in names]
    assert [(process.communicate(timeout=120), process.returncode)[1] for process in running] == [
        0
    ] * 3
    assert sorted(line["base"] for line in lines(out)) == ["a", "b", "c"]
