"""Runs targets in processes of their own, and says what came of their inputs.

A process that crashes, hangs or takes all memory is ended, the input that it was at is kept, and a
fresh one goes on.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icnet_deploy.errors import BackendError
from icnet_deploy.files import make_folder
from icnet_deploy.processes import Child
from tools.fuzz.corpus import save_fault
from tools.fuzz.judge import FAILED, FOUND, REFUSED, RESULT
from tools.fuzz.target import Target
from tools.fuzz.worker import CRASH, CURRENT, HEAD

_LOOK = 0.2  # seconds from look to look
_TICKS = os.sysconf("SC_CLK_TCK")
_MOST_BYTES = 8 << 30  # of memory; a process that has more is ended
_START = 300  # seconds of processor time until the first input, and between two


@dataclass
class Tally:
    """What came of a target's inputs.

    Attributes:
        outcomes: outcome -> inputs.
        marks: what inputs went through -> inputs.
        found: kind of a fault -> inputs that showed it, what was said, and one of them.
        seconds: that were spent.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        """How many were tried."""
        return sum(self.outcomes.values())

    def add(self, line: dict[str, Any]) -> None:
        """Takes in a line of a worker."""
        for name, count in line["counts"].items():
            if name.startswith("+"):
                self.marks[name[1:]] += count
            else:
                self.outcomes[name] += count
        for kind, one in line["found"].items():
            self.note(kind, one)

    def note(self, kind: str, one: dict[str, Any]) -> None:
        """Takes in a fault that was found."""
        before = self.found.get(kind)
        count = one["count"] + (before["count"] if before else 0)
        self.found[kind] = {**(before or one), "count": count}

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "inputs": self.inputs,
            **{name: self.outcomes[name] for name in (RESULT, REFUSED, FAILED, FOUND)},
            "marks": dict(sorted(self.marks.items())),
            "faults": {kind: one["count"] for kind, one in sorted(self.found.items())},
            "seconds": round(self.seconds, 1),
        }


def try_target(
    target: Target,
    folder: Path,
    seconds: float,
    most: int,
    seed: int,
    guided: bool = True,
    look: Callable[[Tally], object] = lambda tally: None,
    registry: str = "tools.fuzz.registry",
) -> Tally:
    """Tries inputs of one target.

    Args:
        target: the target.
        folder: of this run's work; what it holds of an earlier one is gone on with.
        seconds: how long.
        most: how many inputs at most.
        seed: draws the inputs.
        guided: by the code that they reach, where atheris is installed.
        look: is given what was found so far, now and then.
        registry: the module whose `TARGETS` has it.
    """
    tally, begun = Tally(), time.monotonic()
    where = make_folder(folder / target.name)
    while (left := seconds - (time.monotonic() - begun)) > 0 and tally.inputs < most:
        job = {
            "target": target.name,
            "registry": registry,
            "folder": str(where.resolve()),
            "seconds": left,
            "most": most - tally.inputs,
            "seed": seed + tally.inputs,
            "guided": guided,
            # What ended a process before would end the next one, too.
            "without": [one["input"] for one in tally.found.values()],
        }
        if not _run(target, where, job, tally, look):
            break
    tally.seconds = time.monotonic() - begun
    return tally


def _run(
    target: Target,
    where: Path,
    job: dict[str, Any],
    tally: Tally,
    look: Callable[[Tally], object],
) -> bool:
    """Runs one process to its end; False where it never began."""
    (where / CURRENT).unlink(missing_ok=True)
    environment = {"ICNET_MAX_MEGAPIXELS": "1", "ICNET_CACHE": "off", "OMP_NUM_THREADS": "1"}
    paths = (os.getcwd(), os.environ.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with closing(Child(("-m", "tools.fuzz.worker"), job, environment)) as child:
        guard = _Guard(child.pid, where, target)
        guard.start()
        try:
            while True:
                line = child.answer()
                tally.add(line)
                look(tally)
                if line["done"]:
                    return True
        except BackendError as error:
            kind = guard.reason or _crash(where, str(error))
        finally:
            guard.stop()
        tried, data = _current(where)
        path = save_fault(target.name, data, f"{kind}\n\n{_words(where)}", where / "found")
        tally.outcomes[FOUND] += 1
        tally.note(kind, {"count": 1, "text": _words(where), "input": path.name})
        return tried > 0


class _Guard(threading.Thread):
    """Ends a process whose input takes or waits too long, or that takes all memory."""

    def __init__(self, pid: int, where: Path, target: Target) -> None:
        super().__init__(daemon=True)
        self._pid, self._where, self._target = pid, where, target
        self._ended = threading.Event()
        self.reason = ""

    def run(self) -> None:
        """Looks until the process or the guard is ended."""
        before, since, last, waits = -1, 0.0, -1.0, 0.0
        with suppress(OSError):  # it ended
            while not self._ended.wait(_LOOK):
                tried, (spent, asleep) = _current(self._where)[0], _state(self._pid)
                waits = waits + _LOOK if asleep and (tried, spent) == (before, last) else 0.0
                last = spent
                if tried != before:
                    before, since = tried, spent
                allowed = self._target.seconds if tried % 2 else _START
                if spent - since > allowed:
                    self._end(f"it took more than {allowed:g} s")
                if waits > allowed:
                    self._end(f"it waited for more than {allowed:g} s")
                if _memory(self._pid) > _MOST_BYTES:
                    self._end(f"it took more than {_MOST_BYTES >> 30} GiB")

    def _end(self, reason: str) -> None:
        self.reason = reason
        os.kill(self._pid, signal.SIGKILL)
        self._ended.set()

    def stop(self) -> None:
        """No longer looks."""
        self._ended.set()
        self.join()


def _current(where: Path) -> tuple[int, bytes]:
    """The counter of a process, and the last input that it tried."""
    try:
        with (where / CURRENT).open("rb") as file:
            head = file.read(HEAD)
            length = int.from_bytes(head[8:], "little")
            return int.from_bytes(head[:8], "little"), file.read(length)
    except FileNotFoundError:
        return 0, b""


def _state(pid: int) -> tuple[float, bool]:
    """Seconds of processor time of a process, and whether it waits for something."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS, fields[0] == "S"


def _memory(pid: int) -> int:
    """Bytes of memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _crash(where: Path, error: str) -> str:
    """What ended a process: the signal, and the innermost function of Python."""
    how = error.removeprefix("the process ended ").partition(":")[0]
    frames = [line for line in _words(where).splitlines() if line.startswith("  File")]
    inner = frames[0].rpartition(" in ")[2] if frames else "no function of Python"
    return f"a crash {how} in {inner}"


def _words(where: Path) -> str:
    with suppress(OSError):
        return (where / CRASH).read_text("utf-8", "replace")[:4000]
    return ""
