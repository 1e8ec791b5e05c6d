"""Pictures of every format, decoded as an image and as a label map, and then labelled."""

import io
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from icnet_deploy.errors import ImageError
from tests.fakes.tiny_model import build_model
from tools.fuzz.mutate.raw import changed_bytes
from tools.fuzz.target import Run, Target

_FRAMES = 6
_SIDES = (1, 2, 3, 7, 8, 16, 17, 33, 64)

# Pillow's format -> modes that it writes.
_FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "GIF": ("L", "P", "RGB"),
    "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "YCbCr"),
    "BMP": ("1", "L", "P", "RGB"),
    "WEBP": ("RGB", "RGBA", "L"),
    "PPM": ("1", "L", "RGB", "I;16"),
    "JPEG2000": ("L", "RGB", "RGBA"),
    "AVIF": ("RGB", "RGBA"),
}
_SEVERAL = ("GIF", "TIFF", "WEBP", "PNG")
_PACKING = ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "tiff_adobe_deflate")


def _drawn(rng: Random) -> bytes:
    """A picture of any kind, as a program would write it."""
    from PIL import Image

    kind = rng.choice(list(_FORMATS))
    mode = rng.choice(_FORMATS[kind])
    sides = rng.choice(_SIDES), rng.choice(_SIDES)
    options: dict[str, Any] = {}
    if rng.random() < 0.3:
        block = Image.Exif()
        block[274] = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535))
        options["exif"] = block.tobytes()
    if kind in _SEVERAL and rng.random() < 0.3:
        count = rng.choice((1, 2, 5))
        options |= {"save_all": True, "append_images": [_picture(mode, sides, rng)] * count}
        if kind != "TIFF":
            options["duration"] = rng.choice((0, 10, 1000))
    if kind == "TIFF":
        options["compression"] = rng.choice(_PACKING)
    if kind in ("JPEG", "WEBP"):
        options["quality"] = rng.choice((1, 50, 95))
    if kind == "JPEG":
        options |= {"progressive": rng.random() < 0.3, "restart_marker_blocks": rng.choice((0, 2))}
    stream = io.BytesIO()
    try:
        _picture(mode, sides, rng).save(stream, kind, **options)
    except Exception:  # Pillow writes not every one of these
        stream = io.BytesIO()
        _picture("RGB", sides, rng).save(stream, "PNG")
    return stream.getvalue()


def _picture(mode: str, sides: tuple[int, int], rng: Random) -> Any:
    from PIL import Image

    numbers = np.random.default_rng(rng.getrandbits(32))
    if mode == "I;16":
        return Image.fromarray(numbers.integers(0, 65536, sides, np.uint16))
    values = numbers.integers(0, 256, (*sides, 3), np.uint8) // rng.choice((1, 16, 255))
    return Image.fromarray(np.asarray(values, np.uint8)).convert(mode)


def _seeds() -> list[bytes]:
    return [_drawn(Random(number)) for number in range(60)]


def changed_picture(data: bytes, rng: Random) -> bytes:
    """Another picture: a fresh one, one with another chunk, or one of other bytes."""
    if rng.random() < 0.25:
        data = _drawn(rng)
        if rng.random() < 0.5:
            return data
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        with suppress(IndexError):
            return _changed_png(data, rng)
    return changed_bytes(data, rng)


def _changed_png(data: bytes, rng: Random) -> bytes:
    """Chunks that are changed, with right checksums: what is behind these is reached."""
    at, chunks = 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return changed_bytes(data, rng)
    place = rng.randrange(len(chunks))
    kind, content = chunks[place]
    way = rng.randrange(5)
    if way == 0:
        del chunks[place]
    elif way == 1:
        chunks.insert(rng.randrange(len(chunks) + 1), chunks[place])
    elif way == 2:
        more = rng.choice((b"eXIf", b"sBIT", b"acTL", b"fcTL", b"cICP", b"tRNS", b"PLTE", b"iCCP"))
        chunks.insert(1, (more, rng.randbytes(rng.choice((0, 1, 3, 8, 26, 768)))))
    elif kind == b"IDAT" and rng.random() < 0.7:
        with suppress(zlib.error):
            content = zlib.compress(changed_bytes(zlib.decompress(content), rng))
        chunks[place] = (kind, content)
    else:
        chunks[place] = (kind, changed_bytes(content, rng))
    parts = [
        len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)
        for kind, content in chunks
    ]
    return data[:8] + b"".join(parts)


def _prepare(folder: Path) -> Run:
    from icnet_deploy.images import ImageFile
    from icnet_deploy.runtime import Predictor

    model = build_model(folder / "tiny.onnx", (32, 48))
    predictor = Predictor.from_onnx(model, "onnxruntime", "cpu", 1)
    path = folder / "picture"

    def run(data: bytes) -> Iterator[str]:
        path.write_bytes(data)
        file = ImageFile(path)
        yield "recognized"
        with suppress(ImageError):
            file.indices()
            yield "read as a label map"
        with suppress(ImageError):
            file.colours()
        for image, _ in islice(file.frames(), _FRAMES):
            prediction = predictor.predict(image)
            assert prediction.labels.shape == image.shape[:2]
        yield "decoded and labelled"

    return run


TARGETS = (
    Target(
        "images",
        "PNG, JPEG, GIF, TIFF, BMP, WebP, JPEG 2000, AVIF, Netpbm",
        _seeds,
        changed_picture,
        _prepare,
        450_000,
        megabytes=256,
    ),
)
