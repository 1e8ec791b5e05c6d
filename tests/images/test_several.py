"""Files of several pictures: counted, refused where one is expected, read one after the other."""

import io

import numpy as np
import pytest
from PIL import Image

from icnet_deploy.errors import ImageError
from icnet_deploy.images import ImageFile, read_grey, read_image

GREYS = (10, 90, 170, 250)


def frames(size=(40, 30)):
    return [Image.new("RGB", size, (grey, grey, grey)) for grey in GREYS]


def animation(kind, pictures=None, **options):
    first, *others = pictures or frames()
    stream = io.BytesIO()
    first.save(stream, kind, save_all=True, append_images=others, **options)
    return stream.getvalue()


ANIMATIONS = {
    "GIF": {"duration": [100, 200, 300, 400]},
    "WEBP": {"duration": [100, 200, 300, 400], "lossless": True},
    "PNG": {"duration": [100, 200, 300, 400]},
    "AVIF": {"duration": [100, 200, 300, 400], "quality": 100},
}


@pytest.mark.parametrize("kind", ANIMATIONS)
def test_an_animation_is_read_frame_by_frame(kind, files):
    path = files.write(animation(kind, **ANIMATIONS[kind]))
    assert ImageFile(path).pictures == 4
    read = list(ImageFile(path).frames())
    assert [round(seconds, 3) for _, seconds in read] == [0.1, 0.2, 0.3, 0.4]
    assert all(image.shape == (30, 40, 3) and image.dtype == np.uint8 for image, _ in read)
    means = [image.mean() for image, _ in read]
    assert np.allclose(means, GREYS, atol=3)


@pytest.mark.parametrize("kind", [*ANIMATIONS, "TIFF", "JPEG", "PPM"])
def test_where_one_picture_is_expected_several_are_refused_with_their_number(kind, files):
    content = several(kind, files)
    path = files.write(content)
    assert ImageFile(path).pictures == 4
    for read in (read_image, read_grey):
        with pytest.raises(
            ImageError, match=r"holds 4 pictures; expected one: split .*icnet predict"
        ):
            read(path)


def several(kind, files):
    if kind == "JPEG":
        return b"".join(files.by_opencv(".jpg", np.asarray(frame)) for frame in frames())
    if kind == "PPM":
        return b"".join(files.by_opencv(".ppm", np.asarray(frame)) for frame in frames())
    return animation(kind, **ANIMATIONS.get(kind, {}))


@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PPM"])
def test_pictures_that_follow_each_other_are_read_one_by_one(kind, files):
    read = list(ImageFile(files.write(several(kind, files))).frames())
    assert [int(image.mean()) for image, _ in read] == list(GREYS)
    assert [seconds for _, seconds in read] == [None] * 4


def test_a_single_picture_is_one(files):
    for kind in ("PNG", "GIF", "WEBP", "TIFF", "AVIF", "JPEG", "BMP", "PPM", "JPEG2000"):
        path = files.write(files.by_pillow(kind))
        assert ImageFile(path).pictures == 1
        (only,) = ImageFile(path).frames()
        assert np.array_equal(only[0], read_image(path))
        assert only[1] is None


def test_an_animation_of_one_frame_is_a_picture(files):
    still = files.by_pillow("WEBP", lossless=True)
    size = (63).to_bytes(3, "little") + (47).to_bytes(3, "little")  # less 1 each
    frame = bytes(6) + size + bytes(4) + still[12:]
    chunks = [
        (b"VP8X", b"\x02" + bytes(3) + size),
        (b"ANIM", bytes(6)),
        (b"ANMF", frame),
    ]
    body = b"".join(kind + len(data).to_bytes(4, "little") + data for kind, data in chunks)
    path = files.write(b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body)
    assert ImageFile(path).pictures == 1
    assert np.array_equal(read_image(path), files.picture())


@pytest.mark.parametrize("kind", ANIMATIONS)
def test_an_animation_that_was_cut_off_is_refused(kind, files):
    noise = np.random.default_rng(0).integers(0, 256, (4, 30, 40, 3), np.uint8)
    content = animation(kind, [Image.fromarray(one) for one in noise], **ANIMATIONS[kind])
    for share in (0.3, 0.6, 0.9, 0.999):
        path = files.write(content[: int(len(content) * share)])
        with pytest.raises(ImageError, match=r"cut off|corrupt"):
            list(ImageFile(path).frames())


def test_a_motion_jpeg_whose_last_picture_was_cut_off_is_refused(files):
    content = several("JPEG", files)
    path = files.write(content[:-40])
    assert ImageFile(path).pictures == 4
    read = ImageFile(path).frames()
    assert [int(next(read)[0].mean()) for _ in range(3)] == list(GREYS[:3])
    with pytest.raises(ImageError, match="cut off"):
        next(read)


def test_an_apng_that_lacks_frames_names_both_numbers(files):
    chunks = files.png_chunks(animation("PNG"))
    last = max(i for i, (kind, _) in enumerate(chunks) if kind == b"fcTL")
    path = files.write(files.png_of([*chunks[:last], chunks[-1]]))
    with pytest.raises(ImageError, match="cut off: it has 3 of 4 frames"):
        ImageFile(path)


def test_frames_are_composited_as_a_viewer_shows_them(files):
    """The second frame holds only the square that moved; the rest is the first one's."""
    base = Image.new("RGB", (40, 30), (200, 30, 30))
    changed = base.copy()
    changed.paste((30, 30, 200), (5, 5, 15, 15))
    for kind in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        path = files.write(animation(kind, [base, changed], **options))
        read = [image for image, _ in ImageFile(path).frames()]
        assert np.array_equal(read[1], np.asarray(changed)), kind


def test_a_gif_without_delays_is_shown_as_browsers_do(files):
    read = list(ImageFile(files.write(animation("GIF", duration=0))).frames())
    assert [seconds for _, seconds in read] == [0.1] * 4


def test_an_animation_is_turned_as_its_exif_says(files):
    path = files.write(animation("WEBP", lossless=True, exif=files.exif(6)))
    assert [image.shape for image, _ in ImageFile(path).frames()] == [(40, 30, 3)] * 4


def test_what_a_camera_attaches_is_no_further_picture(files):
    """A preview, a gain map, a depth map, a stereo pair: the first picture is the photo."""
    photo, small = files.by_pillow("JPEG", exif=files.exif(1)), np.zeros((12, 16, 3), np.uint8)
    preview = files.by_opencv(".jpg", small)
    container = (
        b"http://ns.adobe.com/xap/1.0/\0<x xmlns:C='http://ns.google.com/photos/1.0/container/'/>"
    )
    xmp = b"\xff\xe1" + (len(container) + 2).to_bytes(2) + container
    plain = files.by_opencv(".jpg")
    for content in (
        animation("MPO"),
        photo + preview,
        photo + bytes(30) + preview,
        plain[:2] + xmp + plain[2:] + preview,
        plain[:2] + xmp + plain[2:] + plain,
    ):
        path = files.write(content)
        assert ImageFile(path).pictures == 1
        assert read_image(path).shape[2] == 3
    assert (
        ImageFile(files.write(plain + preview)).pictures == 2
    )  # nobody says that it belongs to it


def test_an_exif_thumbnail_is_no_further_picture(files):
    thumbnail = files.by_opencv(".jpg", np.zeros((12, 16, 3), np.uint8))
    block = b"Exif\0\0" + b"MM\0*\0\0\0\x08" + bytes(6) + thumbnail
    photo = files.by_opencv(".jpg")
    path = files.write(photo[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2) + block + photo[2:])
    assert ImageFile(path).pictures == 1
    assert read_image(path).shape == (48, 64, 3)


def test_thumbnails_and_masks_of_a_tiff_are_no_further_pictures(files):
    picture = files.picture()
    small = np.ascontiguousarray(picture[::4, ::4])
    for subfile in ({"_254": 1}, {"_254": 4}, {"_255": 2}):
        page = files.tiff_page(small, **subfile)
        for pages in ((files.tiff_page(picture), page), (page, files.tiff_page(picture), page)):
            path = files.write(files.tiff(*pages))
            assert ImageFile(path).pictures == 1
            assert np.array_equal(read_image(path), picture)
    assert (
        ImageFile(
            files.write(files.tiff(files.tiff_page(picture), files.tiff_page(small)))
        ).pictures
        == 2
    )


def test_a_picture_beside_an_animation_is_not_one_of_its_frames(files):
    """An APNG may have a first picture for viewers that cannot move."""
    path = files.write(animation("PNG", default_image=True))
    assert ImageFile(path).pictures == 3
    assert [int(image.mean()) for image, _ in ImageFile(path).frames()] == list(GREYS[1:])
