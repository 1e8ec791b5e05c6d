"""Clips of every kind, built with PyAV, whose frames carry their number."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

SIZE = (64, 96)
RATE = 25
AUDIO = {".webm": "libopus", ".mpg": "mp2"}


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Grey noise, and eight squares in its first row: the number's bits."""
    image = np.random.default_rng(number).integers(60, 190, (size[0] // 8, size[1] // 8))
    image = np.kron(image, np.ones((8, 8)))
    image = np.pad(image, [(0, s - n) for s, n in zip(size, image.shape, strict=True)], "edge")
    for bit in range(8):
        image[:16, 12 * bit : 12 * bit + 12] = 255 if number >> bit & 1 else 0
    return np.repeat(image[..., None], 3, axis=2).astype(np.uint8)


def number_of(image: np.ndarray) -> int:
    """The number of a `picture`, also of an overlay of it."""
    squares = [image[4:12, 12 * bit + 3 : 12 * bit + 9].mean() for bit in range(8)]
    return sum((value > 127) << bit for bit, value in enumerate(squares))


def write_clip(
    path: Path,
    frames: int = 40,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: list[int] | None = None,
    audio: float = 0,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    form: str | None = None,
    size: tuple[int, int] = SIZE,
    first: int = 0,
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Writes a clip.

    Args:
        times: of the frames, in milliseconds; None: 25 a second.
        audio: seconds of silence beside it.
        form: the container, where the suffix does not say it.
        first: the first frame's number.
    """
    with av.open(str(path), "w", format=form, options=container or {}) as out:
        options = dict(options or {})
        if codec == "libx264":  # whose look ahead makes another clip of small frames now and then
            own = options.get("x264-params", "keyint=12")
            options["x264-params"] = f"mbtree=0:rc-lookahead=0:sync-lookahead=0:{own}"
        stream: Any = out.add_stream(codec, rate=RATE, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = 12
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        base = Fraction(1, 1000) if times else Fraction(1, RATE)
        stream.codec_context.time_base = base
        sound: Any = None
        if audio:
            sound = out.add_stream(AUDIO.get(path.suffix, "aac"), rate=48000)
        heard = 0
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(first + index, size), format="rgb24")
            frame.pts, frame.time_base = (times[index] if times else index), base
            out.mux(stream.encode(frame))
            last = index == frames - 1
            while sound and heard < 48000 * (audio if last else min(audio, (index + 1) / RATE)):
                samples = sound.codec_context.frame_size or 1024
                layout, kind = sound.codec_context.layout.name, sound.codec_context.format.name
                silence = av.AudioFrame(format=kind, layout=layout, samples=samples)
                for plane in silence.planes:
                    plane.update(bytes(plane.buffer_size))
                silence.sample_rate, silence.pts = 48000, heard
                silence.time_base = Fraction(1, 48000)
                heard += samples
                out.mux(sound.encode(silence))
        out.mux(stream.encode(None))
        if sound:
            out.mux(sound.encode(None))
    return path


def remux(
    source: Path,
    target: Path,
    shift: int = 0,
    skip: int = 0,
    turned: tuple[float, bool] | None = None,
    **options: str,
) -> Path:
    """Copies packets into another container.

    Args:
        shift: ticks that are added to all time stamps.
        skip: how many packets are left out at the start.
        turned: degrees to the left, and whether it is mirrored then.
    """
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        if turned:
            stream.set_display_rotation(*turned)
        for index, packet in enumerate(old.demux(old.streams.video[0])):
            if packet.size and index >= skip:
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = stream
                new.mux(packet)
    return target


class Clips:
    """Clips in a folder, each written only once."""

    picture = staticmethod(picture)
    number_of = staticmethod(number_of)
    remux = staticmethod(remux)

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[str, str], Path] = {}

    def __call__(self, name: str, **arguments: Any) -> Path:
        """The path of a clip of `write_clip`'s arguments."""
        key = (name, repr(sorted(arguments.items())))
        if key not in self._made:
            folder = self._folder / str(len(self._made))
            folder.mkdir()
            self._made[key] = write_clip(folder / name, **arguments)
        return self._made[key]


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    return Clips(tmp_path_factory.mktemp("clips"))
