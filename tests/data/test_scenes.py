"""Drawn street scenes: repeatable, varied, labelled, and written in Cityscapes' layout."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from icnet_deploy.cli import main
from icnet_deploy.data import open_dataset
from icnet_deploy.data.scenes import draw_scene, write_scenes
from icnet_deploy.errors import InputError, OutputError
from icnet_deploy.images import read_grey, read_image, resize_labels
from icnet_deploy.labels import CITYSCAPES

SMALL = (64, 96)
KNOWN = {*range(19), 255}


@pytest.fixture(scope="module")
def scenes():
    """24 small scenes, drawn once."""
    return [draw_scene((0, index), (96, 160)) for index in range(24)]


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_the_same_seed_draws_the_same_scene():
    one, two = draw_scene((7, 1), SMALL), draw_scene((7, 1), SMALL)
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.labels, two.labels)


def test_scenes_of_different_seeds_differ(scenes):
    assert len({scene.image.tobytes() for scene in scenes}) == 24
    assert len({scene.labels.tobytes() for scene in scenes}) == 24
    other = draw_scene((1, 0), (96, 160))
    assert (other.labels != scenes[0].labels).mean() > 0.05


@pytest.mark.parametrize("size", [(64, 64), (360, 480), (257, 513), (65, 301), (301, 65)])
def test_every_size_is_drawn_exactly(size):
    scene = draw_scene(3, size)
    assert (scene.image.dtype, scene.labels.dtype) == (np.uint8, np.uint8)
    assert scene.image.shape == (*size, 3)
    assert scene.labels.shape == size
    assert set(np.unique(scene.labels).tolist()) <= KNOWN


def test_labels_are_train_ids_and_all_19_classes_occur(scenes):
    seen = set().union(*(np.unique(scene.labels).tolist() for scene in scenes))
    assert seen <= KNOWN
    assert seen >= set(range(19))


def test_every_scene_has_a_road_below_its_sky(scenes):
    for scene in scenes:
        road, sky = (np.nonzero(scene.labels == index)[0] for index in (0, 10))
        assert road.size > 0.02 * scene.labels.size
        assert sky.size == 0 or sky.mean() < road.mean()
        assert (scene.labels == 255).mean() < 0.25


def test_no_class_is_a_flat_colour(scenes):
    spreads = {}
    for scene in scenes:
        for index in range(19):
            pixels = scene.image[scene.labels == index]
            if len(pixels) >= 100:
                spreads.setdefault(index, []).append(pixels.std(axis=0).mean())
    assert len(spreads) == 19
    for index, values in spreads.items():
        assert min(values) > 2, CITYSCAPES.names[index]
        assert np.median(values) > 7, CITYSCAPES.names[index]


def test_colour_does_not_give_a_class_away(scenes):
    """Each class's mean colour moves from scene to scene, as light and paint do."""
    for index in (0, 1, 2, 8, 10, 13):
        pixels = [scene.image[scene.labels == index] for scene in scenes]
        means = [p.mean(axis=0) for p in pixels if len(p)]
        assert np.std(means, axis=0).mean() > 8, CITYSCAPES.names[index]


@pytest.mark.parametrize("seed", [1, 2])
def test_one_seed_is_one_scene_at_every_scale(seed):
    small, large = draw_scene(seed, (96, 192)), draw_scene(seed, (240, 480))
    agreement = (resize_labels(large.labels, (96, 192)) == small.labels).mean()
    assert agreement > 0.8


def test_scenes_are_written_in_the_layout_of_cityscapes(tmp_path):
    written = write_scenes(tmp_path, 2, SMALL, seed=5, split="train", progress=False)
    base = "train/scenes/scenes_00000"
    assert files(tmp_path) == [
        f"gtFine/{base}0_000019_gtFine_labelIds.png",
        f"gtFine/{base}1_000019_gtFine_labelIds.png",
        f"leftImg8bit/{base}0_000019_leftImg8bit.png",
        f"leftImg8bit/{base}1_000019_leftImg8bit.png",
    ]
    assert [str(p.relative_to(tmp_path)) for p in written] == files(tmp_path)[2:]
    for index, image_file in enumerate(written):
        scene = draw_scene((5, index), SMALL)
        assert np.array_equal(read_image(image_file), scene.image)
        ids = read_grey(tmp_path / files(tmp_path)[index])
        for train_id, label_id in enumerate(CITYSCAPES.label_ids):
            assert np.array_equal(ids == label_id, scene.labels == train_id)
        assert set(ids[scene.labels == 255].tolist()) <= {0}


def test_written_scenes_are_read_back_with_equal_labels(tmp_path):
    write_scenes(tmp_path, 2, SMALL, seed=9, progress=False)
    for name in ("scenes", "cityscapes"):
        dataset = open_dataset(name, tmp_path)
        assert len(dataset) == 2
        for index, sample in enumerate(dataset):
            scene = draw_scene((9, index), SMALL)
            assert np.array_equal(sample.labels, scene.labels)
            assert np.array_equal(sample.image, scene.image)


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (-1, 0), (1, -1)])
def test_a_count_or_seed_out_of_range_is_refused_before_anything_is_written(tmp_path, count, seed):
    with pytest.raises(InputError, match=f"got {count} and {seed}"):
        write_scenes(tmp_path / "out", count, SMALL, seed)
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="cannot write into the folder"):
        write_scenes(tmp_path / "out", 1, SMALL)


def test_the_command_draws_what_it_is_asked_for(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--count", "1", "--size", "72x100", "--seed", "4", "--split", "test"]
    assert main(["scenes", str(out), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "1 scenes of 72x100" in printed
    assert f"--dataset scenes --data {out} --split test" in printed
    sample = open_dataset("scenes", out, "test")[0]
    assert np.array_equal(sample.image, draw_scene((4, 0), (72, 100)).image)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["out", "--count", "0"], "'0' is not a whole number of 1 or more"),
        (["out", "--count", "few"], "whole number"),
        (["out", "--size", "1024"], "HEIGHTxWIDTH"),
        (["out", "--size", "32x64"], "64 to 16384"),
        (["out", "--seed", "x"], "invalid int value"),
        (["out", "--seed", "-1"], "seed at least 0"),
        (["out", "--split", "none"], "invalid choice"),
        (["out", "--colour"], "unknown option --colour"),
        (["file/out"], "cannot write into the folder"),
        ([], "required: OUT"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(
    arguments, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["scenes", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err
    assert files(tmp_path) == ["file"]


@pytest.mark.parametrize("renames", [3, 4])
def test_a_kill_leaves_a_readable_set_of_whole_files(renames, tmp_path):
    """Killed just before a file takes its name: labels of the second scene, then its image."""
    script = (
        "import os, sys\n"
        "from icnet_deploy.data.scenes import write_scenes\n"
        "replace, done = os.replace, []\n"
        "def counted(*paths):\n"
        "    done.append(paths)\n"
        f"    if len(done) == {renames}:\n"
        f"        os.kill(os.getpid(), {signal.SIGKILL:d})\n"
        "    replace(*paths)\n"
        "os.replace = counted\n"
        "write_scenes(sys.argv[1], 9, (64, 96), progress=False)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    dataset = open_dataset("scenes", tmp_path)
    assert [sample.name for sample in dataset] == ["scenes_000000_000019"]
    visible = [p for p in tmp_path.rglob("[!.]*") if p.is_file()]
    assert len(visible) == renames - 1
    for path in visible:
        assert read_image(path).shape == (*SMALL, 3)
