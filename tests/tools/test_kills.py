"""`python -m tools.kills`: the look at what a kill leaves, and a few kills."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from icnet_deploy.errors import CheckFailed
from icnet_deploy.images import write_image
from tools.kills import Job, Place, kill_again_and_again

pytest.importorskip("torch", reason="the tool reads checkpoints")


@pytest.fixture
def place(scenes, artefact, tmp_path):
    """Where `icnet predict` labels three scenes."""
    words = (scenes / "leftImg8bit", "--model", artefact, "-o", "OUT", "--runtime", "onnxruntime")
    return Place(tmp_path / "predict", Job("predict", words))


def test_killed_commands_lose_nothing(place):
    outcome = kill_again_and_again(place, 2, random.Random(3))
    assert outcome.problems == []
    assert outcome.before_an_operation + outcome.at_a_moment == 2
    assert outcome.operations > 20


DAMAGE = {
    "half an image": lambda out: halve(out / "a.png"),
    "half a file of JSON": lambda out: (out / "a.json").write_text('{"a": '),
    "half a line that is not the last": lambda out: (out / "a.jsonl").write_text('{"a": \n{}\n'),
    "half a page": lambda out: (out / "a.html").write_text("<html>"),
    "half a model": lambda out: (out / "a.onnx").write_bytes(b"\x08\x08"),
    "a hidden file of another name": lambda out: (out / ".a.png.part").write_bytes(b"half"),
    "this file has an unknown suffix": lambda out: (out / "a.tmp").write_bytes(b"half"),
}


def halve(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_half_written_is_seen(place, blocks, damage):
    out = place.root / "out"
    write_image(out / "a.png", blocks)
    (out / "a.jsonl").write_text('{"a": 1}\n{"a"')  # the last line may be cut off
    (out / f".icnet-{'0' * 16}.tmp").write_bytes(b"half")
    assert list(place.damaged()) == []
    DAMAGE[damage](out)
    assert len(list(place.damaged())) == 1
    assert [path.name for path in place.leftovers()] == [f".icnet-{'0' * 16}.tmp"]


def test_the_probe_of_a_temporary_folder_is_known_for_what_it_is(place):
    probe = place.root / "tmp/_i25yoyu"
    for content, seen in ((b"", 0), (b"blat", 0), (b"half", 1)):
        probe.write_bytes(content)
        assert len(list(place.damaged())) == len(place.files()) == seen


def test_a_command_that_ends_before_it_is_killed_is_said(place, monkeypatch):
    monkeypatch.setattr(place, "run", lambda *moment, **more: SimpleNamespace(returncode=0))
    monkeypatch.setattr(place, "finish", lambda **more: {"operations": 9, "first": 0, "last": 1})
    with pytest.raises(CheckFailed, match="killed 0 times in 15 runs, expected 3"):
        kill_again_and_again(place, 3, random.Random(3))


@pytest.fixture
def blocks():
    """An image."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
