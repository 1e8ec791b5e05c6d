"""Label maps as pictures: colours, overlays, and a legend of the classes."""

import numpy as np
import numpy.typing as npt

from icnet_deploy.images import UInt8
from icnet_deploy.labels import LabelSet

_PAPER = (250, 250, 250)
_INK = (25, 25, 25)


def palette(label_set: LabelSet) -> UInt8:
    """The colour of each value of a label map: uint8 256 x 3, RGB; no class is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(label_set)] = label_set.palette
    return table


def colourise(labels: UInt8, label_set: LabelSet) -> UInt8:
    """Paints a label map, uint8 H x W, in the `palette`: uint8 H x W x 3, RGB."""
    import cv2

    table = palette(label_set)[:, None]
    return np.asarray(cv2.applyColorMap(np.ascontiguousarray(labels), table), np.uint8)


def blend(image: UInt8, colours: UInt8, alpha: float) -> UInt8:
    """Lays colours over an image of the same shape, uint8 H x W x 3; `alpha` is their share.

    Raises:
        ValueError: `alpha` is not in 0..1.
    """
    import cv2

    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the colours' share, 0 to 1; got {alpha}")
    return np.asarray(cv2.addWeighted(image, 1 - alpha, colours, alpha, 0), np.uint8)


def with_legend(
    picture: UInt8, labels: UInt8, label_set: LabelSet, every_class: bool = False
) -> UInt8:
    """Puts a legend below a picture: colour, name and share of the classes, largest first.

    Args:
        picture: uint8, H x W x 3, RGB.
        labels: uint8, H x W, whose classes the legend speaks of.
        label_set: their names and colours.
        every_class: also list the classes that do not occur, all in the set's own order, so that
            the legends of a video's frames have one size and stand still.

    Returns:
        uint8, (H + the legend's height) x W x 3, RGB; wider than the picture only where that is
        narrower than one entry.
    """
    counts = pixel_counts(labels)[: len(label_set)]
    classes = np.arange(len(counts)) if every_class else np.argsort(-counts, kind="stable")
    entries = [
        (
            label_set.palette[index],
            f"{label_set.names[index]} {_percent(counts[index] / labels.size)}",
        )
        for index in classes
        if every_class or counts[index]
    ]
    panel = _panel(picture.shape[1], entries, label_set.names)
    margin = panel.shape[1] - picture.shape[1]
    if margin > 0:
        picture = np.pad(picture, ((0, 0), (0, margin), (0, 0)), constant_values=_PAPER[0])
    return np.concatenate([picture, panel])


def pixel_counts(labels: UInt8) -> npt.NDArray[np.int64]:
    """How many pixels of a label map, uint8 H x W, each of 256 values has: int64, 256."""
    import cv2

    counts = cv2.calcHist([np.ascontiguousarray(labels)], [0], None, [256], [0, 256])
    return np.asarray(counts).ravel().astype(np.int64)  # of float32: exact up to 16 million


def _percent(share: float) -> str:
    if share == 0:
        return "0 %"
    return "< 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def _panel(
    width: int, entries: list[tuple[tuple[int, int, int], str]], names: tuple[str, ...]
) -> UInt8:
    """Draws the entries in as many columns as fit; columns are as wide as the longest name asks."""
    import cv2

    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, 1 if width < 1200 else 2
    scale = min(max(width / 1600, 0.42), 1.0)  # letters of 9 to 22 pixels
    widest = max(cv2.getTextSize(f"{name} 100.0 %", font, scale, thickness)[0][0] for name in names)
    letter = cv2.getTextSize("A", font, scale, thickness)[0][1]
    gap, line = letter, 2 * letter
    column = 3 * gap + letter + widest
    columns = max(1, (width - gap) // column)
    rows = -(-len(entries) // columns)
    panel = np.full((rows * line + 2 * gap, max(width, column + gap), 3), _PAPER, np.uint8)
    for index, (colour, text) in enumerate(entries):
        x = gap + index % columns * column
        base = gap + index // columns * line + line - (line - letter) // 2
        cv2.rectangle(panel, (x, base - letter), (x + letter, base), colour, cv2.FILLED)
        cv2.rectangle(panel, (x, base - letter), (x + letter, base), _INK, 1)
        at = (x + letter + gap, base)
        cv2.putText(panel, text, at, font, scale, _INK, thickness, cv2.LINE_AA)
    return panel
