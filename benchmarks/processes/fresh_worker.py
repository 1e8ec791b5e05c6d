"""One fresh process: from its start to its first label map, and what it holds of the memory.

It is run as a file, so that no more is imported than a user's program imports; see `fresh`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import Any


def serve(told: dict[str, Any]) -> dict[str, Any]:
    """Imports, loads and labels, and notes when.

    Args:
        told: `path` (a file, or a folder to choose from), `runtime`, `device`, `threads`, `image`
            (a .npy file), `runs` (how often it is labelled) and `memory` (whether the resident
            memory is noted, too).

    Returns:
        `marks` (stage -> when it ended, in nanoseconds of `time.monotonic_ns`), `resident` (stage
        -> bytes), `file` (what was chosen in a folder), `runtime`, `device` and `precision`; or
        `error` and its `exit_code`.
    """
    marks = {"python": time.monotonic_ns()}
    held: dict[str, int | None] = {}
    from icnet_deploy.errors import IcnetError
    from icnet_deploy.runtime import Predictor

    marks["import"] = time.monotonic_ns()
    _note(told, held, "import")
    import numpy as np

    image = np.load(told["image"])
    marks["image"] = time.monotonic_ns()
    try:
        if told["path"].endswith((".engine", ".plan")):
            predictor = Predictor.from_engine(told["path"], told["runtime"])
        else:
            folder = os.path.isdir(told["path"])
            opened = Predictor.from_folder if folder else Predictor.from_onnx
            predictor = opened(told["path"], told["runtime"], told["device"], told["threads"])
        with predictor:
            marks["load"] = time.monotonic_ns()
            _note(told, held, "load")
            predictor.predict(image)
            marks["first_label_map"] = time.monotonic_ns()
            for _ in range(told["runs"] - 1):
                predictor.predict(image)
            _note(told, held, "peak")
            return {
                "marks": marks,
                "resident": held,
                "file": predictor.choice.winner.file if predictor.choice else "",
                "runtime": predictor.runtime,
                "device": predictor.device,
                "precision": predictor.metadata.precision,
            }
    except IcnetError as error:
        return {"error": str(error), "exit_code": error.exit_code}


def _note(told: dict[str, Any], held: dict[str, int | None], stage: str) -> None:
    """Reads what the kernel says, as `memory` does, which would bring this whole room with it."""
    if told["memory"]:
        name = "VmHWM" if stage == "peak" else "VmRSS"
        held[stage] = None
        with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as lines:
            for line in lines:
                if line.startswith(f"{name}:"):
                    held[stage] = 1024 * int(line.split()[1])


def main(argv: list[str]) -> None:
    """Serves what the one argument says as JSON, and prints the answer as one line of JSON."""
    print(json.dumps(serve(json.loads(argv[0]))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
