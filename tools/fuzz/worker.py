"""The process in which inputs are tried: a library that crashes in it ends no other.

It says in lines of JSON what it did. The input that it is at, and since when, stand in a file that
whoever watches it reads where it says nothing any more.
"""

import faulthandler
import json
import mmap
import os
import resource
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from random import Random
from types import FunctionType
from typing import IO, Any

from icnet_deploy.documents import parse
from icnet_deploy.files import make_folder
from tools.fuzz.corpus import kept, name_of, save_fault
from tools.fuzz.judge import FOUND, judge
from tools.fuzz.target import Run, Target

CURRENT, CRASH = "current", "crash.txt"
"""Files in the job's folder: the input that is tried, and where a crash was."""

HEAD, ROOM = 16, 4 << 20
"""Bytes of `CURRENT`: a counter and the length of the input come first. The counter is odd while an
input is tried, and even between two, where the next one is made."""

_SAY = 0.5  # seconds
_NO_LIMIT = 1 << 30  # seconds; of 0 atheris makes one, and whoever watches has a limit
_FULL = 3 << 30  # bytes of memory from which on a fresh process goes on


@dataclass
class _Trial:
    """One target in this process.

    Attributes:
        target: the target.
        run: gives an input to the product.
        folder: of this job.
        out: where the lines go.
        until: when to end, by `time.monotonic`.
        most: how many inputs to try.
    """

    target: Target
    run: Run
    folder: Path
    out: IO[str]
    until: float
    most: int
    counts: Counter[str] = field(default_factory=Counter)
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    tried: int = 0
    said: float = 0.0
    done: bool = False

    def __post_init__(self) -> None:
        with (self.folder / CURRENT).open("wb") as file:
            file.truncate(HEAD + ROOM)
        with (self.folder / CURRENT).open("r+b") as file:
            self.current = mmap.mmap(file.fileno(), HEAD + ROOM)
        self.inside = make_folder(self.folder / "inside")
        self.usual = _peak()

    def one(self, data: bytes) -> None:
        """Tries one input."""
        self.tried += 1
        self.current[HEAD : HEAD + len(data)] = data
        self.current[8:HEAD] = len(data).to_bytes(8, "little")
        self.current[:8] = (2 * self.tried - 1).to_bytes(8, "little")
        verdict = judge(self.target, self.run, data, self.inside)
        self.current[:8] = (2 * self.tried).to_bytes(8, "little")
        self.counts[verdict.outcome] += 1
        self.counts.update(f"+{mark}" for mark in verdict.marks)
        if verdict.outcome == FOUND:
            self._note(verdict.kind, verdict.text, data)
        self._look_at_memory(data)
        now = time.monotonic()
        if now > self.until or self.tried >= self.most:
            self.done = True
        if now - self.said > _SAY or self.done:
            self.say()

    def _look_at_memory(self, data: bytes) -> None:
        peak = _peak()
        if peak > self.usual + self.target.megabytes * 1024:
            more = f"{(peak - self.usual) // 1024} MB"
            self.counts[FOUND] += 1
            self._note("memory", f"it took {more} more than before", data)
        if peak > self.usual:  # the peak of this process begins anew
            Path("/proc/self/clear_refs").write_text("5")
            self.usual = max(self.usual, _resident())
        if self.usual * 1024 > _FULL:
            self.done = True

    def _note(self, kind: str, text: str, data: bytes) -> None:
        if kind not in self.found:
            path = save_fault(self.target.name, data, f"{kind}\n\n{text}", self.folder / "found")
            self.found[kind] = {"count": 0, "text": text, "input": path.name}
        self.found[kind]["count"] += 1

    def say(self) -> None:
        """Writes a line of what was done since the last one."""
        self.said = time.monotonic()
        line = {"counts": dict(self.counts), "found": self.found, "done": self.done}
        print(json.dumps(line), file=self.out, flush=True)
        self.counts.clear()
        self.found = {kind: {**one, "count": 0} for kind, one in self.found.items()}


def _peak() -> int:
    """The most that this process has held, in KiB; `getrusage` knows of its parent's, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return _resident()


def _resident() -> int:
    """This process's memory, in KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def guided() -> bool:
    """Whether inputs are guided by the code that they reach."""
    return find_spec("atheris") is not None


def _try_guided(trial: _Trial, seed: int, seeds: list[bytes]) -> None:
    """libFuzzer's loop; it ends the process."""
    import atheris

    _instrument(atheris.instrument_func)
    pool, fresh = make_folder(trial.folder / "seeds"), make_folder(trial.folder / "fresh")
    for number, data in enumerate(seeds):
        (pool / str(number)).write_bytes(data)

    def change(data: bytes, most: int, number: int) -> bytes:
        rng = Random(number)
        if rng.random() < 0.1:
            return bytes(atheris.Mutate(data, most))
        try:
            return trial.target.change(data, rng)[:most]
        except RecursionError:  # deeper than a change can go: it is tried as it is
            return data

    def one(data: bytes) -> None:
        trial.one(data)
        if trial.done:
            os._exit(0)

    options = ["-rss_limit_mb=0", f"-timeout={_NO_LIMIT}", "-verbosity=0", f"-max_len={ROOM}"]
    options += [
        f"-handle_{name}=0" for name in ("abrt", "bus", "fpe", "ill", "segv", "int", "term")
    ]
    options += [f"-seed={seed or 1}", f"-artifact_prefix={trial.folder}/"]
    atheris.Setup([trial.target.name, *options, str(fresh), str(pool)], one, custom_mutator=change)
    atheris.Fuzz()


def _instrument(instrument: Callable[[Any], Any]) -> None:
    """Has every function of ours that is loaded say which ways are taken through it."""
    done = set()
    for module in [m for n, m in sys.modules.items() if n.startswith("icnet_deploy")]:
        holders = [module, *(v for v in vars(module).values() if isinstance(v, type))]
        for holder in holders:
            for value in list(vars(holder).values()):
                function = getattr(value, "__func__", getattr(value, "fget", value))
                if not isinstance(function, FunctionType) or function in done:
                    continue
                done.add(function)
                if (function.__module__ or "").startswith("icnet_deploy"):
                    instrument(function)


def _try_plain(trial: _Trial, seed: int, seeds: list[bytes]) -> None:
    """Changes of the inputs to begin with, and of what came of them."""
    rng = Random(seed)
    for data in seeds:
        trial.one(data)
    pool = list(seeds)
    while not trial.done:
        data = trial.target.change(rng.choice(pool), rng)[:ROOM]
        trial.one(data)
        if rng.random() < 0.02:  # a change of a change
            pool.append(data)
            del pool[: -4 * len(seeds) - 64]


def main(arguments: list[str]) -> None:
    """Runs one job; its argument is JSON, as `watch` writes it."""
    job = parse(arguments[0])
    out = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    warnings.simplefilter("ignore")
    folder = Path(job["folder"])
    crash = (folder / CRASH).open("w")
    faulthandler.enable(crash)
    target = import_module(job["registry"]).TARGETS[job["target"]]
    own = make_folder(folder / "inside")
    run = target.prepare(own)
    for data in (seeds := target.seeds())[:1]:  # what it imports, and the caches of libraries
        judge(target, run, data, own)
    until = time.monotonic() + job["seconds"]
    trial = _Trial(target, run, folder, out, until, job["most"])
    seeds += kept(target.name) + [p.read_bytes() for p in sorted((folder / "fresh").glob("*"))]
    attempt = _try_guided if guided() and job["guided"] else _try_plain
    inputs = [one for one in seeds if len(one) <= ROOM and name_of(one) not in job["without"]]
    try:
        attempt(trial, job["seed"], inputs)
    except BaseException:  # of the fuzz itself
        crash.write(traceback.format_exc())
        crash.flush()
        os._exit(1)  # atheris waits for ever when the interpreter ends by itself


if __name__ == "__main__":
    main(sys.argv[1:])
