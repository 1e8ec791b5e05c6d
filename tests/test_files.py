"""Files are replaced whole or not at all; folders are searched."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from icnet_deploy.cli import main
from icnet_deploy.errors import ImageError, InputError, ModelError, OutputError
from icnet_deploy.files import (
    find_files,
    is_leftover,
    make_folder,
    read_file,
    replacing,
    require_folder_name,
    require_place,
    sha256,
    why_no_folder,
    write_json,
    write_text,
)
from icnet_deploy.images import read_image
from icnet_deploy.metadata import read_onnx_metadata


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_new_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "deep" / "er" / "model.onnx"
    with replacing(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".tmp"
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
    # What the kill leaves is hidden, and no reader of ".txt" takes it for a result.
    [left] = set(tmp_path.iterdir()) - {target}
    assert is_leftover(left)
    assert left.name.startswith(".")
    assert left.suffix == ".tmp"


def test_what_an_earlier_version_left_is_known(tmp_path):
    assert is_leftover(tmp_path / ".model.123.tmp.onnx")
    assert is_leftover(tmp_path / ".drive_overlay.7.tmp.mp4")
    assert not is_leftover(tmp_path / "model.onnx")
    assert not is_leftover(tmp_path / ".hidden.onnx")


WRITER = """
import sys
from icnet_deploy.files import replacing
for value in range(40):
    with replacing(sys.argv[1]) as temporary, temporary.open("w") as file:
        for _ in range(200):
            file.write(sys.argv[2] * 500)
"""


def test_writers_of_one_file_at_once_leave_it_whole(tmp_path):
    """As two containers on one volume: each is process 1 of its own, so none is told apart."""
    target = tmp_path / "a.txt"
    target.write_text("0" * 100_000)
    code = WRITER.replace("import sys\n", "import os, sys\nos.getpid = lambda: 1\n", 1)
    writers = [subprocess.Popen([sys.executable, "-c", code, target, c]) for c in "12"]
    while any(writer.poll() is None for writer in writers):
        text = target.read_text()
        assert len(text) == 100_000
        assert len(set(text)) == 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert names(tmp_path) == ["a.txt"]


def test_threads_that_write_one_file_at_once_leave_it_whole(tmp_path):
    target = tmp_path / "a.json"

    def write(value):
        for _ in range(40):
            write_json(target, [value] * 3000)
            read = json.loads(target.read_text())
            assert len(read) == 3000
            assert len(set(read)) == 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert names(tmp_path) == ["a.json"]


def test_a_link_at_the_name_that_was_used_before_is_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    (tmp_path / f".a.{os.getpid()}.tmp.txt").symlink_to(secret)
    write_text(tmp_path / "a.txt", "new")
    assert secret.read_text() == "secret"
    assert secret.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400, 0o664])
def test_the_mode_of_the_old_file_is_kept(tmp_path, mode):
    target = tmp_path / "a.txt"
    target.write_text("old")
    target.chmod(mode)
    write_text(target, "new")
    assert target.stat().st_mode & 0o777 == mode


def test_a_new_file_gets_what_the_umask_leaves_at_that_time(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.unlink()  # as a writer does that makes a file of its own in its place
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
            temporary.write_text("new")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_an_empty_text_is_written(tmp_path):
    write_text(tmp_path / "a.txt", "")
    assert (tmp_path / "a.txt").read_text() == ""


def test_what_is_written_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("flush"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), replace(a, b)))
    write_text(tmp_path / "a.txt", "new")
    assert done == ["flush", "rename", "flush"]  # the last is of the folder's names


def test_a_disk_that_cannot_flush_is_an_output_error(tmp_path, monkeypatch):
    def fail(_descriptor):
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


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


SUFFIXES = {".png", ".jpg"}


def fill(folder, *files):
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def relative(folder, paths):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_files_of_the_suffixes_are_found_in_sub_folders_and_the_others_are_named(tmp_path):
    fill(tmp_path, "b.PNG", "a.jpg", "sub/deep/c.png", "sub/notes.txt", "d.heic")
    found = find_files(tmp_path, SUFFIXES)
    assert relative(tmp_path, found.files) == ["a.jpg", "b.PNG", "sub/deep/c.png"]
    assert relative(tmp_path, found.left_out) == ["d.heic", "sub/notes.txt"]
    assert found.says_left_out() == "2 left out: d.heic, notes.txt"
    assert found.says_left_out(1) == "2 left out: d.heic, ..."
    assert find_files(tmp_path, {*SUFFIXES, ".txt", ".heic"}).says_left_out() == ""


def test_a_linked_sub_folder_is_searched_once(tmp_path):
    fill(tmp_path, "folder/own/a.png", "elsewhere/b.png")
    folder = tmp_path / "folder"
    (folder / "1st").symlink_to(tmp_path / "elsewhere")
    (folder / "2nd").symlink_to(tmp_path / "elsewhere")
    (folder / "also").symlink_to(folder / "own")  # sorted before the folder that it leads to
    (folder / "single.png").symlink_to(folder / "own" / "a.png")
    found = find_files(folder, SUFFIXES)
    assert relative(folder, found.files) == ["1st/b.png", "own/a.png", "single.png"]
    assert found.left_out == ()


def test_links_in_circles_upwards_and_to_nowhere_do_no_harm(tmp_path):
    fill(tmp_path, "folder/a.png", "beside.png", "elsewhere/b.png")
    folder = tmp_path / "folder"
    (folder / "circle").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    (folder / "nowhere.png").symlink_to(tmp_path / "none.png")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    found = find_files(folder, SUFFIXES)
    assert relative(folder, found.files) == ["a.png", "link/b.png"]
    assert relative(folder, found.left_out) == ["itself.png", "nowhere.png", "up"]


def test_hidden_and_temporary_files_are_never_taken(tmp_path):
    fill(
        tmp_path,
        "a.png",
        ".b.png",
        ".c.123.tmp.png",
        ".icnet-0123456789abcdef.tmp",
        ".hidden/d.png",
    )
    found = find_files(tmp_path, SUFFIXES)
    assert relative(tmp_path, found.files) == ["a.png"]
    assert relative(tmp_path, found.left_out) == [".hidden"]


def test_a_folder_of_an_images_name_is_searched_not_taken(tmp_path):
    fill(tmp_path, "street.png/a.png")
    assert relative(tmp_path, find_files(tmp_path, SUFFIXES).files) == ["street.png/a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_sub_folder_that_cannot_be_read_is_named(tmp_path):
    fill(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    found = find_files(tmp_path, SUFFIXES)
    (tmp_path / "closed").chmod(0o755)
    assert relative(tmp_path, found.left_out) == ["closed"]


def test_what_is_no_folder_is_refused(tmp_path):
    fill(tmp_path, "a.png")
    for path in (tmp_path / "a.png", tmp_path / "none"):
        with pytest.raises(InputError, match=f"cannot read the folder .*{path.name}"):
            find_files(path, SUFFIXES)


@pytest.mark.parametrize("name", ["nul\0", "half \ud800", "long" * 100, "none"])
def test_a_file_that_no_system_has_is_an_error_of_the_system(tmp_path, name):
    with pytest.raises(OSError, match=r".") as error:
        read_file(tmp_path / name)
    assert error.value.strerror


@pytest.mark.parametrize("name", ["nul\0", "half \ud800"])
@pytest.mark.parametrize("below", ["", "below/"])
def test_what_no_system_has_is_not_written(tmp_path, name, below):
    for write in (
        lambda path: write_text(path, "text"),
        make_folder,
        lambda path: make_folder(path / "deeper"),
    ):
        with pytest.raises(OutputError, match="no file can have this name"):
            write(tmp_path / f"{below}{name}")
    assert not names(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_no_file(tmp_path):
    """Reading one that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    for read in (read_file, sha256):
        with pytest.raises(OSError, match="a pipe, a socket or a device"):
            read(tmp_path / "pipe")
    with pytest.raises(ImageError, match="a pipe, a socket or a device"):
        read_image(tmp_path / "pipe")
    with pytest.raises(ModelError, match="a pipe, a socket or a device"):
        read_onnx_metadata(tmp_path / "pipe")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "link.onnx").symlink_to("pipe.onnx")
    for name in ("pipe.onnx", "link.onnx"):
        for write in (lambda path: write_text(path, "text"), lambda p: require_place(p, ".onnx")):
            with pytest.raises(OutputError, match="it is a pipe, a socket or a device, which a f"):
                write(tmp_path / name)
    assert names(tmp_path) == ["link.onnx", "pipe.onnx"]


def test_a_name_that_no_file_can_have_is_found_before_the_work(tmp_path):
    for name in ("x" * 300 + ".json", "é" * 130 + ".json"):
        with pytest.raises(OutputError, match="File name too long"):
            require_place(tmp_path / name, ".json")
    require_place(tmp_path / ("x" * 250 + ".json"), ".json")


def test_what_is_there_in_place_of_a_folder_is_said(tmp_path):
    """A device and a file were told as not there."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    said = {name: why_no_folder(tmp_path / name) for name in ("file", "link", "absent", "a\0b")}
    assert said == {
        "file": "is a file, not a folder",
        "link": "is a link that leads nowhere",
        "absent": "does not exist",
        "a\0b": "does not exist",
    }
    assert why_no_folder(Path(os.devnull)) == "is a pipe, a socket or a device, not a folder"


@pytest.mark.parametrize("path", ["/dev/no_such_device", "/proc/self/fd/1", "/dev/fd/1"])
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="not on this system")
def test_what_a_process_has_open_is_not_replaced(path):
    """`--json /dev/stdout` would put a file in its place, for every program of the machine."""
    with pytest.raises(OutputError, match="name a file"):
        write_text(path, "text")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("out.png", "out"),
        ("a/b.MP4", "a/b"),
        ("x.onnx", "x"),
        ("r.json", "r"),
        ("w.safetensors", "w"),
    ],
)
def test_a_new_folder_is_not_called_like_a_file(tmp_path, name, given):
    with pytest.raises(InputError, match=f"names a folder: give a folder, such as -o .*/{given}$"):
        require_folder_name(tmp_path / name, "-o")
    (tmp_path / name).mkdir(parents=True)
    require_folder_name(tmp_path / name, "-o")  # there is such a folder: it is meant


@pytest.mark.parametrize("name", ["release", "v1.2", "street-int8.2026", "a.png/b", "."])
def test_folders_of_other_names_are_none_of_files(tmp_path, name):
    require_folder_name(tmp_path / name, "-o")


def test_each_command_that_makes_a_folder_refuses_the_name_of_a_file(tmp_path, capsys, artefact):
    out = tmp_path / "result.png"
    model, images = str(artefact), str(tmp_path)
    scores = ["--dataset", "scenes", "--data", images, "--save-predictions", str(out)]
    for words in (
        ["scenes", str(out)],
        ["predict", images, "--model", model, "-o", str(out)],
        ["quantize", model, "--images", images, "-o", str(out)],
        ["evaluate", model, *scores],
    ):
        assert main(words) == 2, words
        assert f"{out} ends in .png, as a file does" in capsys.readouterr().err, words
        assert not out.exists()
