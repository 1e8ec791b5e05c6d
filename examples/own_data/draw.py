"""Draws a small labelled data set of its own: a field, a track, crates and people, on several days.

    python draw.py FOLDER [--days N]

It writes `images/SPLIT/DAY_NUMBER.jpg`, `labels/SPLIT/DAY_NUMBER.png` (each class in its colour),
and `classes.json`, which says what the colours mean. Again it draws the same data set again.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

Points = list[list[float]] | np.ndarray

SIZE = (256, 512)  # height, width
DAYS = {"train": 24, "val": 12}  # each with its own light, earth and crop
IMAGES = {"train": 4, "val": 4}  # of each day

CLASSES = {  # name -> colour of its pixels in a label file, (red, green, blue)
    "field": (60, 160, 60),
    "track": (150, 110, 70),
    "crate": (240, 200, 40),
    "person": (220, 20, 60),
}
IGNORED = (0, 0, 0)  # the sky: neither trained on nor scored

DESCRIPTION = {
    "label_set": {
        "name": "farm",
        "names": list(CLASSES),
        "palette": [list(colour) for colour in CLASSES.values()],
    },
    "ignore": [list(IGNORED)],
    "group_by": "^([^_]+)_",  # day03_2.jpg: the images of a day belong together
}


class Day:
    """What the images of a day have in common."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.crop = rng.uniform((40, 95, 30), (95, 160, 70))  # red, green, blue
        self.earth = rng.uniform((95, 70, 45), (155, 120, 90))
        self.sky = rng.uniform((130, 160, 190), (210, 220, 240))
        self.gain = rng.uniform(0.65, 1.2) * rng.uniform(0.92, 1.08, 3)  # light, and its tint
        self.rows = int(rng.integers(9, 16))  # of the crop


class Picture:
    """An image and its labels, on which things are painted from far to near."""

    def __init__(self, day: Day, rng: np.random.Generator) -> None:
        self.day, self.rng = day, rng
        self.image = np.zeros((*SIZE, 3), np.float32)
        self.labels = np.full((*SIZE, 3), IGNORED, np.uint8)
        self.horizon = int(rng.uniform(0.22, 0.38) * SIZE[0])

    def paint(self, name: str, colour: np.ndarray, *polygons: Points, noise: float = 12) -> None:
        """Fills polygons of (x, y) in pixels with a class, and with a colour that is not smooth."""
        mask = np.zeros(SIZE, np.uint8)
        cv2.fillPoly(mask, [np.round(points).astype(np.int32) for points in polygons], 1)
        inside = mask.astype(bool)
        grain = self.rng.normal(0, noise, (int(inside.sum()), 1))
        self.image[inside] = colour + grain
        self.labels[inside] = CLASSES[name]

    def ground(self) -> None:
        """The field with its rows, which meet at the horizon, and the track."""
        height, width = SIZE
        day, rng, top = self.day, self.rng, self.horizon
        self.image[:top] = day.sky + rng.normal(0, 4, (top, width, 1))
        self.paint("field", day.crop, [[0, top], [width, top], [width, height], [0, height]])
        meet = rng.uniform(0.2, 0.8) * width
        starts = np.linspace(-1.5, 2.5, 4 * day.rows) * width
        rows = [[[meet, top], [x, height], [x + width / day.rows / 2, height]] for x in starts]
        self.paint("field", 0.6 * day.crop + 0.15 * day.earth, *rows)
        near, far = rng.uniform(0, 1) * width, meet + rng.uniform(-0.15, 0.15) * width
        wide, bend = rng.uniform(0.2, 0.4) * width, rng.uniform(-0.25, 0.25) * width
        depth = np.linspace(0, 1, 24)[:, None]  # 0 at the horizon, 1 at the lower edge
        middle = far + (near - far) * depth + bend * depth * (1 - depth)
        half = wide * (0.08 + 0.92 * depth) / 2
        y = top + (height - top) * depth
        left, right = np.hstack([middle - half, y]), np.hstack([middle + half, y])
        self.paint("track", 1.1 * day.earth + 20, [*left, *right[::-1]], noise=16)

    def things(self) -> None:
        """Crates and people, the far ones first."""
        height, width = SIZE
        depths = np.sort(self.rng.uniform(0.25, 1, int(self.rng.integers(4, 8))))
        for depth in depths:
            foot = self.horizon + depth * (height - self.horizon)
            x = self.rng.uniform(0.03, 0.97) * width
            size = (0.1 + 0.9 * depth) * height
            if self.rng.random() < 0.55:
                self.crate(x, foot, 0.3 * size)
            else:
                self.person(x, foot, 0.75 * size)

    def crate(self, x: float, foot: float, size: float) -> None:
        """A crate of slats: a front, and a top that is seen from above."""
        wood = self.rng.uniform((150, 105, 50), (225, 180, 115))
        wide, tall, lean = size * self.rng.uniform(1, 1.8), size, size * self.rng.uniform(-0.4, 0.4)
        lid = foot - tall
        top = [
            [x, lid],
            [x + wide, lid],
            [x + wide + lean, lid - tall / 3],
            [x + lean, lid - tall / 3],
        ]
        self.paint("crate", 1.15 * wood, top)
        for slat in range(4):
            upper = lid + slat * tall / 4
            for share, shade in ((1.0, 0.55), (0.8, 0.95)):
                lower = upper + share * tall / 4
                board = [[x, upper], [x + wide, upper], [x + wide, lower], [x, lower]]
                self.paint("crate", shade * wood, board)

    def person(self, x: float, foot: float, tall: float) -> None:
        """Two legs, a coat and a head."""
        coat = self.rng.uniform(20, 230, 3)
        hip, neck, w = foot - 0.45 * tall, foot - 0.85 * tall, 0.16 * tall
        for side in (-1, 1):
            stride = side * self.rng.uniform(0.2, 1.0) * w
            leg = [
                [x - w / 2, hip],
                [x + w / 2, hip],
                [x + stride + w / 2, foot],
                [x + stride, foot],
            ]
            self.paint("person", 0.35 * coat + 15, leg)
        body = [[x - w, hip], [x - 1.2 * w, neck + w / 2], [x, neck], [x + 1.2 * w, neck + w / 2]]
        self.paint("person", coat, [*body, [x + w, hip]])
        turn = np.linspace(0, 2 * np.pi, 16)
        head = np.stack([x + 0.6 * w * np.cos(turn), neck - 0.55 * w + 0.7 * w * np.sin(turn)], 1)
        self.paint("person", self.rng.uniform((90, 60, 45), (230, 185, 160)), head, noise=6)

    def finished(self) -> tuple[np.ndarray, np.ndarray]:
        """The image and its labels, uint8 H x W x 3 each, RGB."""
        soft = cv2.GaussianBlur(self.image, (0, 0), float(self.rng.uniform(0.4, 0.9)))
        return np.clip(soft * self.day.gain, 0, 255).astype(np.uint8), self.labels


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws the image of a seed, and its labels."""
    day = Day(np.random.default_rng(seed // 100))
    picture = Picture(day, np.random.default_rng(seed))
    picture.ground()
    picture.things()
    return picture.finished()


def main() -> None:
    """Writes both splits; no day is in both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder to write")
    parser.add_argument(
        "--days", type=int, metavar="N", help="days in each split (default: 24, 12)"
    )
    arguments = parser.parse_args()
    folder, first = arguments.folder, 0
    for split, usual in DAYS.items():
        days = arguments.days or usual
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for day in range(first, first + days):
            for number in range(IMAGES[split]):
                image, truth = draw(100 * day + number)
                name = f"day{day:02}_{number}"
                # OpenCV's order is blue, green, red.
                cv2.imwrite(f"{images / name}.jpg", image[..., ::-1])
                cv2.imwrite(f"{labels / name}.png", truth[..., ::-1])
        first += days
        print(f"{images}: {days * IMAGES[split]} images of {days} days")
    text = json.dumps(DESCRIPTION, indent=2)
    (folder / "classes.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
