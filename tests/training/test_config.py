"""Settings of a training run: every number is finite, of its type and in its range."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from icnet_deploy.errors import InputError
from icnet_deploy.training import config as module
from icnet_deploy.training.appearance import Appearance
from icnet_deploy.training.config import CONFIGS, TrainConfig, load_config

torch = pytest.importorskip("torch", reason="a configuration is held to its network")

NAN, INF = float("nan"), float("inf")
OTHERS = {"preprocessing", "optimizer", "schedule", "precision", "weigh_confidence", "appearance"}
NUMBERS = {f.name for f in fields(TrainConfig)} - OTHERS - {"network"}
WHOLE = {"steps", "batch", "crop", "size", "seed"}
TUPLES = {f.name: f.default or (1.0,) for f in fields(TrainConfig) if type(f.default) is tuple}
TUPLES["size"] = (96, 128)


def test_every_setting_is_checked():
    assert set(module._KINDS) == NUMBERS | OTHERS


@pytest.mark.parametrize("value", [NAN, INF, -INF, 10**400, "1", None, True, 1j, [1.0]], ids=repr)
@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_what_is_no_finite_number_is_refused(name, value):
    for wrong in [value, (value, *TUPLES[name][1:])] if name in TUPLES else [value]:
        with pytest.raises(InputError, match=f"^{name} is .*; got "):
            replace(TrainConfig(), **{name: wrong})


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_what_must_be_whole_is(name):
    wrong = (96.5, 128) if name in TUPLES else 96.5
    with pytest.raises(InputError, match=f"^{name} is .* whole"):
        replace(TrainConfig(), **{name: wrong})


OUT_OF_RANGE = {
    "steps": [0, -1],
    "batch": [1],
    "crop": [(63, 97), (97,), (97, 97, 97), ()],
    "resize": [(0, 1.0), (2.0, 1.0), (-1.0, 1.0), (1.0,)],
    "colour": [-1, 11.0],
    "momentum": [-0.1, 1],
    "power": [-1],
    "rate": [0, -1e-3, 1e39],
    "weight_decay": [-1e-4, 1e39],
    "guidance": [(), (-1.0, 1.0), (0.0, 0.0)],
    "class_weights": [-0.5, 11],
    "hard_pixels": [0, 1.01],
    "average": [-0.1, 1],
    "shares": [(-1.0, 2.0), (0.0, 0.0)],
    "scales": [(0.0,), (1.0, -1.0)],
    "pixel_aspects": [(0.0,), (1.0, 11.0)],
    "rare": [-0.1, 1.5],
    "rare_crops": [-0.1, 1.5],
    "class_mix": [-0.1, 1.5],
    "size": [(63, 97), (97,)],
    "min_confidence": [-0.1, 140],
    "seed": [-1, 2**32],
}


@pytest.mark.parametrize(("name", "values"), OUT_OF_RANGE.items())
def test_what_is_out_of_range_is_refused(name, values):
    for value in values:
        with pytest.raises(InputError, match=f"^{name} is .*; got "):
            replace(TrainConfig(), **{name: value})
    assert set(OUT_OF_RANGE) == NUMBERS


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_what_is_none_of_the_known_words_is_refused(name):
    for value in ("other", 5, NAN, ()):
        with pytest.raises(InputError, match=f"^{name} is (one of|true or false|a table)"):
            replace(TrainConfig(), **{name: value})


def test_the_ends_of_the_ranges_are_taken():
    TrainConfig(momentum=0, power=0, weight_decay=0, colour=0, class_weights=0, average=0, seed=0)
    TrainConfig(guidance=(1,), shares=(0.0, 1), scales=(2,), crop=(64, 64), hard_pixels=1, steps=1)


@pytest.mark.parametrize(
    "line", ["guidance = [nan]", "rate = inf", "scales = [-nan]", "width = -1"]
)
def test_a_file_with_such_a_setting_is_named(tmp_path, line):
    path = tmp_path / "own.toml"
    path.write_text(line)
    with pytest.raises(InputError, match=rf"own.toml: {line.split()[0]} is "):
        load_config(str(path))


@pytest.fixture
def written(tmp_path):
    """Reads a configuration of these lines."""

    def read(*lines):
        path = tmp_path / "own.toml"
        path.write_text("\n".join(lines))
        return load_config(str(path))

    return read


@pytest.mark.parametrize(
    ("lines", "network"),
    [
        ((), {"architecture": "icnet", "width": 0.5, "stages": "sub124"}),
        (("width = 1",), {"architecture": "icnet", "width": 1, "stages": "sub124"}),
        (('stages = "sub24"',), {"architecture": "icnet", "width": 0.5, "stages": "sub24"}),
        (
            ('architecture = "pspnet"', "downsampling = 16"),
            {"architecture": "pspnet", "width": 0.5, "downsampling": 16},
        ),
        (  # what another network alone would have is no mistake
            ('architecture = "pspnet"', 'stages = "sub24"'),
            {"architecture": "pspnet", "width": 0.5, "downsampling": 8},
        ),
    ],
    ids=str,
)
def test_a_network_is_whole_and_stands_beside_the_other_settings(written, lines, network):
    config = written("rate = 0.5", *lines)
    assert config.network == network
    settings = config.settings()
    assert settings.items() >= network.items()
    assert settings["rate"] == 0.5
    assert settings.keys() == network.keys() | NUMBERS | OTHERS


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['architecture = "bisenet"'], "architecture is one of icnet, pspnet.*; got 'bisenet'"),
        (["architecture = []"], "architecture"),
        (['stages = "sub5"'], "stages is one of sub4, sub24, sub124; got 'sub5'"),
        (["stages = 5"], "stages is one of sub4, sub24, sub124; got 5"),
        (['architecture = "pspnet"', "downsampling = 4"], "downsampling is one of .*; got 4"),
        (["width = 0"], "width is a number above 0 and up to 16; got 0"),
        (["width = 17"], "width is a number above 0 and up to 16; got 17"),
        (["width = nan"], "width is a number above 0 and up to 16; got nan"),
        (["width = true"], "width is a number above 0 and up to 16; got True"),
        (['width = "1"'], "width is a number above 0 and up to 16; got '1'"),
        (["num_classes = 5"], "it holds num_classes; known: appearance, architecture, "),
        (["network = 5"], "it holds network; known: appearance, architecture, "),
    ],
    ids=str,
)
def test_a_network_refuses_what_it_cannot_be(written, lines, said):
    with pytest.raises(InputError, match=rf"own.toml.* {said}"):
        written(*lines)


def test_a_table_of_changes_of_appearance(written):
    assert written("steps = 5").appearance is None
    config = written("steps = 5", "[appearance]", "channels = 0.4", "haze = [0.5, 0.25]")
    assert config.appearance == Appearance(channels=0.4, haze=(0.5, 0.25))
    assert config.settings()["appearance"]["haze"] == (0.5, 0.25)
    for line, said in (("fog = 1", "appearance holds fog"), ("haze = 2", "appearance.haze is")):
        with pytest.raises(InputError, match=f"own.toml: {said}"):
            written("[appearance]", line)
    with pytest.raises(InputError, match=r"appearance is a table of changes, .*; got 5"):
        written("appearance = 5")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_configurations_are_taken(path):
    assert load_config(path.stem) == load_config(str(path))
