"""Files are replaced whole or not at all."""

import hashlib
import os
import signal
import subprocess
import sys

import pytest

from icnet_deploy.errors import InputError, OutputError
from icnet_deploy.files import make_folder, replacing, sha256, write_json, write_text


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_new_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "deep" / "er" / "model.onnx"
    with replacing(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".onnx"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(target.parent) == ["model.onnx"]


def test_an_old_file_is_replaced(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, InputError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail():
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        fail()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error_and_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(OutputError, match=r"cannot write .*a\.txt"), replacing(target):
        pass
    assert target.read_text() == "old"


def test_a_full_disk_is_an_output_error(tmp_path):
    def fail():
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left on device"):
        fail()
    assert names(tmp_path) == []


def test_a_kill_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    script = (
        "import os, sys\n"
        "from icnet_deploy.files import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        f"    os.kill(os.getpid(), {signal.SIGKILL:d})\n"
    )
    done = subprocess.run([sys.executable, "-c", script, target], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
    # What the kill leaves is hidden, and no reader of "*.txt" takes it for a result.
    assert list(tmp_path.glob("[!.]*")) == [target]


def test_a_file_in_the_place_of_a_folder_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("I am a file")
    for path in (tmp_path / "file" / "a.txt", tmp_path / "file" / "deep" / "a.txt"):
        with pytest.raises(OutputError, match="cannot write into the folder"), replacing(path):
            pytest.fail("the block must not run")
    assert (tmp_path / "file").read_text() == "I am a file"


def test_a_folder_in_the_place_of_a_file_is_an_output_error(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OutputError, match="a folder of that name"), replacing(tmp_path / "a.txt"):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that root cannot write")
def test_a_folder_that_cannot_be_written_is_an_output_error():
    for folder in ("/proc/self", "/proc/self/new"):
        with pytest.raises(OutputError, match="cannot write into the folder"):
            make_folder(folder)


def test_make_folder_makes_parents_and_leaves_what_is_there(tmp_path):
    folder = make_folder(tmp_path / "a" / "b")
    (folder / "kept").write_text("kept")
    assert make_folder(str(folder)) == folder
    assert names(folder) == ["kept"]


def test_json_is_written_indented_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 2.5]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1,\n    2.5\n  ]\n}\n'
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", float("nan"))
    assert names(tmp_path) == ["a.json"]


def test_text_is_written_as_utf_8(tmp_path):
    write_text(tmp_path / "a.txt", "naïve ≥ 1")
    assert (tmp_path / "a.txt").read_bytes() == "naïve ≥ 1".encode()


def test_sha256_is_that_of_the_bytes(tmp_path):
    content = os.urandom((1 << 20) + 17)  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
