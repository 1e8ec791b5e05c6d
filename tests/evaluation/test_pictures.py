"""Pictures of a report: the worst are kept, scaled down, and marks outlive it."""

import cv2
import numpy as np

from icnet_deploy.evaluation.pictures import Exhibit, Gallery, marks_picture, photo


def test_the_gallery_keeps_the_worst_and_draws_no_more_than_it_must():
    drawn = []

    def draw(rank):
        drawn.append(rank)
        return Exhibit(str(rank), "", ())

    gallery = Gallery(2)
    for rank in (3, 1, 2, 0, 5, 1):
        gallery.offer(rank, lambda rank=rank: draw(rank))
    assert [e.title for e in gallery.exhibits()] == ["5", "3"]
    assert drawn == [3, 1, 2, 5]
    drawn.clear()
    for rank in (4, 7, 9, 9, 6):  # the two of 9 rank alike
        gallery.offer(rank, lambda rank=rank: draw(rank), later=True)
    assert drawn == []
    assert [e.title for e in gallery.exhibits()] == ["9", "9"]
    assert drawn == [9, 9]
    assert [e.title for e in gallery.exhibits()] == ["9", "9"]  # drawn once
    assert drawn == [9, 9]
    none = Gallery(0)
    none.offer(1, lambda: draw(9))
    assert none.exhibits() == []


def decode(picture):
    data = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
    return data[:, :, ::-1].astype(int)


def test_pictures_are_scaled_down_and_keep_their_colours():
    image = np.full((1000, 2000, 3), (200, 100, 50), np.uint8)
    small = decode(photo("x", image))
    assert small.shape == (480, 960, 3)
    assert np.abs(small - (200, 100, 50)).max() <= 3


def test_a_single_marked_pixel_outlives_the_scaling():
    image = np.zeros((1024, 2048, 3), np.uint8)
    marks = np.zeros((1024, 2048), np.uint8)
    marks[511, 1023], marks[5, 5] = 1, 2
    picture = decode(marks_picture("x", image, marks, {1: (255, 0, 0), 2: (0, 0, 255)}))
    height, width = picture.shape[:2]
    red = picture[511 * height // 1024, 1023 * width // 2048]
    blue = picture[5 * height // 1024, 5 * width // 2048]
    assert red[0] > 150 > 100 > red[2]
    assert blue[2] > 150 > 100 > blue[0]
    assert 18 <= (picture.max(axis=2) > 100).sum() < 60  # nine pixels each, and JPEG's blur
