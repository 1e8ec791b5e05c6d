"""One fresh process: from its start to its first label map, and what it holds of the memory.

It is run as a file, so that no more is imported than a user's program imports; see `fresh`.
"""

import contextlib
import json
import sys
import time
from typing import Any


def serve(text: str) -> dict[str, Any]:
    """Imports, loads and labels, and notes when.

    Args:
        text: JSON: `path` (a file, or a folder to choose from), `runtime`, `device`, `threads`,
            `image` (a .npy file), `repeats` (how often it is labelled) and `memory` (whether the
            resident memory is noted, too).

    Returns:
        `marks` (stage -> when it ended, in nanoseconds of `time.monotonic_ns`), `resident` (stage
        -> bytes), `file` (what was chosen in a folder), `runtime`, `device` and `precision`; or
        `error` and its `kind`.
    """
    marks = {"python": time.monotonic_ns()}
    held: dict[str, int | None] = {}
    from icnet_deploy.errors import IcnetError, InputError
    from icnet_deploy.runtime import Predictor

    marks["import"] = time.monotonic_ns()
    from icnet_deploy.documents import parse

    job = parse(text)
    _note(job, held, "import")
    import numpy as np

    image = np.load(job["image"])
    marks["image"] = time.monotonic_ns()
    try:
        with Predictor.open(
            job["path"], job["runtime"], job["device"], job["threads"]
        ) as predictor:
            marks["load"] = time.monotonic_ns()
            _note(job, held, "load")
            predictor.predict(image)
            marks["first_label_map"] = time.monotonic_ns()
            for _ in range(job["repeats"] - 1):
                predictor.predict(image)
            _note(job, held, "peak")
            return {
                "marks": marks,
                "resident": held,
                "file": predictor.choice.winner.file if predictor.choice else "",
                "runtime": predictor.runtime,
                "device": predictor.device,
                "precision": predictor.metadata.precision,
            }
    except IcnetError as error:
        kind = "InputError" if isinstance(error, InputError) else "BackendError"
        return {"error": str(error), "kind": kind}


def _note(job: dict[str, Any], held: dict[str, int | None], stage: str) -> None:
    """Reads what the kernel says, as `resident` does, which would bring this whole room with it."""
    if job["memory"]:
        name = "VmHWM" if stage == "peak" else "VmRSS"
        held[stage] = None
        with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as lines:
            for line in lines:
                if line.startswith(f"{name}:"):
                    held[stage] = 1024 * int(line.split()[1])


if __name__ == "__main__":
    print(json.dumps(serve(sys.argv[1])), flush=True)
