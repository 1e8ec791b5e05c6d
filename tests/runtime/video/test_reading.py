"""Sound videos of every kind: all frames, their times and sides, and no complaint."""

from __future__ import annotations

import re
import shutil
import sys
import threading
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from icnet_deploy.errors import ImageError, MissingPackage
from icnet_deploy.runtime.video import VideoReader, open_frames

SIZE = (64, 96)
PAUSE = [40 * i + (400 if i > 20 else 0) for i in range(40)]  # milliseconds
PHONE = [int(sum(33 + i * 7 % 34 for i in range(n))) for n in range(40)]

KINDS = {
    "a.mp4": {},
    "fast.mp4": {"container": {"movflags": "faststart"}},
    "fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "sound.mp4": {"audio": 4},
    "b-frames.mp4": {"options": {"bf": "3"}},
    "hevc.mov": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "prores.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "motion.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "png.mov": {"codec": "png", "pixels": "rgb24"},
    "a.m4v": {"codec": "mpeg4"},
    "a.3gp": {"codec": "mpeg4"},
    "a.avi": {"codec": "mpeg4"},
    "b-frames.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "h264.avi": {},
    "motion.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "a.mkv": {},
    "sound.mkv": {"audio": 4},
    "hevc.mkv": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "lossless.mkv": {"codec": "ffv1"},
    "live.mkv": {"container": {"live": "1"}},
    "a.webm": {"codec": "libvpx-vp9", "audio": 2},
    "vp8.webm": {"codec": "libvpx"},
    "clear.webm": {"codec": "libvpx-vp9", "pixels": "yuva420p"},
    "a.ts": {},
    "sound.mts": {"audio": 2},
    "m2.m2ts": {"codec": "mpeg2video"},
    "a.mpg": {"codec": "mpeg2video", "audio": 2},
    "a.wmv": {"codec": "wmv2"},
    "a.flv": {},
    "a.ogv": {"codec": "libvpx"},
    "bare.h264": {"form": "h264"},
}
NO_STAMPS = {"bare.h264"}


def read(path):
    """The frames, and the reader, which then says what was wrong."""
    with closing(open_frames(path)) as reader:
        return list(reader), reader


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_of_every_kind(clips, name):
    frames, reader = read(clips(name, **KINDS[name]))
    assert [clips.number_of(frame.image) for frame in frames] == list(range(40))
    assert reader.problem == ""
    off = [abs(float(frame.time) - i / 25) for i, frame in enumerate(frames)]
    assert max(off) < 0.045, off  # MPEG-2's own stamps are a frame off
    assert {frame.image.shape for frame in frames} == {(*SIZE, 3)}
    assert reader.rate == 25
    if name in NO_STAMPS:
        assert "no time stamps" in reader.note
    assert reader.note == "" or name in NO_STAMPS | {"a.mpg", "m2.m2ts"}


@pytest.mark.parametrize("times", [PAUSE, PHONE], ids=["pause", "phone"])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.ts", "libx264"),
        ("a.flv", "libx264"),
        ("a.wmv", "wmv2"),
        ("a.avi", "mpeg4"),
    ],
)
def test_a_rate_that_varies_is_kept(clips, name, codec, times):
    frames, reader = read(clips(name, codec=codec, times=times))
    assert reader.problem == ""
    assert reader.note == ""
    assert [round(1000 * frame.time) for frame in frames] == pytest.approx(times, abs=1)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_frames_that_are_larger_than_asked_for_are_refused(clips, name, codec, monkeypatch):
    path = clips(name, codec=codec)
    monkeypatch.setenv("ICNET_MAX_MEGAPIXELS", "0.001")
    with pytest.raises(ImageError, match=rf"{name} says that it is .* expected at most 0\.001"):
        read(path)


@pytest.mark.parametrize("limit", ["3000", "1e300"])
def test_a_limit_beyond_ffmpegs_own_is_taken(clips, limit, monkeypatch):
    monkeypatch.setenv("ICNET_MAX_MEGAPIXELS", limit)
    assert read(clips("a.mkv"))[0]


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4", "a.flv"])
def test_the_first_frame_stands_at_zero(clips, name):
    late = [10_000 + 40 * i for i in range(40)]
    frames, reader = read(clips(name, times=late))
    assert reader.problem == ""
    assert [round(1000 * frame.time) for frame in frames] == [40 * i for i in range(40)]


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3"}])
def test_an_edit_list_hides_what_it_hides(clips, tmp_path, options):
    """Frames before the edit are there for the decoder; a viewer shows none of them."""
    whole = clips("a.mp4", options=options)
    with av.open(str(whole)) as container:
        ticks = Fraction(1, 25) / container.streams.video[0].time_base
    cut = clips.remux(whole, tmp_path / "cut.mp4", shift=-int(17 * ticks), movflags="+faststart")
    frames, reader = read(cut)
    assert [clips.number_of(frame.image) for frame in frames] == list(range(17, 40))
    assert reader.problem == ""
    assert [round(1000 * frame.time) for frame in frames] == [40 * i for i in range(23)]


OPEN = {
    "h264": ("libx264", {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0"}),
    "refresh": ("libx264", {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}),
    "hevc": ("libx265", {"x265-params": "open-gop=1:keyint=12:bframes=3:log-level=none"}),
    "mpeg2": ("mpeg2video", {"bf": "2"}),
    "mpeg4": ("mpeg4", {}),
}


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [(kind, suffix) for kind in OPEN for suffix in ("ts", "mkv", "mp4") if kind != "mpeg4"]
    + [("mpeg4", "ts")],
)
def test_a_recording_that_begins_between_key_frames(clips, tmp_path, kind, suffix):
    """No player shows what is drawn from frames before; that they are left out is said."""
    codec, options = OPEN[kind]
    whole = clips(f"{kind}.{suffix}", codec=codec, options=options)
    frames, reader = read(clips.remux(whole, tmp_path / f"late.{suffix}", skip=17))
    numbers = [clips.number_of(frame.image) for frame in frames]
    assert numbers == list(range(numbers[0], 40))
    assert numbers[0] in (24, 28)
    assert re.search(r"its first \d+ frames need earlier frames", reader.note)
    assert reader.problem == ""


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_turned_as_a_viewer_shows_them(clips, tmp_path, degrees, mirrored):
    upright = clips("a.mp4", pixel_aspect=Fraction(4, 3))
    frames, reader = read(clips.remux(upright, tmp_path / "t.mp4", turned=(degrees, mirrored)))
    assert reader.problem == ""
    plain, _ = read(upright)
    for one, other in zip(frames, plain, strict=True):
        expected = np.rot90(other.image, degrees // 90)
        np.testing.assert_array_equal(one.image, expected[:, ::-1] if mirrored else expected)
        assert one.image.flags.c_contiguous
    assert reader.pixel_aspect == (Fraction(3, 4) if degrees % 180 else Fraction(4, 3))


@pytest.mark.parametrize("name", ["motion.mov", "png.mov", "a.mp4"])
def test_frames_have_memory_of_their_own(clips, name):
    frames, _ = read(clips(name, **KINDS[name]))
    copies = [frame.image.copy() for frame in frames]
    for frame, copy in zip(frames, copies, strict=True):
        np.testing.assert_array_equal(frame.image, copy)
        assert not any(np.shares_memory(frame.image, f.image) for f in frames if f is not frame)
        frame.image[:] = 0  # and it can be written


def truth(matrix, full, bits, luma, blue, red):
    """RGB of a colour by ITU-R BT.601, 709 or 2020 and its range, as the standards write it."""
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}[
        matrix
    ]
    one = 2 ** (bits - 8)
    y = luma / (2**bits - 1) if full else (luma / one - 16) / 219
    cb, cr = (
        (c - 128 * one) / (2**bits - 1) if full else (c / one - 128) / 224 for c in (blue, red)
    )
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return 255 * np.clip([r, (y - kr * r - kb * b) / (1 - kr - kb), b], 0, 1)


TAGS = {"bt601": 6, "bt709": 1, "bt2020": 9}
CASES = [
    ("bt601", "bt601", False, "yuv420p", (64, 96)),
    ("bt709", "bt709", False, "yuv420p", (64, 96)),
    ("bt709", "bt709", True, "yuv420p", (64, 96)),
    ("bt601", "bt601", False, "yuv420p", (720, 1280)),
    ("bt709", "bt709", False, "yuv420p10le", (64, 96)),
    ("bt2020", "bt2020", False, "yuv420p10le", (64, 96)),
    ("bt709", "bt709", False, "yuv444p", (64, 96)),
    (None, "bt601", False, "yuv420p", (64, 96)),
    (None, "bt709", False, "yuv420p", (720, 1280)),
    (None, "bt601", True, "yuvj420p", (64, 96)),
]


@pytest.mark.parametrize(("tag", "matrix", "full", "pixels", "size"), CASES)
def test_colours_by_their_tags(tmp_path, tag, matrix, full, pixels, size):
    bits = 10 if "10" in pixels else 8
    colour = [v << (bits - 8) for v in (110, 90, 170)]
    path = tmp_path / "colour.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1" if bits == 10 else "libx264", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        stream.options = {"qp": "0"} if bits == 8 else {}
        if tag:
            stream.codec_context.colorspace = TAGS[tag]
        stream.codec_context.color_range = 2 if full else 1
        frame = av.VideoFrame(size[1], size[0], pixels)
        for plane, value in zip(frame.planes, colour, strict=True):
            item = value.to_bytes(2 if bits == 10 else 1, "little")
            plane.update(item * (plane.buffer_size // len(item)))
        if tag:
            frame.colorspace = TAGS[tag]
        frame.color_range = 2 if full else 1
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    frames, _ = read(path)
    expected = truth(matrix, full, bits, *colour)
    off = np.abs(frames[0].image.reshape(-1, 3) - expected)
    assert off.max() <= 3, (frames[0].image[0, 0], expected)


def test_a_cover_picture_is_not_the_video(clips, tmp_path):
    path = tmp_path / "cover.mp4"
    with av.open(str(clips("a.mp4"))) as old, av.open(str(path), "w") as new:
        cover = new.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        video = new.add_stream_from_template(old.streams.video[0])
        frame = av.VideoFrame(32, 32, "yuvj420p")
        frame.pts = 0
        for packet in [*cover.encode(frame), *cover.encode(None)]:
            new.mux(packet)
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                packet.stream = video
                new.mux(packet)
    frames, reader = read(path)
    assert reader.problem == ""
    assert [clips.number_of(frame.image) for frame in frames] == list(range(40))


def test_only_a_cover_picture_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as new:
        cover = new.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame(32, 32, "yuvj420p")
        frame.pts = 0
        for packet in [*cover.encode(frame), *cover.encode(None)]:
            new.mux(packet)
    with pytest.raises(ImageError, match=r"song\.mp4 holds no video"):
        open_frames(path)


def test_of_two_videos_the_default_one(tmp_path, clips):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, default in zip(streams, (0, 1), strict=True):
            stream.height, stream.width = SIZE
            stream.disposition = av.stream.Disposition(default)
        for number in range(10):
            for offset, stream in enumerate(streams):
                image = clips.picture(number + 100 * offset)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    frames, reader = read(path)
    assert reader.problem == ""
    assert [clips.number_of(frame.image) for frame in frames] == list(range(100, 110))


def test_frames_that_change_their_size_end_it(clips, tmp_path):
    path = tmp_path / "joined.ts"
    small, large = clips("a.ts"), clips("b.ts", size=(96, 128))
    path.write_bytes(small.read_bytes() + large.read_bytes())
    frames, reader = read(path)
    # An H.264 decoder throws away those that waited for others when the size changes.
    assert 36 <= len(frames) <= 40
    assert [clips.number_of(frame.image) for frame in frames] == list(range(len(frames)))
    assert f"its first {len(frames)} frames" in reader.problem
    assert "96 x 128 after 64 x 96" in reader.problem


@pytest.mark.parametrize("length", [30, 300, 5000])
def test_other_elements_between_frames_are_no_damage(clips, tmp_path, length):
    """Matroska may hold empty room, tags or an index anywhere; here where a pause is, too."""
    data = clips("a.mkv", times=PAUSE).read_bytes()
    clusters = [match.start() for match in re.finditer(rb"\x1f\x43\xb6\x75", data)]
    assert len(clusters) > 1
    for place in reversed(clusters[1:]):
        void = b"\xec" + (1 << 28 | length).to_bytes(4) + bytes(length)
        data = data[:place] + void + data[place:]
    path = tmp_path / "voids.mkv"
    path.write_bytes(data)
    frames, reader = read(path)
    assert [clips.number_of(frame.image) for frame in frames] == list(range(40))
    assert reader.problem == ""


def test_closing_while_another_thread_reads(clips):
    """As after an interrupt: FFmpeg must not lose the file under a thread that decodes."""
    for _ in range(20):
        reader = VideoReader(clips("a.mp4"))
        frames = iter(reader)
        next(frames)
        rest = []
        thread = threading.Thread(target=lambda frames=frames, rest=rest: rest.extend(frames))
        thread.start()
        reader.close()
        thread.join()
        reader.close()
        assert len(rest) == 39
    unread = VideoReader(clips("a.mp4"))
    unread.close()
    unread.close()


def test_a_name_that_looks_like_a_protocol(clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(clips("a.mp4"), "concat:a.mp4")
    assert len(read(Path("concat:a.mp4"))[0]) == 40


def test_without_pyav_the_extra_is_named(clips, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackage, match=r"icnet-deploy\[video\]"):
        VideoReader(clips("a.mp4"))
