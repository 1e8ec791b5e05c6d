"""A comparison that was killed goes on where it was, and says what one that was not would say."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from icnet_deploy.evaluation.kept import Kept
from icnet_deploy.evaluation.pairing import default_runtimes
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.files import sha256
from icnet_deploy.images import read_image, write_image
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.predictor import Predictor

KILLED = """
import os, signal, sys
from icnet_deploy.cli import main
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.predictor import Predictor

predict, calls = Predictor.predict, []

def killed(self, image):
    calls.append(image)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return predict(self, image)

Predictor.predict = killed
main(sys.argv[1:])
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of what is kept, below a cache of this test's own."""
    monkeypatch.setenv("ICNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scores"


@pytest.fixture
def calls(monkeypatch):
    """Counts the predictions and the reference's answers; interrupts the prediction `stop_at`."""
    counted = SimpleNamespace(predictions=0, answers=0, stop_at=None)
    predict, infer = Predictor.predict, Reference.infer

    def counting(self, image):
        counted.predictions += 1
        if counted.predictions == counted.stop_at:
            raise KeyboardInterrupt
        return predict(self, image)

    def answering(self, image):
        counted.answers += 1
        return infer(self, image)

    monkeypatch.setattr(Predictor, "predict", counting)
    monkeypatch.setattr(Reference, "infer", answering)
    return counted


@pytest.fixture
def parity(run, calls, artefact, scenes, checkpoint, tmp_path):
    """A function that runs `icnet parity`: what it said, its JSON, and what it ran."""

    def parity(*extra, files=(artefact,), data=scenes, where=None, stop_at=None):
        calls.predictions, calls.answers, calls.stop_at = 0, 0, stop_at
        out = tmp_path / "parity.json"
        out.unlink(missing_ok=True)
        where = where or ("--dataset", "scenes", "--data", data)
        fixed = ("--weights", checkpoint, "--runtime", "onnxruntime", "--json", out)
        done = run("parity", *files, *where, *fixed, *extra)
        done.told = json.loads(out.read_text()) if out.exists() else None
        done.ran = (calls.predictions, calls.answers)
        return done

    return parity


def test_a_process_that_was_killed_goes_on(
    parity, cache, artefact, labels_graph, scenes, checkpoint, tmp_path
):
    page = tmp_path / "parity.html"
    both = [artefact, labels_graph]
    whole = parity("--report", page, files=both)
    assert (whole.code, whole.ran, list(cache.iterdir())) == (0, (6, 3), [])
    whole_page = page.read_text()

    where = ("--dataset", "scenes", "--data", scenes, "--weights", checkpoint)
    command = ("parity", artefact, labels_graph, *where, "--runtime", "onnxruntime")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, command)], capture_output=True, timeout=300
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    shutil.copytree(cache, tmp_path / "copy" / "scores")

    again = parity("--resume", files=both)  # image 2 and 3 of the one, 3 of the other; none twice
    assert (again.code, again.ran, list(cache.iterdir())) == (0, (3, 2), [])
    assert again.told == whole.told
    assert "2 images of an earlier run are kept: this one continues after them" in again.err

    os.environ["ICNET_CACHE"] = str(tmp_path / "copy")  # put back by the fixture
    again = parity("--resume", "--report", page, files=both)
    assert again.told == whole.told
    assert page.read_text() == whole_page
    assert 3 < again.ran[0] <= 3 + 3  # those that are shown are run again to be drawn


def interrupted(parity, **changes):
    done = parity(stop_at=3, **changes)
    assert (done.code, done.told) == (130, None)
    assert "with --resume to continue" in done.err
    assert done.err.endswith("icnet: interrupted\n")


def test_verify_goes_on(run, calls, cache, artefact, checkpoint, scenes, tmp_path):
    """The folder's record, too, is that of a run that was not interrupted."""
    release, out = tmp_path / "release", tmp_path / "verify.json"
    release.mkdir()
    shutil.copy(artefact, release)
    shutil.copy(checkpoint, release)
    command = ("verify", release, "--dataset", "scenes", "--data", scenes, "--json", out)
    each = len(default_runtimes())
    calls.stop_at = 2 * each + 1  # of the third image
    assert run(*command).code == 130
    assert not out.exists()
    calls.predictions, calls.stop_at = 0, None
    done = run(*command, "--resume")
    assert (done.code, calls.predictions, list(cache.iterdir())) == (0, each, [])
    resumed = json.loads(out.read_text())
    assert run(*command).code == 0
    assert json.loads(out.read_text()) == resumed


def test_a_run_that_is_not_told_to_go_on_begins_anew(parity, cache):
    interrupted(parity)
    done = parity()
    assert (done.code, done.ran, list(cache.iterdir())) == (0, (3, 3), [])
    assert done.err == "icnet: 3 images of an earlier run are kept: --resume continues after them\n"


def test_what_was_damaged_is_done_again(parity, cache):
    interrupted(parity)
    for path in cache.iterdir():
        lines = path.read_text().split("\n")
        lines[0] = lines[0].replace('"image"', '"Image"')
        path.write_text("\n".join(lines)[:-40])
    # Of the artefact the first line is damaged and the second cut; of the reference the third is.
    done = parity("--resume")
    assert (done.code, done.ran) == (0, (3, 3))


def test_an_image_that_changed_under_its_name_is_done_again(parity, cache, scenes, tmp_path):
    copy = tmp_path / "scenes"
    shutil.copytree(scenes, copy)
    interrupted(parity, data=copy)
    path = min(copy.glob("leftImg8bit/val/*/*.png"))
    image = read_image(path).copy()
    image[0, 0] ^= 1
    write_image(path, image)
    done = parity("--resume", data=copy)
    assert (done.code, done.ran) == (0, (2, 2))  # it, and the one that was not done
    assert done.told == parity(data=copy).told


@pytest.mark.parametrize("other", ["artefact", "margin"])
def test_what_another_run_kept_is_not_believed(parity, cache, describe, monkeypatch, other):
    interrupted(parity)
    changes = {}
    if other == "artefact":
        changes = {"files": [describe("other.onnx", lambda graph: setattr(graph, "name", "other"))]}
    else:
        margins = {16: 0.5, 32: 0.01}
        monkeypatch.setattr(Reference, "tie_margins", lambda self, largest: margins)
    done = parity("--resume", **changes)
    assert (done.code, done.ran) == (0, (3, 3))


def test_a_journal_is_named_by_all_that_its_numbers_depend_on(
    parity, cache, artefact, checkpoint, monkeypatch
):
    """`test_kept.py` shows that another value of any of these is another journal."""
    named = []
    journal = Kept.journal

    def recording(self, read, **what):
        named.append(what)
        return journal(self, read, **what)

    monkeypatch.setattr(Kept, "journal", recording)
    assert parity("--exif", "apply").code == 0
    reference, row = named
    metadata = read_onnx_metadata(artefact)
    data = {
        "network": Reference(checkpoint, None).network.identity,
        "data": ["scenes", "val", "apply"],
        "label_set": metadata.label_set.to_dict(),
    }
    assert reference == {"kind": "reference", "at": (metadata.size, metadata.head), **data}
    assert row == {
        "kind": "artefact",
        "artefact": sha256(artefact),
        "metadata": metadata.to_json(),
        "runtime": "onnxruntime",
        "device": "cpu",
        "tf32": False,
        "tie_margin": 1e-3,
        "ties_are_right": False,
        **data,
    }


def test_photos_without_labels_go_on(parity, cache, scenes):
    """Their truth is the reference's answer, which is not worked out again for those kept."""
    photos = {"where": ("--images", scenes / "leftImg8bit")}
    whole = parity(**photos)
    assert whole.told["rows"][0]["pixels"] == 3 * 96 * 128
    interrupted(parity, **photos)
    done = parity("--resume", **photos)
    assert (done.code, done.ran) == (0, (1, 1))
    assert done.told == whole.told


def test_resume_without_a_place_is_refused(parity, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    for place, why in (("off", "ICNET_CACHE is off"), (tmp_path / "file", "can be kept")):
        monkeypatch.setenv("ICNET_CACHE", str(place))
        done = parity("--resume")
        assert (done.code, done.ran) == (2, (0, 0))
        assert why in done.err
        done = parity(stop_at=2)
        assert (done.code, done.err) == (130, "icnet: interrupted\n")
        assert parity().code == 0
