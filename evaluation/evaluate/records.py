"""Recorded accuracy: a line for each network, precision and runtime, and its counts beside it.

`benchmarks/results/accuracy.jsonl` grows by lines with each release. What was counted of each image
lies in a compressed file that a line names, one file for all lines that were recorded together.
"""

import json
import lzma
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from os.path import exists
from pathlib import Path
from typing import Any, NamedTuple, Self

from icnet_deploy.documents import COUNT, OBJECT, PERCENT, SHA256, TEXT, Schema, list_of, one_of
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.evaluate.result import SCORE, Result, image_counts
from icnet_deploy.evaluation.score import Protocol
from icnet_deploy.files import alone_in, make_folder, read_file, replacing

RECORDS = Path("benchmarks/results/accuracy.jsonl")
"""Where this product's own records are, in its repository."""

_SCHEMA = 1
_KIND = "accuracy"
_MOST_BYTES = 256 << 20  # of counts, unpacked


class Key(NamedTuple):
    """What a record is of: two releases are compared where these are equal.

    Attributes:
        network: its name among the records.
        size: HEIGHTxWIDTH of its input, or `any`.
        head: `logits` or `labels`.
        precision: of the artefact.
        runtime, device: what ran it.
    """

    network: str
    size: str
    head: str
    precision: str
    runtime: str
    device: str

    def __str__(self) -> str:
        return f"{self.network} {self.size} {self.head}, {self.precision} on {self.ran}"

    @property
    def ran(self) -> str:
        """The runtime, with its device where that is no CPU."""
        return self.runtime if self.device == "cpu" else f"{self.runtime}, {self.device}"


@dataclass(frozen=True)
class Counted:
    """What was counted of one artefact on one runtime.

    Attributes:
        key: what it is of.
        sha256: of the artefact.
        result: the protocol, the score and the counts of each image, as `icnet evaluate --json`
            writes them.
    """

    key: Key
    sha256: str
    result: Result

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**self.key._asdict(), "sha256": self.sha256, **self.result}


@dataclass(frozen=True)
class Run:
    """What was recorded together.

    Attributes:
        date: when, ISO 8601.
        version: of the product.
        versions: package -> version.
        machine: as `machine` of `icnet_deploy.runtime.machine` gives it.
        rows: what was counted.
        file: of its counts; empty before there is one.
    """

    date: str
    version: str
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    rows: Sequence[Counted]
    file: str = ""

    def __str__(self) -> str:
        return f"{self.version}, {self.date}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "schema": _SCHEMA,
            "kind": _KIND,
            **{name: getattr(self, name) for name in ("date", "version", "versions", "machine")},
            "rows": [row.to_dict() for row in self.rows],
        }


class Record(NamedTuple):
    """A line of recorded accuracy.

    Attributes:
        key: what it is of.
        date, version: when, and of which release.
        counts: the file of its counts, beside the records.
        counts_sha256: of that file.
    """

    key: Key
    date: str
    version: str
    counts: Path
    counts_sha256: str

    @classmethod
    def parse(cls, line: str, folder: Path, where: str) -> Self:
        """Reads a line (InputError, by the name `where`); `folder` holds the records."""
        fields = _LINE.parse(line, where)
        return cls(
            key=Key(**{name: fields[name] for name in Key._fields}),
            date=fields["date"],
            version=fields["version"],
            counts=folder / fields["counts"],
            counts_sha256=fields["counts_sha256"],
        )


_OF_A_RUN = {
    "schema": COUNT,
    "kind": one_of(_KIND),
    **dict.fromkeys(("date", "version"), TEXT),
    **dict.fromkeys(("versions", "machine"), OBJECT),
}
_OF_A_ROW = {**dict.fromkeys(Key._fields, TEXT), "sha256": SHA256, "protocol": OBJECT}
_LINE = Schema(
    "a line of recorded accuracy as `python -m tools.accuracy` writes it",
    {
        **_OF_A_RUN,
        **_OF_A_ROW,
        "miou_percent": PERCENT,
        "counts": TEXT,
        "counts_sha256": SHA256,
    },
    newest=_SCHEMA,
)
_ROW = Schema(
    "a row of counts as `python -m tools.accuracy` writes it",
    {**_OF_A_ROW, "score": SCORE, "images": list_of(OBJECT)},
)
_RUN = Schema(
    "a file of counts as `python -m tools.accuracy` writes it",
    {**_OF_A_RUN, "rows": list_of(OBJECT)},
    newest=_SCHEMA,
    most_bytes=_MOST_BYTES,
)


def append(records: Path, run: Run) -> Path:
    """Adds a line for each row of a run, and writes the counts beside the records.

    Args:
        records: the file, there or not.
        run: what is recorded.

    Returns:
        The file of its counts.

    Raises:
        InputError: it has no row, or two of one network, precision and runtime; or what is there
            cannot be read.
        OutputError: the files cannot be written.
    """
    _require_rows(run)
    with alone_in(make_folder(records.parent)):  # another process may add its own
        return _append(records, run)


def _append(records: Path, run: Run) -> Path:
    before = read_file(records).decode("utf-8") if exists(records) else ""
    _parsed(before, records)
    counts = _new_name(records.with_suffix(""), run)
    content = lzma.compress(_compact(run.to_dict()).encode())
    of_all = {name: value for name, value in run.to_dict().items() if name != "rows"}
    of_all["counts"] = counts.relative_to(records.parent).as_posix()
    of_all["counts_sha256"] = sha256(content).hexdigest()
    lines = [*before.splitlines(), *(_compact({**of_all, **_said_of(row)}) for row in run.rows)]
    with replacing(records) as fresh, replacing(counts) as beside:
        fresh.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        beside.write_bytes(content)
    return counts


def _require_rows(run: Run) -> None:
    if not run.rows:
        raise InputError("there is nothing to record: no result has a row that was compared")
    keys = [row.key for row in run.rows]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise InputError(
            f"{'; '.join(twice)}: two results have this name; give each result its own name, as "
            "NAME=FILE"
        )


def _said_of(row: Counted) -> dict[str, Any]:
    return {
        **row.key._asdict(),
        "sha256": row.sha256,
        "protocol": row.result["protocol"],
        "miou_percent": row.result["score"]["miou_percent"],
    }


def _compact(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _new_name(folder: Path, run: Run) -> Path:
    """A name that is still free."""
    stem = f"{run.date[:10]}-{run.version}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    paths = [folder / f"{name}.json.xz" for name in names]
    free = next((path for path in paths if not exists(path)), None)
    if free is None:
        raise InputError(
            f"{folder} already has {len(paths)} files named {stem}: give another --date"
        )
    return free


def read_records(path: Path) -> list[Record]:
    """The lines of recorded accuracy, in order.

    Raises:
        InputError: there is no such file, or it is something else.
    """
    try:
        text = read_file(path).decode("utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot read {path}: {why}; expected the records that `python -m tools.accuracy` "
            "writes: give their file with --records, or give two files of counts (.json.xz)"
        ) from error
    return _parsed(text, path)


def _parsed(text: str, path: Path) -> list[Record]:
    return [
        Record.parse(line, path.parent, f"{path}, line {number},")
        for number, line in enumerate(text.splitlines(), 1)
    ]


def read_run(path: Path, digest: str | None = None) -> Run:
    """The counts that were recorded together.

    Args:
        path: a file that `append` wrote beside the records.
        digest: its SHA-256, as a line has it; None: not checked.

    Raises:
        InputError: it cannot be read, is another than was recorded, or is something else.
    """
    try:
        packed = read_file(path)
        if digest is not None and sha256(packed).hexdigest() != digest:
            raise InputError(
                f"{path} is not the file of counts that the record names: its SHA-256 differs; "
                "restore it"
            )
        unpacking = lzma.LZMADecompressor()
        content = unpacking.decompress(packed, _MOST_BYTES + 1)
        if not unpacking.eof and len(content) <= _MOST_BYTES:
            raise EOFError("the file is cut off")
    except (OSError, lzma.LZMAError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {why}; expected {_RUN.what}") from error
    fields = _RUN.parse(content, str(path))
    rows = [_row(one, f"row {number} of {path}") for number, one in enumerate(fields["rows"], 1)]
    of_all = {name: fields[name] for name in ("date", "version", "versions", "machine")}
    return Run(**of_all, rows=rows, file=path.as_posix())


def _row(value: Mapping[str, Any], where: str) -> Counted:
    fields = _ROW.fit(value, where)
    result = {name: fields[name] for name in ("protocol", "score", "images")}
    Protocol.from_dict(result["protocol"], where)
    image_counts(result, where)
    return Counted(Key(**{name: fields[name] for name in Key._fields}), fields["sha256"], result)


def chosen(name: str, records: Path) -> list[Run]:
    """The runs that a name stands for, each with the rows that are meant.

    Args:
        name: a version, a date (YYYY-MM-DD), the number of a line, or a file of counts. Of a
            version or a date, the last record of each network, precision and runtime is meant.
        records: the records, where it is no file.

    Raises:
        InputError: it stands for nothing; or as `read_records` and `read_run`.
    """
    if name.endswith(".xz"):
        return [read_run(Path(name))]
    lines = read_records(records)
    meant = {record.key: record for record in _meant(name, lines)}
    if not meant:
        raise InputError(
            f"{records} has no record {name!r}; expected a version ({_listed(lines, 'version')}), "
            f"a date ({_listed(lines, 'date')}), the number of a line (1 to {len(lines)}), or a "
            "file of counts (.json.xz)"
        )
    runs = []
    for counts in dict.fromkeys(record.counts for record in meant.values()):
        of_it = {record.key: record for record in meant.values() if record.counts == counts}
        run = read_run(counts, next(iter(of_it.values())).counts_sha256)
        runs.append(replace(run, rows=[row for row in run.rows if row.key in of_it]))
    return runs


def _meant(name: str, lines: Sequence[Record]) -> Sequence[Record]:
    if name.isdigit():
        return lines[int(name) - 1 :][:1] if int(name) else []
    ways: tuple[Callable[[Record], bool], ...] = (
        lambda record: record.version == name,
        lambda record: record.date[:10] == name,
    )
    return next((some for way in ways if (some := [one for one in lines if way(one)])), [])


def _listed(lines: Sequence[Record], field: str) -> str:
    return ", ".join(dict.fromkeys(getattr(line, field) for line in lines)) or "none yet"
