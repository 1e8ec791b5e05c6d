"""The comparison of tiles with the whole image: what is counted, and the table of it."""

from __future__ import annotations

import json

import pytest
from tiny_model import build_model

from tools import tiles
from tools.result_tables import with_tables

RULE = {"upsampling": "half-pixel"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    whole = build_model(folder / "whole.onnx", size=None, stride=1, describe=RULE)
    tiled = build_model(folder / "tiled.onnx", size=(64, 96), stride=1, describe=RULE)
    other = build_model(
        folder / "other.onnx", size=(64, 96), describe=RULE | {"weights_sha256": "a" * 64}
    )
    return folder, whole, tiled, other


def run(folder, *models):
    words = [*models, "--count", 1, "--size", "128x192", "--json", folder / "tiles.json"]
    return tiles.main([str(word) for word in words])


def test_a_pointwise_network_loses_nothing_in_tiles(models):
    folder, whole, tiled, _ = models
    assert run(folder, whole, tiled) == 0
    result = json.loads((folder / "tiles.json").read_text())
    resized, apart, shared = result["rows"]
    assert resized["tiles"] == 0
    assert resized["alike_percent"] < 100
    for row in (apart, shared):
        assert row["alike_percent"] == row["alike_elsewhere_percent"] == 100
        assert row["changes_at_edges_percent"] == row["whole_changes_at_edges_percent"] > 0
        assert row["miou_difference_points"]["value"] == 0
        assert row["miou_percent"] == result["whole_miou_percent"]
    assert (apart["tiles"], apart["overlap_percent"], apart["alike_in_overlaps_percent"]) == (
        *(4, 0),
        None,
    )
    assert (shared["tiles"], shared["overlap_percent"]) == (9, 50)
    assert shared["overlaps_asked_percent"] == [12.5, 25, 50]
    assert shared["alike_in_overlaps_percent"] == 100
    lines = with_tables("<!-- results: tiles -->\n<!-- end -->", [result]).splitlines()
    rows = [line for line in lines if "64x96" in line]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| none: resized to 64x96", "-", "1"],
        ["| 64x96", "0; 0", "4"],
        ["| 64x96", "12.5, 25, 50; 50", "9"],
    ]


def test_files_of_two_networks_are_refused(models, capfd):
    folder, whole, tiled, other = models
    assert run(folder, whole, tiled, other) == 2
    assert "the files have different weights" in capfd.readouterr().err
    assert run(folder, tiled, tiled) == 2
    assert "the scenes are" in capfd.readouterr().err
