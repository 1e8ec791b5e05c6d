"""`icnet quantize --rebuilds`: what changes when the calibration images are drawn anew."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from icnet_deploy.calibration.rebuilds.draws import Chosen, Draws, draw_each
from icnet_deploy.calibration.rebuilds.report import markdown, rebuilds_text
from icnet_deploy.calibration.rebuilds.result import Build, Rebuilt, Spread
from icnet_deploy.calibration.selection import Pool
from icnet_deploy.cli import main
from icnet_deploy.data import content_hash, open_dataset
from icnet_deploy.data.photos import photos
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.confidence.differences import differences
from icnet_deploy.files import sha256
from icnet_deploy.images import read_image, write_image
from icnet_deploy.labels import LabelSet
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.predictor import Predictor


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory):
    """24 photos: the 12 scenes of train, and the same in a mirror."""
    root = tmp_path_factory.mktemp("photos")
    for index, sample in enumerate(open_dataset("scenes", dataset, "train")):
        write_image(root / f"{index:02}.png", sample.image)
        write_image(root / f"{index:02}m.png", np.ascontiguousarray(sample.image[:, ::-1]))
    return root


@pytest.fixture(scope="module")
def pool(folder):
    return Pool(photos(folder))


@pytest.fixture(scope="module")
def done(float_file, dataset, tmp_path_factory):
    """The folder of three builds in both placements, with labels."""
    out = tmp_path_factory.mktemp("rebuilt")
    source = ["--dataset", "scenes", "--data", str(dataset), "--count", "8"]
    asked = ["--rebuilds", "3", "--rounds", "2", "--json", str(out / "r.json")]
    arguments = [*source, *asked, "--report", str(out / "r.html"), "-o", str(out)]
    assert main(["quantize", str(float_file), *arguments]) == 0
    return out


def test_what_is_written_is_what_is_written_without_rebuilds(done, float_file, dataset, tmp_path):
    source = ["--dataset", "scenes", "--data", str(dataset), "--count", "8"]
    assert main(["quantize", str(float_file), *source, "-o", str(tmp_path)]) == 0
    written = {path.name: sha256(path) for path in tmp_path.iterdir()}
    assert written == {
        path.name: sha256(path) for path in done.iterdir() if not path.name.startswith("r.")
    }
    assert {"small-int8.onnx", "small-int8-ort.onnx"} < set(written)


def test_builds_differ_and_are_measured_on_what_none_was_calibrated_on(done, dataset):
    result = json.loads((done / "r.json").read_text())
    draws = [set(draw["images"]) for draw in result["draws"]]
    assert result["draws"][0]["seed"] == 0
    assert len(set(map(frozenset, draws))) == 3  # two seeds here draw the same images
    first = read_onnx_metadata(done / "small-int8.onnx")
    assert set(first.calibration_images) == draws[0]
    val = open_dataset("scenes", dataset, "val")
    assert len(result["measured"]["names"]) == len(val) == 4
    assert not {content_hash(sample.image) for sample in val} & set.union(*draws)
    assert [row["placement"] for row in result["placements"]] == ["int8", "int8-ort"]
    for row in result["placements"]:
        assert len({build["sha256"] for build in row["builds"]}) == 3
    # what each took, where the best of two was asked for
    assert result["ranges"] == "auto"
    for row in result["placements"]:
        tools = read_onnx_metadata(done / f"small-{row['placement']}.onnx").tools
        assert row["builds"][0]["ranges"] == tools["ranges"]
        assert {build["ranges"] for build in row["builds"]} <= {"percentile", "mse"}


def test_an_interval_for_each_build_and_a_spread_over_all(done, float_file, dataset):
    result = json.loads((done / "r.json").read_text())
    for row in result["placements"]:
        values = [build["miou_difference_points"]["value"] for build in row["builds"]]
        spread = row["spread"]["miou_points"]
        assert (spread["lowest"], spread["highest"]) == (min(values), max(values))
        for build in row["builds"]:
            interval = build["miou_difference_points"]
            assert set(interval) == {"value", "low", "high", "groups", "effective_images"}
            assert 0.9 < build["agreement"]["value"] < 1
            assert build["latency"]["runs"] == 2
        assert len(row["alike_by_pair"]) == 3
        lowest = min(pair["share"] for pair in row["alike_by_pair"])
        assert row["spread"]["alike"]["lowest"] == pytest.approx(lowest, abs=1e-6)
        assert lowest < 1
    # the first build's agreement, counted again
    row = result["placements"][1]
    assert row["runtime"] == "onnxruntime"
    path = done / f"small-{row['placement']}.onnx"
    with (
        Predictor.open(float_file, row["runtime"], "cpu") as a,
        Predictor.open(path, row["runtime"], "cpu") as b,
    ):
        images = [sample.image for sample in open_dataset("scenes", dataset, "val")]
        same = [a.predict(image).labels == b.predict(image).labels for image in images]
    assert row["builds"][0]["agreement"]["value"] == pytest.approx(np.mean(same), abs=1e-6)


def test_the_result_is_said_in_words_and_in_a_page(done):
    result = json.loads((done / "r.json").read_text())
    text = rebuilds_text(result)
    assert "3 builds of small-fp32.onnx, each calibrated on 8 images that its seed draws" in text
    assert "all are measured on 4 held-out images of scenes val" in text
    assert text.startswith("4 images: too few to tell anything about other images")
    assert "mIoU: differs by up to" in text
    assert "differs most, by up to" in text
    page = (done / "r.html").read_text()
    assert page.count("<svg") == 4  # of each placement the builds and the classes
    for name in result["placements"][0]["spread"]["iou_points"]:
        assert re.search(rf"{re.escape(name)}( \*)?, seed \d: ", page)
    assert "int8-ort on onnxruntime" in page
    assert "| int8 on openvino | 3 |" in markdown([result, {"kind": "parity"}])


def test_photos_are_kept_back_from_all_draws_and_held_to_float32(
    float_file, folder, tmp_path, capsys
):
    where = ["--count", "8", "--placement", "int8-ort", "-o", str(tmp_path)]
    asked = ["--rebuilds", "2", "--rounds", "1", "--json", str(tmp_path / "r.json")]
    assert main(["quantize", str(float_file), "--images", str(folder), *where, *asked]) == 0
    assert "mIoU is measured against float32's own label map" in capsys.readouterr().out
    result = json.loads((tmp_path / "r.json").read_text())
    names = result["measured"]["names"]
    assert len(names) == 8
    measured = {content_hash(read_image(folder / name)) for name in names}
    for draw in result["draws"]:
        assert not measured & set(draw["images"])
    build = result["placements"][0]["builds"][0]
    assert build["miou_difference_points"]["value"] < 0  # no map is as good as itself


def test_the_first_draw_is_the_one_without_others(pool):
    draws = draw_each(pool, 8, 3, 3, 40)
    assert list(draws.files[0]) == pool.draw(8, 3)
    assert len(draws.kept_back) == 8  # of 24, 16 are drawn from
    assert not set(draws.kept_back) & {file for files in draws.files for file in files}
    assert 0 < draws.shared() < 1
    assert list(draw_each(pool, 8, 3, 2, 0).files[1]) == pool.draw(8, 4)


@pytest.mark.parametrize(
    ("count", "kept_back", "words"),
    [
        (
            24,
            40,
            "24 images are too few for 2 different draws of 24: expected at least 44, including 8",
        ),
        (24, 40, "or a --count of at most 10"),
        (17, 0, "expected at least 26; give more images, or a --count of at most 16"),
    ],
)
def test_too_few_images_for_other_draws_are_refused(pool, count, kept_back, words):
    with pytest.raises(InputError, match=words):
        draw_each(pool, count, 0, 2, kept_back)


def test_too_few_images_are_refused_before_any_work(float_file, folder, tmp_path, capsys):
    asked = ["--images", str(folder), "--rebuilds", "2", "-o", str(tmp_path)]
    assert main(["quantize", str(float_file), *asked]) == 2
    assert "images are too few for 2 different draws" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_kept_back_image_that_is_calibrated_on_by_another_name_is_not_measured(
    float_file, folder, tmp_path, capsys
):
    pool = Pool(photos(folder))
    draws = draw_each(pool, 8, 0, 2, 40)
    copies = tmp_path / "photos"
    shutil.copytree(folder, copies)
    shutil.copy(draws.files[0][0], copies / draws.kept_back[0].name)
    asked = ["--count", "8", "--rebuilds", "2", "-o", str(tmp_path / "out")]
    assert main(["quantize", str(float_file), "--images", str(copies), *asked]) == 2
    assert "7 of the 8 images to measure the builds on can be read" in capsys.readouterr().err


def test_what_is_measured_on_is_held_out_or_else_kept_back(dataset, folder):
    train, kept_back = open_dataset("scenes", dataset, "train"), Pool(photos(folder)).files[:9]
    classes = LabelSet("two", ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    chosen = Chosen(
        Pool(train), Draws((0,), ((),), [image for image, _ in train.files[:9]]), [], []
    )
    measured = chosen.measured_on([], classes, 40).measured
    assert measured.dataset.labelled
    assert measured.dataset.label_set == train.label_set
    assert str(measured) == "9 images that no build draws of scenes train"
    measured = chosen.measured_on([photos(folder)], classes, 5).measured
    assert str(measured) == f"5 held-out images of photos {folder.name}"
    assert measured.dataset.label_set == classes  # of the model whose own map is the truth
    chosen = Chosen(Pool(photos(folder)), Draws((0,), ((),), kept_back[:7]), [], [])
    with pytest.raises(
        InputError, match=r"^7 of the 7 images to measure the builds on can be read"
    ):
        chosen.measured_on([], classes, 40)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--rebuild-images", "9"], "--rebuild-images needs --rebuilds: give --rebuilds K"),
        (["--rounds", "9"], "--rounds needs --rebuilds or a limit"),
        (["--json", "x.json"], "--json needs --rebuilds or a limit"),
        (["--report", "x.html"], "--report needs --rebuilds: give"),
        (["--group-by", "x"], "--group-by needs --rebuilds or a limit"),
        (
            ["--rebuilds", "1"],
            "--rebuilds 1: one build cannot differ from another; give at least 2",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(asked, words, float_file, dataset, capsys):
    source = ["--dataset", "scenes", "--data", str(dataset)]
    assert main(["quantize", str(float_file), *source, *asked]) == 2
    assert words in capsys.readouterr().err


def test_a_later_build_that_fails_its_check_is_named(
    float_file, dataset, tmp_path, capsys, monkeypatch
):
    from icnet_deploy.calibration.rebuilds import run

    def fail(*_):
        raise CheckFailed("only 10 %")

    monkeypatch.setattr(run, "write_quantized", fail)
    source = ["--dataset", "scenes", "--data", str(dataset), "--count", "8"]
    asked = ["--rebuilds", "2", "--seed", "4", "-o", str(tmp_path)]
    assert main(["quantize", str(float_file), *source, *asked]) == 1
    message = r"seed 4 is written; the build of seed \d+, to compare it with, fails: only 10 %"
    assert re.search(message, capsys.readouterr().err)
    assert (tmp_path / "small-int8.onnx").is_file()


def _build(seed, lost):
    """A build that loses so many pixels of 10,000 of each class on each of 12 images."""
    truth = np.array([10_000, 10_000])

    def counts(wrong):
        right = truth - wrong
        return [
            ImageCounts(str(i), str(i), right, truth, right + np.asarray(wrong)[::-1], 0, 0.0)
            for i in range(12)
        ]

    pairs = differences(counts(np.array(lost)), counts(np.array([0, 0])), ["road", "bus"])
    return Build(seed, "0" * 64, "mse", pairs, {"median_ms": 10.0 + seed})


def test_spreads_are_read_off_the_builds():
    alike = np.array([[100, 90, 80], [90, 100, 95], [80, 95, 100]])
    builds = [_build(0, (10, 0)), _build(1, (10, 200)), _build(2, (10, 50))]
    rebuilt = Rebuilt("int8", "openvino", builds, alike, 100, {"median_ms": 20.0})
    assert rebuilt.pairs_alike() == Spread(0.8, 0.9, 0.95)
    assert rebuilt.milliseconds() == Spread(10.0, 11.0, 12.0)
    assert rebuilt.milliseconds().range == 2.0
    assert next(iter(rebuilt.classes())) == "bus"  # it moves most
    values = [build.differences.classes["bus"].value for build in builds]
    assert rebuilt.classes()["bus"] == Spread(values[1], values[2], values[0])
    assert rebuilt.enough("bus")
