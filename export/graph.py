"""From a module to an ONNX graph that every runtime reads."""

import contextlib
import io
import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import onnx
import torch

from icnet_deploy.errors import ModelError
from icnet_deploy.export.deployed import Deployed
from icnet_deploy.export.passes import (
    centre_first,
    count_from_last,
    fold_batch_norms,
    fold_input,
    pointwise_first,
    simplify,
    static_resize,
    transpose_first,
)
from icnet_deploy.export.pooling import PlainPools

OPSET = 19
"""The lowest that knows float16 scales of Q/DQ; TensorRT 10 and 11, ONNX Runtime from 1.16 and
OpenVINO from 2024 read it."""

LARGEST = 8192
"""The longest side in pixels that a free-size graph takes."""

_REWRITES = (
    *(fold_batch_norms, fold_input, pointwise_first, centre_first, transpose_first),
    count_from_last,
)
"""What makes the graph run faster, or at all, or rightly; see docs/reference/results/graph.md."""

IR = 9
"""The version of the format that opset 19 came with."""

_TOGETHER = 2  # images of the example: of one, an exporter might take the batch for a constant


class _Traced(NamedTuple):
    """A graph, and how it came about.

    Attributes:
        model: checked; the batch is free.
        note: what is to be known of it, in words; empty where it is as every other.
    """

    model: onnx.ModelProto
    note: str


def trace(
    module: Deployed,
    size: tuple[int, int],
    free_size: bool = False,
    rewrites: Sequence[Callable[[onnx.ModelProto], bool]] = _REWRITES,
) -> _Traced:
    """Exports with torch's dynamo exporter, then simplifies and rewrites.

    Where that one fails, its TorchScript exporter is used. It records what runs on one example, so
    that a branch that depends on the image's content is the example's in the graph.

    Args:
        module: what to export.
        size: (height, width) in pixels; for a free-size graph, of the example only.
        free_size: leave height and width free, from the network's shortest side to 8192 pixels, in
            steps of its `side_multiple`.
        rewrites: passes over the simplified graph, in this order.

    Raises:
        ModelError: neither exporter can; the message names the operator, or says why.
    """
    module.eval()
    try:
        return _Traced(finished(_by_dynamo(module, size, free_size), rewrites), "")
    except Exception as error:  # theirs are of many kinds
        first = error
    try:
        model = finished(_by_torchscript(module, size, free_size), rewrites)
    except Exception as second:
        raise ModelError(_refusal(first, second, free_size)) from first
    return _Traced(
        model,
        "torch's TorchScript exporter recorded the graph from one example, as its dynamo exporter "
        f"failed: {_reason(first)}",
    )


def _by_dynamo(module: Deployed, size: tuple[int, int], free_size: bool) -> onnx.ModelProto:
    dim = torch.export.Dim
    axes: dict[int, Any] = {0: dim("N", min=1, max=64)}
    if free_size:
        multiple = module.network.side_multiple
        least = -(-module.network.min_side // multiple)
        for axis, name in ((1, "H"), (2, "W")):
            side = dim(name, min=least, max=LARGEST // multiple)
            axes[axis] = side if multiple == 1 else multiple * side
    with _quiet(), PlainPools():
        program = torch.onnx.export(
            module,
            (_example(size),),
            dynamo=True,
            external_data=False,
            input_names=["image"],
            output_names=[module.head],
            dynamic_shapes=(axes,),
            opset_version=OPSET,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model: onnx.ModelProto = program.model_proto
    sides = model.graph.input[0].type.tensor_type.shape.dim
    fixed = [_AXES[axis] for axis in axes if not sides[axis].dim_param]
    if fixed:  # a side that the network takes for a constant becomes one, without a word
        raise RuntimeError(
            f"the network treats as a constant what it can read from its input: {', '.join(fixed)}"
        )
    return model


_AXES = ("number of images", "height", "width")


def _by_torchscript(module: Deployed, size: tuple[int, int], free_size: bool) -> onnx.ModelProto:
    sides = {1: "H", 2: "W"} if free_size else {}
    grid = {1: "H", 2: "W"} if module.head == "labels" else {2: "h", 3: "w"}
    file: Any = io.BytesIO()  # its annotation knows of paths alone
    with _quiet(), PlainPools():
        torch.onnx.export(
            module,
            (_example(size),),
            file,
            dynamo=False,
            input_names=["image"],
            output_names=[module.head],
            dynamic_axes={
                "image": {0: "N", **sides},
                module.head: {0: "N", **(grid if free_size else {})},
            },
            opset_version=OPSET,
        )
    return onnx.load_model_from_string(file.getvalue())


def _example(size: tuple[int, int]) -> torch.Tensor:
    return torch.zeros((_TOGETHER, *size, 3), dtype=torch.uint8)


def finished(
    model: onnx.ModelProto,
    rewrites: Sequence[Callable[[onnx.ModelProto], bool]] = _REWRITES,
) -> onnx.ModelProto:
    """The same graph without its writer's notes, simplified, rewritten and checked.

    Args:
        model: of opset 19; changed in place.
        rewrites: passes over the simplified graph, in this order.
    """
    model.ir_version = IR
    _drop_notes(model)
    static_resize(model)
    simplify(model)
    for rewrite in rewrites:
        rewrite(model)
    _name_nodes(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def _drop_notes(model: onnx.ModelProto) -> None:
    """Takes out the exporter's notes: stack traces with paths of the machine that exported."""
    graph = model.graph
    values = (*graph.value_info, *graph.input, *graph.output)
    for part in (model, graph, *graph.node, *values, *graph.initializer):
        del part.metadata_props[:]
    for part in (model, *graph.node):
        part.doc_string = ""


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Gives each node a name of its own, by which float16 keeps it, where it has none."""
    taken = Counter(node.name for node in graph.node)
    for index, node in enumerate(graph.node):
        if not node.name or taken[node.name] > 1:
            taken[node.name] -= 1
            node.name = f"{node.op_type}_{index}_{node.output[0]}"


_OPERATORS = (
    re.compile(r"OpOverload\(op='([\w.]+)'"),
    re.compile(r"export of operator ([\w:.]+)"),
    re.compile(r"[Tt]he operator '([\w:.]+)'"),
    re.compile(r"[Uu]nsupported operator[ :]+'?([\w:.]+)"),
)


def _refusal(first: Exception, second: Exception, free_size: bool) -> str:
    operators = [_operator(error) for error in (first, second)]
    named = next((name for name in operators if name), None)
    if named is not None:
        return (
            f"the network cannot be exported: torch's exporters have no ONNX for {named} "
            f"({_reason(first)}); use other operators in the network"
        )
    advice = "; export it at a fixed size, without --dynamic-size" if free_size else ""
    return (
        "the network cannot be exported by either of torch's exporters: the dynamo exporter says "
        f"{_reason(first)}; the TorchScript exporter says {_reason(second)}{advice}"
    )


def _operator(error: BaseException) -> str | None:
    text = _whole(error)
    return next((found[1] for o in _OPERATORS if (found := o.search(text))), None)


def _reason(error: BaseException) -> str:
    """The line of an exporter's report that says what is wrong; the report has dozens."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    text = str(chain[-1]).strip() or type(chain[-1]).__name__
    lines = [line.strip(" -\t") for line in text.splitlines() if line.strip()]
    told = next((line for line in lines if "specialized" in line or "constraint" in line), lines[0])
    if told.endswith(":") and len(lines) > 1:
        told = f"{told} {lines[lines.index(told) + 1]}"
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}..."


_LONGEST = 300  # characters of another program's report


def _whole(error: BaseException | None) -> str:
    text = ""
    while error is not None:
        text, error = f"{text}\n{error}", error.__cause__ or error.__context__
    return text


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what the exporters print besides what they raise: progress, programs, warnings."""
    level, torchscripts = logging.root.manager.disable, torch._C
    log = torchscripts._jit_onnx_log  # which prints the whole graph, whatever is asked of it
    logging.disable(logging.CRITICAL)
    setattr(torchscripts, "_jit_onnx_log", lambda *parts: None)  # noqa: B010
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        setattr(torchscripts, "_jit_onnx_log", log)  # noqa: B010
