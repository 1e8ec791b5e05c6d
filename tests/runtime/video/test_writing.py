"""What is written is what players play, and counts as written when it can be read back."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from tiny_model import build_model

from icnet_deploy.errors import ImageError, OutputError
from icnet_deploy.images import write_image
from icnet_deploy.runtime.video import VideoReader, writing_video

SIZE = (64, 96)


def source(rate=Fraction(25), time_base=Fraction(1, 25), pixel_aspect=Fraction(1)):
    return SimpleNamespace(rate=rate, time_base=time_base, pixel_aspect=pixel_aspect)


def noise(number, size=SIZE):
    return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


def write(path, images, like=None, times=None):
    like = like or source()
    times = times or [i / like.rate for i in range(len(images))]
    with writing_video(path, like) as writer:
        for image, time in zip(images, times, strict=True):
            writer.write(image, Fraction(time), 1 / like.rate)


def boxes(path):
    """The names of an MP4's boxes, in order."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        found.append(data[at + 4 : at + 8].decode())
        at += size
    return found


def test_it_is_what_browsers_and_phones_play(tmp_path, clips):
    path = tmp_path / "a.mp4"
    write(path, [clips.picture(i) for i in range(30)])
    assert boxes(path)[:2] == ["ftyp", "moov"]  # playing begins before all is loaded
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert len(container.streams) == 1
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.codec_context.profile in ("High", "Main", "Constrained Baseline")
        assert stream.frames == 30
        assert stream.start_time == 0
        assert (stream.color_range, stream.colorspace) == (1, 6)  # limited, BT.601
        assert container.duration == 1_200_000
    frames = list(VideoReader(path))
    assert [clips.number_of(frame.image) for frame in frames] == list(range(30))


@pytest.mark.parametrize("size", [(64, 96), (720, 1280)])
def test_colours_come_back(tmp_path, size):
    """Flat ones, since a compressed video keeps no sharp edges of colours."""
    path = tmp_path / "a.mp4"
    image = np.full((*size, 3), (180, 60, 40), np.uint8)
    image[:, size[1] // 2 :] = (70, 130, 180)
    write(path, [image] * 3)
    for frame in VideoReader(path):
        off = np.abs(frame.image.astype(int) - image)[:, [10, size[1] - 10]]
        assert off.max() <= 4


@pytest.mark.parametrize("size", [(63, 96), (64, 95), (63, 95), (1, 1)])
def test_odd_sides_grow_by_a_copy_of_the_edge(tmp_path, size):
    path = tmp_path / "a.mp4"
    image = np.full((*size, 3), 60, np.uint8)
    image[-1], image[:, -1] = 200, 200
    write(path, [image] * 2)
    shown = next(iter(VideoReader(path))).image
    assert shown.shape[:2] == tuple(side + side % 2 for side in size)
    assert abs(int(shown[-1, -1, 0]) - 200) < 15  # the last row and column are still there
    assert abs(int(shown[size[0] - 1, size[1] - 1, 0]) - 200) < 15


@pytest.mark.parametrize(
    "base", [Fraction(1, 25), Fraction(1, 1000), Fraction(1, 90000), Fraction(1001, 30000)]
)
def test_times_are_kept_to_the_tick(tmp_path, base, clips):
    ticks = [0, 1, 2, 7, 8, 30, 31]
    like = source(time_base=base, rate=1 / base if base > Fraction(1, 100) else Fraction(25))
    write(tmp_path / "a.mp4", [noise(i) for i in range(7)], like, [n * base for n in ticks])
    frames = list(VideoReader(tmp_path / "a.mp4"))
    assert [frame.time for frame in frames] == [n * base for n in ticks]


def test_times_finer_than_a_microsecond(tmp_path):
    like = source(time_base=Fraction(1, 10**9))
    write(tmp_path / "a.mp4", [noise(i) for i in range(3)], like, [0, Fraction(1, 3), 1])
    times = [float(frame.time) for frame in VideoReader(tmp_path / "a.mp4")]
    assert times == pytest.approx([0, 1 / 3, 1], abs=1e-5)


@pytest.mark.parametrize(
    "rate", [Fraction("66.667"), Fraction(200, 3), Fraction("0.1"), Fraction(999)]
)
def test_any_rate_is_written(tmp_path, rate):
    """OpenCV's writer took 66.667 for an error of its installation."""
    path = tmp_path / "a.mp4"
    write(path, [noise(i) for i in range(4)], source(rate=rate, time_base=1 / rate))
    times = [float(frame.time) for frame in VideoReader(path)]
    assert times == pytest.approx([float(i / rate) for i in range(4)], abs=1e-5)


@pytest.mark.parametrize("name", ["10:30.mp4", "file:a.mp4", "http:a.mp4", "a%d.mp4", "-y.mp4"])
def test_any_name_is_a_files(tmp_path, name, monkeypatch):
    """FFmpeg takes what stands before a colon for a protocol."""
    monkeypatch.chdir(tmp_path)
    write(Path(name), [noise(i) for i in range(3)])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(list(VideoReader(Path(name)))) == 3


def test_pixels_that_are_not_square(tmp_path):
    write(tmp_path / "a.mp4", [noise(0)], source(pixel_aspect=Fraction(16, 11)))
    assert VideoReader(tmp_path / "a.mp4").pixel_aspect == Fraction(16, 11)


def test_frames_of_another_size_and_too_large_ones(tmp_path):
    with pytest.raises(ImageError, match="change their size"):
        write(tmp_path / "a.mp4", [noise(0), noise(1, (80, 96))])
    with pytest.raises(ImageError, match=r"H\.264 cannot hold frames of 20000 x 32"):
        write(tmp_path / "a.mp4", [np.zeros((20000, 32, 3), np.uint8)])
    assert not list(tmp_path.iterdir())


class Torn:
    """PyAV's `open` whose container loses packets, or the file's end, and says nothing of it."""

    def __init__(self, damage):
        self._open, self._damage = av.open, damage

    def __call__(self, name, *args, **kwargs):
        container = self._open(name, *args, **kwargs)
        if "w" not in args:
            return container
        return SimpleNamespace(
            add_stream=container.add_stream,
            mux=(lambda p: container.mux(p[:-1])) if self._damage == "packets" else container.mux,
            close=lambda: self._close(container, Path(name.removeprefix("file:"))),
        )

    def _close(self, container, path):
        container.close()
        if self._damage == "end":
            os.truncate(path, path.stat().st_size - 50)
        if self._damage == "all":
            os.truncate(path, 0)


@pytest.mark.parametrize("damage", ["packets", "end", "all"])
def test_what_cannot_be_read_back_was_not_written(tmp_path, monkeypatch, damage):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"an earlier good one")
    monkeypatch.setattr(av, "open", Torn(damage))
    with pytest.raises(OutputError, match=r"cannot write .*a\.mp4"):
        write(path, [noise(i) for i in range(30)])
    assert path.read_bytes() == b"an earlier good one"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_of_the_disk_is_said(tmp_path):
    def fill():
        with writing_video(tmp_path / "a.mp4", source()) as writer:
            for number in range(3):
                writer.write(noise(number), Fraction(number), Fraction(1))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match=r"a\.mp4: No space left on device"):
        fill()
    assert not list(tmp_path.iterdir())


PREDICT = """
import resource, sys
from icnet_deploy.runtime.predict.command import main
limit = int(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""


def predict(limit, *words):
    command = [sys.executable, "-c", PREDICT, str(limit), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def words(clips, tiny_model, tmp_path):
    """`icnet predict`'s arguments for a video, and the path of its result."""

    def give(out, name="drive.mp4"):
        path = clips(name, frames=60)
        return path, "--model", tiny_model(), "-o", out, "--runtime", "onnxruntime"

    return give


@pytest.fixture(scope="module")
def good_result(clips, tmp_path_factory):
    """What the whole of a video's result is."""
    folder = tmp_path_factory.mktemp("good")
    model = build_model(folder / "tiny.onnx")
    words = (clips("drive.mp4", frames=60), "--model", model, "-o", folder / "out")
    assert predict(0, *words, "--runtime", "onnxruntime").returncode == 0
    return (folder / "out" / "drive_overlay.mp4").read_bytes()


@pytest.mark.parametrize("limit", [0, 100, 3000, 40_000, 70_000])
def test_a_file_that_may_not_grow(words, tmp_path, good_result, limit):
    """A quota, or a full disk, at every place of a video: the first write, the last, the index."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "drive_overlay.mp4").write_bytes(good_result)
    assert len(good_result) > 70_000
    done = predict(limit or len(good_result) - 1, *words(out))
    assert done.returncode == 2, done.stderr
    assert "drive_overlay.mp4" in done.stderr
    assert "File too large" in done.stderr
    assert "labelled" not in done.stdout
    assert "Traceback" not in done.stderr
    assert [path.name for path in out.iterdir()] == ["drive_overlay.mp4"]
    assert (out / "drive_overlay.mp4").read_bytes() == good_result


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 60 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(words, small_disk):
    """opencv#25969: it said "1 input labelled", and an MP4 of no frame took a good one's place."""
    result = small_disk / "drive_overlay.mp4"
    result.write_bytes(b"an earlier good one")
    done = predict(0, *words(small_disk))
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr
    assert "labelled" not in done.stdout
    assert [path.name for path in small_disk.iterdir()] == ["drive_overlay.mp4"]
    assert result.read_bytes() == b"an earlier good one"


def test_a_full_disk_and_images(words, small_disk, tmp_path):
    write_image(tmp_path / "a.png", noise(0, (400, 600)))
    done = predict(0, tmp_path / "a.png", *words(small_disk)[1:])
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr
    assert "labelled" not in done.stdout
    for path in small_disk.iterdir():
        assert path.stat().st_size > 100  # whole, of those that came before


def test_a_kill_in_the_middle_leaves_no_final_name(words, tmp_path):
    out = tmp_path / "out"
    script = """
import os, signal, sys
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.predict.command import main
label, runs = Predictor.predict, []
def predict(self, image):
    runs.append(1)
    if len(runs) == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return label(self, image)
Predictor.predict = predict
main(sys.argv[1:])
"""
    command = [sys.executable, "-c", script, *map(str, words(out))]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == -9
    assert not list(out.glob("*.mp4"))
    assert predict(0, *words(out)).returncode == 0
    assert [path.name for path in out.glob("*.mp4")] == ["drive_overlay.mp4"]
