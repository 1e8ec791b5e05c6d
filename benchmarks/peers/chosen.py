"""Which peers take part in `icnet benchmark latency`, and on which files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.peers.registry import OUTSIDE, PEERS, open_peer
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.pairing import Pair
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.timing import Subject

_SECONDS = 10.0  # for how long a peer runs that times itself

_BARE = "openvino-bare"  # and what begins so


@dataclass(frozen=True)
class ChosenPeers:
    """The peers that were asked for.

    Attributes:
        names: keys of `PEERS`, each once.
        size: (height, width) of the images, in pixels.
        threads: CPU threads a run; None leaves it to each.
        weights: the checkpoint of the artefacts; None is the shipped one.
    """

    names: tuple[str, ...]
    size: tuple[int, int]
    threads: int | None
    weights: Path | None

    @classmethod
    def from_text(
        cls,
        text: str,
        size: tuple[int, int],
        threads: int | None,
        weights: Path | None,
    ) -> ChosenPeers:
        """Reads names with commas between them, or `all`; InputError if there is none of a name."""
        names = list(PEERS) if text == "all" else [name.strip() for name in text.split(",")]
        unknown = [name for name in names if name not in PEERS]
        if unknown:
            known = "; ".join(f"{name}: {what}" for name, what in PEERS.items())
            raise InputError(f"there is no peer {', '.join(unknown)}; known: {known}; or `all`")
        return cls(tuple(dict.fromkeys(names)), size, threads, weights)

    def open(self, pairs: Sequence[Pair], stack: ExitStack) -> list[Subject]:
        """Opens those that take turns; one that cannot is left out, unless it was named alone.

        Args:
            pairs: the artefacts that they are timed beside, and their runtimes.
            stack: closes them.

        Raises:
            InputError: the only one cannot run here, or not on these files.
            CheckFailed: one does not label as we do.
        """
        found = []
        for name in self.names:
            if name not in OUTSIDE:
                for artefact in self._artefacts(name, pairs):
                    with self._or_left_out(name):
                        peer = open_peer(
                            name, artefact, self.size, self.threads, weights=self.weights
                        )
                        found.append(stack.enter_context(peer))
        return found

    def outside(self, pairs: Sequence[Pair]) -> list[Measurement]:
        """Runs those that time themselves, each on every artefact that is meant for OpenVINO.

        Raises:
            InputError: the only one cannot run here.
        """
        found = []
        for name in self.names:
            if name in OUTSIDE:
                for artefact in _for_openvino(pairs):
                    with self._or_left_out(name):
                        found.append(OUTSIDE[name](artefact, _SECONDS, self.threads))
        return found

    @contextmanager
    def _or_left_out(self, name: str) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            if len(self.names) == 1:
                raise
            print(f"{name} is left out: {error}", file=sys.stderr)

    def _artefacts(self, name: str, pairs: Sequence[Pair]) -> list[Path | None]:
        """A bare peer runs each artefact; any other runs once, on one of its kind if it is here."""
        if name.startswith(_BARE):
            return list(_for_openvino(pairs))
        files = [pair.path for pair in pairs if pair.path.suffix == ".onnx"]
        return [*filter(self._is_whole, files), *files, None][:1]

    def _is_whole(self, path: Path) -> bool:
        """Whether it is a float32 file that makes the labels itself."""
        told = read_onnx_metadata(path)
        return (told.precision, told.head, told.size) == ("fp32", "labels", self.size)


def _for_openvino(pairs: Sequence[Pair]) -> list[Path]:
    return list(dict.fromkeys(pair.path for pair in pairs if pair.runtime == "openvino"))
