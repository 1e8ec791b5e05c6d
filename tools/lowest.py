"""`python -m tools.lowest`: the tests with the lowest versions that pyproject.toml allows.

It makes a virtual environment of them with uv, and runs the tests there. Of later Pythons it asks
whether all that is needed has wheels.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from os.path import isfile
from pathlib import Path
from typing import Any

from icnet_deploy.command import command, parser
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.files import make_folder, write_json, write_text
from icnet_deploy.processes import run_tool
from icnet_deploy.runtime.machine import machine

_SCHEMA = 1
_EXTRAS = ("cpu", "openvino", "export", "train", "video", "sign", "benchmark")
"""All but those that need a GPU, and `test`, whose tools nobody runs who installs the product."""

_TESTERS = ("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100")
_LATER = ("3.12", "3.13", "3.14")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
_CLOSING = re.compile(r"^=* ?(\d+ (?:passed|failed|error).* in [\d.]+s.*?) ?=*$", re.MULTILINE)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def _uv(*words: str) -> str:
    """Runs uv; CheckFailed with its own last words if it fails."""
    done = run_tool([sys.executable, "-m", "uv", *words])
    if done.returncode:
        raise CheckFailed(f"uv {' '.join(words[:3])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def resolved(python: str, *, lowest: bool = False) -> dict[str, str]:
    """What is installed on a Python, from wheels alone: name -> version.

    Args:
        python: its version, such as `3.12`.
        lowest: of what pyproject.toml names the lowest version that it allows, else the newest.

    Raises:
        CheckFailed: there is no such set, or a package has no wheel.
    """
    extras = [word for extra in _EXTRAS for word in ("--extra", extra)]
    how = ["--resolution", "lowest-direct"] if lowest else []
    words = ["--python-version", python, "--only-binary", ":all:", "--no-header", "--no-annotate"]
    return dict(_PIN.findall(_uv("pip", "compile", "pyproject.toml", *extras, *words, *how)))


def closing(output: str) -> tuple[str, list[str]]:
    """Pytest's closing line, and the tests that failed; CheckFailed if it did not come to it."""
    lines = _CLOSING.findall(output)
    if not lines:
        raise CheckFailed(f"pytest did not finish: {output[-2000:]}")
    return lines[-1], _FAILED.findall(output)


def _tests(folder: Path, pins: dict[str, str], paths: Sequence[str]) -> tuple[str, list[str]]:
    """Installs these versions into a fresh environment, and runs the tests in it."""
    _uv("venv", "--clear", "--quiet", str(folder))
    python = folder / "bin" / "python"
    into = ["pip", "install", "--quiet", "--python", str(python)]
    _uv(*into, *(f"{name}=={version}" for name, version in pins.items()), *_TESTERS)
    _uv(*into, "--no-deps", "--editable", ".")
    how = ["-n", "2", "--dist", "worksteal", "-q", "-p", "no:cacheprovider"]
    path = os.pathsep.join([str(python.parent.absolute()), os.environ["PATH"]])
    done = run_tool(["env", f"PATH={path}", str(python), "-m", "pytest", *how, *paths])
    write_text(folder / "pytest.txt", done.stdout + done.stderr)
    return closing(done.stdout)


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.lowest",
        "Runs the tests with the lowest versions that pyproject.toml allows, and checks that later "
        "Pythons have wheels of every package (needs the network).",
        "python -m tools.lowest --json benchmarks/results/lowest.json",
    )
    p.add_argument(
        "paths", nargs="*", default=["tests"], metavar="TESTS", help="(default: all of them)"
    )
    p.add_argument(
        "--folder",
        type=Path,
        default=Path("build/lowest"),
        metavar="DIR",
        help="the environment, made anew, and pytest's output (default: %(default)s)",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="where to record it")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _arguments().parse_args(argv)
    if not isfile("pyproject.toml"):
        raise InputError("there is no pyproject.toml here: run it in the repository's root")
    make_folder(args.folder.parent)
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    later = {}
    for python in _LATER:
        later[python] = resolved(python)
        print(f"Python {python}: {len(later[python])} packages, all of them wheels")
    pins = resolved(own, lowest=True)
    print(f"the lowest versions: {len(pins)} packages; the tests run, which takes a while")
    line, failed = _tests(args.folder, pins, args.paths)
    found: dict[str, Any] = {
        "schema": _SCHEMA,
        "kind": "lowest",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "python": own,
        "lowest": pins,
        "closing_line": line,
        "failed": failed,
        "wheels": later,
    }
    if args.json:
        write_json(args.json, found)
    print(line)
    if failed:
        raise CheckFailed(
            f"failed with the lowest versions: {', '.join(failed[:9])}; all are in {args.folder}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
