"""What is kept of a run: believed only where it is exactly what this run would find again."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest

from icnet_deploy.data import Sample
from icnet_deploy.errors import BackendError, CheckFailed, InputError
from icnet_deploy.evaluation import kept
from icnet_deploy.evaluation.kept import Kept, image_key
from icnet_deploy.files import cache_folder

A, B, C = "a" * 64, "b" * 64, "c" * 64
RUN = {"artefact": "1" * 64, "runtime": "openvino", "device": "cpu", "tf32": False}


@dataclass(frozen=True)
class Count:
    """What these tests count of an image."""

    pixels: int

    def to_dict(self):
        return {"pixels": self.pixels}

    @classmethod
    def from_dict(cls, value):
        if list(value) != ["pixels"]:
            raise InputError("no count")
        return cls(**value)


def journal(folder, resume=True, **changes):
    return Kept(resume, folder).journal(Count.from_dict, **RUN | changes)


def ends_with(error, folder, image=C):
    """Keeps an image, and then the command ends with an error."""
    with Kept(folder=folder) as mine:
        mine.journal(Count.from_dict, **RUN).add(image, Count(3))
        raise error


@pytest.fixture
def two(tmp_path):
    """The folder of a run that was killed after two images, and its journal."""
    one = journal(tmp_path, resume=False)
    one.add(A, Count(1))
    one.add(B, Count(2))
    (file,) = tmp_path.iterdir()
    return tmp_path, file


def test_a_run_goes_on_where_it_was(two):
    folder, _ = two
    again = journal(folder)
    assert (again.before, again.get(A), again.get(B), again.get(C)) == (2, Count(1), Count(2), None)
    again.add(C, Count(3))
    assert [journal(folder).get(image) for image in (A, B, C)] == [Count(1), Count(2), Count(3)]


def test_a_run_that_is_not_told_to_go_on_begins_anew_and_loses_nothing(two):
    folder, _ = two
    anew = journal(folder, resume=False)
    assert (anew.before, anew.get(A)) == (2, None)
    anew.add(A, Count(7))
    assert (journal(folder).get(A), journal(folder).get(B)) == (Count(7), Count(2))


@pytest.mark.parametrize("end", [1, 2, 40, 150])
def test_a_line_that_was_cut_off_is_done_again_and_spoils_no_other(two, end):
    folder, file = two
    file.write_bytes(file.read_bytes()[:-end])  # what is left of the last line may be whole
    again = journal(folder)
    assert (again.get(A), again.get(B)) == (Count(1), Count(2) if end == 1 else None)
    again.add(C, Count(3))
    assert (journal(folder).get(A), journal(folder).get(C)) == (Count(1), Count(3))


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line | {"counts": {"pixels": 3}},
        lambda line: line | {"image": C},
        lambda line: line | {"digest": "0" * 64},
        lambda line: {name: value for name, value in line.items() if name != "digest"},
        lambda line: {n: v for n, v in line.items() if n not in ("digest", "stamped")},
        lambda line: line | {"more": 1},
        lambda line: kept.sealed({"key": line["key"], "image": B, "counts": {"other": 2}}),
        lambda line: kept.sealed({"key": C, "image": B, "counts": {"pixels": 2}}),
        lambda line: [line],
    ],
)
def test_a_damaged_line_is_not_believed(two, damage):
    folder, file = two
    first, last = filter(None, file.read_text().split("\n"))
    file.write_text(f"{first}\n{json.dumps(damage(json.loads(last)))}\n")
    again = journal(folder)
    assert (again.get(A), again.get(B), again.get(C)) == (Count(1), None, None)


def test_every_changed_byte_of_a_line_is_found(two):
    folder, file = two
    whole = bytearray(file.read_bytes())
    for place in range(whole.rindex(b"\n", 0, -1), len(whole) - 1, 3):
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        assert journal(folder).get(B) in (None, Count(2)), place


def test_bytes_that_are_no_lines_are_no_lines(two, monkeypatch):
    folder, file = two
    file.write_bytes(os.urandom(5000) + b"\n" + file.read_bytes() + b"\xff\n")
    assert journal(folder).before == 2
    monkeypatch.setattr(kept, "_LONGEST", 64)  # shorter than a line
    assert journal(folder).before == 0


@pytest.mark.parametrize(
    "change",
    [
        {"artefact": "2" * 64},
        {"runtime": "onnxruntime"},
        {"device": "cuda"},
        {"tf32": True},
        {"weights": "3" * 64},
        {"tie_margin": 0.25},
        {"label_set": {"names": ["road"]}},
    ],
)
def test_another_run_has_a_journal_of_its_own(two, change):
    folder, file = two
    other = journal(folder, **change)
    assert other.before == 0
    other.add(C, Count(3))
    (theirs,) = set(folder.iterdir()) - {file}
    theirs.write_bytes(file.read_bytes())  # under the other's name it is not believed either
    assert journal(folder, **change).before == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("__version__", "99"),
        ("package_version", lambda name: "99"),
        ("machine", lambda: {"cpu": "another", "cpu_flags": [], "gpus": []}),
        ("SCHEMA", 99),
    ],
)
def test_another_version_or_machine_has_too(two, monkeypatch, name, value):
    folder, _ = two
    monkeypatch.setattr(kept, name, value)
    monkeypatch.setattr(kept, "_here", kept._here.__wrapped__)
    assert journal(folder).before == 0
    monkeypatch.undo()
    assert journal(folder).before == 2


def test_lines_of_several_processes_do_not_mix(tmp_path):
    """Each has opened the file on its own, as processes do."""

    def work(writer):
        mine = journal(tmp_path, resume=False)
        for image in range(40):
            mine.add(f"{writer:032x}{image:032x}", Count(10**18 + image))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal(tmp_path).before == 160


def test_a_journal_that_another_process_removed_is_begun_again(two):
    folder, file = two
    mine = journal(folder)
    file.unlink()
    mine.add(C, Count(3))
    assert (journal(folder).before, journal(folder).get(C)) == (1, Count(3))


def test_a_run_that_has_its_answer_keeps_nothing(two):
    folder, _ = two
    with Kept(folder=folder) as mine:
        one = mine.journal(Count.from_dict, **RUN)
        assert mine.journal(Count.from_dict, **RUN) is one
    assert list(folder.iterdir()) == []
    with pytest.raises(CheckFailed):
        ends_with(CheckFailed("past"), folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BackendError("gone")])
def test_a_run_that_has_none_keeps_what_was_done(two, error, capsys):
    folder, _ = two
    with pytest.raises(type(error)):
        ends_with(error, folder)
    assert journal(folder).before == 3
    assert ("--resume" in capsys.readouterr().err) == isinstance(error, KeyboardInterrupt)


def test_it_says_what_is_kept(two, capsys):
    folder, _ = two

    def said(resume, **changes):
        mine = Kept(resume, folder)
        mine.journal(Count.from_dict, **RUN | changes)
        mine.say_before()
        return capsys.readouterr().err

    assert (
        said(False) == "icnet: 2 images of an earlier run are kept: --resume continues after them\n"
    )
    assert (
        said(True) == "icnet: 2 images of an earlier run are kept: this one continues after them\n"
    )
    assert "begins at the first image" in said(True, tf32=True)
    assert said(False, tf32=True) == ""


def test_without_a_place_nothing_is_kept_and_resume_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    for place, why in (("off", "ICNET_CACHE is off"), (tmp_path / "file", "cannot write")):
        monkeypatch.setenv("ICNET_CACHE", str(place))
        with pytest.raises(InputError, match=why):
            Kept.below_cache(resume=True)
        with Kept.below_cache() as mine:
            one = mine.journal(Count.from_dict, **RUN)
            one.add(A, Count(1))
            mine.say_before()
        with pytest.raises(KeyboardInterrupt):
            ends_with(KeyboardInterrupt(), cache_folder("scores"))
        assert capsys.readouterr().err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    monkeypatch.setenv("ICNET_CACHE", str(tmp_path / "cache"))
    Kept.below_cache().journal(Count.from_dict, **RUN).add(A, Count(1))
    assert [path.suffix for path in (tmp_path / "cache/scores").iterdir()] == [".jsonl"]


def test_a_full_disk_ends_the_keeping_and_not_the_run(two, capsys):
    folder, file = two
    mine = journal(folder)
    file.unlink()
    file.mkdir()  # cannot be written
    mine.add(C, Count(3))
    mine.add(C, Count(3))
    assert capsys.readouterr().err.count("the rest of this run is not kept") == 1


def test_old_journals_are_removed(two):
    folder, file = two
    (folder / "notes.txt").write_text("mine")
    os.utime(folder / "notes.txt", (0, 0))
    os.utime(file, (0, 0))
    assert journal(folder).before == 0
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_an_image_is_its_pixels_and_its_truth():
    truth = np.arange(12, dtype=np.uint8).reshape(3, 4)
    sample = Sample("a", np.repeat(truth[..., None], 3, 2), truth)
    key = image_key(sample)
    assert image_key(replace(sample, name="b")) == key
    for name in ("image", "labels"):
        array = getattr(sample, name).copy()
        array[0, 0] ^= 1
        assert image_key(replace(sample, **{name: array})) != key
        shape = (4, 3, *array.shape[2:])
        assert image_key(replace(sample, **{name: getattr(sample, name).reshape(shape)})) != key
