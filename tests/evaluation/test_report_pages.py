"""The reports of parity and evaluation, also of files whose names are markup; the plot in them."""

import base64
import shutil

import cv2
import numpy as np
import pytest
from report_page import Reader, check_page

from icnet_deploy.evaluation.evaluate.plot import region_plot

NASTY = "a<i onclick=x>&'\"b"


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
    reader = check_page(report.read_text())
    words = "".join(reader.text)
    assert f"{NASTY}.onnx" in words
    assert "i" not in {name for name, attributes in reader.elements if "onclick" in attributes}
    assert "1 of 1 within" in words
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
    reader = check_page(report.read_text())
    words = "".join(reader.text)
    assert NASTY in words
    assert "mIoU" in words
    assert "Accuracy by the size of regions" in words
    names = [name for name, _ in reader.elements]
    assert names.count("img") == 12
    assert "svg" in names


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
