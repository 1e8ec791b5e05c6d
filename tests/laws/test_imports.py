"""The import law: which room may import which, and which libraries."""

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Law:
    """What a room may import.

    Attributes:
        folder: its folder below the clone's root.
        rooms: the rooms that it may import anywhere; itself and the root always.
        lazy: the rooms that it may import inside functions, or for type checkers only.
        libraries: the packages of others that it may import; None for any.
    """

    folder: str
    rooms: frozenset[str] = frozenset()
    lazy: frozenset[str] = frozenset()
    libraries: frozenset[str] | None = None


def names(text):
    return frozenset(text.split())


LAWS = {
    "root": Law("src/icnet_deploy", libraries=names("numpy cv2 PIL tqdm")),
    "data": Law("data", libraries=names("numpy cv2 tqdm")),
    "networks": Law("networks"),
    "training": Law("training", names("data networks")),
    "export": Law("export", names("data networks")),
    "runtime": Law(
        "runtime",
        libraries=names(
            "numpy cv2 tqdm av onnxruntime openvino tensorrt tensorrt_rtx cuda pycuda model_signing"
        ),
    ),
    "evaluation": Law("evaluation", names("data runtime"), lazy=names("networks export")),
    # A network knows its blocks: docs/decisions/rooms.md.
    "calibration": Law("calibration", names("data runtime evaluation"), lazy=names("networks")),
    "benchmarks": Law(
        "benchmarks", names("data runtime evaluation"), lazy=names("networks export")
    ),
    "serving": Law("serving", names("runtime"), lazy=names("data evaluation")),
}
TRAINS = "benchmarks/paper/"
"""The folder of that room that may import training, inside functions."""

ROOMS = [room for room, law in LAWS.items() if (ROOT / law.folder).is_dir()]


def imports(tree):
    """Yields (line, module, whether it runs when the module is imported)."""

    def visit(node, eager):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, eager
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:  # `from icnet_deploy import runtime` names a room, too
                yield node.lineno, f"{base}.{alias.name}" if base else alias.name, eager
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func) and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value, False
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from visit(child, False)
            for child in node.orelse:
                yield from visit(child, eager)
            return
        for child in ast.iter_child_nodes(node):
            yield from visit(child, eager and not inside)

    yield from visit(tree, True)


def offences(room, file, source):
    """Yields a line for every import of a file that the law of its room forbids."""
    law = LAWS[room]
    for line, module, eager in imports(ast.parse(source)):
        where = f"{file}:{line}: {module}"
        top, _, rest = module.partition(".")
        if module.startswith("."):
            yield f"{where}: relative"
        elif top in LAWS and top != "root":
            yield f"{where}: from the clone's root this is a second copy of icnet_deploy.{top}"
        elif top == "icnet_deploy":
            other = rest.split(".")[0]
            if other not in LAWS or other == room or other in law.rooms:
                continue
            if room == "root":  # it lends Predictor, for type checkers by name, else by text
                if file.name == "__init__.py" and other == "runtime" and not eager:
                    continue
                yield f"{where}: the root imports no room"
            elif not eager and other == "training" and TRAINS in file.as_posix():
                continue
            elif eager or other not in law.lazy:
                yield f"{where}: {room} may not import {other}" + " here" * (other in law.lazy)
        elif law.libraries is not None and top not in law.libraries | sys.stdlib_module_names:
            yield f"{where}: {room} may import {', '.join(sorted(law.libraries))}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_its_law_allows(room):
    folder = ROOT / LAWS[room].folder
    files = sorted(folder.rglob("*.py"))
    assert files
    found = [o for f in files for o in offences(room, f, f.read_text(encoding="utf-8"))]
    assert found == []


def test_every_folder_of_code_has_a_law():
    known = {law.folder for law in LAWS.values()} | {"tests", "tools"}
    folders = {p.parent.name for p in ROOT.glob("*/*.py")} | {"src/icnet_deploy"}
    assert {f for f in folders if not f.startswith(".")} <= known | {"docs"}


def test_the_law_has_no_circle():
    order = []
    while len(order) < len(LAWS):
        free = [r for r, law in LAWS.items() if r not in order and law.rooms <= set(order)]
        assert free, f"a circle among {sorted(set(LAWS) - set(order))}"
        order += free


BAD = [
    ("benchmarks", "def f():\n    from icnet_deploy.training.config import TrainConfig"),
    ("calibration", "from icnet_deploy.networks.blocks import block_patterns"),
    ("calibration", "def f():\n    from icnet_deploy.export import to_onnx"),
    ("evaluation", "from icnet_deploy.networks import ICNet"),
    ("evaluation", "def f():\n    from icnet_deploy.calibration import x"),
    ("networks", "from icnet_deploy.data import Dataset"),
    ("export", "def f():\n    from icnet_deploy.training import x"),
    ("runtime", "import torch"),
    ("runtime", "def f():\n    import onnx"),
    ("runtime", "def f():\n    from onnx.helper import make_node"),
    ("runtime", "from importlib import import_module\nimport_module('torch')"),
    ("runtime", "import numpy as np, safetensors"),
    ("runtime", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    ("runtime", "from icnet_deploy.data import open_dataset"),
    ("runtime", "from icnet_deploy import data"),
    ("runtime", "import icnet_deploy.export.to_onnx"),
    ("data", "import torch"),
    ("data", "try:\n    import PIL\nexcept ImportError:\n    pass"),
    ("data", "def f():\n    from icnet_deploy.runtime import Predictor"),
    ("data", "from . import scores"),
    ("data", "from .scores import ConfusionMatrix"),
    ("data", "from ..runtime import Predictor"),
    ("data", "import runtime"),
    ("data", "from data.scores import ConfusionMatrix"),
    ("root", "def f():\n    from icnet_deploy.runtime import Predictor"),
    ("root", "import onnxruntime"),
    ("training", "from icnet_deploy.export import to_onnx"),
    ("training", "class A:\n    from icnet_deploy.runtime import Predictor"),
    ("export", "from icnet_deploy.runtime import Predictor"),
    ("calibration", "from icnet_deploy.training import icnet"),
    ("benchmarks", "from icnet_deploy.networks.icnet import ICNet"),
    ("benchmarks", "from icnet_deploy import export"),
    ("benchmarks", "from icnet_deploy.calibration import x"),
]
GOOD = [
    ("calibration", "def f():\n    from icnet_deploy.networks.blocks import block_patterns"),
    ("evaluation", "def f():\n    from icnet_deploy.export.passes import rounded"),
    ("runtime", "import os, numpy.typing\nfrom icnet_deploy.errors import InputError"),
    ("runtime", "def f():\n    import onnxruntime"),
    ("runtime", "from icnet_deploy.runtime.backends.registry import base"),
    ("runtime", "name = 'torch'\nprint(name)"),
    ("data", "from icnet_deploy import labels"),
    ("training", "import torch\nfrom icnet_deploy.data import Dataset"),
    ("export", "def f():\n    from icnet_deploy.data.scenes import draw_scene"),
    ("benchmarks", "def f():\n    from icnet_deploy.networks.icnet import ICNet"),
    ("benchmarks", "if TYPE_CHECKING:\n    from icnet_deploy.networks.icnet import ICNet"),
]


@pytest.mark.parametrize(("room", "source"), BAD)
def test_the_check_finds_a_bad_import(room, source):
    assert len(list(offences(room, Path("bad.py"), source))) == 1


@pytest.mark.parametrize(("room", "source"), GOOD)
def test_the_check_passes_a_good_import(room, source):
    assert list(offences(room, Path("good.py"), source)) == []


def test_only_the_paper_may_train():
    source = "def f():\n    from icnet_deploy.training.config import TrainConfig"
    assert list(offences("benchmarks", Path("benchmarks/paper/worker.py"), source)) == []
    eager = source.split("\n    ")[1]
    assert list(offences("benchmarks", Path("benchmarks/paper/worker.py"), eager)) != []


def test_only_the_roots_init_lends_the_predictor():
    source = "if TYPE_CHECKING:\n    from icnet_deploy.runtime.predictor import Predictor"
    assert list(offences("root", Path("__init__.py"), source)) == []
    assert list(offences("root", Path("cli.py"), source)) != []
    assert list(offences("root", Path("__init__.py"), source.split("\n    ")[1])) != []
