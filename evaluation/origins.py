"""Which reference artefacts are held to: the one that was asked for, or the one that they name."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icnet_deploy.command import Goal, options
from icnet_deploy.documents import as_read
from icnet_deploy.errors import InputError, ModelError, require
from icnet_deploy.evaluation.float_network import NEEDS, FloatNetwork, OnnxNetwork, PytorchNetwork
from icnet_deploy.evaluation.foreign_network import is_foreign, open_foreign
from icnet_deploy.evaluation.model import kind_of_model
from icnet_deploy.evaluation.reference import Reference, read_checkpoint, shipped_checkpoint
from icnet_deploy.files import sha256
from icnet_deploy.labels import LabelSet
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.auto.folder import ArtefactFile

if TYPE_CHECKING:
    from icnet_deploy.networks.own.request import NetworkRequest

_OPTIONS = (
    "--network PACKAGE.MODULE:FACTORY, the PyTorch network; --weights FILE, its checkpoint; or "
    "--reference FILE.onnx, the float32 file that they were made from"
)

_SAID = ("preprocessing", "label_set", "upsampling", "threshold", "side_multiple")
"""What artefacts say of their network that a request may leave to them."""


def add_reference_options(parser: argparse.ArgumentParser, by_default: str) -> None:
    """Adds what names the reference, but for `--label-set`.

    Args:
        parser: of the command.
        by_default: what it is where nothing names it, in words.
    """
    from icnet_deploy.networks.own.request import add_network_options

    group = options(parser, Goal.REFERENCE, f"Default: {by_default}.")
    group.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="the checkpoint that the artefacts were made from; with --network, its weights "
        "(.safetensors or .pth)",
    )
    group.add_argument(
        "--reference",
        type=Path,
        metavar="FILE.onnx",
        help="an ONNX file to run in place of the PyTorch network: a float32 artefact with logits, "
        "or the file that the artefacts were adopted from",
    )
    add_network_options(group)


def choose_reference(
    arguments: argparse.Namespace,
    artefacts: Sequence[ArtefactFile],
    checkpoints: Mapping[Path, str] | None = None,
) -> Reference:
    """Opens the reference that was asked for, or that the artefacts name.

    Nothing was asked for: a checkpoint that they name, of those that are known here; else their
    parent, a float32 file among them.

    Args:
        arguments: of `add_reference_options`.
        artefacts: what is held to it; one with a `problem` says nothing.
        checkpoints: file -> SHA-256 of those that lie beside them; the shipped one is known, too.

    Raises:
        InputError: two are asked for; the artefacts do not agree about their network; or nothing
            names a reference.
        MissingPackage, ModelError, CheckFailed: it cannot be opened.
    """
    from icnet_deploy.networks.own.request import network_request

    request = network_request(arguments)
    if arguments.reference is not None:
        other = "--weights" if arguments.weights is not None else "--network"
        if arguments.weights is not None or request is not None:
            raise InputError(f"--reference and {other} both name the reference: give only one")
        return Reference(_file(arguments.reference, artefacts), None)
    if request is not None:
        return open_own(completed(request, artefacts), _sizes(artefacts))
    if arguments.weights is not None:
        if kind_of_model(arguments.weights) != "checkpoint":
            if kind_of_model(arguments.weights) == "onnx":
                raise InputError(
                    f"--weights {arguments.weights} is an ONNX file; expected a checkpoint: give "
                    "an ONNX file with --reference"
                )
            raise InputError(
                f"--weights {arguments.weights} holds only tensors: name their network with "
                "--network PACKAGE.MODULE:FACTORY"
            )
        return Reference(arguments.weights, None)
    return _named(artefacts, checkpoints or {})


def _file(path: Path, artefacts: Iterable[ArtefactFile]) -> FloatNetwork:
    """A float32 file of this product, or the one of another program that artefacts name."""
    if is_foreign(path):
        return open_foreign(path, [one.metadata for one in artefacts if one.metadata is not None])
    return OnnxNetwork(path)


def open_own(request: NetworkRequest, sizes: Sequence[tuple[int, int]] = ()) -> Reference:
    """Opens a network of a user's own; raises as `open_network`.

    Args:
        request: its label set and preprocessing are named.
        sizes: (height, width) that it will be run at, the first of which it is tried at.
    """
    require(*NEEDS)
    from icnet_deploy.networks.own.opened import open_network

    return Reference(PytorchNetwork(open_network(request, next(iter(sizes), None))), None)


def completed(request: NetworkRequest, artefacts: Iterable[ArtefactFile]) -> NetworkRequest:
    """A request with what the artefacts say of their network in place of what it leaves out.

    Raises:
        InputError: two artefacts say unlike things, or one another thing than the request.
        ModelError: none of them can be read.
    """
    described, problems = [], []
    for one in artefacts:
        if one.metadata is not None:
            described.append((one.path, one.metadata))
        elif one.problem:
            problems.append(one.problem)
    if problems and not described:  # that is what is wrong, not what the request leaves out
        raise ModelError(problems[0])
    for name in _SAID:
        values = [(path, getattr(metadata, name)) for path, metadata in described]
        for path, value in values[1:]:
            if not _alike(value, values[0][1]):
                raise InputError(
                    f"{values[0][0]} and {path} are from two networks, as their {_words(name)} "
                    f"differs ({_brief(values[0][1])}; {_brief(value)}): run the command once for "
                    "each"
                )
        if not values:
            continue
        path, value = values[0]
        said = getattr(request, name)
        if said is not None and value and not _alike(_read(name, said), value):
            raise InputError(
                f"--{name.replace('_', '-')} differs from the {_words(name)} of {path}, which is "
                f"{_brief(value)}: leave the option out, or export the network again"
            )
        if value != 1:  # of its sides, what is also meant where nothing was found out
            request = replace(request, **{name: value or said})
    return request


def _read(name: str, said: Any) -> Any:
    """What was said, in the form of an artefact's metadata."""
    if name != "preprocessing" or not isinstance(said, str):
        return said
    require(*NEEDS)
    from icnet_deploy.networks.preprocessing import load_preprocessing

    return load_preprocessing(said).to_dict()


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, LabelSet) and isinstance(other, LabelSet):
        return one.names == other.names  # another's colours and name are no other classes
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return bool(as_read(dict(one)) == as_read(dict(other)))
    return bool(one == other)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _brief(value: Any) -> str:
    return f"{len(value)} classes of {value.name}" if isinstance(value, LabelSet) else f"{value}"


def _sizes(artefacts: Iterable[ArtefactFile]) -> list[tuple[int, int]]:
    """The fixed sizes of artefacts, the largest first."""
    sizes = {one.metadata.size for one in artefacts if one.metadata and one.metadata.size}
    return sorted(sizes, key=lambda size: -size[0] * size[1])


def _named(artefacts: Sequence[ArtefactFile], checkpoints: Mapping[Path, str]) -> Reference:
    """The checkpoint that most of the artefacts name; else the float32 files among them."""
    described = [one.metadata for one in artefacts if one.metadata is not None]
    origins = [m.weights_sha256 for m in described if m.weights_sha256]
    shipped = shipped_checkpoint()
    known = {digest: path for path, digest in checkpoints.items()}
    known.setdefault(sha256(shipped), shipped)
    ranked = [digest for digest, _ in Counter(origins).most_common()]
    for digest in ranked:
        if digest in known:
            return Reference(PytorchNetwork(read_checkpoint(known[digest])), None)
    parents = list(_parents(artefacts, ranked, described))
    if parents:
        return Reference(OnnxNetwork(*parents), None)
    if not origins:
        return Reference(shipped, None)  # nothing can be compared; each file says why
    beside = " or one beside them" if checkpoints else ""
    raise ModelError(
        "the reference of these artefacts is not known: none was made from the shipped checkpoint"
        f"{beside}, and none is a float32 file with logits and the same weights. Give {_OPTIONS}"
    )


def _parents(
    artefacts: Iterable[ArtefactFile], ranked: Sequence[str], described: Sequence[ArtefactMetadata]
) -> Iterator[Path]:
    """The float32 files that give logits, of the weights that most artefacts name."""
    floats = [
        (one, one.metadata.weights_sha256)
        for one in artefacts
        if one.metadata is not None and not one.is_engine and not one.problem
        if (one.metadata.precision, one.metadata.head) == ("fp32", "logits")
    ]
    for digest in ranked:
        found = [one.path for one, weights in floats if weights == digest]
        if found:
            yield from found
            return
    wanted = {metadata.parent_sha256 for metadata in described}
    yield from (one.path for one, _ in floats if one.sha256 in wanted)
