"""`icnet doctor`: what this machine can run, and what to install for the rest."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from icnet_deploy import command as shared
from icnet_deploy.command import Goal
from icnet_deploy.errors import InputError, pip_install
from icnet_deploy.files import is_leftover, write_json
from icnet_deploy.metadata import NO_DIGEST
from icnet_deploy.runtime.auto.candidates import Candidate
from icnet_deploy.runtime.auto.choice import Choice, remembered_choices
from icnet_deploy.runtime.auto.folder import read_artefacts
from icnet_deploy.runtime.auto.verdicts import Entry, read_verdicts
from icnet_deploy.runtime.machine import PACKAGES, examine
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.runtime.signing.trusted import add_trust_options


@shared.command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet doctor`; returns its exit code."""
    args = _arguments(argv)
    machine = examine()
    if args.model is None:
        choices = list(remembered_choices())
        machine["choices"] = [asdict(choice) for choice in choices]
        title = "remembered choices (`icnet doctor --model FOLDER` explains one)"
        if not choices:
            title = "no choice among the files of a folder is remembered yet"
        lines = [*report(machine), "", title, *(f"  {choice}" for choice in choices)]
    else:
        with Predictor.from_folder(
            args.model, size=args.size, anew=args.measure, trusted_key=args.trusted_key
        ) as predictor:
            choice = predictor.choice
        assert choice is not None
        machine |= {"choice": asdict(choice), "notes": notes(args.model)}
        entry = read_verdicts(args.model).of(*choice.winner.place)
        lines = [*explain(choice, entry), *machine["notes"]]
    if args.json:
        write_json(args.json, machine)
    print("\n".join(lines))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = shared.parser(
        "icnet doctor",
        "Show what this machine can run, which runtime `auto` chooses, and what to install.",
        "icnet doctor --model release",
    )
    group = shared.options(parser, "to see which file of a folder is the fastest here")
    group.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="show which artefact of this folder is chosen, and why (default: show the machine)",
    )
    group.add_argument(
        "--measure",
        action="store_true",
        help="with --model: measure again (default: use the times that were kept)",
    )
    group.add_argument(
        "--size",
        type=shared.size,
        metavar="HxW",
        help="with --model: use only files of this input size (default: a folder must hold one "
        "size)",
    )
    add_trust_options(parser, folder_only=True)
    shared.options(parser, Goal.RESULTS).add_argument(
        "--json", metavar="FILE", help="write the result as JSON"
    )
    args = parser.parse_args(argv)
    options = {"--measure": args.measure, "--size": args.size, "--trusted-key": args.trusted_key}
    given = next((option for option, value in options.items() if value), None)
    if args.model is None and given:
        raise InputError(f"{given} needs a folder to choose from: give --model FOLDER also")
    return args


def explain(choice: Choice, entry: Entry | None = None) -> list[str]:
    """The lines that say what of a folder was chosen, why, and what is known of it."""
    lines = [f"{choice.folder}: {choice.winner.file} on {choice.winner.runtime}"]
    lines += [str(entry)] if entry else []
    lines += [f"note: {choice.note}", ""] if choice.note else [""]
    if choice.measured is None:
        lines.append("the only candidate: nothing was measured")
    else:
        when = "remembered from" if choice.remembered else "measured"
        lines.append(
            f"milliseconds from image to label map, {when} {choice.measured} on this machine"
        )
    best = choice.winner.median_ms
    lines += [_timed_row(one, best) for one in choice.candidates]
    if choice.left_out:
        lines += ["", "left out", *(f"  {sentence}" for sentence in choice.left_out)]
    return lines


def notes(folder: Path) -> list[str]:
    """Lines on files of a folder that nobody can vouch for, or that a killed process left."""
    lines = [
        f"  {path.name}: a killed process left this file: delete it"
        for path in sorted(filter(is_leftover, folder.iterdir()))
    ]
    lines += [
        f"  {artefact.path.name}: {NO_DIGEST}"
        for artefact in read_artefacts(folder, check=False)
        if artefact.metadata and not artefact.is_engine and not artefact.metadata.digest
    ]
    return ["", "notes", *lines] if lines else []


def _timed_row(one: Candidate, best: float | None) -> str:
    where = f"  {one.file:<28} {one.precision:<9} {one.runtime:<12} {one.device:<5}"
    if one.median_ms is None or best is None:
        return where.rstrip()
    times = "1 run" if one.runs == 1 else f"{one.runs} runs"
    return f"{where} {one.median_ms:>8.1f}   {one.median_ms / best:.2f} times the fastest, {times}"


def report(machine: dict[str, Any]) -> list[str]:
    """The lines that a person reads, from what `examine` found."""
    auto, packages = machine["auto"], machine["packages"]
    lines = [
        f"icnet-deploy {machine['icnet_deploy']}, Python {machine['python']}, {machine['os']}",
        "",
        "machine",
        *_hardware(machine),
        "",
        "runtimes",
        *(_row(name, _state(value)) for name, value in machine["runtimes"].items()),
        "",
        "GPU access for engines",
        *(_row(name, _state(value)) for name, value in machine["cuda"].items()),
        "",
        f"code that makes label maps: {machine['label_map']['kind']} "
        f"({machine['label_map']['why']})",
        f"check of JPEG files: {machine['jpeg']['kind']} ({machine['jpeg']['why']})",
        f"auto chooses {auto['runtime']} on {auto['device']}: {auto['why']}"
        if auto["runtime"]
        else f"auto finds no runtime: {auto['why']}",
        "",
        "packages",
        *(_row(p.name, packages[p.name] or f"missing: {p.purpose}") for p in PACKAGES),
        *_clashing(machine["clashes"]),
    ]
    missing = [
        _row(p.name, f"{pip_install(p.extra):<40} {p.purpose}")
        for p in PACKAGES
        if packages[p.name] is None and p.extra
    ]
    if packages["onnxruntime-gpu"] is None:
        missing.append(
            "  (onnxruntime and onnxruntime-gpu exclude each other: uninstall one before you"
        )
        missing.append("  install the other)")
    return [*lines, "", "to install what is missing", *missing] if missing else lines


def _clashing(clashes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Lines on packages that wrote over each other's files, and how to mend that."""
    if clashes:
        yield from ("", "packages that overwrite each other")
    for module, names in clashes.items():
        yield _row(module, f"{' and '.join(names)} install the same files: keep only one:")
        yield f"  pip uninstall -y {' '.join(names)} && pip install {names[0]}"


def _row(name: str, text: str) -> str:
    return f"  {name:<18} {text}"


def _hardware(machine: dict[str, Any]) -> list[str]:
    cpu, memory = machine["cpu"], machine["memory_gib"]
    gpus = [
        f"{gpu['name']}, {gpu['memory.total']}, driver {gpu['driver_version']}, compute capability "
        f"{gpu['compute_cap']}"
        for gpu in machine["gpus"]
    ]
    return [
        _row("processor", f"{cpu['model']}, {cpu['cores']} cores"),
        _row("instructions", " ".join(cpu["flags"]) or "unknown"),
        _row("memory", "unknown" if memory is None else f"{memory} GiB"),
        *(_row("GPU", text) for text in gpus or ["none: nvidia-smi shows no GPU"]),
    ]


def _state(value: dict[str, Any] | None) -> str:
    """What there is to say of a runtime, or of what drives a GPU."""
    if value is None:
        return "not installed"
    if "error" in value:
        return f"does not work: {value['error']}"
    if "gpu" in value:
        return f"{value['version']} on {value['gpu']}"
    if not value.keys() & {"devices", "providers"}:
        return f"{value['version']}: engines (icnet build-engine)"
    devices = [f"{device} ({model})" for device, model in value.get("devices", {}).items()]
    return f"{value['version']}: {', '.join(value.get('providers', devices))}"
