"""How much memory some work needs, on the processor or on an NVIDIA GPU, and how much is free.

On the processor it is this process's resident memory, as the Linux kernel keeps it in
`/proc/self`; on a GPU what `nvidia-smi` says of the whole card, since every runtime has an
allocator of its own: another process that allocates there meanwhile is counted, too.
"""

import contextlib
import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path

from icnet_deploy.processes import run_tool

_SELF = Path("/proc/self")
_RESET_PEAK = "5"  # what clear_refs takes to set VmHWM to the present VmRSS; see proc(5)


def growth(device: str, work: Callable[[], object]) -> int | None:
    """By how many bytes the peak during some work is above what was held before.

    On a GPU it is what the card holds afterwards above what it held before: the allocators of the
    runtimes keep what they once took.

    Args:
        device: `cpu` or `cuda`.
        work: what is measured, in this process.

    Returns:
        None where the system does not say.
    """
    if device == "cuda":
        before = _gpu("used")
        work()
        return difference(before, _gpu("used"))
    gc.collect()
    _return_freed_memory()
    before = None
    with contextlib.suppress(OSError):
        (_SELF / "clear_refs").write_text(_RESET_PEAK)
        before = _field(_SELF / "status", "VmRSS")
    work()
    return difference(before, peak())


def difference(before: int | None, after: int | None) -> int | None:
    """How much more there was afterwards, at least 0; None where the system does not say."""
    return None if before is None or after is None else max(0, after - before)


def peak() -> int | None:
    """The largest resident memory of this process in bytes, since its start or the last reset."""
    return _field(_SELF / "status", "VmHWM")


def available(device: str) -> int | None:
    """How many bytes can still be allocated: the machine's, or on its first visible GPU."""
    if device == "cuda":
        return _gpu("free")
    return _field(Path("/proc/meminfo"), "MemAvailable")


def _field(path: Path, name: str) -> int | None:
    """Reads a line such as `VmRSS:   1234 kB`, in bytes."""
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None


def _return_freed_memory() -> None:
    """Loading a model frees much that the C library keeps, and that the work would find there."""
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _gpu(kind: str) -> int | None:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    query = [f"--query-gpu=memory.{kind}", "--format=csv,noheader,nounits", f"--id={first}"]
    done = run_tool(["nvidia-smi", *query], timeout=20)
    with contextlib.suppress(ValueError, IndexError):
        return None if done.returncode else int(done.stdout.split()[0]) << 20
    return None
