"""Whether a file that the product wrote is whole, by what reads it."""

from collections.abc import Callable
from pathlib import Path

from icnet_deploy.documents import parse
from icnet_deploy.errors import CheckFailed
from icnet_deploy.images import ImageFile
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.networks.checkpoint import load_checkpoint


def require_whole(path: Path) -> None:
    """Raises where a file is half-written."""
    import torch

    from icnet_deploy.training.curve import read_curve

    lines: dict[str, Callable[[Path], object]] = {
        ".onnx": read_onnx_metadata,
        ".safetensors": load_checkpoint,
        ".ckpt": lambda file: torch.load(file, weights_only=False),
        ".png": _decode,
        ".jpg": _decode,
        ".json": lambda file: parse(file.read_bytes()),
        ".jsonl": lambda file: [parse(line) for line in file.read_bytes().split(b"\n")[:-1]],
        ".csv": read_curve,
        ".html": lambda file: _ends(file, "</html>"),
        ".blob": lambda file: None,  # its reader holds it to its digest
    }
    if path.name.startswith("events.out.") or path.name == "hparams.yaml":
        return  # TensorBoard's, to which it adds as it goes
    if path.suffix not in lines or path.name.startswith("."):
        raise CheckFailed("this file has an unknown suffix")
    lines[path.suffix](path)


def _decode(path: Path) -> None:
    """A picture; of curves with alpha the colours."""
    ImageFile(path).rgb()


def _ends(path: Path, end: str) -> None:
    if not path.read_text().rstrip().endswith(end):
        raise CheckFailed("its end is missing")
