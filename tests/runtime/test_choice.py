"""The fastest verified artefact of a folder: what is chosen, why, and what is remembered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from icnet_deploy.errors import BackendError, InputError, UnavailableError
from icnet_deploy.files import sha256
from icnet_deploy.labels import CAMVID
from icnet_deploy.runtime import Predictor, doctor, machine
from icnet_deploy.runtime.auto import candidates, choice, race
from icnet_deploy.runtime.auto.candidates import find_candidates
from icnet_deploy.runtime.auto.digests import digests
from icnet_deploy.runtime.auto.verdicts import (
    NAME,
    Verdict,
    Verdicts,
    read_verdicts,
    write_verdicts,
)
from icnet_deploy.runtime.backends import registry as backends
from icnet_deploy.runtime.predict.command import main as predict

SPEEDS = {("fp32", "onnxruntime"): 3.0, ("fp32", "openvino"): 2.0, ("int8", "openvino"): 1.0}


def verdict(path, runtime="openvino", passed=True, device="cpu", **fields):
    """What `icnet verify` would write of a file."""
    told = {
        "reason": "" if passed else "mIoU differs by +2.0000 points, at most 0.3 may it",
        "miou_points": 0.01,
        "scored_on": "2 images of scenes val, 64x96",
        "limits": "mIoU within 0.3 points",
        "date": "2026-01-01T00:00:00+00:00",
        "processor": "a processor",
    }
    return Verdict(path.name, sha256(path), runtime, device, passed, **(told | fields))


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


@pytest.fixture
def runs(monkeypatch):
    """Lets a run take what SPEEDS says; holds (precision, runtime) of every run."""
    done = []

    def seconds_an_image(predictor, image, streams):
        done.append((predictor.metadata.precision, predictor.runtime))
        predictor.predict(image)
        return SPEEDS[done[-1]]

    monkeypatch.setattr(race, "seconds_an_image", seconds_an_image)
    return done


def chosen(folder, *arguments, **options):
    """(file, runtime) of what is opened, which must label an image; and why."""
    with Predictor.from_folder(folder, *arguments, **options) as predictor:
        assert predictor.predict(np.zeros((64, 96, 3), np.uint8)).labels.shape == (64, 96)
        why = predictor.choice
        assert (why.winner.runtime, why.winner.precision) == (
            predictor.runtime,
            predictor.metadata.precision,
        )
    return why.winner.file, why.winner.runtime, why


def test_the_fastest_is_chosen_in_turn_and_remembered(folder, runs, cache):
    file, runtime, why = chosen(folder)
    assert (file, runtime) == ("b.onnx", "openvino")
    assert [(one.file, one.runtime, one.median_ms) for one in why.candidates] == [
        ("b.onnx", "openvino", 1000),
        ("a.onnx", "openvino", 2000),
        ("a.onnx", "onnxruntime", 3000),
    ]
    assert not why.remembered
    assert why.left_out == ("b.onnx on onnxruntime: int8 is placed for openvino, tensorrt, "
                            "tensorrt-rtx",)  # fmt: skip
    two = [("int8", "openvino"), ("fp32", "openvino")]
    assert runs[-2 * race.ROUNDS :] == two * race.ROUNDS  # A B A B, without the much slower one
    assert runs.count(("fp32", "onnxruntime")) == 2

    runs.clear()
    again = chosen(folder)[2]
    assert runs == []
    assert again.remembered
    assert again.candidates == why.candidates
    assert "remembered from" in str(again)


def test_the_slower_precision_wins_where_it_is_faster(folder, runs, monkeypatch):
    monkeypatch.setitem(SPEEDS, ("fp32", "onnxruntime"), 0.5)
    assert chosen(folder)[:2] == ("a.onnx", "onnxruntime")


def test_another_process_remembers_and_a_copy_of_the_folder_too(folder, runs, tmp_path):
    chosen(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "b.onnx").rename(copy / "c.onnx")
    script = (
        "import sys\nfrom icnet_deploy import Predictor\n"
        "from icnet_deploy.runtime.auto import race\n"
        "race.race = None\n"
        "why = Predictor.from_folder(sys.argv[1]).choice\n"
        "print(why.winner.file, why.remembered)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, copy], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["c.onnx", "True"], done.stderr


@pytest.mark.parametrize("what", ["cores", "version", "runtime", "label map", "threads"])
def test_another_machine_or_version_measures_anew(folder, runs, monkeypatch, what):
    chosen(folder)
    runs.clear()
    found, options = machine.cpu(), {}
    if what == "cores":
        monkeypatch.setattr(machine, "cpu", lambda: found | {"cores": found["cores"] + 1})
    elif what == "version":
        monkeypatch.setattr(choice, "__version__", "0.0.0")
    elif what == "runtime":
        real = machine.version
        monkeypatch.setattr(
            machine, "version", lambda name: "0" if name == "openvino" else real(name)
        )
    elif what == "label map":
        monkeypatch.setattr(machine, "kind", lambda: ("another", "a test says so"))
    else:
        options = {"threads": 1}
    assert not chosen(folder, **options)[2].remembered
    assert runs


def test_what_failed_or_changed_or_was_not_looked_at_is_not_taken(folder, runs):
    a, b = folder / "a.onnx", folder / "b.onnx"
    record(folder, verdict(a), verdict(a, "onnxruntime", device="cuda"), verdict(b, passed=False))
    file, runtime, why = chosen(folder)
    assert (file, runtime, why.measured, runs) == ("a.onnx", "openvino", None, [])
    assert "a.onnx on onnxruntime, cpu: not verified there" in why.left_out
    assert any("b.onnx on openvino, cpu: it did not pass" in said for said in why.left_out)
    assert "the only candidate" in str(why)
    record(folder, verdict(a), verdict(b), verdict(b, None, device=None, passed=False))
    assert chosen(folder)[0] == "a.onnx"  # a fault of the file outweighs a pass

    record(folder, verdict(a), verdict(b))
    b.write_bytes(b.read_bytes() + b"\x72\x00")  # an empty field: still a sound ONNX file
    file, _, why = chosen(folder)
    assert file == "a.onnx"
    assert "b.onnx on openvino, cpu: it was changed after `icnet verify` looked at it" in (
        why.left_out
    )


def test_a_change_that_keeps_size_and_time_is_found_before_it_is_opened(folder, runs):
    assert chosen(folder)[0] == "b.onnx"
    b = folder / "b.onnx"
    stat, data = b.stat(), b.read_bytes()
    b.write_bytes(data.replace(b"tiny", b"tony"))
    assert b.read_bytes() != data
    os.utime(b, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    file, _, why = chosen(folder)
    assert file == "a.onnx"
    assert any("b.onnx" in said and "changed" in said for said in why.left_out)


def test_files_are_read_once(folder, monkeypatch):
    names = ["a.onnx", "b.onnx"]
    first = digests(folder, names)
    assert first == {name: sha256(folder / name) for name in names}
    monkeypatch.setattr(
        "icnet_deploy.runtime.auto.folder.artefact_digest", lambda path: ("read", [path])
    )
    assert digests(folder, names) == first
    os.utime(folder / "a.onnx")
    assert digests(folder, names) == {"a.onnx": "read", "b.onnx": first["b.onnx"]}
    assert digests(folder, names, fresh=True) == dict.fromkeys(names, "read")


@pytest.mark.parametrize("how", ["a file in its place", "off", "damaged"])
def test_nothing_depends_on_the_cache(folder, runs, cache, monkeypatch, how):
    if how == "a file in its place":
        cache.write_text("")
    elif how == "off":
        monkeypatch.setenv("ICNET_CACHE", "off")
    else:
        chosen(folder)
        for path in [*cache.glob("choices/*"), *cache.glob("digests/*")]:
            path.write_text('{"choice": []}')
    for _ in range(1 if how == "damaged" else 2):
        runs.clear()
        assert chosen(folder)[0] == "b.onnx"
        assert runs


def test_what_was_asked_for_by_name_holds(folder, runs):
    assert chosen(folder, "onnxruntime")[:2] == ("a.onnx", "onnxruntime")
    assert chosen(folder, precision="fp32")[:2] == ("a.onnx", "openvino")
    assert chosen(folder, "openvino", "cpu", precision="fp32")[:2] == ("a.onnx", "openvino")
    (folder / NAME).unlink()
    assert chosen(folder, unverified=True)[0] == "b.onnx"


def test_a_candidate_that_does_not_load_or_run_is_told_and_left_out(folder, runs, monkeypatch):
    real = Predictor.predict

    def predict(self, image, on_device=False):
        if self.metadata.precision == "int8":
            raise BackendError("no such kernel")
        return real(self, image, on_device)

    monkeypatch.setattr(Predictor, "predict", predict)
    file, _, why = chosen(folder)
    assert file == "a.onnx"
    assert "b.onnx on openvino, cpu: no such kernel" in why.left_out
    assert chosen(folder)[2].left_out == why.left_out  # also when it is remembered

    monkeypatch.setattr(Predictor, "predict", lambda *_: (_ for _ in ()).throw(BackendError("no")))
    with pytest.raises(UnavailableError, match=r"nothing in .* runs on this machine: .*: no"):
        Predictor.from_folder(folder, threads=1)


VNNI, AVX2 = ("avx2", "avx512_vnni"), ("avx2",)


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (AVX2, VNNI, "in 16 bits, which saturate; this processor sums them in 32 bits"),
        (VNNI, (), "this processor sums them in its own way"),
        (VNNI, ("avx_vnni", "amx_int8"), ""),
        ((), AVX2, ""),  # a record that does not tell
    ],
)
def test_int8_verified_on_another_kind_of_processor_is_said(
    folder, runs, monkeypatch, capsys, there, here, said
):
    a, b = folder / "a.onnx", folder / "b.onnx"
    record(folder, verdict(a, cpu_flags=there), verdict(b, cpu_flags=there))
    found = machine.cpu() | {"flags": list(here)}
    for module in (machine, candidates):
        monkeypatch.setattr(module, "cpu", lambda: found)
    for remembered in (False, True):
        why = chosen(folder)[2]
        assert (why.winner.file, why.remembered) == ("b.onnx", remembered)
        assert said in why.note
        assert bool(why.note) == bool(said)
        assert why.note in str(why)
    assert doctor.main(["--model", str(folder)]) == 0
    assert ("note: it was verified on a processor" in capsys.readouterr().out) == bool(said)
    assert chosen(folder, precision="fp32")[2].note == ""


def test_int8_that_passed_with_exact_sums_is_not_taken_where_they_saturate(
    folder, monkeypatch, runs
):
    a, b = folder / "a.onnx", folder / "b.onnx"
    record(folder, verdict(a, cpu_flags=VNNI), verdict(b, cpu_flags=VNNI))
    found = machine.cpu() | {"flags": list(AVX2)}
    monkeypatch.setattr(candidates, "cpu", lambda: found)
    file, _, why = chosen(folder)
    assert (file, why.note) == ("a.onnx", "")
    assert any("in 32 bits; this processor sums them in 16 bits" in said for said in why.left_out)
    with pytest.raises(InputError, match=r"icnet verify .* in 16 bits, which saturate"):
        Predictor.from_folder(folder, precision="int8")
    assert chosen(folder, unverified=True)[0] == "b.onnx"
    record(folder, verdict(a, cpu_flags=VNNI), verdict(b, cpu_flags=AVX2))
    assert chosen(folder)[0] == "b.onnx"  # it was verified on such a one


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda f: shutil.rmtree(f), {}, "there is no folder"),
        (lambda f: [p.unlink() for p in f.glob("*.onnx")], {}, "no artefact in"),
        (lambda f: (f / NAME).unlink(), {}, "icnet verify"),
        (lambda f: (f / NAME).write_text("{}"), {}, "cannot be read"),
        (lambda f: (f / NAME).write_text('{"schema": 9}'), {}, "upgrade"),
        (lambda f: None, {"precision": "fp16"}, "it is int8, and fp16 was asked for"),
        (lambda f: None, {"runtime": "tensorrt"}, "is for an ONNX file, not for tensorrt"),
        (lambda f: None, {"runtime": "torch"}, "unknown runtime"),
        (lambda f: None, {"device": "tpu"}, "unknown device"),
    ],
)
def test_a_folder_with_nothing_to_choose_says_why(folder, change, options, said):
    change(folder)
    with pytest.raises(InputError, match=said):
        Predictor.from_folder(folder, **options)


def test_a_missing_runtime_names_its_extra(folder, monkeypatch):
    monkeypatch.setattr(backends, "_installed", lambda package: False)
    with pytest.raises(UnavailableError, match=r'pip install "icnet-deploy\[openvino\]"'):
        Predictor.from_folder(folder)
    with pytest.raises(UnavailableError, match=r'pip install "icnet-deploy\[cuda\]"'):
        Predictor.from_folder(folder, device="cuda")


@pytest.mark.parametrize(
    "other",
    [{"size": (96, 64)}, {"label_set": CAMVID}, {"describe": {"weights_sha256": "ab" * 32}}],
)
def test_several_networks_or_sizes_are_refused(folder, tiny_model, other):
    shutil.move(tiny_model(**other), folder / "z.onnx")
    with pytest.raises(InputError, match=r"several networks or sizes .*a.onnx, b.onnx; .*z.onnx"):
        Predictor.from_folder(folder)


def test_of_several_sizes_the_one_that_is_asked_for_is_chosen(folder, tiny_model, runs, capsys):
    z = folder / "z.onnx"
    shutil.move(tiny_model(size=(96, 64)), z)
    record(folder, *read_verdicts(folder).verdicts, verdict(z))
    file, _, why = chosen(folder, size=(96, 64))
    assert file == "z.onnx"
    assert "a.onnx: it is of 64x96, and 96x64 was asked for" in why.left_out
    assert chosen(folder, size=(64, 96))[0] == "b.onnx"
    with pytest.raises(InputError, match="is of 32x32; it holds 64x96, 96x64: ask for one"):
        Predictor.from_folder(folder, size=(32, 32))
    with pytest.raises(InputError, match=r"ask for a size \(size=, --size HxW\)"):
        Predictor.from_folder(folder)
    assert doctor.main(["--model", str(folder), "--size", "96x64"]) == 0
    assert f"{folder}: z.onnx on openvino" in capsys.readouterr().out
    assert doctor.main(["--size", "96x64"]) == 2


def test_engines_and_broken_files_are_told(folder):
    (folder / "e.engine").write_bytes(b"ftrt")
    (folder / "half.onnx").write_bytes((folder / "a.onnx").read_bytes()[:100])
    with Predictor.from_folder(folder, "onnxruntime") as predictor:
        said = "\n".join(predictor.choice.left_out)
    assert "e.engine: an engine without its sidecar" in said
    assert "not a whole ONNX file" in said


def test_doctor_explains_measures_and_lists(folder, runs, capsys, tmp_path):
    assert doctor.main(["--model", str(folder), "--json", str(tmp_path / "d.json")]) == 0
    said = capsys.readouterr().out
    assert f"{folder}: b.onnx on openvino" in said
    assert "2.00 of the fastest" in said
    assert "left out" in said
    told = json.loads((tmp_path / "d.json").read_text())["choice"]
    assert told["candidates"][0]["file"] == "b.onnx"

    runs.clear()
    assert doctor.main(["--model", str(folder)]) == 0
    assert runs == []
    assert "remembered from" in capsys.readouterr().out
    assert doctor.main(["--model", str(folder), "--measure"]) == 0
    assert runs
    assert doctor.main([]) == 0
    assert f"b.onnx (int8) on openvino, cpu: the fastest of 3 candidates in {folder}" in (
        capsys.readouterr().out
    )
    assert doctor.main(["--measure"]) == 2


def test_predict_takes_a_folder_and_says_what_it_chose(folder, runs, capsys, tmp_path, blocks):
    from icnet_deploy.images import write_image

    write_image(tmp_path / "i.png", blocks((64, 96)))
    words = [tmp_path / "i.png", "--model", folder, "-o", tmp_path / "out", "--size", "64x96"]
    assert predict([str(word) for word in words]) == 0
    assert "chosen: b.onnx (int8) on openvino, cpu" in capsys.readouterr().out
    words[2] = folder / "a.onnx"
    assert predict([str(word) for word in words]) == 2
    assert "--size chooses among the artefacts of a folder" in capsys.readouterr().err


def test_other_names_and_order_do_not_matter(folder, tmp_path):
    found = find_candidates(folder, choice.Request())
    assert [str(one) for one in found.candidates] == [
        "b.onnx on openvino, cpu",
        "a.onnx on onnxruntime, cpu",
        "a.onnx on openvino, cpu",
    ]
