"""ONNX Runtime on CUDA by a CUDA graph, which is captured for one shape only.

What ONNX Runtime asks of such a session: every node on CUDA (but those that only compute shapes),
no control flow, and inputs and outputs that stay where they are. What it finds at the opening it
refuses there. The capture itself, after a run to warm up, is part of the first run, and can fail.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from icnet_deploy.errors import BackendError, UnavailableError
from icnet_deploy.runtime.backends.base import Array, Backend, TensorSpec, check_feed


class GraphBackend:
    """A graph for one shape, and a session for all others that is opened when there is one.

    A graph whose first run fails is given up with a warning: the session then takes its place.
    """

    def __init__(
        self,
        graph: Backend,
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        open_plain: Callable[[], Backend],
    ) -> None:
        """Takes the graph's backend, the inputs and outputs of the whole, and what opens it."""
        self.inputs, self.outputs = specs
        self._graph: Backend | None = graph
        self._plain: Backend | None = None
        self._open: Callable[[], Backend] | None = open_plain
        self._captured = False

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        if self._open is None:
            raise BackendError("the model was closed")
        check_feed(self.inputs, feed)
        if (
            self._graph is not None
            and feed[self.inputs[0].name].shape == self._graph.inputs[0].shape
        ):
            try:
                values = self._graph.run(feed)
                self._captured = True
                return values
            except BackendError as error:
                if self._captured:
                    raise
                reason = str(error)
            # Past the handler, whose traceback would hold the session, and with it a stream that
            # is still capturing: other sessions could then take no memory.
            self._graph.close()
            self._graph = None
            without_graph(reason)
        if self._plain is None:
            try:
                self._plain = self._open()
            except UnavailableError as error:
                raise BackendError(str(error)) from error
        return self._plain.run(feed)

    def close(self) -> None:
        """See `Backend.close`."""
        for each in (self._graph, self._plain):
            if each is not None:
                each.close()
        self._graph = self._plain = self._open = None


def sides_to_fix(session: Any) -> dict[str, int] | None:
    """Which free sides of a session's input are to be fixed so that a graph can be captured.

    Returns:
        The batch's name and 1, where only the batch is free and has a name; {} where all is fixed;
        None where there can be no graph.
    """
    if len(session.get_inputs()) != 1:
        return None
    batch, *sides = session.get_inputs()[0].shape
    if not all(isinstance(side, int) for side in sides):
        return None
    if isinstance(batch, int):
        return {}
    return {batch: 1} if batch else None


def without_graph(reason: str) -> None:
    """Warns that a model goes without."""
    warnings.warn(
        f"the model runs without a CUDA graph, a little slower: {reason}",
        RuntimeWarning,
        stacklevel=3,
    )
