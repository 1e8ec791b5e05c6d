"""Sizes that fit a screen, and no path of anyone's machine."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = [ROOT / folder for folder in PROJECT["tool"]["setuptools"]["package-dir"].values()]
FILES = sorted(f for room in ROOMS for f in room.rglob("*.py"))

LONGEST_FILE = 400
LONGEST_FUNCTION = 60

# "folder/file.py" or "folder/file.py::function" -> why it is better long than cut.
EXCEPTIONS: dict[str, str] = {}

TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cfg", ".json", ".sh", ".html", ""}
SKIPPED = {"build", "dist", "demo", "runs", "lightning_logs", "__pycache__"}
PRIVATE = re.compile(r"(?<![\w.:/])/(?:home|Users|root|work|tmp)/\w|\b[A-Z]:\\Users\\")


def name(file):
    return file.relative_to(ROOT).as_posix()


def functions(tree):
    """Yields (name, lines) of every function; its docstring is not counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            told = ast.get_docstring(node) is not None
            docstring = first.end_lineno - first.lineno + 1 if told else 0
            yield node.name, node.end_lineno - node.lineno + 1 - docstring


def test_paths_are_asked_by_functions_that_answer_for_every_path():
    """`Path.is_file` raises an error where a path is too long or no system has it (until Python
    3.14); `os.path.isfile` says no, and what reads the path then says why. `Path.resolve` raises
    one where a link leads to itself."""
    asked = [
        f"{name(file)}:{node.lineno}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("is_file", "is_dir", "exists", "resolve")
    ]
    assert not asked, "ask os.path.isfile, isdir or exists, or files.real_path"


READS_ITSELF = {
    "src/icnet_deploy/files/reading.py": "it is what all others call",
    "src/icnet_deploy/documents.py": "it waits for no pipe, and reads no more than its bound",
    "src/icnet_deploy/errors.py": "pip's note of where the package came from",
    "runtime/cores.py": "files of the kernel",
    "runtime/machine.py": "files of the kernel",
    "runtime/cuda/labels.py": "the kernel that this package brings",
    "runtime/signing/signature.py": "a file that it has just written",
    "benchmarks/modes/stages.py": "a file that ONNX Runtime has just written",
    "benchmarks/peers/runtimes.py": "a file that benchmark_app has just written",
    "benchmarks/processes/resident.py": "files of the kernel",
}


def reads(tree):
    """The lines of a module that open a file to read it."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        mode = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if node.func.attr in ("read_text", "read_bytes") or (
            node.func.attr == "open" and mode in ("r", "rb")
        ):
            yield node.lineno


def test_files_are_read_by_functions_that_wait_for_no_pipe():
    """`Path.read_text` of a pipe to which nobody writes waits for ever; `files.read_file` and
    `open_file` refuse it."""
    trees = {name(file): ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
    assert READS_ITSELF.keys() <= trees.keys()
    asked = [
        f"{file}:{line}"
        for file, tree in trees.items()
        if file not in READS_ITSELF
        for line in reads(tree)
    ]
    assert not asked, "read it with icnet_deploy.files: read_file or open_file"


def test_no_file_is_longer_than_400_lines():
    lengths = {name(f): len(f.read_text(encoding="utf-8").splitlines()) for f in FILES}
    long = {n: lines for n, lines in lengths.items() if lines > LONGEST_FILE}
    assert {n: lines for n, lines in long.items() if n not in EXCEPTIONS} == {}


def test_no_function_is_longer_than_60_lines():
    long = {}
    for file in FILES:
        for function, lines in functions(ast.parse(file.read_text(encoding="utf-8"))):
            if lines > LONGEST_FUNCTION:
                long[f"{name(file)}::{function}"] = lines
    assert {n: lines for n, lines in long.items() if n not in EXCEPTIONS} == {}


def test_every_exception_still_exists_and_has_a_reason():
    for entry, why in EXCEPTIONS.items():
        assert (ROOT / entry.split("::")[0]).is_file(), entry
        assert len(why) > 20, entry


def test_every_module_says_what_it_is():
    silent = [name(f) for f in FILES if not ast.get_docstring(ast.parse(f.read_text("utf-8")))]
    assert silent == []


def texts():
    """The text files of the clone, but what is generated or hidden."""
    for file in sorted(ROOT.rglob("*")):
        parts = file.relative_to(ROOT).parts
        hidden = any(p in SKIPPED or (p[0] == "." and p != ".ci") for p in parts[:-1])
        if not hidden and file.suffix in TEXT and file.is_file():
            yield file


def test_no_file_names_a_path_of_someones_machine():
    found = []
    for file in texts():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [f"{name(file)}:{n}" for n, line in enumerate(lines, 1) if PRIVATE.search(line)]
    assert found == []


@pytest.mark.parametrize("text", ["/~home/ann/x", "see /~tmp/clone", "C:\\~Users\\a", "'/~root/a'"])
def test_the_check_finds_a_path(text):
    assert PRIVATE.search(text.replace("~", ""))


@pytest.mark.parametrize("text", ["docs/home/page", "https://x.org/home/a", "a/tmp/b", "../work/x"])
def test_the_check_leaves_other_paths_alone(text):
    assert not PRIVATE.search(text)


def test_the_length_of_a_function_leaves_out_its_docstring():
    source = 'def f():\n    """One.\n\n    Two.\n    """\n    return 1\n'
    assert list(functions(ast.parse(source))) == [("f", 2)]
