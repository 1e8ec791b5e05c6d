"""Names: every `__all__` is there and true, and no annotation waits that need not."""

import ast
import builtins
import importlib
import pkgutil
import tomllib
from importlib.util import find_spec
from pathlib import Path

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


FUTURE = "from __future__ import annotations"


def bound(body):
    """Name -> line from which on a module has it, of what runs when it is imported."""
    found = {}
    for node in body:
        names = []
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [(alias.asname or alias.name).split(".")[0] for alias in node.names]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
        elif (
            isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test)
        ) or isinstance(node, ast.Try):
            found |= bound(node.body)
        found |= {name: node.end_lineno for name in names if name not in found}
    return found


def evaluated(node, inside=False):
    """Yields (annotation, inside a function) of all that Python evaluates without the import."""
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        if is_function or (isinstance(child, ast.AnnAssign) and not inside):
            every = [*ast.walk(child.args), child] if is_function else [child]
            for part in every:
                for name in ("annotation", "returns"):
                    if getattr(part, name, None) is not None:
                        yield getattr(part, name), inside
        yield from evaluated(child, inside or is_function)


def needs_future(source):
    """Whether an annotation speaks of a name that its module does not have yet, or never."""
    tree = ast.parse(source)
    known = bound(tree.body)
    local = {n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef)} - set(known)
    for annotation, inside in evaluated(tree):
        for node in ast.walk(annotation):
            if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
                line = known.get(node.id)
                late = line is None or (line >= node.lineno and not inside)
                if late and node.id not in local:
                    return True
    return False


def test_the_future_is_imported_only_where_an_annotation_needs_it():
    folder = Path(__file__).parents[2]
    rooms = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    needless = [
        file.relative_to(folder).as_posix()
        for room in (*rooms["package-dir"].values(), "tools")
        for file in sorted((folder / room).rglob("*.py"))
        if FUTURE in (text := file.read_text("utf-8")) and not needs_future(text)
    ]
    assert needless == []


@pytest.mark.parametrize(
    ("source", "needs"),
    [
        ("class A:\n    def f(self) -> A: ...", True),
        ("if TYPE_CHECKING:\n    import torch\ndef f(x: torch.Tensor): ...", True),
        ("def f(x: B): ...\nclass B: ...", True),
        ("class B: ...\ndef f(x: B | None) -> list[B]: ...", False),
        ("def f():\n    x: C = 1", False),
        ("def f():\n    def g(x: B): ...\nclass B: ...", False),
    ],
)
def test_a_needless_import_of_the_future_is_found(source, needs):
    assert needs_future(f"{FUTURE}\n{source}") is needs
