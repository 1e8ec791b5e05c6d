"""The `icnet` command: finds the room that answers and hands the arguments on.

Rooms are named as text and imported only when their command is asked for, so that the root
imports no room and `icnet predict` never loads torch.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import cast

from icnet_deploy._version import __version__
from icnet_deploy.command import command, did_you_mean

COMMANDS = {
    "scenes": ("icnet_deploy.data.scenes.dataset", "draw labelled street scenes of any size"),
    "dataset": ("icnet_deploy.data.checking.command", "check a data set before it is used"),
    "train": ("icnet_deploy.training.command", "train a network, write a checkpoint"),
    "import-weights": (
        "icnet_deploy.networks.released.command",
        "the authors' released weights -> checkpoint",
    ),
    "compress": ("icnet_deploy.training.compress.command", "prune a network and fine-tune it"),
    "export": ("icnet_deploy.export.to_onnx", "checkpoint -> ONNX, verified against PyTorch"),
    "adopt": ("icnet_deploy.export.adopt.command", "another program's ONNX file -> artefact"),
    "quantize": ("icnet_deploy.calibration.command", "float32 ONNX -> INT8, calibrated"),
    "sensitivity": (
        "icnet_deploy.calibration.sensitivity.command",
        "what quantizing each block costs, and the fewest to keep in float",
    ),
    "build-engine": ("icnet_deploy.export.build_engine", "ONNX -> TensorRT engine"),
    "predict": ("icnet_deploy.runtime.predict.command", "label images, folders and videos"),
    "evaluate": ("icnet_deploy.evaluation.evaluate.command", "score a model on a data set"),
    "parity": ("icnet_deploy.evaluation.parity.command", "prove that artefacts are the same model"),
    "verify": (
        "icnet_deploy.evaluation.verify.command",
        "check a folder of artefacts before a release",
    ),
    "sign": ("icnet_deploy.runtime.signing.sign", "sign a folder of artefacts with a private key"),
    "verify-signature": (
        "icnet_deploy.runtime.signing.verify",
        "say whether a folder is as a key signed it",
    ),
    "benchmark": ("icnet_deploy.benchmarks.command", "time and memory, and the paper's tables"),
    "doctor": ("icnet_deploy.runtime.doctor", "say what this machine can run, and what is missing"),
}


def _usage() -> str:
    rows = "\n".join(f"  {name:<16} {what}" for name, (_, what) in COMMANDS.items())
    return (
        "usage: icnet COMMAND ...\n\n"
        "ICNet from PyTorch to ONNX, and one Predictor over the runtimes that serve it.\n\n"
        f"commands:\n{rows}\n\n"
        "  icnet COMMAND --help   what a command takes, with an example\n"
        "  icnet --version\n"
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (0 done, 1 a check failed, 2 a wrong request)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(f"{_usage()}icnet: error: no command was named", file=sys.stderr)
        return 2
    if arguments[0] in ("-h", "--help"):
        print(_usage(), end="")
        return 0
    if arguments[0] == "--version":
        print(f"icnet-deploy {__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        known = did_you_mean(name, COMMANDS) or f"; known: {', '.join(COMMANDS)}"
        print(f"icnet: error: unknown command {name!r}{known}", file=sys.stderr)
        return 2
    module = import_module(COMMANDS[name][0])
    return cast(int, module.main(arguments[1:]))
