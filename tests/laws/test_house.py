"""The laws of the house: one home for each thing, no circle, rooms and folders of a fair size.

Each law is a function from a file's place and source to what offends, so that it can be shown to
fail on a planted violation.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]
ROOT_FOLDER = FOLDERS["icnet_deploy"]

MOST_MODULES, MOST_SHARE = 15, 0.25
UNCOUNTED = {"__init__.py", "__main__.py", "_version.py"}


def files(folders):
    """Place -> source of every Python file of these folders."""
    found = sorted(f for folder in folders for f in (ROOT / folder).rglob("*.py"))
    return {f.relative_to(ROOT).as_posix(): f.read_text(encoding="utf-8") for f in found}


INSTALLED = files(FOLDERS.values())
PRODUCT = INSTALLED | files(("tools",))


def strings(tree):
    """Yields (line, text) of every string that is no docstring; parts of an f-string, too."""
    prose = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose.add(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            yield node.lineno, node.value


def names(tree):
    """Yields (line, name) of what is imported, called by name, or taken as an attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, alias.name
            if isinstance(node, ast.ImportFrom) and node.module:
                yield node.lineno, node.module
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, f"{ast.unparse(node.value)}.{node.attr}"


def compared(tree):
    """Yields (line, text) of every string in a comparison, or that an ending is asked for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) or (
            isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".endswith", ".match"))
        ):
            yield from strings(node)


class Home:
    """Something that has one home.

    Args:
        homes: where it may stand: files, or folders that end in `/`.
        text: a pattern of strings that belong there, docstrings excepted.
        name: a pattern of imported, used or called names that belong there.
        asked: a pattern of strings that something may be compared with there only.
    """

    def __init__(self, homes, text=None, name=None, asked=None):
        self.homes, self.text, self.name, self.asked = homes, text, name, asked

    def offences(self, place, source):
        if any(
            place == home or (home.endswith("/") and place.startswith(home)) for home in self.homes
        ):
            return []
        tree, found = ast.parse(source), []
        if self.text:
            found += [(line, text) for line, text in strings(tree) if re.search(self.text, text)]
        if self.name:
            found += [(line, name) for line, name in names(tree) if re.fullmatch(self.name, name)]
        if self.asked:
            found += [(n, text) for n, text in compared(tree) if re.search(self.asked, text)]
        return [f"{place}:{line}: {text}" for line, text in sorted(set(found))]


LAYERS = (
    r"\bconv\d(_\d)?(_\w+)?(_sub\d|_cls|_aux|_proj|_k1|_pool|_3x3|_s2|_reduce|_increase)\b"
    r"|\bconv_sub\d|\bconv6\b|\bconv\d_\d\b"
)

ONE_HOME = {
    "engine, ONNX file or folder": Home(
        # Whoever needs to know asks `kind_of` there; loading.py names the endings in a message.
        ["runtime/auto/folder.py", "runtime/loading.py"],
        asked=r"^\.(engine|plan|onnx)$",
        name=r"ENGINE_SUFFIXES|.*\.ENGINE_SUFFIXES",
    ),
    "the artefacts of a folder": Home(
        ["runtime/auto/folder.py"], text=r"\*\.(onnx|engine|plan)\b", name=r"is_artefact"
    ),
    "the placement that is named int8-ort": Home(
        ["src/icnet_deploy/precisions.py", "calibration/placements/"], text=r"int8-ort"
    ),
    "INT8 by its name": Home(
        # The last: TensorRT's and its inspector's word for the type of a layer.
        ["src/icnet_deploy/precisions.py", "calibration/placements/", "export/engine/"],
        text=r"^int8$",
    ),
    "a layer's name": Home(["networks/"], text=LAYERS),
    "another architecture's name": Home(["networks/", "benchmarks/paper/"], text=r"(?i)pspnet"),
    "tables": Home(
        ["src/icnet_deploy/report/tables.py"],
        text=r"^-{3,}:?$|^(table|thead|tbody|tr|td)$",
        name=r".*\.[lr]just",
    ),
    "axes and the ground of drawings": Home(
        # html.py knows which elements are empty.
        ["src/icnet_deploy/report/svg.py", "src/icnet_deploy/report/html.py"],
        text=r"^svg$|^line$|viewBox|<svg|<path|^grid$",
    ),
    "child processes": Home(
        ["src/icnet_deploy/processes.py"],
        name=r"subprocess(\..*)?|multiprocessing(\..*)?|os\.(fork|spawn\w*|exec\w*|system|popen)",
    ),
    "JSON and TOML": Home(
        # The last run in environments without the product.
        ["src/icnet_deploy/documents.py", "tools/quantizers/workers/"],
        name=r"json\.loads?|tomllib(\..*)?|json\.JSONDecoder",
    ),
}
"""What it is -> where it stands."""


@pytest.mark.parametrize("what", ONE_HOME)
def test_each_thing_has_one_home(what):
    law = ONE_HOME[what]
    for home in law.homes:
        assert (ROOT / home).exists(), f"{what}: its home {home} is gone"
    found = [line for place, source in PRODUCT.items() for line in law.offences(place, source)]
    assert found == []


PLANTED = {
    "engine, ONNX file or folder": 'def f(path):\n    return path.suffix in (".engine", ".plan")',
    "the artefacts of a folder": 'def f(folder):\n    return sorted(folder.glob("[!.]*.onnx"))',
    "the placement that is named int8-ort": 'NAME = "int8-ort"',
    "INT8 by its name": 'def f(precision):\n    return precision == "int8"',
    "a layer's name": 'KEPT = ["conv1_1_3x3_s2"]',
    "another architecture's name": 'def f(name):\n    return name == "pspnet"',
    "tables": 'def f(cells):\n    return "  ".join(cell.ljust(9) for cell in cells)',
    "axes and the ground of drawings": 'from x import tag\nLINE = tag("line", x1=0, x2=9)',
    "child processes": "def f():\n    import subprocess\n    subprocess.run(['ls'])",
    "JSON and TOML": "import json\ndef f(text):\n    return json.loads(text)",
}


@pytest.mark.parametrize("what", ONE_HOME)
def test_a_second_home_is_found(what):
    law = ONE_HOME[what]
    assert law.offences("benchmarks/planted.py", PLANTED[what])
    inside = law.homes[0] + "a.py" * law.homes[0].endswith("/")
    assert law.offences(inside, PLANTED[what]) == []
    prose = '"""int8-ort, int8, conv6_cls, pspnet"""\n# json.loads(text)\n'
    assert law.offences("benchmarks/prose.py", prose) == []


def modules(sources, folder_of=FOLDERS):
    """Module name -> (place, source)."""
    found = {}
    for package, folder in folder_of.items():
        for place, source in sources.items():
            inner = place.removeprefix(f"{folder}/")
            if place.startswith(f"{folder}/"):
                parts = inner.removesuffix(".py").split("/")
                name = ".".join([package, *parts]).removesuffix(".__init__")
                found[name] = place, source
    return found


def arrows(known):
    """Module -> the modules of ours that it imports, anywhere but for type checkers."""
    found = {name: set() for name in known}
    for name, (_, source) in known.items():
        for node in running(ast.parse(source)):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                wanted = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
                inner = [each for each in wanted[:-1] if each in known]
                wanted = inner or [node.module]
            else:
                continue
            found[name] |= {each for each in wanted if each in known and each != name}
    return found


def running(tree):
    """Every node but those below `if TYPE_CHECKING`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def circles(graph):
    """What is left of a graph when all that ends in nothing is taken off."""
    left = {name: set(others) for name, others in graph.items()}
    while free := [name for name, others in left.items() if not others & set(left)]:
        for name in free:
            del left[name]
    while free := [n for n in left if not any(n in others for others in left.values())]:
        for name in free:
            del left[name]
    return left


def test_no_module_imports_itself_by_way_of_others():
    assert circles(arrows(modules(INSTALLED))) == {}


def test_a_circle_is_found_also_inside_functions():
    sources = {
        "data/a.py": "from icnet_deploy.data import b",
        "data/b.py": "def f():\n    from icnet_deploy.data.c import x",
        "data/c.py": "import icnet_deploy.data.a",
        "data/d.py": "import icnet_deploy.data.a",
    }
    found = circles(arrows(modules(sources)))
    assert sorted(found) == [f"icnet_deploy.data.{name}" for name in "abc"]
    types_only = sources | {"data/c.py": "if TYPE_CHECKING:\n    import icnet_deploy.data.a"}
    assert circles(arrows(modules(types_only))) == {}


def rooms_that_use(graph, room_of):
    """Root module -> the rooms that import it, directly or by way of other root modules."""
    users = {}
    for name, others in graph.items():
        for other in others:
            users.setdefault(other, set()).add(name)

    def rooms(name, seen):
        found = set()
        for user in users.get(name, ()):
            if room_of(user) != "root":
                found.add(room_of(user))
            elif user not in seen:
                found |= rooms(user, {*seen, user})
        return found

    return {name: rooms(name, {name}) for name in graph if room_of(name) == "root"}


def room_of(module):
    """The room of a module; `root` for the root's own packages, too."""
    first = [*module.split("."), ""][1]
    return first if f"icnet_deploy.{first}" in FOLDERS else "root"


COMMAND = {"icnet_deploy", "icnet_deploy.__main__", "icnet_deploy.cli", "icnet_deploy._version"}


def test_the_root_holds_only_what_two_rooms_use():
    known = modules(INSTALLED)
    used = rooms_that_use(arrows(known), room_of)
    packages = {name for name, (place, _) in known.items() if place.endswith("__init__.py")}
    few = {n: rooms for n, rooms in used.items() if len(rooms) < 2}
    assert {n: rooms for n, rooms in few.items() if n not in COMMAND | packages} == {}


def test_what_one_room_uses_is_found():
    graph = {
        "icnet_deploy.one": set(),
        "icnet_deploy.two": set(),
        "icnet_deploy.below": set(),
        "icnet_deploy.data.a": {"icnet_deploy.one", "icnet_deploy.two"},
        "icnet_deploy.runtime.b": {"icnet_deploy.two"},
    }
    graph["icnet_deploy.two"] = {"icnet_deploy.below"}
    used = rooms_that_use(graph, room_of)
    assert {name for name, rooms in used.items() if len(rooms) < 2} == {"icnet_deploy.one"}
    assert used["icnet_deploy.below"] == {"data", "runtime"}


def crowded(places):
    """Folder -> its modules, where they are too many."""
    counted = Counter(
        place.rpartition("/")[0] for place in places if Path(place).name not in UNCOUNTED
    )
    return {folder: count for folder, count in counted.items() if count > MOST_MODULES}


def heavy(lines):
    """Room -> its share of the lines of all, where it is too large.

    Args:
        lines: place -> lines.
    """
    rooms = Counter()
    for place, count in lines.items():
        rooms[place.split("/")[0]] += count
    return {room: share for room, n in rooms.items() if (share := n / rooms.total()) > MOST_SHARE}


def test_no_folder_is_crowded():
    assert crowded(PRODUCT) == {}
    assert crowded(f"data/{n}.py" for n in range(16)) == {"data": 16}
    assert crowded([*(f"data/{n}.py" for n in range(15)), "data/__init__.py"]) == {}


def test_no_room_is_more_than_a_quarter_of_the_house():
    assert heavy({place: source.count("\n") for place, source in INSTALLED.items()}) == {}
    assert set(heavy({"data/a.py": 30, "runtime/b.py": 20, "export/c.py": 50})) == {
        "data",
        "export",
    }


def public(tree):
    """The names that a module offers: functions, classes and constants without an underscore."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (t.id for t in node.targets if isinstance(t, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def annotated(tree):
    """The names in a module's annotations: who calls it gets values of these types."""
    for node in ast.walk(tree):
        parts = [getattr(node, name, None) for name in ("annotation", "returns")]
        for part in filter(None, parts):
            text = part.value if isinstance(part, ast.Constant) else ast.unparse(part)
            yield from re.findall(r"\w+", str(text))


def unused(known, users):
    """Public names that no other file imports or takes from their module, nor gets as a type.

    Args:
        known: module -> (place, source).
        users: place -> source of all that may use them.
    """
    taken = {}
    for place, source in users.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    taken.setdefault(alias.name, set()).add(place)
            elif isinstance(node, ast.Attribute):
                taken.setdefault(node.attr, set()).add(place)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                for word in re.findall(r"\w+", node.value)[-1:]:
                    taken.setdefault(word, set()).add(place)
    return sorted(
        f"{name}.{one}"
        for name, (place, source) in known.items()
        for one in public(ast.parse(source))
        if not one.startswith("_")
        and one != "main"
        and not taken.get(one, set()) - {place}
        and one not in set(annotated(ast.parse(source)))
    )


def test_a_public_name_is_one_that_another_file_uses():
    known = {n: v for n, v in modules(INSTALLED).items() if not v[0].endswith("__init__.py")}
    everything = PRODUCT | files(("tests",))
    assert unused(known, everything) == []


def test_a_name_that_nobody_uses_is_found():
    known = {
        "icnet_deploy.data.a": (
            "data/a.py",
            "def lost():\n    pass\nKEPT = 1\n_own = 2\nclass One: ...\ndef f() -> One: ...",
        )
    }
    users = {"data/a.py": known["icnet_deploy.data.a"][1], "data/b.py": "from a import KEPT, f"}
    assert unused(known, users) == ["icnet_deploy.data.a.lost"]
