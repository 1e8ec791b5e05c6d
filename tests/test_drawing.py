"""Colours and legends: what is in them, and that they fit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from icnet_deploy.drawing import colourise, with_legend
from icnet_deploy.labels import CITYSCAPES, LabelSet

SKY, ROAD = CITYSCAPES.names.index("sky"), CITYSCAPES.names.index("road")


@pytest.fixture
def texts(monkeypatch):
    """The words that a legend draws."""
    seen = []
    draw = cv2.putText

    def put(picture, text, *rest):
        seen.append(text)
        return draw(picture, text, *rest)

    monkeypatch.setattr(cv2, "putText", put)
    return seen


def labels_of(size):
    labels = np.full(size, ROAD, np.uint8)
    labels[: size[0] // 4] = SKY
    return labels


def test_colours_are_the_palettes_and_no_class_is_black():
    picture = colourise(np.array([[ROAD, SKY, 255]], np.uint8), CITYSCAPES)
    assert picture.tolist() == [[[128, 64, 128], [70, 130, 180], [0, 0, 0]]]


@pytest.mark.parametrize("size", [(360, 480), (1024, 2048)])
def test_the_legend_lists_what_occurs_below_the_picture(size, texts):
    picture = np.full((*size, 3), 9, np.uint8)
    drawn = with_legend(picture, labels_of(size), CITYSCAPES)
    assert texts == ["road 75.0 %", "sky 25.0 %"]
    assert drawn.shape[1] == size[1]
    np.testing.assert_array_equal(drawn[: size[0]], picture)
    panel = drawn[size[0] :].reshape(-1, 3).tolist()
    assert [128, 64, 128] in panel
    assert [70, 130, 180] in panel
    assert [244, 35, 232] not in panel  # sidewalk, which does not occur


def test_a_legend_of_every_class_has_one_size(texts):
    picture = np.zeros((360, 480, 3), np.uint8)
    one = with_legend(picture, labels_of((360, 480)), CITYSCAPES, every_class=True)
    two = with_legend(picture, np.zeros((360, 480), np.uint8), CITYSCAPES, every_class=True)
    assert one.shape == two.shape
    assert len(texts) == 38
    assert texts[:2] == ["road 75.0 %", "sidewalk 0 %"]


def test_small_shares_and_narrow_pictures(texts):
    labels = np.zeros((200, 100), np.uint8)
    labels[0, 0] = 255  # no class: not in the legend
    labels[0, 1] = 1
    names = LabelSet("long", ("a", "a class of a very long name"), ((1, 2, 3), (4, 5, 6)))
    drawn = with_legend(np.zeros((200, 100, 3), np.uint8), labels, names)
    assert texts == ["a 100.0 %", "a class of a very long name < 0.1 %"]
    assert drawn.shape[1] > 100
