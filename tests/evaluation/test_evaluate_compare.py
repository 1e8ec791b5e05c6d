import dataclasses
import json
import re
import statistics

import numpy as np
import pytest
from report_page import check_page

from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.evaluate.compared import compare
from icnet_deploy.evaluation.evaluate.compared_report import compare_page, comparison_text
from icnet_deploy.evaluation.evaluate.result import names, read_result, save_prediction
from icnet_deploy.evaluation.pictures import Gallery
from icnet_deploy.evaluation.score import Score
from icnet_deploy.images import read_grey, read_image, write_labels
from icnet_deploy.labels import CAMVID, CITYSCAPES, LabelSet
from icnet_deploy.networks.blocks import words

TWO = LabelSet("two", ("floor", "wall"), ((0, 0, 0), (255, 255, 255)))
THREE = LabelSet("two", ("floor", "wall", "door"), ((0, 0, 0), (255, 255, 255), (9, 9, 9)))


def truth():
    """A floor of 7,200 pixels, and a wall of 800."""
    labels = np.zeros((80, 100), np.uint8)
    labels[:, 90:] = 1
    return labels


def result(dataset, *predictions, label_set=TWO, size=None, model="a.onnx"):
    score = Score(dataset, label_set, size)
    for sample, prediction in zip(dataset, predictions, strict=True):
        score.add(sample, prediction)
    return {
        "schema": 2,
        "kind": "evaluate",
        "model": model,
        "runtime": "onnxruntime",
        "device": "cpu",
        "network": {"stages": "sub24", "width": 0.5},
        "protocol": score.protocol().to_dict(),
        "score": score.to_dict(),
        "images": [one.to_dict() for one in score.images_counted],
        "time": {"milliseconds": 1.0, "scope": "all"},
    }


@pytest.fixture
def pair(memory):
    """A model that finds half of the wall, and one that finds none of it."""
    dataset = memory(truth(), label_set=TWO)
    half = truth()
    half[:40] = 0
    return (
        result(dataset, half, model="x/a.onnx"),
        result(dataset, np.zeros_like(half), size=(64, 96), model="x/b.onnx"),
    )


def recorded_before(one):
    """The same result as version 0.1 wrote it."""
    return {**{key: value for key, value in one.items() if key != "images"}, "schema": 1}


# floor: 7,200 of 7,600 against 7,200 of 8,000; wall: 400 of 800 against none.
FLOOR = 100 * (7200 / 7600 - 7200 / 8000)
REGIONS = [
    {"from_pixels": 0, "to_pixels": 3000, "regions": 1, "points": 50},
    {"from_pixels": 6000, "to_pixels": 9000, "regions": 1, "points": 0},
]


def test_differences_worked_out_by_hand(pair):
    found = compare(*pair).to_dict()
    assert (found["schema"], found["kind"]) == (2, "compare")
    assert found["models"] == list(pair)
    points = found["difference"]
    wanted = {"floor": pytest.approx(FLOOR, abs=1e-5), "wall": 50}
    assert {name: one["value"] for name, one in points["iou_points"].items()} == wanted
    assert points["miou_points"]["value"] == pytest.approx((FLOOR + 50) / 2, abs=1e-5)
    assert points["pixel_accuracy_points"]["value"] == 5
    assert points["small_region_accuracy_points"]["value"] == 50
    assert compare(*pair).regions() == REGIONS
    assert points["pixels_alike_percent"] is None  # nobody ran both
    assert points["hardly_seen"] == ["floor", "wall"]  # on one image
    assert set(points["miou_points"]) == {"value", "low", "high", "groups", "effective_images"}
    assert not {"miou_points_over_common_classes", "regions"} & set(points)  # have no interval


def test_results_of_an_older_version_are_compared_without_intervals(pair, tmp_path):
    old = recorded_before(pair[1])
    (tmp_path / "b.json").write_text(json.dumps(old))
    compared = compare(pair[0], read_result(tmp_path / "b.json"))
    points = compared.to_dict()["difference"]
    assert points["iou_points"] == {"floor": pytest.approx(FLOOR, abs=1e-5), "wall": 50}
    assert points["miou_points"] == pytest.approx((FLOOR + 50) / 2, abs=1e-5)
    assert points["pixel_accuracy_points"] == 5
    assert points["small_region_accuracy_points"] == 50
    assert points["regions"] == REGIONS
    text = comparison_text(compared)
    assert text.startswith("no intervals: b.onnx has no counts of each image")
    assert "score it again" in text.splitlines()[0]
    assert "[" not in text
    assert "No intervals: b.onnx" in compare_page(compared, Gallery(0), None)


@pytest.fixture
def drives(memory):
    """Twelve drives of two frames: A finds the wall, of which B misses a part of every frame.

    A door stands on one frame alone.
    """
    truths = [truth() for _ in range(24)]
    truths[3][:40, :30] = 2
    dataset = memory(*truths, label_set=THREE)
    dataset.samples[:] = [
        dataclasses.replace(sample, group=f"drive {i // 2}")
        for i, sample in enumerate(dataset.samples)
    ]
    missed = [one.copy() for one in truths]
    for i, one in enumerate(missed):
        one[: 10 + i % 3, 90:] = 0
    same = [(int((a == b).sum()), a.size) for a, b in zip(truths, missed, strict=True)]
    ours = result(dataset, *truths, label_set=THREE, model="a.onnx")
    theirs = result(dataset, *missed, label_set=THREE, model="b.onnx")
    return compare(ours, theirs, same)


def test_every_difference_has_its_interval(drives):
    points = drives.to_dict()["difference"]
    wall = points["iou_points"]["wall"]
    assert 12.5 < wall["low"] < wall["value"] < wall["high"] < 15
    assert wall["value"] == pytest.approx(100 * 264 / 1920, abs=1e-3)
    assert wall["groups"] == 12
    alike = points["pixels_alike_percent"]
    assert alike["low"] < alike["value"] < alike["high"] < 100
    assert alike["value"] == pytest.approx(100 - 13.75 / 10, abs=1e-6)
    assert points["hardly_seen"] == points["miou_left_out"] == ["door"]
    floor = points["iou_points"]["floor"]["value"]
    assert points["miou_points"]["value"] == pytest.approx((floor + wall["value"]) / 2, abs=1e-5)


def test_the_screen_says_first_what_the_intervals_rest_on(drives):
    text = comparison_text(drives)
    assert text.splitlines()[0] == drives.basis()
    assert "24 images in 12 groups" in drives.basis()
    assert re.search(
        r"^wall +100\.00 +86\.25 +\+13\.75 \[\+1\d\.\d\d, \+1\d\.\d\d\]$", text, re.MULTILINE
    )
    assert re.search(r"^door \(few\) +100\.00 +100\.00", text, re.MULTILINE)
    assert "The images show too little of the classes marked (few): door. " in text
    assert "mIoU with an interval leaves out door." in text
    # Of three classes, without an interval; and of the two that it runs over.
    a, b = (statistics.fmean(one.values()) for one in drives.scores("iou_percent"))
    assert re.search(rf"^mIoU % +{a:.2f} +{b:.2f} +\+{a - b:.2f}$", text, re.MULTILINE)
    assert re.search(r"^mIoU % without classes marked \(few\) +100\.00 .*\[", text, re.MULTILINE)
    assert re.search(r"^A and B label 98\.6[23] % of all pixels alike \[", text, re.MULTILINE)


def test_the_page_has_the_basis_and_the_intervals_drawn(drives):
    reader = check_page(compare_page(drives, Gallery(0), None))
    words = "".join(reader.text)
    assert drives.basis() in words
    assert "A - B, with its interval" in words
    assert "wall: +13.75 points, between" in words


def test_results_of_unlike_groups_are_not_compared(drives):
    other = json.loads(json.dumps(drives.second))
    other["images"][4]["group"] = "drive 1"
    with pytest.raises(
        InputError, match=r"s4 \(group drive 2\) .* s4 \(group drive 1\).*--group-by"
    ):
        compare(drives.first, other)


def test_the_screen_states_both_protocols_and_how_many_regions(pair):
    text = comparison_text(compare(*pair))
    assert "A  a.onnx (icnet, sub24, width 0.5; onnxruntime, cpu)" in text
    assert "model size       A: image; B: 64x96" in text
    assert "0 to 2,999           1 (few)   50.00    0.00  +50.00" in text
    assert "dataset          scenes" in text


@pytest.mark.parametrize("field", ["dataset", "split", "images_sha256", "logits_resize", "regions"])
def test_unlike_protocols_are_refused(pair, field):
    pair[1]["protocol"][field] = "other"
    with pytest.raises(InputError, match=field):
        compare(*pair)


def test_other_regions_are_another_truth(pair):
    for one in pair:
        one["protocol"]["images_sha256"] = "not recorded"
    pair[1]["score"]["regions"][0]["regions"] = 2
    with pytest.raises(InputError, match="different regions"):
        compare(*pair)


def test_means_over_unlike_classes_are_told(memory):
    dataset = memory(truth(), label_set=THREE)
    door = truth()
    door[0, 0] = 2
    found = compare(
        result(dataset, truth(), label_set=THREE), result(dataset, door, label_set=THREE)
    )
    points = found.to_dict()["difference"]
    assert points["iou_points"]["door"] is None
    assert found.plain("miou") > 30  # a perfect floor and wall, and no door
    assert 0 < found.over_common_classes() < 0.01
    assert 0 < points["miou_points"]["value"] < 0.01
    assert "door: in no ground truth" in comparison_text(found)


def test_names_tell_two_results_apart(pair):
    assert names(pair) == ["a.onnx", "b.onnx"]
    for one, model in zip(pair, ("x/a.onnx", "y/a.onnx"), strict=True):
        one["model"] = model
    assert names(pair) == ["x/a.onnx", "y/a.onnx"]
    pair[1]["model"] = "x/a.onnx"
    assert names(pair) == ["a.onnx at each image's size", "a.onnx at 64x96"]
    assert names([pair[0], pair[0]])[0].endswith("(first)")


def test_how_a_network_was_built():
    assert words({}) == ""
    assert words({"stages": "sub4", "width": 1.0}) == "icnet, sub4, width 1.0"
    built = {"architecture": "pspnet", "downsampling": 8, "width": 0.5, "channels": {"conv1": 3}}
    assert words(built) == "pspnet, downsampling 8, width 0.5, pruned"


def test_only_results_are_read(tmp_path, pair):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(pair[0]))
    assert read_result(path) == pair[0]
    broken = [
        "{",
        "[]",
        "{}",
        json.dumps({**pair[0], "kind": "parity"}),
        json.dumps({**pair[0], "schema": 9}),
        json.dumps({**pair[0], "score": {}}),
        json.dumps({**pair[0], "protocol": {"dataset": "scenes"}}),
        json.dumps({**pair[0], "protocol": {**pair[0]["protocol"], "label_sizes": "96x128"}}),
        json.dumps({**pair[0], "protocol": {**pair[0]["protocol"], "images": "3"}}),
        json.dumps({**pair[0], "protocol": {**pair[0]["protocol"], "ignored": True}}),
        json.dumps({**pair[0], "score": {**pair[0]["score"], "miou_percent": "60.0"}}),
        json.dumps({**pair[0], "score": {**pair[0]["score"], "miou_percent": float("nan")}}),
        json.dumps({**pair[0], "score": {**pair[0]["score"], "miou_percent": 1e9}}),
        json.dumps({**pair[0], "score": {**pair[0]["score"], "iou_percent": {"road": True}}}),
        json.dumps({**pair[0], "score": {**pair[0]["score"], "regions": [{}]}}),
        json.dumps({**pair[0], "images": []}),
        json.dumps({**pair[0], "images": [{**pair[0]["images"][0], "right": [1]}]}),
        json.dumps({**pair[0], "images": [{**pair[0]["images"][0], "truth": [1.5, 2]}]}),
        json.dumps(pair[0]).replace('"miou_percent": ', '"miou_percent": 1e999, "old": '),
    ]
    for text in broken:
        path.write_text(text)
        with pytest.raises(InputError, match=r"a\.json"):
            read_result(path)


def test_saved_label_maps(tmp_path):
    labels = np.uint8([[0, 18, 255]])
    save_prediction(tmp_path, CITYSCAPES, "city_000000_000019", labels)
    save_prediction(tmp_path, CAMVID, "a", np.uint8([[0, 10, 255]]))
    ids = read_grey(tmp_path / "city_000000_000019_pred_labelIds.png")
    assert ids.tolist() == [[7, 33, 0]]
    assert read_grey(tmp_path / "a_pred.png").tolist() == [[0, 10, 255]]


ON_SCENES = ("--dataset", "scenes", "--data")


def test_two_models_at_once_are_two_results_compared(run, checkpoint, artefact, large, tmp_path):
    data = (*ON_SCENES, large)
    files = ("--json", tmp_path / "ab.json", "--plot", tmp_path / "ab.svg")
    report = ("--report", tmp_path / "ab.html")
    done = run("evaluate", checkpoint, "--against", artefact, *data, *files, *report)
    assert (done.code, done.err) == (0, "")
    at_once = json.loads((tmp_path / "ab.json").read_text())
    for path, name in ((checkpoint, "a"), (artefact, "b")):
        assert run("evaluate", path, *data, "--json", tmp_path / f"{name}.json").code == 0
    again = ("--json", tmp_path / "c.json", "--plot", tmp_path / "c.svg")
    done = run("evaluate", tmp_path / "a.json", "--against", tmp_path / "b.json", *again)
    assert done.code == 0
    assert at_once["difference"]["pixels_alike_percent"]["value"] > 0
    at_once["difference"]["pixels_alike_percent"] = None  # both must run for that
    assert json.loads((tmp_path / "c.json").read_text())["difference"] == at_once["difference"]
    assert (tmp_path / "c.svg").read_text() == (tmp_path / "ab.svg").read_text()
    done = run("evaluate", checkpoint, "--against", tmp_path / "b.json", *data, *again)
    assert done.code == 0
    assert json.loads((tmp_path / "c.json").read_text())["difference"] == at_once["difference"]
    page = (tmp_path / "ab.html").read_text()
    assert "only A is right" in page
    assert page.count("<img") == 8
    assert "A: image; B: 96x128" in page


def test_artefacts_at_another_size_than_the_images(run, artefact, labels_graph, large, tmp_path):
    out = tmp_path / "score.json"
    for path in (artefact, labels_graph):
        assert run("evaluate", path, *ON_SCENES, large, "--json", out).code == 0
        told = json.loads(out.read_text())
        assert told["protocol"]["model_size"] == "96x128"
        by_nearest = "nearest neighbour" in told["protocol"]["logits_resize"]
        assert by_nearest == (path == labels_graph)
        assert told["network"]["stages"] == "sub124"
        assert told["score"]["miou_percent"] > 0


def test_a_label_map_is_not_compared_with_logits(run, checkpoint, labels_graph, large):
    done = run("evaluate", checkpoint, "--against", labels_graph, *ON_SCENES, large)
    assert done.code == 2
    assert "logits_resize" in done.err


@pytest.mark.parametrize("stages", ["sub4", "sub24"])
def test_a_checkpoint_of_fewer_stages(run, scenes, tmp_path, stages, one_thread):
    from icnet_deploy.networks.checkpoint import save_checkpoint
    from icnet_deploy.networks.icnet import ICNet
    from icnet_deploy.networks.preprocessing import STREET

    path = tmp_path / f"{stages}.safetensors"
    save_checkpoint(path, ICNet(19, width=0.125, stages=stages).eval(), CITYSCAPES, STREET)
    out = tmp_path / "score.json"
    done = run("evaluate", path, *ON_SCENES, scenes, "--limit", 1, "--json", out)
    assert done.code == 0
    assert stages in done.out
    assert json.loads(out.read_text())["network"]["stages"] == stages


def test_a_split_without_truth_is_predicted_and_not_scored(run, checkpoint, camvid, tmp_path):
    frame = read_image(camvid / "val/a.png")
    write_labels(camvid / "valannot/a.png", np.full(frame.shape[:2], 255, np.uint8))
    data = ("--dataset", "camvid", "--data", camvid, "--size", "64x64")
    done = run("evaluate", checkpoint, *data)
    assert done.code == 2
    assert "labelled pixel" in done.err
    done = run("evaluate", checkpoint, *data, "--save-predictions", tmp_path / "p")
    assert done.code == 0
    assert "there is no score" in done.out
    assert read_grey(tmp_path / "p/a_pred.png").shape == (8, 8)


def test_bad_requests(run, checkpoint, artefact, scenes, tmp_path, pair):
    def wrong(*arguments):
        done = run("evaluate", *arguments)
        assert (done.code, done.out) == (2, ""), done
        assert done.err.count("\n") == 1
        return done.err

    recorded = tmp_path / "a.json"
    recorded.write_text(json.dumps(pair[0]))
    data = (*ON_SCENES, scenes)
    assert "--dataset NAME --data DIR" in wrong(checkpoint)
    assert "is already a result" in wrong(recorded)
    two = tmp_path / "two.json"
    two.write_text(json.dumps(compare(*pair).to_dict()))
    refused = wrong(recorded, "--against", two)
    assert refused.startswith(f"icnet: error: {two} compares ")
    assert "expected the result of one model" in refused
    for option in ("--group-by", "--split", "--limit"):
        refused = wrong(recorded, "--against", recorded, option, "9")
        assert f"{option} 9 is for a data set, but recorded results" in refused
    assert "--save-predictions needs a model" in wrong(
        recorded, "--against", artefact, *data, "--save-predictions", tmp_path / "p"
    )
    assert "give a name that ends in .svg" in wrong(checkpoint, *data, "--plot", tmp_path / "a.png")
    assert "none.json" in wrong(tmp_path / "none.json", "--against", recorded)
    assert "--limit" in wrong(checkpoint, "--against", recorded, *data)
    two = ("--against", artefact, *data)
    assert "--size is for a checkpoint" in wrong(artefact, *two, "--size", "64x64")
    assert "unknown runtime" in wrong(checkpoint, *two, "--runtime", "abacus")
    both = ("--against", checkpoint, *data)
    assert "a checkpoint runs in PyTorch" in wrong(checkpoint, *both, "--runtime", "openvino")
