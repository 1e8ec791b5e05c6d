"""The score of photos that EXIF turns."""

import json

import numpy as np
import pytest
from PIL import Image

from icnet_deploy.data import content_hash, open_dataset
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.score import refuse_calibration_images
from icnet_deploy.images import read_grey, read_image, write_labels

ON_SCENES = ("--dataset", "scenes", "--data")
EXIF = 274


@pytest.fixture(params=["apply", "ignore"])
def turned(request, scenes, tmp_path):
    """The scenes, stored on their side with EXIF's orientation 6; masks drawn one way or other."""
    exif = Image.Exif()
    exif[EXIF] = 6
    for path in scenes.rglob("*.png"):
        copy = tmp_path / "scenes" / path.relative_to(scenes)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if "gtFine" not in str(path):
            side = np.ascontiguousarray(np.rot90(read_image(path)))
            Image.fromarray(side).save(copy, exif=exif)
        elif path.stem.endswith("_labelIds"):
            labels = read_grey(path)
            drawn = labels if request.param == "apply" else np.ascontiguousarray(np.rot90(labels))
            write_labels(copy, drawn)
    return request.param, tmp_path / "scenes"


def test_a_score_of_turned_photos_is_that_of_upright_ones(
    run, checkpoint, scenes, turned, tmp_path
):
    """It was 4.2 in place of 39.9 where the two were read in different ways."""
    way, folder = turned
    out = tmp_path / "score.json"
    done = run("evaluate", checkpoint, *ON_SCENES, folder)
    assert done.code == 2
    assert "EXIF orientation 6" in done.err
    assert "--exif apply" in done.err
    done = run("evaluate", checkpoint, *ON_SCENES, folder, "--exif", way, "--json", out)
    assert (done.code, done.err) == (0, "")
    value = json.loads(out.read_text())
    word = {"apply": "turned as it says", "ignore": "stored pixels"}[way]
    assert word in value["protocol"]["exif"]
    assert {"apply": "on the turned images", "ignore": "stored pixels"}[way] in done.out
    if way == "apply":
        plain = tmp_path / "plain.json"
        assert run("evaluate", checkpoint, *ON_SCENES, scenes, "--json", plain).code == 0
        upright = json.loads(plain.read_text())
        assert upright["score"] == value["score"]
        assert upright["protocol"]["exif"] == "not given"
    other = {"apply": "ignore", "ignore": "apply"}[way]
    done = run("evaluate", checkpoint, *ON_SCENES, folder, "--exif", other)
    assert done.code == 2
    assert f"give --exif {way}, which fits its mask" in done.err


def test_scoring_knows_a_calibration_image_whichever_way_it_is_read(turned):
    way, folder = turned
    dataset = open_dataset("scenes", folder, exif=way)
    upright = read_image(dataset.files[0][0])
    stored = np.ascontiguousarray(np.rot90(upright))
    for image in (upright, stored):
        with pytest.raises(InputError, match="was used to calibrate"):
            refuse_calibration_images(dataset, {"a.onnx": [content_hash(image)]})
