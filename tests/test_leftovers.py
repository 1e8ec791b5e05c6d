"""What a kill leaves is swept by the next run; lines are added whole; processes take turns."""

import os
import subprocess
import sys
import tempfile

import pytest

from icnet_deploy.errors import OutputError
from icnet_deploy.files import append_line, is_leftover, scratch_folder, write_text, writing


def names(folder):
    return sorted(p.name for p in folder.iterdir())


HOLDER = """
import os, sys, time
from pathlib import Path
from icnet_deploy.files import replacing, scratch_folder
with replacing(sys.argv[1]) as temporary, scratch_folder() as folder:
    temporary.write_text("half")
    (folder / "large").write_text("half")
    print("written", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that is in the middle of a file, and of a folder of temporary files."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-c", HOLDER, tmp_path / "out" / "a.txt"]
    process = subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(temporary)}, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"written\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def next_run(tmp_path, monkeypatch):
    """Does what a further process would, of whatever was swept before."""

    def run():
        (tmp_path / "tmp").mkdir(exist_ok=True)
        monkeypatch.setattr(writing, "_swept", set())
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        write_text(tmp_path / "out" / "b.txt", "new")
        with scratch_folder() as folder:
            (folder / "b").write_text("new")

    return run


def test_what_a_kill_left_is_removed_by_the_next_run(tmp_path, holder, next_run):
    holder.kill()
    holder.wait()
    [left], [folder] = (tmp_path / "out").iterdir(), (tmp_path / "tmp").iterdir()
    assert is_leftover(left)
    assert is_leftover(folder)
    (tmp_path / "out" / ".icnet-mine.tmp").write_text("not of our making")
    next_run()
    assert names(tmp_path / "out") == [".icnet-mine.tmp", "b.txt"]
    assert names(tmp_path / "tmp") == []


def test_what_is_being_written_is_not_removed(tmp_path, holder, next_run):
    there = names(tmp_path / "out"), names(tmp_path / "tmp")
    next_run()
    assert (names(tmp_path / "out"), names(tmp_path / "tmp")) == ([*there[0], "b.txt"], there[1])


def test_a_folder_is_swept_once_a_process(tmp_path, next_run):
    next_run()
    left = tmp_path / "out" / f".icnet-{'0' * 16}.tmp"
    left.write_text("half")
    write_text(tmp_path / "out" / "c.txt", "new")
    assert left.exists()
    next_run()
    assert not left.exists()


def test_a_file_that_was_swept_before_it_was_held_is_made_anew(tmp_path, monkeypatch):
    """Between making it and holding it another process may take it for a leftover."""
    lock, swept = writing._lock, []

    def first_swept(descriptor, wait=True):
        if not swept:
            swept.extend(path.unlink() or path for path in tmp_path.glob(".icnet-*"))
        return lock(descriptor, wait)

    monkeypatch.setattr(writing, "_lock", first_swept)
    write_text(tmp_path / "a.txt", "new")
    assert len(swept) == 1
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_link_of_a_temporary_name_is_left_alone(tmp_path, next_run):
    (tmp_path / "out").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "out" / f".icnet-{'0' * 16}.tmp").symlink_to(tmp_path / "secret")
    next_run()
    assert (tmp_path / "secret").read_text() == "secret"


@pytest.mark.parametrize("left", ["", "one\n", "one\nhal", "hal", "one\n" + "x" * 200_000])
def test_a_line_is_added_after_those_that_are_whole(tmp_path, left):
    path = tmp_path / "lines"
    path.write_text(left)
    append_line(path, "two")
    assert path.read_text().splitlines() == ["one", "two"][not left.startswith("one") :]
    append_line(path, "thrée")
    assert path.read_text().splitlines()[-2:] == ["two", "thrée"]


def test_lines_of_several_processes_do_not_mix(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom icnet_deploy.files import append_line\n"
        "for n in range(200):\n    append_line(Path(sys.argv[1]), sys.argv[2] * 5000)\n"
    )
    path = tmp_path / "lines"
    writers = [subprocess.Popen([sys.executable, "-c", code, path, name]) for name in "123"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert sorted(path.read_text().splitlines()) == sorted(c * 5000 for c in "123" * 200)


def test_a_line_for_which_there_is_no_room_is_not_there(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "lines"
    append_line(path, "one")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*lines: File too large"):
            append_line(path, "two" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "one\n"
    for place in (tmp_path / "none" / "lines", tmp_path):
        with pytest.raises(OutputError, match="cannot"):
            append_line(place, "one")


def test_who_changes_a_folder_takes_turns(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")
    code = (
        "import sys\nfrom pathlib import Path\nfrom icnet_deploy.files import alone_in\n"
        "path = Path(sys.argv[1])\n"
        "for _ in range(300):\n"
        "    with alone_in(path.parent):\n"
        "        path.write_text(str(int(path.read_text()) + 1))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, path]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert path.read_text() == "900"
