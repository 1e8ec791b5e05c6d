"""Videos that were cut off or damaged are told from whole ones, and what can be read is kept."""

from __future__ import annotations

import random
import re
from contextlib import closing

import numpy as np
import pytest

from icnet_deploy.errors import ImageError
from icnet_deploy.runtime.video import open_frames, whole

X265 = {"x265-params": "log-level=none"}
KINDS = {
    "fast.mp4": {"container": {"movflags": "faststart"}},
    "sound.mp4": {"container": {"movflags": "faststart"}, "audio": 4},
    "fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "mpeg4.m4v": {"codec": "mpeg4", "container": {"movflags": "faststart"}},
    "hevc.mov": {
        "codec": "libx265",
        "options": X265,
        "container": {"movflags": "faststart"},
    },
    "vp9.mp4": {"codec": "libvpx-vp9", "container": {"movflags": "faststart"}},
    "mpeg2.mov": {"codec": "mpeg2video", "container": {"movflags": "faststart"}},
    "motion.mov": {
        "codec": "mjpeg",
        "pixels": "yuvj420p",
        "container": {"movflags": "faststart"},
    },
    "a.avi": {"codec": "mpeg4"},
    "motion.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "a.mkv": {},
    "sound.mkv": {"audio": 4},
    "varies.mkv": {"times": [40 * i + 400 * (i > 20) for i in range(40)]},
    "hevc.mkv": {"codec": "libx265", "options": X265},
    "lossless.mkv": {"codec": "ffv1"},
    "a.webm": {"codec": "libvpx-vp9", "audio": 2},
    "vp8.webm": {"codec": "libvpx"},
    "a.ts": {},
    "sound.ts": {"audio": 2},
    "a.flv": {},
    "a.wmv": {"codec": "wmv2"},
    "a.ogv": {"codec": "libvpx"},
    "a.mpg": {"codec": "mpeg2video"},
}
COUNTED = {"fast.mp4", "sound.mp4", "mpeg4.m4v", "hevc.mov", "vp9.mp4", "mpeg2.mov", "motion.mov"}
COUNTED |= {"a.avi", "motion.avi"}
UNTOLD = {("a.mpg", "half"), ("a.mpg", "zeroed tail")}  # cut between two packets, and no length


def cut(data, share):
    """The first part; it ends within a packet of a transport stream, not between two."""
    return data[: int(len(data) * share) - 5]


def zeroed(data, start, share):
    first, last = int(len(data) * start), int(len(data) * (start + share))
    return data[:first] + bytes(last - first) + data[last:]


def gone(data, start, share):
    return data[: int(len(data) * start)] + data[int(len(data) * (start + share)) :]


def noisy(data, start, count):
    first = int(len(data) * start)
    return data[:first] + random.Random(7).randbytes(count) + data[first + count :]


DAMAGES = {
    "half": lambda data: cut(data, 0.5),
    "three quarters": lambda data: cut(data, 0.75),
    "zeroed": lambda data: zeroed(data, 0.45, 0.2),
    "zeroed tail": lambda data: zeroed(data, 0.5, 0.5),
    "gone": lambda data: gone(data, 0.45, 0.2),
    "noise": lambda data: noisy(data, 0.45, 4000),
}


def outcome(path):
    """The frames' numbers, and what the reader says; it may also refuse the file."""
    with closing(open_frames(path)) as reader:
        return list(reader), reader.problem


@pytest.mark.parametrize(
    ("name", "damage"), [(n, d) for n in KINDS for d in DAMAGES if (n, d) not in UNTOLD]
)
def test_damage_is_said_with_both_counts(clips, tmp_path, name, damage):
    path = tmp_path / name
    path.write_bytes(DAMAGES[damage](clips(name, **KINDS[name]).read_bytes()))
    frames, problem = outcome(path)
    told = re.match(r"(\d+) of (about )?(\d+) frames can be read \(", problem)
    assert told, problem
    assert int(told[1]) == len(frames) < 40
    assert int(told[3]) > len(frames)
    if name in COUNTED:
        assert (told[2], told[3]) == (None, "40")
    # What is labelled is right: nothing that was drawn from a damaged frame. Of a frame
    # in which the damage begins a decoder cannot always tell.
    bad = [
        np.abs(f.image - clips.picture(clips.number_of(f.image)).astype(int)).mean() > 12
        for f in frames
    ]
    assert sum(bad) <= 1


@pytest.mark.parametrize("name", ["end.mp4", "end.mov"])
def test_an_index_at_the_end_that_was_cut_off(clips, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(clips(name).read_bytes()[:-100])
    with pytest.raises(ImageError, match=name.replace(".", r"\.")):
        outcome(path)


def test_an_index_that_was_cut_within_a_table(clips, tmp_path):
    """The sound's tables come behind the video's, of which FFmpeg reads what is there."""
    data = clips("sound.mp4", audio=4).read_bytes()
    table = data.index(b"stsz", data.rindex(b"moov"))
    path = tmp_path / "sound.mp4"
    for end in (table + 40, table + 100, len(data) - 300):
        path.write_bytes(data[:end])
        try:
            frames, problem = outcome(path)
        except ImageError:
            continue
        assert re.match(rf"{len(frames)} of about \d+ frames can be read \(its index", problem)


@pytest.mark.parametrize("name", ["fast.mp4", "a.avi", "motion.mov"])
def test_where_frames_are_counted_one_is_enough(clips, tmp_path, name):
    path = tmp_path / name
    no_b_frames = {"options": {"bf": "0"}} if name == "fast.mp4" else {}
    data = clips(name, **KINDS[name], **no_b_frames).read_bytes()
    last = data.rindex(b"idx1") - 40 if name.endswith("avi") else len(data) - 40
    path.write_bytes(data[:last])
    frames, problem = outcome(path)
    assert len(frames) == 39
    assert problem.startswith("39 of 40 frames can be read")


@pytest.mark.parametrize("name", ["a.mkv", "vp8.webm"])
def test_where_time_is_stated_two_frames_are_not(clips, tmp_path, name):
    path = tmp_path / name
    data = clips(name, **KINDS[name]).read_bytes()
    path.write_bytes(data[: -len(data) // 60])
    frames, problem = outcome(path)
    assert 38 <= len(frames) < 40
    assert problem == ""


def test_a_live_recording_claims_nothing(clips, tmp_path):
    path = tmp_path / "live.mkv"
    path.write_bytes(cut(clips("live.mkv", container={"live": "1"}).read_bytes(), 0.5))
    frames, problem = outcome(path)
    assert 15 < len(frames) < 25
    assert problem == ""


def test_a_video_of_zeros_and_one_of_text(tmp_path):
    for name, data in (("zero.mp4", bytes(9000)), ("text.avi", b"no video " * 900), ("e.mkv", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=name.replace(".", r"\.")):
            outcome(tmp_path / name)


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3"}])
def test_frames_that_an_edit_list_hides_do_not_count(clips, tmp_path, options):
    """Of 40 samples 17 are hidden; of the 23 that a viewer shows some are cut off."""
    whole = clips("a.mp4", options=options)
    path = clips.remux(whole, tmp_path / "edit.mp4", shift=-17 * 512, movflags="+faststart")
    path.write_bytes(cut(path.read_bytes(), 0.75))
    frames, problem = outcome(path)
    assert 5 < len(frames) < 20
    assert problem.startswith(f"{len(frames)} of 23 frames can be read")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00:01.600000000", 1.6),
        ("01:00:01", 3601),
        ("00:00:1/0", None),
        ("00:00:1e999999999", None),
        ("0:0", None),
        ("", None),
    ],
)
def test_a_stated_duration_is_read_by_the_letter(text, seconds):
    """A number of a billion digits, by its power, takes all memory."""
    told = whole._seconds(text)
    assert told == seconds if seconds is None else float(told) == seconds
