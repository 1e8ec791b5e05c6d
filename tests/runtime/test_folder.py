"""What a folder's artefacts are: which files, what each says of itself, read once."""

from __future__ import annotations

import shutil

import pytest

from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.files import sha256
from icnet_deploy.runtime.auto.folder import kind_of, read_artefact, read_artefacts


def test_a_path_is_taken_for_what_its_ending_says_unless_it_is_a_folder(tmp_path):
    (tmp_path / "x.onnx").mkdir()
    kinds = [kind_of(tmp_path / name) for name in ("", "x.onnx", "a.engine", "b.plan", "c.onnx")]
    assert kinds == ["folder", "folder", "engine", "engine", "onnx"]
    assert kind_of(tmp_path / "d.safetensors") == "other"


def test_each_file_says_what_it_is_or_why_it_cannot_be_read(tmp_path, tiny_model):
    shutil.move(tiny_model(), tmp_path / "c.onnx")
    (tmp_path / "a.onnx").write_bytes((tmp_path / "c.onnx").read_bytes()[:100])
    (tmp_path / "b.engine").write_bytes(b"ftrt")
    (tmp_path / "d.engine").write_bytes(b"ftrt")
    (tmp_path / "d.engine.json").write_text("{}")
    for name in (".e.onnx", ".icnet-0123456789abcdef.tmp", "notes.txt", "w.safetensors"):
        (tmp_path / name).write_bytes(b"")
    cut, bare, whole, broken = read_artefacts(tmp_path)
    assert [one.path.name for one in (cut, bare, whole, broken)] == [
        *("a.onnx", "b.engine", "c.onnx", "d.engine")
    ]
    assert "not a whole ONNX file" in cut.problem
    assert (bare.metadata, bare.precision, bare.problem, bare.is_engine) == (None, None, "", True)
    assert (whole.precision, whole.problem, whole.is_engine) == ("fp32", "", False)
    assert "d.engine.json" in broken.problem


def test_a_file_is_read_for_its_digest_once_and_only_when_it_is_asked_for(tmp_path, tiny_model):
    path = tiny_model()
    expected = sha256(path)
    one, late = read_artefact(path, check=False), read_artefact(path, check=False)
    assert one.sha256 == expected
    assert one.digest.stands(tmp_path)
    path.touch()
    assert not one.digest.stands(tmp_path)
    path.unlink()
    assert one.sha256 == expected
    with pytest.raises(ModelError, match="cannot read"):
        _ = late.sha256


@pytest.mark.parametrize(
    ("name", "said"),
    [("none.onnx", "cannot read"), ("x.txt", "not a whole ONNX file"), ("", "is a folder")],
)
def test_what_is_no_artefact_is_refused_with_a_reason(tmp_path, name, said):
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(ModelError, match=said):
        read_artefact(tmp_path / name)


def test_a_folder_without_artefacts_says_what_it_holds(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_artefacts(tmp_path / "none")
    with pytest.raises(InputError, match=r"no artefact in .*: it is empty; .*icnet export"):
        read_artefacts(tmp_path)
    (tmp_path / "sub.onnx").mkdir()
    with pytest.raises(InputError, match=r"\.onnx, \.engine, \.plan\): it holds sub\.onnx/;"):
        read_artefacts(tmp_path)
