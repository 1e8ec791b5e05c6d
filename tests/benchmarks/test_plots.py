"""Plots: whose score a point has, that labels can be read, and that samples are all there."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from icnet_deploy.benchmarks.measurement import read_measurements
from icnet_deploy.benchmarks.plots import (
    Point,
    find_score,
    points,
    read_scores,
    sample_plot,
    speed_plot,
    write_plot,
)
from icnet_deploy.errors import InputError

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def scores(tmp_path):
    """A function that writes results of `icnet parity` from (file, sha256, runtime, mIoU)."""
    protocol = json.loads((RESULTS / "evaluate-scenes-1024x2048.json").read_text())["protocol"]

    def write(*rows, **changes):
        keys = ("artefact", "sha256", "runtime")
        told = [
            {
                **dict(zip(keys, row, strict=False)),
                "precision": "fp32",
                "protocol": protocol | changes,
                "score": {"miou_percent": row[3]},
            }
            for row in rows
        ]
        path = tmp_path / f"parity{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps({"kind": "parity", "rows": told, "references": []}))
        return path

    return write


def digest(name):
    return f"{name:0<64}"


def test_a_score_is_the_files_own_on_that_runtime_if_there_is_one(timed, scores):
    rows = [("x", digest("a"), "onnxruntime", 50.0), ("x", digest("a"), "openvino", 60.0)]
    known = read_scores([scores(*rows), scores(("b.onnx", digest("old"), "openvino", 40.0))])
    assert find_score(timed("a", [1.0]), known).miou_percent == 60
    on_ort = timed("a", [1.0], subject={"runtime": "onnxruntime"})
    assert find_score(on_ort, known).miou_percent == 50
    other = timed("a", [1.0], subject={"runtime": "tensorrt"})
    assert find_score(other, known).miou_percent == 50
    assert find_score(timed("b", [1.0]), known).miou_percent == 40  # exported again
    assert find_score(timed("b", [1.0], subject={"precision": "int8"}), known) is None


def test_results_without_labels_tell_no_miou(scores, tmp_path):
    """Of a folder's check, too, whose comparison is a part of it."""
    path = scores(("a.onnx", digest("a"), "openvino", 100.0))
    result = json.loads(path.read_text()) | {"labelled": False}
    for known in (result, {"kind": "verify", "parity": result}):
        path.write_text(json.dumps(known))
        with pytest.raises(InputError, match="without labels"):
            read_scores([path])


def test_who_has_no_score_is_named_and_whose_is_another_files_is_told(timed, scores):
    known = read_scores([scores(("a.onnx", digest("a"), "openvino", 60.0))])
    again = timed("a", [20.0], subject={"sha256": digest("new")})
    drawn, notes = points([timed("a", [10.0]), again, timed("c", [1.0])], known)
    assert [(p.label, p.rate, p.miou) for p in drawn] == [
        ("a, openvino", 100.0, 60.0),
        ("a, openvino", 50.0, 60.0),
    ]
    assert "10.0 ms), mIoU 60.00 % (scenes val, 80 images, on openvino)" in drawn[0].words
    assert len(notes) == 2
    assert "another file with this name and precision" in notes[0]
    assert notes[1] == "Not drawn, because no result gives its mIoU: c on openvino, cpu."


def test_scores_of_different_protocols_stand_in_no_picture(scores, tmp_path):
    row = ("a.onnx", digest("a"), "openvino", 60.0)
    with pytest.raises(InputError, match="different protocols"):
        read_scores([scores(row), scores(row, images=7)])
    read_scores([scores(row), scores(row, model_size="64x64", logits_resize="in the graph")])
    verified = {"kind": "verify", "parity": json.loads(scores(row).read_text())}
    (tmp_path / "verify.json").write_text(json.dumps(verified))
    assert read_scores([tmp_path / "verify.json"])[0].miou_percent == 60
    (tmp_path / "no.json").write_text('{"kind": "paper"}')
    refused = r"no\.json is not a JSON result with mIoU, from icnet evaluate, icnet parity or"
    with pytest.raises(InputError, match=refused + " icnet"):
        read_scores([tmp_path / "no.json"])


def test_recorded_results_of_both_kinds_are_read():
    found = read_scores(sorted(RESULTS.glob("*-scenes-1024x2048.json")))
    assert {each.precision for each in found} >= {None, "fp32", "int8"}
    checkpoint = {each.sha256 for each in found if each.runtime == "pytorch"}
    assert len(checkpoint) == 1  # the evaluated one, which is parity's reference
    assert all(50 < each.miou_percent < 80 for each in found)


def test_the_plot_in_the_documentation_is_that_of_the_recorded_results(tmp_path):
    # Of the checkpoint that the recorded times are of, which is no longer the shipped one.
    docs = RESULTS.parents[1] / "docs"
    scores = read_scores([docs / "evidence" / "earlier" / "parity-scenes-1024x2048.json"])
    write_plot(tmp_path / "a.svg", read_measurements(RESULTS / "latency-auto-cpu.jsonl"), scores)
    documented = docs / "speed.svg"
    assert documented.read_text() == (tmp_path / "a.svg").read_text()


def boxes(root):
    """(left, top, right, bottom) of every label, by a letter of 6.5 units."""
    for each in root.iter(f"{SVG}text"):
        if each.get("class") == "name":
            x, y = float(each.get("x")), float(each.get("y"))
            yield x, y - 10, x + 6.5 * len(each.text), y + 2


def meets(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_labels_meet_neither_one_another_nor_points_nor_leaders():
    rates = (2.4, 3.1, 3.6, 5.1, 5.3, 5.5, 8.3, 11.8, 14.6, 14.7, 29, 34.9)
    drawn = [
        Point(f"icnet-int8-ort-{i}, onnxruntime", r, 58 + i % 2 / 50, False, "")
        for i, r in enumerate(rates)
    ]
    root = ElementTree.fromstring(speed_plot(drawn, "a set"))
    labels = list(boxes(root))
    assert len(labels) == len(drawn)
    for a, b in itertools.combinations(labels, 2):
        assert not meets(a, b)
    for circle in root.iter(f"{SVG}circle"):
        x, y = float(circle.get("cx")), float(circle.get("cy"))
        assert not any(meets(box, (x - 3, y - 3, x + 3, y + 3)) for box in labels)
    leaders = [each for each in root.iter(f"{SVG}line") if each.get("class") == "thin"]
    assert leaders
    for each in leaders:
        x, *ends = (float(each.get(name)) for name in ("x1", "y1", "y2"))
        line = (x - 0.5, min(ends) + 1, x + 0.5, max(ends) - 1)
        assert not any(meets(line, box) for box in labels)


def test_labels_do_not_meet_where_many_points_are_at_the_edge():
    drawn = [Point(f"icnet-int8-ort-{i}, onnxruntime", 40 - i, 58, False, "") for i in range(9)]
    labels = list(boxes(ElementTree.fromstring(speed_plot(drawn, "a set"))))
    assert len(labels) == 9
    assert not any(meets(a, b) for a, b in itertools.combinations(labels, 2))
    assert all(left >= 60 and right <= 740 for left, _, right, _ in labels)


def test_a_point_is_where_its_numbers_are():
    drawn = [Point("a", 10, 50, False, "told of a"), Point("b", 40, 60, True, "told of b")]
    root = ElementTree.fromstring(speed_plot(drawn, "a set"))
    a, b = root.iter(f"{SVG}circle")
    (limit,) = (each for each in root.iter(f"{SVG}line") if each.get("class") == "limit")
    assert a.get("class") == "first rim"
    assert b.get("class") == "hollow"
    start = float(a.get("cx")) - (float(b.get("cx")) - float(a.get("cx"))) / 3
    third = (float(limit.get("x1")) - start) / 3  # at 30 frames a second
    assert float(a.get("cx")) == pytest.approx(start + third, abs=0.2)
    assert float(a.get("cy")) > float(b.get("cy"))
    assert [t.text for t in root.iter(f"{SVG}title")] == ["told of a", "told of b"]


def test_noise_does_not_fill_the_plot():
    drawn = [Point("a", 10, 58.64, False, ""), Point("b", 20, 58.66, False, "")]
    a, b = ElementTree.fromstring(speed_plot(drawn, "a set")).iter(f"{SVG}circle")
    assert abs(float(a.get("cy")) - float(b.get("cy"))) < 2


def test_the_file_stands_alone_on_light_and_dark_screens(timed, scores, tmp_path, capsys):
    known = read_scores([scores(("a.onnx", digest("a"), "openvino", 60.0))])
    write_plot(tmp_path / "plot.svg", [timed("a", [10.0]), timed("c", [1.0])], known)
    text = (tmp_path / "plot.svg").read_text()
    ElementTree.fromstring(text)
    assert "prefers-color-scheme: dark" in text
    assert "url(" not in text
    assert "c on openvino" in capsys.readouterr().out
    with pytest.raises(InputError, match="would be empty: Not drawn"):
        write_plot(tmp_path / "plot.svg", [timed("c", [1.0])], known)


def test_the_axis_of_samples_holds_them_all_with_some_ticks(timed):
    for values in ([68.0, 70.1, 69.0], [0.011, 0.013], [3.0, 1200.0], [5.0, 5.0]):
        root = ElementTree.fromstring(sample_plot([timed("a", values)]))
        parts = list(root.iter())
        places = [float(p.get("cx")) for p in parts if p.tag.endswith("circle")]
        assert len(places) == len(values)
        assert all(12 <= x <= 740 for x in places)
        assert (places[0] < places[-1]) == (values[0] < values[-1])
        ticks = [p for p in parts if p.tag.endswith("text") and p.get("text-anchor") == "middle"]
        assert 3 <= len(ticks) <= 20
