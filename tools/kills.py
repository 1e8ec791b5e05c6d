"""`python -m tools.kills`: commands that are killed at random moments, and must lose nothing.

Each command is run to its end first. Then it is begun again and again and ended by SIGKILL, with
its earlier results there or not: half of the times at a random moment, half right before a random
one of its operations that make, rename or remove a file. After each kill every file must be whole,
those that were there must still be, and whatever else is left must be known for what it is. Then
the same command runs to its end: it must come to the same files, and leave nothing of a kill.
"""

import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from os.path import isfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from icnet_deploy.command import command, count, parser
from icnet_deploy.data.scenes import write_scenes
from icnet_deploy.documents import parse
from icnet_deploy.errors import CheckFailed
from icnet_deploy.files import is_leftover, scratch_folder, write_json
from icnet_deploy.processes import run_tool
from icnet_deploy.report.tables import Table
from icnet_deploy.runtime.machine import machine, versions
from tools.whole import require_whole

_SCHEMA = 1
_SIZE = (96, 128)
_KILLED = (-9, 124)
"""Exit codes: of SIGKILL, by itself, and by `run_tool`."""

_TRIES = 5  # runs for each kill, at most: some end before their moment

_PROBE = re.compile(r"tmp/[a-z0-9_]{8}")
"""Python writes four bytes into a temporary folder to see whether it can, and removes them."""

_TRAINING = """
width = 0.125
steps = 24
batch = 2
crop = [65, 97]
resize = [0.9, 1.2]
rate = 3e-3
seed = 3
"""

_RUN = """
import json, os, signal, sys, time
begun, root, report, at = time.monotonic(), sys.argv[1], sys.argv[2], int(sys.argv[3])
names = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"}
times = []
def watch(event, args):
    if event not in names or not str(args[0]).startswith(root):
        return
    if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    times.append(time.monotonic() - begun)
    if len(times) == at:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
from icnet_deploy.cli import main
status = main(sys.argv[4:])
names.clear()
with open(report, "w") as file:
    json.dump({"operations": len(times), "first": times[0], "last": times[-1]}, file)
sys.exit(status)
"""
"""Runs a command, notes its operations on files below a folder, and ends before one of them."""


@dataclass(frozen=True)
class Job:
    """A command that is killed.

    Attributes:
        name: of the command.
        words: its arguments; OUT stands for the folder of its results.
        again: more of them, where one that was killed is gone on with.
        resumed: a file below OUT; `again` counts where it is there. None: always.
        holds: a folder, of which OUT begins as a copy.
    """

    name: str
    words: tuple[object, ...]
    again: tuple[str, ...] = ()
    resumed: str | None = None
    holds: Path | None = None


@dataclass
class Outcome:
    """What became of a command.

    Attributes:
        command: its name.
        operations: on files, of one that is not killed.
        seconds: from the first of them to the last.
        before_an_operation, at_a_moment: how often it was killed so.
        begun_anew: how many of these had no earlier results.
        left: temporary files and folders that the kills left, all of which the next run removed.
        problems: what was lost, half-written or left, in words.
    """

    command: str
    operations: int = 0
    seconds: float = 0.0
    before_an_operation: int = 0
    at_a_moment: int = 0
    begun_anew: int = 0
    left: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How often it was killed."""
        return self.before_an_operation + self.at_a_moment


class Place:
    """Where one command runs: its results, its caches and its temporary files.

    Args:
        root: a folder that is not there yet.
        job: the command.
    """

    def __init__(self, root: Path, job: Job) -> None:
        self.root, self.job = root.resolve(), job
        self._whole = self.root.with_name(f"{root.name}-whole")
        self._report = self.root.with_name(f"{root.name}-operations.json")
        self.whole: set[str] = set()
        self.clear()

    def clear(self) -> None:
        """Has it as it is before the command ever ran."""
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ("cache", "tmp"):
            (self.root / name).mkdir(parents=True)
        if self.job.holds is not None:
            shutil.copytree(self.job.holds, self.root / "out")

    def keep(self) -> None:
        """Keeps a copy of what is there, which is that of a run that nobody killed."""
        self.whole = self.files()
        shutil.copytree(self.root, self._whole)

    def restore(self) -> None:
        """Has what was kept there, and nothing else."""
        shutil.rmtree(self.root)
        shutil.copytree(self._whole, self.root)

    def run(self, at: int = 0, again: bool = False, moment: float | None = None) -> Any:
        """Runs the command.

        Args:
            at: the operation, from 1, before which it is killed; 0: none.
            again: it is gone on with.
            moment: seconds after which it is killed.

        Returns:
            As `run_tool`.
        """
        out, job = self.root / "out", self.job
        go_on = again and (job.resumed is None or isfile(out / job.resumed))
        given = (job.name, *job.words, *(job.again if go_on else ()))
        words = [str(word).replace("OUT", str(out)) for word in given]
        environment = (
            f"ICNET_CACHE={self.root / 'cache'}",
            f"TMPDIR={self.root / 'tmp'}",
            "PYTHONDONTWRITEBYTECODE=1",
        )
        call = [sys.executable, "-c", _RUN, str(self.root), str(self._report), str(at), *words]
        return run_tool(["env", *environment, *call], moment)

    def finish(self, again: bool = False) -> dict[str, Any]:
        """Runs the command to its end: its operations (CheckFailed where it fails)."""
        done = self.run(again=again)
        if done.returncode:
            ended = f"icnet {self.job.name} ended with {done.returncode}"
            raise CheckFailed(f"{ended}: {done.stderr[-2000:]}")
        operations: dict[str, Any] = parse(self._report.read_bytes())
        return operations

    def files(self) -> set[str]:
        """All files below it; what a run names otherwise each time is left out."""
        found = (path for path in self.root.rglob("*") if isfile(path) and not self._is_probe(path))
        names = {str(path.relative_to(self.root)) for path in found}
        return {name for name in names if not Path(name).name.startswith("events.out.")}

    def _is_probe(self, path: Path) -> bool:
        name = str(path.relative_to(self.root))
        return _PROBE.fullmatch(name) is not None and path.read_bytes() in (b"", b"blat")

    def leftovers(self) -> list[Path]:
        """Temporary files and folders of ours."""
        return sorted(path for path in self.root.rglob("*") if is_leftover(path))

    def damaged(self) -> Iterator[str]:
        """What is neither whole nor known for what it is, in words."""
        held = {path for path in self.leftovers() if not isfile(path)}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            others = name.startswith("tmp/") and name in self.whole  # as ONNX Runtime's tmp/.ses
            known = others or is_leftover(path) or held & {*path.parents}
            if isfile(path) and not known and not self._is_probe(path):
                try:
                    require_whole(path)
                except Exception as error:  # whatever a reader says of half a file
                    yield f"{name}: {type(error).__name__}: {error}"


def jobs(folder: Path) -> list[Job]:
    """The commands; what they read is made in a folder."""
    scenes, config, release = folder / "scenes", folder / "quick.toml", folder / "release"
    for seed, split in enumerate(("train", "val")):
        write_scenes(scenes, 8, _SIZE, seed, split, progress=False)
    config.write_text(_TRAINING)
    size, network = "x".join(map(str, _SIZE)), release / "fp32.onnx"
    data = ("--dataset", "scenes", "--data", scenes)
    _run("export", "--size", size, "-o", network)
    _run("quantize", network, *data, "--count", 8)
    reports = ("--json", "OUT/verify.json", "--report", "OUT/verify.html")
    return [
        Job("export", ("--size", size, "-o", "OUT/net.onnx")),
        Job("quantize", (network, *data, "--count", 8, "-o", "OUT")),
        Job("predict", (scenes / "leftImg8bit", "--model", network, "-o", "OUT")),
        Job(
            "train",
            (*data, "--config", config, "-o", "OUT/net.safetensors"),
            ("--resume",),
            "net.run/last.ckpt",
        ),
        Job("verify", ("OUT", *data, *reports), ("--resume",), holds=release),
    ]


def _run(*words: object) -> None:
    call = [sys.executable, "-m", "icnet_deploy", *map(str, words)]
    done = run_tool(call)
    if done.returncode:
        raise CheckFailed(f"icnet {words[0]} ended with {done.returncode}: {done.stderr[-2000:]}")


def kill_again_and_again(
    place: Place, kills: int, chance: random.Random, told: Callable[[], object] = lambda: None
) -> Outcome:
    """Kills a command, and looks at what is left each time.

    A run that ended before its moment counts for no kill, and another is begun.

    Args:
        place: where it runs.
        kills: how often.
        chance: chooses the moments.
        told: is called after each.

    Raises:
        CheckFailed: the command fails without being killed, or ends before most moments.
    """
    outcome = Outcome(place.job.name)
    operations = place.finish()
    outcome.operations = operations["operations"]
    outcome.seconds = round(operations["last"] - operations["first"], 3)
    place.keep()
    for number in range(_TRIES * kills):
        if outcome.kills == kills:
            return outcome
        anew = chance.random() < 0.5
        place.clear() if anew else place.restore()
        before, had = place.files(), outcome.kills
        if had % 2:
            at = chance.randint(1, operations["operations"])
            outcome.before_an_operation += place.run(at).returncode in _KILLED
        else:
            moment = chance.uniform(operations["first"] * 0.8, operations["last"])
            outcome.at_a_moment += place.run(moment=moment).returncode in _KILLED
        outcome.begun_anew += anew and outcome.kills > had
        outcome.problems += [f"kill {number}: {one}" for one in _problems(place, before)]
        outcome.left += len(place.leftovers())
        try:
            place.finish(again=True)
        except CheckFailed as error:
            outcome.problems.append(f"kill {number}, gone on with: {error}")
        outcome.problems += [f"kill {number}, gone on with: {one}" for one in _end(place)]
        if outcome.kills > had:
            told()
    if outcome.kills < kills:
        raise CheckFailed(
            f"icnet {place.job.name} was killed {outcome.kills} times in {_TRIES * kills} runs, "
            f"expected {kills}: it ends too soon"
        )
    return outcome


def _problems(place: Place, before: set[str]) -> Iterator[str]:
    """What a kill broke, in words."""
    yield from place.damaged()
    yield from (f"{name} is gone" for name in sorted(before - place.files()))


def _end(place: Place) -> Iterator[str]:
    """What the run after a kill left or lacks, in words."""
    yield from place.damaged()
    yield from (f"{path.name} is left" for path in place.leftovers())
    there = place.files()
    yield from (f"{name} is missing" for name in sorted(place.whole - there))
    yield from (f"{name} is there, too" for name in sorted(there - place.whole))


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes, as text."""
    columns = ("command", "kills", "operations", "seconds", "left and swept", "problems")
    rows = [
        (
            one.command,
            str(one.kills),
            str(one.operations),
            f"{one.seconds:.1f}",
            str(one.left),
            str(len(one.problems)),
        )
        for one in outcomes
    ]
    return Table(columns, rows).text()


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `python -m tools.kills`; returns its exit code."""
    p = parser(
        "python -m tools.kills",
        "Kills commands at random moments, and checks what files they leave.",
        "python -m tools.kills --kills 100 --json benchmarks/results/kills-cpu.json",
    )
    p.add_argument("--kills", type=count, default=100, help="of all commands together (100)")
    p.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the outcome")
    args = p.parse_args(argv)
    chance = random.Random(args.seed)
    with scratch_folder() as folder, tqdm(total=args.kills, unit="kill", disable=None) as bar:
        found = jobs(folder / "read")
        shares = [len(range(i, args.kills, len(found))) for i in range(len(found))]
        outcomes = [
            kill_again_and_again(Place(folder / job.name, job), kills, chance, bar.update)
            for job, kills in zip(found, shares, strict=True)
            if kills
        ]
    result = {
        "schema": _SCHEMA,
        "kind": "kills",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": args.seed,
        "machine": machine(),
        "versions": versions(),
        "commands": [asdict(outcome) for outcome in outcomes],
    }
    if args.json:
        write_json(args.json, result)
    print(table(outcomes))
    problems = [f"{one.command}: {each}" for one in outcomes for each in one.problems]
    if problems:
        raise CheckFailed(f"{len(problems)} problems: {'; '.join(problems[:20])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
