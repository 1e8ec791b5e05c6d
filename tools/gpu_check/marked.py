"""The repository's tests that want TensorRT or a GPU."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tools.gpu_check.setting import Setting

_LONGEST = 600.0


def marked(setting: Setting) -> dict[str, Any]:
    """What pytest says of them, in the time that is left and at most ten minutes."""
    if find_spec("pytest") is None:
        return {"left_out": "pytest is not installed"}
    if not setting.cuda:
        return {"left_out": "a rehearsal has no GPU to test"}
    limit = min(_LONGEST, setting.left)
    return run_tests(["-m", "tensorrt or gpu"], Path(__file__).parents[2], limit)


def run_tests(arguments: list[str], root: Path, limit: float = _LONGEST) -> dict[str, Any]:
    """Runs pytest in the repository.

    Returns:
        Its exit status, its closing line, and the lines of what failed; `error` where something
        did, or where it took longer than `limit` seconds.
    """
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"pytest took more than {limit:.0f} s"}
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    bad = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    told: dict[str, Any] = {"exit": done.returncode, "closing": lines[-1] if lines else ""}
    told["failed"] = bad
    return told | ({"error": told["closing"]} if done.returncode else {})
