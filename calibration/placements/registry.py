"""The placements by name. A new one is an entry here and a row in `precisions`."""

from icnet_deploy.calibration.placements.base import Placement
from icnet_deploy.calibration.placements.int8 import Int8
from icnet_deploy.calibration.placements.int8_ort import Int8Ort
from icnet_deploy.errors import InputError
from icnet_deploy.precisions import PRECISIONS
from icnet_deploy.runtime.backends.registry import RUNTIMES

PLACEMENTS: dict[str, Placement] = {one.name: one for one in (Int8(), Int8Ort())}
"""Name -> placement."""


def placement_of(name: str) -> Placement:
    """The placement of a name; InputError if there is none."""
    if name not in PLACEMENTS:
        raise InputError(f"unknown placement {name!r}; known: {', '.join(PLACEMENTS)}")
    return PLACEMENTS[name]


def cpu_runtime(name: str) -> str:
    """The first runtime that a placement is for and that a CPU has; InputError if there is none."""
    for runtime in PRECISIONS[name].runtimes or RUNTIMES:
        if "cpu" in RUNTIMES[runtime].extras:
            return runtime
    raise InputError(f"{name} is for no runtime that runs on a CPU")
