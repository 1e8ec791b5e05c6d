"""The fastest verified artefact of a folder: what is chosen, why, and what is remembered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from icnet_deploy.errors import BackendError, InputError, UnavailableError
from icnet_deploy.files import sha256
from icnet_deploy.images import write_image
from icnet_deploy.labels import CAMVID
from icnet_deploy.runtime import Predictor, doctor, machine
from icnet_deploy.runtime.auto.candidates import Request, find_candidates
from icnet_deploy.runtime.auto.choice import open_fastest
from icnet_deploy.runtime.auto.folder import digests, read_artefacts
from icnet_deploy.runtime.auto.race import ROUNDS
from icnet_deploy.runtime.auto.verdicts import (
    NAME,
    Entry,
    Verdicts,
    read_verdicts,
    write_verdicts,
)
from icnet_deploy.runtime.predict.command import main as predict

SPEEDS = {("fp32", "onnxruntime"): 3.0, ("fp32", "openvino"): 2.0, ("int8", "openvino"): 1.0}


UNSURE = "bus -0.900 points [-1.700, -0.100], at most 1 point lower"


def verdict(path, runtime="openvino", word="within", device="cpu", **fields):
    """What `icnet verify` would write of a file."""
    told = {
        "reason": "mIoU -2.000 points, at most 0.3 points lower" if word == "past" else "",
        "undecided": UNSURE if word == "undecided" else "",
        "miou_points": 0.01,
        "scored_on": "2 images of scenes val, 64x96",
        "limits": "mIoU within 0.3 points",
        "date": "2026-01-01T00:00:00+00:00",
        "processor": "a processor",
    }
    return Entry(path.name, sha256(path), runtime, device, word, **(told | fields))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A float32 file that is verified on both runtimes, and an INT8 one for OpenVINO."""
    folder = tmp_path / "release"
    folder.mkdir()
    shutil.move(tiny_model(), folder / "a.onnx")
    shutil.move(tiny_model(describe={"precision": "int8"}), folder / "b.onnx")
    a, b = folder / "a.onnx", folder / "b.onnx"
    record(folder, verdict(a), verdict(a, "onnxruntime"), verdict(b))
    return folder


def record(folder, *verdicts):
    write_verdicts(folder, Verdicts(verdicts))


class Clock:
    """Lets a run take what `speeds` says; `runs` holds (precision, runtime) of every run."""

    def __init__(self):
        self.runs = []
        self.speeds = dict(SPEEDS)

    def __call__(self, predictor, image, streams):
        self.runs.append((predictor.metadata.precision, predictor.runtime))
        predictor.predict(image)
        return self.speeds[self.runs[-1]]


@pytest.fixture
def clock():
    return Clock()


def here(**changes):
    """This machine, but for what is said."""
    return SimpleNamespace(**{**vars(machine), **changes})


def chosen(folder, clock, *, here=machine, spoil=lambda predictor: None, **request):
    """(file, runtime) of what is opened, which must label an image; and why."""

    def open_one(one, cached=None):
        predictor = Predictor.open(folder / one.file, one.runtime, one.device, cached=cached)
        spoil(predictor)
        return predictor

    predictor, why = open_fastest(folder, Request(**request), open_one, clock=clock, here=here)
    with predictor:
        assert predictor.predict(np.zeros((64, 96, 3), np.uint8)).labels.shape == (64, 96)
        assert (why.winner.runtime, why.winner.precision) == (
            predictor.runtime,
            predictor.metadata.precision,
        )
    return why.winner.file, why.winner.runtime, why


def test_the_fastest_is_chosen_in_turn_and_remembered(folder, clock, cache):
    file, runtime, why = chosen(folder, clock)
    assert (file, runtime) == ("b.onnx", "openvino")
    assert [(one.file, one.runtime, one.median_ms) for one in why.candidates] == [
        ("b.onnx", "openvino", 1000),
        ("a.onnx", "openvino", 2000),
        ("a.onnx", "onnxruntime", 3000),
    ]
    assert not why.remembered
    assert why.left_out == ("b.onnx on onnxruntime: int8 is meant for openvino, tensorrt, "
                            "tensorrt-rtx",)  # fmt: skip
    two = [("int8", "openvino"), ("fp32", "openvino")]
    assert clock.runs[-2 * ROUNDS :] == two * ROUNDS  # A B A B, without the much slower one
    assert clock.runs.count(("fp32", "onnxruntime")) == 2

    clock.runs.clear()
    again = chosen(folder, clock)[2]
    assert clock.runs == []
    assert again.remembered
    assert again.candidates == why.candidates
    assert "remembered from" in str(again)


def test_the_slower_precision_wins_where_it_is_faster(folder, clock):
    clock.speeds["fp32", "onnxruntime"] = 0.5
    assert chosen(folder, clock)[:2] == ("a.onnx", "onnxruntime")


def test_another_process_remembers_and_a_copy_of_the_folder_too(folder, clock, tmp_path):
    chosen(folder, clock)
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "b.onnx").rename(copy / "c.onnx")
    script = (
        "import sys\nfrom icnet_deploy import Predictor\n"
        "why = Predictor.from_folder(sys.argv[1]).choice\n"
        "print(why.winner.file, why.remembered)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, copy], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["c.onnx", "True"], done.stderr


def test_processes_that_choose_at_once_leave_what_the_next_one_remembers(folder, cache):
    script = (
        "import sys\nfrom icnet_deploy import Predictor\n"
        "with Predictor.from_folder(sys.argv[1]) as predictor:\n"
        "    print(predictor.choice.winner.file, predictor.choice.remembered)"
    )

    def start():
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", script, folder], **pipe)

    for process in [start(), start()]:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    kept = [path for path in cache.rglob("*") if path.is_file()]
    assert {path.parent.name for path in kept} >= {"choices", "digests"}
    assert not any(path.name.startswith(".") for path in kept)
    last, errors = start().communicate()
    assert last.split()[1:] == ["True"], errors


@pytest.mark.parametrize(
    "other",
    [
        {"here": here(cpu=lambda: machine.cpu() | {"cores": machine.cpu()["cores"] + 1})},
        {"here": here(__version__="0.0.0")},
        {"here": here(package_version=lambda name: "0" if name == "openvino" else None)},
        {"here": here(label_maps=lambda: {"kind": "another", "why": "a test says so"})},
        {"threads": 1},
    ],
    ids=["cores", "version", "runtime", "label map", "threads"],
)
def test_another_machine_or_version_measures_anew(folder, clock, other):
    chosen(folder, clock)
    clock.runs.clear()
    assert not chosen(folder, clock, **other)[2].remembered
    assert clock.runs


def test_what_failed_or_changed_or_was_not_looked_at_is_not_taken(folder, clock):
    a, b = folder / "a.onnx", folder / "b.onnx"
    record(folder, verdict(a), verdict(a, "onnxruntime", device="cuda"), verdict(b, word="past"))
    file, runtime, why = chosen(folder, clock)
    assert (file, runtime, why.measured, clock.runs) == ("a.onnx", "openvino", None, [])
    assert "a.onnx on onnxruntime, cpu: not verified there" in why.left_out
    assert any("b.onnx on openvino, cpu: it did not pass" in said for said in why.left_out)
    assert "the only candidate" in str(why)
    record(folder, verdict(a), verdict(b), verdict(b, None, "past", None))
    assert chosen(folder, clock)[0] == "a.onnx"  # a fault of the file outweighs a pass

    record(folder, verdict(a), verdict(b))
    b.write_bytes(b.read_bytes() + b"\x72\x00")  # an empty field: still a sound ONNX file
    file, _, why = chosen(folder, clock)
    assert file == "a.onnx"
    assert "b.onnx on openvino, cpu: it was changed after `icnet verify` checked it" in (
        why.left_out
    )


def test_an_undecided_file_is_taken_only_where_none_is_within(folder, clock, capsys):
    a, b = folder / "a.onnx", folder / "b.onnx"
    unsure = (verdict(b, word="undecided"), verdict(a, "onnxruntime", "undecided"))
    record(folder, verdict(a), *unsure)
    file, runtime, why = chosen(folder, clock)
    assert (file, runtime, why.note, clock.runs) == ("a.onnx", "openvino", "", [])
    said = "its verdict is undecided, and another file is within its limits: "
    assert {f"b.onnx on openvino, cpu: {said}{UNSURE}",
            f"a.onnx on onnxruntime, cpu: {said}{UNSURE}"} <= {*why.left_out}  # fmt: skip

    for taken in (  # what is within does not run where it was asked to, or is gone
        chosen(folder, clock, runtime="onnxruntime"),
        chosen(folder, clock, precision="int8"),
    ):
        assert "no file here is within its limits: bus -0.900 points" in taken[2].note
    record(folder, verdict(a, word="past"), *unsure)
    file, runtime, why = chosen(folder, clock)
    assert (file, len(why.candidates)) == ("b.onnx", 2)  # the fastest of the undecided ones
    assert doctor.main(["--model", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "\nundecided: mIoU +0.010 points from the reference, on 2 images of scenes" in said
    assert "note: its verdict is undecided, but no file here is within its limits" in said
    assert chosen(folder, clock, unverified=True)[2].note == ""

    record(folder, verdict(a, word="undecided"), verdict(a))  # the worst that is known of it
    assert "its verdict is undecided" in chosen(folder, clock, runtime="openvino")[2].note


def test_a_change_that_keeps_size_and_time_is_found_before_it_is_opened(folder, clock):
    assert chosen(folder, clock)[0] == "b.onnx"
    b = folder / "b.onnx"
    stat, data = b.stat(), b.read_bytes()
    b.write_bytes(data.replace(b"tiny", b"tony"))
    assert b.read_bytes() != data
    os.utime(b, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    file, _, why = chosen(folder, clock)
    assert file == "a.onnx"
    assert any("b.onnx" in said and "changed" in said for said in why.left_out)


def test_files_are_read_once(folder, cache):
    def known(**options):
        return digests(folder, read_artefacts(folder, check=False), **options)

    true = {name: sha256(folder / name) for name in ("a.onnx", "b.onnx")}
    assert known() == true
    [kept] = (cache / "digests").iterdir()
    value = json.loads(kept.read_text())
    for name in true:
        value[name]["sha256"] = "f" * 64
    kept.write_text(json.dumps(value))
    assert known() == dict.fromkeys(true, "f" * 64)  # what is kept, not what is in the files
    os.utime(folder / "a.onnx")
    assert known() == true | {"b.onnx": "f" * 64}
    assert known(fresh=True) == true


@pytest.mark.parametrize("how", ["a file in its place", "off", "damaged"])
def test_nothing_depends_on_the_cache(folder, clock, cache, monkeypatch, how):
    if how == "a file in its place":
        cache.write_text("")
    elif how == "off":
        monkeypatch.setenv("ICNET_CACHE", "off")
    else:
        chosen(folder, clock)
        for path in [*cache.glob("choices/*"), *cache.glob("digests/*")]:
            path.write_text('{"choice": []}')
    for _ in range(1 if how == "damaged" else 2):
        clock.runs.clear()
        assert chosen(folder, clock)[0] == "b.onnx"
        assert clock.runs


def test_what_was_asked_for_by_name_holds(folder, clock):
    assert chosen(folder, clock, runtime="onnxruntime")[:2] == ("a.onnx", "onnxruntime")
    assert chosen(folder, clock, precision="fp32")[:2] == ("a.onnx", "openvino")
    assert chosen(folder, clock, runtime="openvino", device="cpu", precision="fp32")[:2] == (
        "a.onnx",
        "openvino",
    )
    (folder / NAME).unlink()
    assert chosen(folder, clock, unverified=True)[0] == "b.onnx"


def test_a_candidate_that_does_not_run_is_told_and_left_out(folder, clock):
    def fail(image):
        raise BackendError("no such kernel")

    def spoil(predictor):
        predictor.predict = fail

    def spoil_int8(predictor):
        if predictor.metadata.precision == "int8":
            spoil(predictor)

    file, _, why = chosen(folder, clock, spoil=spoil_int8)
    assert file == "a.onnx"
    assert "b.onnx on openvino, cpu: no such kernel" in why.left_out
    assert chosen(folder, clock)[2].left_out == why.left_out  # also when it is remembered
    with pytest.raises(UnavailableError, match=r"nothing in .* runs on this machine: .*: no such"):
        chosen(folder, clock, threads=1, spoil=spoil)


VNNI, AVX2 = ("avx2", "avx512_vnni"), ("avx2",)


@pytest.mark.parametrize(
    ("there", "flags", "said"),
    [
        (AVX2, VNNI, "in 16 bits, which saturate; this processor sums them in 32 bits"),
        (VNNI, (), "this processor sums them in its own way"),
        (VNNI, ("avx_vnni", "amx_int8"), ""),
        ((), AVX2, ""),  # a record that does not tell
    ],
)
def test_int8_verified_on_another_kind_of_processor_is_said(folder, clock, there, flags, said):
    a, b = folder / "a.onnx", folder / "b.onnx"
    record(folder, verdict(a, cpu_flags=there), verdict(b, cpu_flags=there))
    this = here(cpu=lambda: machine.cpu() | {"flags": list(flags)})
    for remembered in (False, True):
        why = chosen(folder, clock, here=this)[2]
        assert (why.winner.file, why.remembered) == ("b.onnx", remembered)
        assert said in why.note
        assert bool(why.note) == bool(said)
        assert why.note in str(why)
        notes = [line for line in doctor.explain(why) if line.startswith("note: it was verified")]
        assert bool(notes) == bool(said)
    assert chosen(folder, clock, precision="fp32", here=this)[2].note == ""


def test_int8_that_passed_with_exact_sums_is_not_taken_where_they_saturate(folder, clock):
    a, b = folder / "a.onnx", folder / "b.onnx"
    record(folder, verdict(a, cpu_flags=VNNI), verdict(b, cpu_flags=VNNI))
    this = here(cpu=lambda: machine.cpu() | {"flags": list(AVX2)})
    file, _, why = chosen(folder, clock, here=this)
    assert (file, why.note) == ("a.onnx", "")
    assert any("in 32 bits; this processor sums them in 16 bits" in said for said in why.left_out)
    with pytest.raises(InputError, match=r"icnet verify .* in 16 bits, which saturate"):
        chosen(folder, clock, precision="int8", here=this)
    assert chosen(folder, clock, unverified=True, here=this)[0] == "b.onnx"
    record(folder, verdict(a, cpu_flags=VNNI), verdict(b, cpu_flags=AVX2))
    assert chosen(folder, clock, here=this)[0] == "b.onnx"  # it was verified on such a one


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda f: shutil.rmtree(f), {}, "does not exist"),
        (lambda f: [p.unlink() for p in f.glob("*.onnx")], {}, "no artefact in"),
        (lambda f: (f / NAME).unlink(), {}, "icnet verify"),
        (lambda f: (f / NAME).write_text("{}"), {}, "is not a record of"),
        (lambda f: (f / NAME).write_text('{"schema": 9}'), {}, "upgrade"),
        (lambda f: None, {"precision": "fp16"}, "its precision is int8, not fp16"),
        (
            lambda f: None,
            {"runtime": "tensorrt"},
            "an ONNX file, which tensorrt does not run",
        ),
        (lambda f: None, {"runtime": "torch"}, "unknown runtime"),
        (lambda f: None, {"device": "tpu"}, "unknown device"),
    ],
)
def test_a_folder_with_nothing_to_choose_says_why(folder, change, options, said):
    change(folder)
    with pytest.raises(InputError, match=said):
        Predictor.from_folder(folder, **options)


def test_a_missing_runtime_names_its_extra(folder, monkeypatch):
    for package in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=r'pip install "icnet-deploy\[openvino\]"'):
        Predictor.from_folder(folder)
    with pytest.raises(UnavailableError, match=r'pip install "icnet-deploy\[cuda\]"'):
        Predictor.from_folder(folder, device="cuda")


@pytest.mark.parametrize(
    "other",
    [
        {"size": (96, 64)},
        {"label_set": CAMVID},
        {"describe": {"weights_sha256": "ab" * 32}},
        {"describe": {"fit": "letterbox"}},
        {"describe": {"upsampling": "half-pixel"}},
        {"describe": {"preprocessing": {"mean": [1, 2, 3]}}},
    ],
)
def test_several_networks_or_sizes_are_refused(folder, tiny_model, other):
    shutil.move(tiny_model(**other), folder / "z.onnx")
    with pytest.raises(
        InputError, match=r"several (networks|input sizes): .*a.onnx, b.onnx; .*z.onnx"
    ):
        Predictor.from_folder(folder)


def test_a_folder_of_many_files_is_refused_in_a_few_words(tmp_path, tiny_model):
    made, folder = tiny_model(), tmp_path / "many"
    folder.mkdir()
    for number in range(9):
        shutil.copy(made, folder / f"{number}.onnx")
    said = rf"no artefact in .* run `icnet verify {folder}` first.*0\.onnx on .*; and \d+ more\)$"
    with pytest.raises(InputError, match=said) as found:
        Predictor.from_folder(folder)
    assert len(str(found.value)) < 250 + 2 * len(str(folder))
    for size in ((32, 64), (64, 32), (32, 32)):
        shutil.move(tiny_model(size=size), folder / f"{size[0]}x{size[1]}.onnx")
    with pytest.raises(
        InputError, match=r"0\.onnx, 1\.onnx, and 7 more; .*; and \d more\)$"
    ) as found:
        Predictor.from_folder(folder)
    assert len(str(found.value)) < 250 + len(str(folder))


def test_of_several_sizes_the_one_that_is_asked_for_is_chosen(folder, tiny_model, clock, capsys):
    z = folder / "z.onnx"
    shutil.move(tiny_model(size=(96, 64)), z)
    record(folder, *read_verdicts(folder).entries, verdict(z))
    file, _, why = chosen(folder, clock, size=(96, 64))
    assert file == "z.onnx"
    assert "a.onnx: its size is 64x96, not 96x64" in why.left_out
    assert chosen(folder, clock, size=(64, 96))[0] == "b.onnx"
    with pytest.raises(InputError, match="has the size 32x32, only 64x96, 96x64: choose one"):
        Predictor.from_folder(folder, size=(32, 32))
    with pytest.raises(InputError, match=r"several input sizes: .*--size HxW \(size=\(H, W\)"):
        Predictor.from_folder(folder)
    assert doctor.main(["--model", str(folder), "--size", "96x64"]) == 0
    assert f"{folder}: z.onnx on openvino" in capsys.readouterr().out
    assert doctor.main(["--size", "96x64"]) == 2


def test_engines_and_broken_files_are_told(folder):
    (folder / "e.engine").write_bytes(b"ftrt")
    (folder / "half.onnx").write_bytes((folder / "a.onnx").read_bytes()[:100])
    with Predictor.from_folder(folder, "onnxruntime") as predictor:
        said = "\n".join(predictor.choice.left_out)
    assert "e.engine: the engine has no sidecar" in said
    assert "not a whole ONNX file" in said


def test_doctor_explains_measures_and_lists(folder, clock, capsys, tmp_path):
    chosen(folder, clock)
    assert doctor.main(["--model", str(folder), "--json", str(tmp_path / "d.json")]) == 0
    said = capsys.readouterr().out
    assert f"{folder}: b.onnx on openvino\nwithin its limits: mIoU +0.010 points" in said
    assert "2.00 times the fastest" in said
    assert "left out" in said
    told = json.loads((tmp_path / "d.json").read_text())["choice"]
    assert told["candidates"][0]["file"] == "b.onnx"

    assert "remembered from" in said
    assert doctor.main([]) == 0
    assert f"b.onnx (int8) on openvino, cpu: the fastest of 3 candidates in {folder}" in (
        capsys.readouterr().out
    )
    assert doctor.main(["--model", str(folder), "--measure"]) == 0
    assert "image to label map, measured 20" in capsys.readouterr().out
    assert doctor.main(["--measure"]) == 2


def test_predict_takes_a_folder_and_says_what_it_chose(folder, clock, capsys, tmp_path, blocks):
    chosen(folder, clock)
    write_image(tmp_path / "i.png", blocks((64, 96)))
    words = [tmp_path / "i.png", "--model", folder, "-o", tmp_path / "out", "--size", "64x96"]
    assert predict([str(word) for word in words]) == 0
    assert "chosen: b.onnx (int8) on openvino, cpu" in capsys.readouterr().out
    words[2] = folder / "a.onnx"
    assert predict([str(word) for word in words]) == 2
    assert "is one file: leave out --size" in capsys.readouterr().err


def test_other_names_and_order_do_not_matter(folder, tmp_path):
    found = find_candidates(folder, Request())
    assert [str(one) for one in found.candidates] == [
        "b.onnx on openvino, cpu",
        "a.onnx on onnxruntime, cpu",
        "a.onnx on openvino, cpu",
    ]
