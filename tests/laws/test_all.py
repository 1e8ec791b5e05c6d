"""Every `__all__` is there and true."""

import importlib
import pkgutil
from importlib.util import find_spec

import pytest

import icnet_deploy

ROOMS = [
    name
    for name in ("data", "networks", "training", "runtime", "evaluation", "calibration")
    if find_spec(f"icnet_deploy.{name}")
]


def modules():
    """The names of every module of the package, without importing any but the packages."""
    walk = pkgutil.walk_packages(icnet_deploy.__path__, "icnet_deploy.")
    return ["icnet_deploy", *(m.name for m in walk if not m.name.endswith("__main__"))]


def load(name):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("icnet_deploy"):
            raise
        pytest.skip(f"{name} needs {error.name}, which is not installed")


@pytest.mark.parametrize("name", modules())
def test_every_name_of_all_is_there(name):
    module = load(name)
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    assert [n for n in names if not hasattr(module, n)] == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_offers(room):
    assert getattr(load(f"icnet_deploy.{room}"), "__all__", []) != []


def test_the_package_lends_the_predictor():
    names = icnet_deploy.__all__
    assert {"Predictor", "Prediction", "__version__"} <= set(names)
    from icnet_deploy.runtime.predictor import Predictor

    assert icnet_deploy.Predictor is Predictor
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = icnet_deploy.no_such_name
