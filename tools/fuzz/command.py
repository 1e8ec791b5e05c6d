"""`python -m tools.fuzz`: tries inputs of every kind, target after target, and says what it found.

Each input must give a result or an error of ours. What gives anything else is kept in the work
folder, by kind, and the command ends with 1.
"""

import argparse
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from tqdm import tqdm

from icnet_deploy.command import command, count, number_type, parser
from icnet_deploy.documents import FROM_ZERO, POSITIVE
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.files import make_folder
from icnet_deploy.runtime.machine import machine, versions
from tools.fuzz.corpus import KEPT, keep, kept
from tools.fuzz.judge import FAILED, FOUND, REFUSED, RESULT
from tools.fuzz.record import read_runs, totals, write_runs
from tools.fuzz.registry import TARGETS
from tools.fuzz.target import Target
from tools.fuzz.watch import Tally, try_target
from tools.fuzz.worker import guided

_MOST_KEPT = 10_000
"""Bytes of a target's archive, about."""

_LARGEST_KEPT = 2_000  # bytes of an input


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    p = parser(
        "python -m tools.fuzz",
        "Tries inputs of every kind that icnet reads: each must give a result or an icnet error.",
        "python -m tools.fuzz images models --minutes 10 --json benchmarks/results/fuzz.json",
    )
    p.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help=f"what to try: {', '.join(TARGETS)} (default: all)",
    )
    p.add_argument(
        "--minutes",
        type=number_type(POSITIVE),
        metavar="N",
        help="time for all targets together (default: "
        "until each target has its number of inputs, with those in --json; a million in all)",
    )
    p.add_argument("--inputs", type=count, metavar="N", help="most inputs of each target")
    p.add_argument(
        "--seed", type=number_type(FROM_ZERO), help="seed of the inputs (default: a new one)"
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="add this run to the file")
    p.add_argument(
        "--work",
        type=Path,
        default=Path("runs/fuzz"),
        metavar="DIR",
        help="folder for the inputs that were found, and for the next run (default: %(default)s)",
    )
    p.add_argument(
        "--plain",
        action="store_true",
        help="draw inputs without looking at the code that they reach",
    )
    p.add_argument(
        "--keep",
        action="store_true",
        help=f"afterwards keep small inputs that reached new code in {KEPT}",
    )
    args = p.parse_args(argv)
    unknown = sorted(set(args.targets) - TARGETS.keys())
    if unknown:
        raise InputError(f"unknown target {', '.join(unknown)}; known: {', '.join(TARGETS)}")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the fuzz; exit code 0: nothing was found, 1: something was."""
    args = _arguments(argv)
    chosen = [TARGETS[name] for name in args.targets or TARGETS]
    runs = read_runs(args.json) if args.json else []
    before = totals(runs)
    by_code = guided() and not args.plain
    if not by_code and not args.plain:
        print(
            "atheris is not installed, so inputs are drawn without looking at the code that they "
            'reach: pip install -e ".[fuzz]"'
        )
    seed = int(args.seed) if args.seed is not None else Random().randrange(1 << 31)
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    tallies: dict[str, Tally] = {}
    ends = time.monotonic() + 60 * args.minutes if args.minutes else None
    for place, target in enumerate(chosen):
        left = target.goal - before.get(target.name, {}).get("inputs", 0)
        most = args.inputs or (1 << 62 if ends else left)
        seconds = 1e9 if ends is None else (ends - time.monotonic()) / (len(chosen) - place)
        if most <= 0 or seconds <= 0:
            continue
        tallies[target.name] = _try(target, args.work, seconds, most, seed, by_code)
        if args.json:  # nothing is lost where the next one is killed
            write_runs(args.json, [*runs, _run(begun, by_code, seed, tallies)])
        if args.keep:
            _keep(target, args.work)
    found = [f"{name}: {kind}" for name, tally in tallies.items() for kind in tally.found]
    if found:
        raise CheckFailed(
            f"{len(found)} kinds of faults, inputs in {args.work}: {'; '.join(found)}"
        )
    return 0


def _try(target: Target, work: Path, seconds: float, most: int, seed: int, by_code: bool) -> Tally:
    """One target, with a line that tells how far it is."""
    total = most if most < 1 << 40 else None
    with tqdm(total=total, desc=target.name, unit="input", disable=None) as bar:

        def look(tally: Tally) -> None:
            bar.update(tally.inputs - bar.n)
            bar.set_postfix(found=len(tally.found))

        tally = try_target(target, make_folder(work), seconds, most, seed, by_code, look)
    each = ", ".join(f"{tally.outcomes[name]:,} {name}" for name in (RESULT, REFUSED, FAILED))
    marks = "".join(f"; {mark} {number:,}" for mark, number in sorted(tally.marks.items()))
    print(
        f"{target.name:<22} {tally.inputs:>9,} inputs in {tally.seconds:.0f} s: {each}, "
        f"{tally.outcomes[FOUND]:,} {FOUND} of {len(tally.found)} kinds{marks}",
        flush=True,
    )
    for kind, one in sorted(tally.found.items()):
        where = work / target.name / "found" / target.name / one["input"]
        print(f"  {one['count']:>6,} x {kind}: {where}", flush=True)
    return tally


def _run(begun: str, by_code: bool, seed: int, tallies: dict[str, Tally]) -> dict[str, object]:
    return {
        "date": begun,
        "versions": versions(),
        "machine": machine(),
        "guided": by_code,
        "seed": seed,
        "targets": {name: tally.to_dict() for name, tally in tallies.items()},
    }


def _keep(target: Target, work: Path) -> None:
    """Keeps what showed new ways, the small ones first, as far as there is room."""
    fresh = {path.read_bytes() for path in (work / target.name / "fresh").glob("*")}
    small = [data for data in fresh | set(kept(target.name)) if len(data) <= _LARGEST_KEPT]
    small.sort(key=lambda data: (len(data), data))
    Random(0).shuffle(small)
    while small and keep(target.name, small) > _MOST_KEPT:
        del small[: max(1, len(small) // 10)]
