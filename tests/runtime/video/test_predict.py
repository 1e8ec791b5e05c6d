"""`icnet predict` of videos and animations, from files to files."""

from __future__ import annotations

import sys
from contextlib import closing
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from icnet_deploy.errors import pip_install
from icnet_deploy.images import write_image
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.predict.command import main
from icnet_deploy.runtime.predict.inputs import find_items
from icnet_deploy.runtime.predict.labelling import label_files
from icnet_deploy.runtime.video import open_frames

SIZE = (64, 96)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def predict(tiny_model, out):
    model = tiny_model()

    def run(*inputs):
        words = [*inputs, "--model", model, "-o", out, "--runtime", "onnxruntime"]
        return main([str(word) for word in words])

    return run


def files(folder):
    """All but the log, of which tests/runtime/test_predictions_log.py speaks."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != "predictions.jsonl")
    return sorted(str(path.relative_to(folder)) for path in found)


def read(path):
    with closing(open_frames(path)) as reader:
        frames = list(reader)
    assert reader.problem == ""
    return frames


def numbers(clips, path):
    return [clips.number_of(frame.image) for frame in read(path)]


def test_a_video(predict, out, clips, capfd):
    assert predict(clips("drive.mkv", frames=10)) == 0
    assert files(out) == ["drive_overlay.mp4"]
    frames = read(out / "drive_overlay.mp4")
    assert [clips.number_of(frame.image) for frame in frames] == list(range(10))
    assert [frame.time for frame in frames] == [Fraction(i, 25) for i in range(10)]
    assert frames[0].image.shape[0] > SIZE[0]  # with the legend
    said, errors = capfd.readouterr()
    assert "1 input labelled" in said
    assert "(median of 10):" in said
    assert errors == ""


def test_what_is_laid_over_each_frame_is_its_own_label_map(
    predict, out, blocks, tmp_path, tiny_model
):
    with av.open(str(tmp_path / "drive.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25, 2), options={"crf": "1"})
        stream.height, stream.width = SIZE
        for seed in range(7):
            frame = av.VideoFrame.from_ndarray(blocks(SIZE, seed), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert predict(tmp_path / "drive.mp4") == 0
    # The blocks are drawn in the classes' colours: laid over the picture, they change little.
    for seed, frame in enumerate(read(out / "drive_overlay.mp4")):
        assert frame.time == Fraction(2 * seed, 25)
        off = [frame.image[:64, :96].astype(int) - blocks(SIZE, s) for s in (seed, seed + 1)]
        assert np.abs(off[0]).mean() < 25
        assert np.abs(off[1]).mean() > 40


def test_times_that_vary_are_the_sources(predict, out, clips):
    times = [0, 40, 80, 520, 560, 1500, 1533, 1567]
    assert predict(clips("phone.mp4", frames=8, times=times)) == 0
    frames = read(out / "phone_overlay.mp4")
    assert [round(1000 * float(frame.time)) for frame in frames] == times


def test_a_video_that_was_cut_off_is_kept_in_part(predict, out, clips, tmp_path, capfd):
    path = tmp_path / "cut.mkv"
    data = clips("a.mkv").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    write_image(tmp_path / "b.png", clips.picture(1))
    whole = clips("whole.mp4", frames=5)
    assert predict(path, whole, tmp_path / "b.png") == 2
    said, error = capfd.readouterr()
    assert error.count("\n") == 1
    kept = numbers(clips, out / "cut_overlay.mp4")
    assert kept[:10] == list(range(10))
    assert f"1 of 3 inputs failed, the others are done: {path}: {len(kept)} of about " in error
    assert f"those are labelled in {out / 'cut_overlay.mp4'}" in error
    assert "2 of 3 inputs labelled" in said
    assert len(files(out)) == 5
    assert numbers(clips, out / "whole_overlay.mp4") == list(range(5))


@pytest.mark.parametrize("name", ["end.mp4", "noise.avi", "empty.ts"])
def test_a_video_of_which_nothing_can_be_read_leaves_nothing(
    predict, out, tmp_path, clips, capfd, name
):
    data = {
        "end.mp4": clips("a.mp4").read_bytes()[:-600],
        "noise.avi": np.random.default_rng(0).bytes(9000),
        "empty.ts": b"",
    }
    (tmp_path / name).write_bytes(data[name])
    assert predict(tmp_path / name) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert name in error
    assert not files(out)


def test_a_failed_run_leaves_the_old_result(predict, out, clips, tiny_model):
    """An interrupt in the middle of a video: nothing of it has a final name."""
    video = clips("drive.mp4", frames=9)
    assert predict(video) == 0
    before = (out / "drive_overlay.mp4").read_bytes()
    with Predictor.open(tiny_model(), "onnxruntime") as predictor:
        label, runs = predictor.predict, []

        def failing(image):
            runs.append(1)
            if len(runs) == 4:
                raise KeyboardInterrupt
            return label(image)

        predictor.predict = failing
        with pytest.raises(KeyboardInterrupt):
            label_files(predictor, find_items([str(video)], out))
    assert files(out) == ["drive_overlay.mp4"]
    assert (out / "drive_overlay.mp4").read_bytes() == before


def animation(path, clips, count=5, **options):
    pictures = [Image.fromarray(clips.picture(number)) for number in range(count)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    return path


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.apng", "a.avif"])
def test_an_animation_is_labelled_frame_by_frame(predict, out, clips, tmp_path, name, capfd):
    form = {"form": "PNG"} if name.endswith("apng") else {}
    durations = [100, 50, 700, 40, 300]
    kind = "PNG" if form else None
    animation(tmp_path / name, clips, duration=durations, loop=0, format=kind, lossless=True)
    assert predict(tmp_path / name) == 0
    assert files(out) == ["a_overlay.mp4"]
    path = out / "a_overlay.mp4"
    frames = read(path)
    assert [clips.number_of(frame.image) for frame in frames] == list(range(5))
    assert [round(1000 * float(frame.time)) for frame in frames] == [0, 100, 150, 850, 890]
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(1_190_000, abs=2000)
    assert "(median of 5):" in capfd.readouterr().out


def test_a_still_gif_is_an_image(predict, out, clips, tmp_path):
    Image.fromarray(clips.picture(3)).save(tmp_path / "still.gif")
    Image.fromarray(clips.picture(3)).save(tmp_path / "still.webp")
    assert predict(tmp_path / "still.gif", tmp_path / "still.webp") == 0
    assert len(files(out)) == 6
    assert not any(name.endswith("mp4") for name in files(out))


def test_an_animation_that_was_cut_off_is_kept_in_part(predict, out, clips, tmp_path, capfd):
    path = animation(tmp_path / "a.png", clips, count=9, duration=40)
    path.write_bytes(path.read_bytes()[:-700])
    assert predict(path) == 2
    assert "a.png" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["cam.mjpeg", "cam.mjpg"])
def test_jpegs_one_after_another(predict, out, clips, tmp_path, name, capfd):
    source = clips("cam.mjpeg", codec="mjpeg", pixels="yuvj420p", form="mjpeg", frames=9)
    (tmp_path / name).write_bytes(source.read_bytes())
    assert predict(tmp_path / name) == 0
    assert numbers(clips, out / "cam_overlay.mp4") == list(range(9))
    assert (
        "9 of its 9 frames have no duration: shown at 25 frames a second" in capfd.readouterr().out
    )
    (tmp_path / name).write_bytes(source.read_bytes()[:-300])
    assert predict(tmp_path / name) == 2
    assert f"{name}: 8 of 9 frames can be read" in capfd.readouterr().err
    assert numbers(clips, out / "cam_overlay.mp4") == list(range(8))


def test_a_folder_of_images_and_videos(predict, out, clips, tmp_path, capfd):
    folder = tmp_path / "drive"
    folder.mkdir()
    for name in ("a.mp4", "b.MKV", "c.ts"):
        clip = clips(name.lower(), frames=4)
        (folder / name).write_bytes(clip.read_bytes())
    write_image(folder / "a.png", clips.picture(1))
    animation(folder / "a.gif", clips, duration=40)
    animation(folder / "c.webp", clips, duration=40, lossless=True)
    assert predict(folder) == 0
    videos = ["a_gif_overlay.mp4", "a_mp4_overlay.mp4", "b_overlay.mp4", "c_overlay.mp4"]
    names = [*videos, "c_webp_overlay.mp4"]
    found = files(out)
    assert len(found) == 8
    assert sum(name.endswith("mp4") for name in found) == len(names)
    assert "6 inputs labelled" in capfd.readouterr().out


def test_without_pyav_images_work_and_the_extra_is_named(
    predict, out, clips, tmp_path, capfd, monkeypatch
):
    write_image(tmp_path / "a.png", clips.picture(1))
    animation(tmp_path / "b.gif", clips, duration=40)
    video = clips("c.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    assert predict(tmp_path / "a.png") == 0
    assert len(files(out)) == 3
    capfd.readouterr()
    for path in (video, tmp_path / "b.gif"):
        assert predict(path) == 2
        error = capfd.readouterr().err
        assert error.count("\n") == 1
        assert path.name in error
        assert pip_install("video") in error
    assert predict(tmp_path / "a.png", video, "--overwrite") == 2
    assert "1 of 2 inputs failed, the others are done" in capfd.readouterr().err
    assert len(files(out)) == 3


def test_made_up_times_are_said(predict, out, clips, capfd):
    assert predict(clips("bare.h264", form="h264", frames=5)) == 0
    assert "no time stamps: it is shown at 25 frames a second" in capfd.readouterr().out
