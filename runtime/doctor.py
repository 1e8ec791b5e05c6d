"""`icnet doctor`: what this machine can run, and what to install for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from icnet_deploy import command as shared
from icnet_deploy.files import write_json
from icnet_deploy.runtime.machine import PACKAGES, examine

__all__ = ["main"]


@shared.command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet doctor`; returns its exit code."""
    parser = shared.parser(
        "icnet doctor",
        "Say what this machine has, which runtime `auto` chooses and why, and what to install\n"
        "for the rest.",
        "icnet doctor --json machine.json",
    )
    parser.add_argument("--json", metavar="FILE", help="also write it all as JSON")
    args = parser.parse_args(argv)
    found = examine()
    if args.json:
        write_json(args.json, found)
    print("\n".join(report(found)))
    return 0


def report(found: dict[str, Any]) -> list[str]:
    """The lines that a person reads, from what `examine` found."""
    lines = [
        f"icnet-deploy {found['icnet_deploy']}, Python {found['python']}, {found['os']}",
        "",
        *_hardware(found),
        "",
        "runtimes",
        *(_row(name, text) for name, text in _runtimes(found["runtimes"])),
        "",
        "what drives the GPU for an engine",
        *(_row(name, text) for name, text in _adapters(found["cuda"])),
        "",
        *_auto(found["auto"]),
        "",
        "packages",
    ]
    missing = []
    for package in PACKAGES:
        installed = found["packages"][package.name]
        lines.append(_row(package.name, installed or f"missing: {package.purpose}"))
        if installed is None and package.extra:
            remedy = f'pip install "icnet-deploy[{package.extra}]"'
            missing.append(_row(package.name, f"{remedy:<40} {package.purpose}"))
    if found["packages"]["onnxruntime-gpu"] is None:
        missing.append("  (onnxruntime and onnxruntime-gpu exclude each other: uninstall the one")
        missing.append("  before the other is installed)")
    return [*lines, "", "to install what is missing", *missing] if missing else lines


def _row(name: str, text: str) -> str:
    return f"  {name:<18} {text}"


def _hardware(found: dict[str, Any]) -> list[str]:
    cpu, memory = found["cpu"], found["memory_gib"]
    lines = [
        "machine",
        _row("processor", f"{cpu['model']}, {cpu['cores']} cores"),
        _row("instructions", " ".join(cpu["flags"]) or "unknown"),
        _row("memory", "unknown" if memory is None else f"{memory} GiB"),
    ]
    for gpu in found["gpus"]:
        text = f"{gpu['name']}, {gpu['memory.total']}, driver {gpu['driver_version']}"
        lines.append(_row("GPU", f"{text}, compute capability {gpu['compute_cap']}"))
    if not found["gpus"]:
        lines.append(_row("GPU", "none that nvidia-smi shows"))
    return lines


def _runtimes(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in found.items():
        if value is None:
            text = "not installed"
        elif "error" in value:
            text = f"does not work: {value['error']}"
        elif "providers" in value:
            text = f"{value['version']}: {', '.join(value['providers'])}"
        elif "devices" in value:
            devices = [f"{device} ({model})" for device, model in value["devices"].items()]
            text = f"{value['version']}: {', '.join(devices)}"
        else:
            text = f"{value['version']}: engines (icnet build-engine)"
        rows.append((name, text))
    return rows


def _adapters(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in found.items():
        if value is None:
            text = "not installed"
        elif "error" in value:
            text = f"does not work: {value['error']}"
        else:
            text = f"{value['version']} on {value['gpu']}"
        rows.append((name, text))
    return rows


def _auto(found: dict[str, Any]) -> list[str]:
    if found["runtime"] is None:
        return [f"auto finds nothing that runs a model: {found['why']}"]
    return [f"auto means {found['runtime']} on {found['device']}: {found['why']}"]
