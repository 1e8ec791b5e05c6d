import base64
import shutil
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from icnet_deploy.evaluation.evaluate.plot import region_plot
from icnet_deploy.report.html import Html, page, tag
from icnet_deploy.report.pictures import Exhibit, Gallery, marks_picture, photo
from icnet_deploy.report.tables import number, signed, text_table

NASTY = "a<i onclick=x>&'\"b"


class Reader(HTMLParser):
    """Checks that elements nest, and collects them."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in self.VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)


def check(text):
    """Reads a report, and holds it to fetching nothing."""
    assert text.startswith("<!doctype html>")
    reader = Reader(text)
    for name, attributes in reader.elements:
        assert name not in ("script", "link", "iframe")
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href"):
                assert value.startswith("data:image/")
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 8e6
    return reader


@pytest.fixture
def nasty_scenes(scenes, tmp_path):
    """The scenes, one of which has a name that is markup."""
    root = tmp_path / "nasty"
    shutil.copytree(scenes, root)
    for path in sorted(root.rglob("*.png")):
        if "000000" in path.name:
            old, new = path.name, path.name.replace("000000", NASTY)
            path.rename(path.with_name(new))
            assert old != new
    return root


def test_the_parity_report(run, artefact, checkpoint, nasty_scenes, tmp_path):
    model = tmp_path / f"{NASTY}.onnx"
    model.write_bytes(artefact.read_bytes())
    report = tmp_path / "parity.html"
    arguments = ("--weights", checkpoint, "--runtime", "onnxruntime", "--report", report)
    done = run("parity", model, "--dataset", "scenes", "--data", nasty_scenes, *arguments)
    assert done.code == 0, done
    reader = check(report.read_text())
    words = "".join(reader.text)
    assert f"{NASTY}.onnx" in words
    assert "i" not in {name for name, attributes in reader.elements if "onclick" in attributes}
    assert "all 1 within budget" in words
    assert "real flip" in words
    images = [a["src"] for name, a in reader.elements if name == "img"]
    assert len(images) == 8  # two images: input, reference, labels, differences
    for source in images:
        data = base64.b64decode(source.partition("base64,")[2])
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (96, 128, 3)


def test_the_evaluation_report(run, checkpoint, nasty_scenes, tmp_path):
    report = tmp_path / "score.html"
    arguments = ("--dataset", "scenes", "--data", nasty_scenes, "--report", report)
    assert run("evaluate", checkpoint, *arguments).code == 0
    reader = check(report.read_text())
    words = "".join(reader.text)
    assert NASTY in words
    assert "mIoU" in words
    assert "Accuracy by the size of regions" in words
    names = [name for name, _ in reader.elements]
    assert names.count("img") == 12
    assert "svg" in names


def test_text_is_escaped_and_elements_are_not():
    inner = tag("b", "<x>", title='"&')
    assert inner == '<b title="&quot;&amp;">&lt;x&gt;</b>'
    assert tag("p", "a&b", [inner, "<"], class_="c") == f'<p class="c">a&amp;b{inner}&lt;</p>'
    assert isinstance(inner, Html)
    assert "<title>&lt;t&gt;</title>" in page("<t>")


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


def recorded(*rows):
    """Bins as a result has them, from (first pixel, regions, accuracy)."""
    return [
        {
            "from_pixels": start,
            "to_pixels": None if start == 120_000 else start + 3000,
            "regions": many,
            "accuracy_percent": share,
        }
        for start, many, share in rows
    ]


BINS = ((0, 500, 20.0), (3000, 9, 60.0), (12_000, 20, 80.0), (120_000, 1, 90.0))


def test_the_plot_has_a_point_for_each_bin_with_regions():
    reader = Reader(region_plot({NASTY: recorded(*BINS)}))
    points = [a for name, a in reader.elements if name == "circle"][1:]  # the first is the legend's
    heights = [float(point["cy"]) for point in points]
    assert heights == sorted(heights, reverse=True)
    assert len(points) == 4
    assert ["hollow" in point["class"] for point in points] == [False, True, False, True]
    assert f"{NASTY}, 0 to 2,999 pixels: 20.0 % of 500 regions" in reader.text
    assert f"{NASTY}, 120,000 and more pixels: 90.0 % of 1 regions" in reader.text


def test_the_line_crosses_no_empty_bin_and_leaves_the_endless_one_alone():
    reader = Reader(region_plot({"a": recorded(*BINS)}))
    lines = [a["points"] for name, a in reader.elements if name == "polyline"][1:]
    assert [len(points.split()) for points in lines] == [2, 1, 1]


def test_the_plot_of_two_shows_their_difference():
    other = [(start, many, share - 10 + 20 * (start == 0)) for start, many, share in BINS]
    plot = region_plot({"a": recorded(*BINS), "b": recorded(*other)})
    reader = Reader(plot)
    bars = [a["class"] for name, a in reader.elements if name == "rect" and a["width"] == "10.0"]
    assert bars[:4] == ["second", "first faint", "first", "first faint"]
    assert bars[4:] == ["third pale"] * 4  # how many regions each bin holds
    assert "0 to 2,999 pixels: -10.00 points, 500 regions" in reader.text
    assert "a minus b, points" in reader.text
    region_plot({"a": []})  # no region is large enough


def test_numbers_and_tables():
    assert number(None) == number(float("nan")) == signed(None) == "-"
    assert number(1.005, 1) == "1.0"
    assert [signed(v) for v in (0.0, -0.0, -0.0001, 0.5, -0.5)] == [
        *["0.000"] * 3,
        *("+0.500", "-0.500"),
    ]
    table = text_table(["name", "n"], [["a", "1"], ["bcdef", "22"]])
    assert table.splitlines() == ["name    n", "-----  --", "a       1", "bcdef  22"]
