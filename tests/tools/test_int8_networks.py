"""The record of what 8 bits do to networks: a small one goes through it, and one that nobody made.

The seven are `make long`'s.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

for package in ("onnx", "onnxruntime", "openvino"):
    pytest.importorskip(package, reason=f"networks are quantized and run with {package}")

import placement_contract as small  # noqa: E402
from quick_scenes import quick_scene  # noqa: E402

from icnet_deploy.calibration.placements.registry import PLACEMENTS  # noqa: E402
from icnet_deploy.cli import main as icnet  # noqa: E402
from icnet_deploy.data.scenes import dataset  # noqa: E402
from icnet_deploy.errors import CheckFailed  # noqa: E402
from icnet_deploy.metadata import write_artefact  # noqa: E402
from icnet_deploy.networks.preprocessing import STREET  # noqa: E402
from tools import int8_networks  # noqa: E402
from tools.result_tables import with_tables  # noqa: E402


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The record of a network of seven convolutions and of one that nobody made; the exit code."""
    out = tmp_path_factory.mktemp("out")
    (out / "small").mkdir()
    whole = {"network": {"architecture": "small"}, "preprocessing": STREET.to_dict()}
    told = replace(small.metadata(), **whole, tools={"tests": "1"})
    write_artefact(out / "small" / "small-fp32.onnx", small.network().SerializeToString(), told)
    size = "x".join(map(str, small.SIZE))
    networks = {
        name: int8_networks._Network(name, "scenes", "scenes", size) for name in ("lost", "small")
    }

    def in_process(*arguments, allowed=(0,)):
        assert icnet([*map(str, arguments)]) in allowed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_networks, "_NETWORKS", networks)
        patch.setattr(int8_networks, "_icnet", in_process)
        patch.setattr(dataset, "draw_scene", quick_scene)
        patch.setattr(int8_networks, "engine_outcome", lambda file, folder: "built")
        few = ["--train", "8", "--val", "2", "--rounds", "2", "--json", str(out / "result.json")]
        code = int8_networks.main([str(out), "--networks", *networks, *few])
    return code, json.loads((out / "result.json").read_text())


def test_each_placement_is_held_to_float32_timed_and_counted(recorded):
    _, result = recorded
    [network] = [one for one in result["networks"] if one["name"] == "small"]
    assert {row["placement"] for row in network["rows"]} == set(PLACEMENTS)
    for row in network["rows"]:
        assert row["verdict"] in ("within", "undecided", "past")
        assert row["runtime"] in ("onnxruntime", "openvino")
        assert row["protocol"]["images"] == 2
        assert row["miou_difference_points"]["low"] <= row["worst_class"]["points"]["high"]
        assert 50 < row["share_percent"] < 100
        assert set(row["in_float"]) == set(small.IN_FLOAT)
        assert row["time"]["ratio"]["value"] > 0
    assert sum("engine" in row for row in network["rows"]) == 1


def test_what_fails_is_recorded_and_the_others_go_on(recorded):
    code, result = recorded
    assert code == 1
    lost, found = result["networks"]
    assert "run examples/own_network/run.py" in lost["failures"][0]
    assert found["iou_percent"] == found["miou_percent"] < found["least_iou_percent"] == 30
    assert any("at least 30 % is asked for" in failure for failure in found["failures"])


def test_of_a_network_of_one_class_that_class_is_asked_for():
    score = {"miou_percent": 70.0, "iou_percent": {"other": 90.0, "road": 50.0}}
    verified = {"parity": {"rows": [{"precision": "fp32", "score": score}]}}
    known = int8_networks._known(int8_networks._NETWORKS["road"], verified)
    assert (known["iou_percent"], known["least_iou_percent"]) == (50.0, 60.0)
    assert (
        int8_networks._known(int8_networks._NETWORKS["unet"], {"parity": None})["iou_percent"] == 0
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"verdict": "undecided"}, ["int8 is undecided"]),
        ({"share_percent": 84.0}, ["int8 has 84.0 % of its products in 8 bits"]),
        ({"share_percent": 84.0, "tools": {"float": "a block"}}, []),
        ({"time": {"ratio": {"value": 1.2}}}, ["int8 takes 1.20 of float32's time"]),
        ({"engine": "no parser"}, ["int8: no parser"]),
    ],
)
def test_what_a_network_does_not_pass_is_said(change, said):
    row = {"placement": "int8", "verdict": "within", "share_percent": 97.0, "tools": {}} | change
    found = {"failures": [], "rows": [row]}
    assert int8_networks._lacks(int8_networks._NETWORKS["unet"], found) == said
    of_attention = int8_networks._lacks(int8_networks._NETWORKS["segformer"], found)
    assert of_attention == [each for each in said if "undecided" in each or "parser" in each]


def test_its_table_has_a_line_a_file(recorded):
    page = with_tables("<!-- results: int8_networks -->\n<!-- end -->", [recorded[1]])
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if "small" in line]
    assert [line[2] for line in lines] == [*PLACEMENTS]
    assert all(line[10] == "conv4, classifier" for line in lines)


def test_a_command_that_fails_is_named_with_its_reason():
    with pytest.raises(CheckFailed, match=r"icnet doctor ended with 2: .*--nothing"):
        int8_networks._icnet("doctor", "--nothing")
