"""A full disk and a folder that cannot be written: one line, exit code 2, nothing half-written."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager

import pytest

from icnet_deploy.documents import parse
from icnet_deploy.files import is_leftover
from icnet_deploy.images import ImageFile

resource = pytest.importorskip("resource", reason="no limits of a process here")
pytest.importorskip("torch", reason="the commands that are run need torch")
pytest.importorskip("pytorch_lightning", reason="training needs pytorch_lightning")

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = """
width = 0.125
steps = 2
batch = 2
crop = [65, 97]
rate = 3e-3
"""


@pytest.fixture
def words(checkpoint, artefact, scenes, tmp_path, monkeypatch):
    """Name -> the words of a command that writes below OUT."""
    monkeypatch.setenv("ICNET_CACHE", "off")
    (tmp_path / "c.toml").write_text(CONFIG)
    data = ("--dataset", "scenes", "--data", scenes)
    trained = ("--split", "val", "--config", tmp_path / "c.toml")
    photo = next(scenes.rglob("*_leftImg8bit.png"))
    shutil.copy(artefact, tmp_path / "fp32.onnx")
    known = {
        "export": ("export", "--weights", checkpoint, "--size", "96x128", "-o", "OUT/net.onnx"),
        "predict": ("predict", photo, "--model", artefact, "-o", "OUT"),
        "scenes": ("scenes", "OUT", "--count", 1, "--size", "96x128"),
        "train": ("train", *data, *trained, "-o", "OUT/net.safetensors"),
        "evaluate": ("evaluate", artefact, *data, "--json", "OUT/a.json"),
        "evaluate --report": ("evaluate", artefact, *data, "--report", "OUT/a.html"),
        "doctor": ("doctor", "--json", "OUT/a.json"),
    }

    def give(name, out):
        return [str(word).replace("OUT", str(out)) for word in known[name]]

    return give


NAMES = ("export", "predict", "scenes", "train", "evaluate", "evaluate --report", "doctor")


@contextmanager
def no_file_larger_than(limit):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def mounted(place, *options):
    """Mounts a file system, or skips the test."""
    mount = shutil.which("mount")
    command = [mount or "mount", *options, str(place)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 KiB, of which little is left."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted(place, "-t", "tmpfs", "-o", "size=12k", "tmpfs")
    (place / "filling").write_bytes(bytes(9000))
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def read_only(tmp_path):
    """A folder that not even root can write."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted(place, "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def assert_refused(done, *reasons):
    said = [line for line in done.err.splitlines() if line.startswith("icnet: error: ")]
    assert done.code == 2, done.err
    assert len(said) == 1, done.err
    assert any(reason in said[0] for reason in reasons), said
    assert "Traceback" not in done.err


def assert_whole(out):
    """What is there is whole; TensorBoard's own files grow as they go."""
    for path in out.rglob("*"):
        if path.is_dir() or path.name.startswith(("events.out.", "filling", "hparams")):
            continue
        assert not is_leftover(path)
        if path.suffix in (".png", ".jpg"):
            ImageFile(path).rgb()
        elif path.suffix == ".jsonl":
            assert [parse(line) for line in path.read_text().splitlines()]
        else:
            assert path.suffix in (".csv", ".json"), path


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_may_not_grow(words, run, tmp_path, name):
    """A quota: of 600 bytes, which no result keeps to."""
    out = tmp_path / "out"
    out.mkdir()
    with no_file_larger_than(600):
        done = run(*words(name, out))
    assert_refused(done, "File too large")
    assert_whole(out)


@pytest.mark.parametrize("name", ["predict", "train", "evaluate --report"])
def test_a_full_disk(words, run, small_disk, name):
    done = run(*words(name, small_disk))
    assert_refused(done, "No space left on device")
    assert_whole(small_disk)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_cannot_be_written(words, run, read_only, name):
    assert_refused(run(*words(name, read_only)), "Read-only file system")
    assert not list(read_only.iterdir())


def test_results_of_earlier_stay_where_there_is_no_room(words, run, tmp_path):
    out = tmp_path / "out"
    assert run(*words("predict", out)).code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with no_file_larger_than(600):
        done = run(*words("predict", out), "--overwrite")
    assert_refused(done, "File too large")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_cache_that_cannot_be_written_harms_nothing(words, run, read_only, tmp_path, monkeypatch):
    monkeypatch.setenv("ICNET_CACHE", str(read_only))
    assert run(*words("predict", tmp_path / "out")).code == 0
    assert run(*words("evaluate", tmp_path / "out")).code == 0
