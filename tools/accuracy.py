"""`python -m tools.accuracy`: records the accuracy of a release, for `icnet evaluate --compare`.

It takes results that `icnet verify --json` or `icnet parity --json` wrote, or folders of artefacts,
which it verifies on a data set first.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from os.path import isdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from icnet_deploy.command import command, parser
from icnet_deploy.documents import (
    COUNT,
    OBJECT,
    SHA256,
    TEXT,
    Schema,
    list_of,
    object_with,
    one_of,
    or_null,
)
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.evaluate.records import RECORDS, Counted, Key, Run, append
from icnet_deploy.evaluation.evaluate.result import SCORE, image_counts
from icnet_deploy.evaluation.verify.command import main as verify

_WRITTEN_BY = "what this version's `icnet verify --json` or `icnet parity --json` writes"
_ROW = object_with(
    {
        **dict.fromkeys(("head", "precision", "runtime", "device"), TEXT),
        "sha256": SHA256,
        "size": or_null(list_of(COUNT, 2)),
        "protocol": OBJECT,
        "score": SCORE,
        "images": list_of(OBJECT),
    }
)
_RESULT = Schema(
    _WRITTEN_BY,
    {
        "kind": one_of("verify", "parity"),
        **dict.fromkeys(("versions", "machine"), OBJECT),
        "parity": or_null(object_with({"rows": list_of(_ROW)})),
        "rows": list_of(_ROW),
    },
    optional=("parity", "rows"),
    most_bytes=256 << 20,
)


def read_result(path: Path, name: str) -> tuple[Mapping[str, Any], list[Counted]]:
    """Reads a result of one network.

    Args:
        path: the file.
        name: of the network, among the records.

    Returns:
        The result, and its rows.

    Raises:
        InputError: there is no such file, or it is something else.
    """
    result = _RESULT.read(path)
    rows = (
        result["rows"] if result["kind"] == "parity" else (result["parity"] or {}).get("rows", [])
    )
    return result, [_counted(row, name, str(path)) for row in rows]


def _counted(row: Mapping[str, Any], name: str, where: str) -> Counted:
    image_counts(row, where)
    size = "any" if row["size"] is None else "x".join(map(str, row["size"]))
    told = {key: row[key] for key in ("head", "precision", "runtime", "device")}
    result = {key: row[key] for key in ("protocol", "score", "images")}
    return Counted(Key(network=name, size=size, **told), row["sha256"], result)


def runs(results: Sequence[tuple[str, Path]], day: str) -> list[Run]:
    """What is recorded of results: a run for those of one machine and the same versions.

    Args:
        results: the name of a network and its result, each.
        day: the date of the record, ISO 8601.

    Raises:
        InputError: as `read_result`.
    """
    found: list[Run] = []
    for name, path in results:
        result, rows = read_result(path, name)
        versions, machine = result["versions"], result["machine"]
        made = Run(day, str(versions.get("icnet-deploy", "not known")), versions, machine, rows)
        same = [i for i, run in enumerate(found) if replace(run, rows=rows) == made]
        for index in same:
            found[index] = replace(made, rows=[*found[index].rows, *rows])
        if not same and rows:
            found.append(made)
    return found


def _verified(folder: Path, options: Sequence[str], result: Path) -> None:
    """Has `icnet verify` judge a folder; what is past its budget is recorded all the same."""
    code = verify([str(folder), *options, "--json", str(result)])
    if code not in (0, 1):
        raise InputError(
            f"{folder} could not be verified, so nothing was recorded: see the error above"
        )


def _named(text: str) -> tuple[str, Path]:
    """Reads `NAME=PATH`, or `PATH` alone, which is named as it is, or as its folder."""
    name, equals, path = text.partition("=")
    if equals:
        return name, Path(path)
    here = Path(text)
    return (here.resolve().parent.name if here.stem == "verify" else here.stem), here


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.accuracy",
        "Records the accuracy of each network, precision and runtime as a line.",
        "python -m tools.accuracy runs/unet.json icnet=release -- --dataset camvid --data CamVid",
    )
    p.add_argument(
        "results",
        nargs="+",
        type=_named,
        metavar="[NAME=]PATH",
        help=f"{_WRITTEN_BY}, or a folder of artefacts, which is verified first; NAME is the "
        "network's (default: the file's or folder's; of a file called verify, its folder's). What "
        "follows -- goes to `icnet verify`",
    )
    p.add_argument(
        "--records",
        type=Path,
        default=RECORDS,
        metavar="FILE",
        help=f"where lines are added (default: {RECORDS.as_posix()})",
    )
    today = datetime.now(UTC).date().isoformat()
    p.add_argument("--date", default=today, help="of the record (default: today)")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    cut = given.index("--") if "--" in given else len(given)
    args = _arguments().parse_args(given[:cut])
    with TemporaryDirectory() as made:
        results: list[tuple[str, Path]] = []
        for name, path in tqdm(args.results, desc="results", unit="result", disable=None):
            result = path
            if isdir(path):
                result = Path(made) / f"{len(results)}.json"
                _verified(path, given[cut + 1 :], result)
            results.append((name, result))
        recorded = runs(results, args.date)
    if not recorded:
        raise InputError("there is nothing to record: no result holds a row that was compared")
    for run in recorded:
        print(f"{len(run.rows)} lines of {run}: {args.records}, and {append(args.records, run)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
