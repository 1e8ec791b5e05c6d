"""TensorRT-RTX, which needs no GPU to parse and build, takes every file that we write.

And what it must not be given is refused, by us or by its parser, with a reason.
"""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
from fake_tensorrt.operators import TYPES, refusals

from icnet_deploy.engine_sidecar import read_sidecar
from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.export.build_engine import build_engine, main
from icnet_deploy.export.engine import builder
from icnet_deploy.export.engine.graph import read_graph
from icnet_deploy.export.engine.options import BuildOptions
from icnet_deploy.metadata import read_onnx_metadata, stamped

TARGETS = ("SM86", "SM89", "SM120")
SIZE = (97, 161)

EXPORTED = ["logits", "labels", "half", "half-labels", "free", "free-labels"]
MADE = ["static", "int8", "int8-labels"]


def build(trt, path, options):
    return builder.build(trt, read_graph(path), options)


@pytest.fixture(scope="session")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


@pytest.mark.parametrize("name", [*EXPORTED, *MADE])
def test_it_builds_for_three_generations(rtx, form, name):
    options = BuildOptions(
        batch=(1, 1, 1) if name == "static" else (1, 1, 4),
        sizes=((64, 64), SIZE, (128, 192)) if name.startswith("free") else None,
        targets=TARGETS,
    )
    built = build(rtx, form(name), options)
    assert built.plan[:4] == b"vtrt"
    assert list(built.plan[24:27]) == [int(part) for part in rtx.__version__.split(".")[:3]]
    assert (built.profile is None) == (name == "static")
    assert built.report is None  # an engine for GPUs that are not here is not loaded


@pytest.mark.parametrize("target", TARGETS)
def test_it_builds_for_each_alone(rtx, form, target):
    assert build(rtx, form("labels"), BuildOptions(targets=(target,))).plan[:4] == b"vtrt"


@pytest.mark.parametrize("name", [*EXPORTED, *MADE])
def test_every_operator_is_in_the_parser_s_table(form, name):
    """TensorRT's own: what is asked of it besides RTX's word."""
    model = onnx.load(form(name))
    assert [f"{node.op_type} {node.name}: {why}" for _, node, why in refusals(model)] == []


def test_the_table_has_nothing_that_no_file_uses(form):
    used = {n.op_type for name in [*EXPORTED, "int8"] for n in onnx.load(form(name)).graph.node}
    assert set(TYPES) <= used | {"Concat"}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("logits", set()), ("half", {"fp16"}), ("int8", {"int8"})],
)
def test_the_precisions_are_read_from_the_graph(form, name, kinds):
    found = read_graph(form(name)).precisions()
    convolutions = [n for n in onnx.load(form(name)).graph.node if n.op_type == "Conv"]
    assert set(found.values()) == kinds
    assert not kinds or len(found) > 0.8 * len(convolutions)


def test_int8_ort_is_refused_by_us_and_by_the_parser(rtx, form):
    with pytest.raises(ModelError, match="int8-ort artefact"):
        build(rtx, form("int8-ort"), BuildOptions(targets=TARGETS))
    model = onnx.load(form("int8-ort"))
    disguised = form("int8-ort").with_name("disguised.onnx")
    metadata = replace(read_onnx_metadata(form("int8-ort")), precision="int8")
    disguised.write_bytes(stamped(model.SerializeToString(), metadata))
    with pytest.raises(ModelError, match=r"cannot read .*: QuantizeLinear 'sub_2_"):
        build(rtx, disguised, BuildOptions(targets=TARGETS))
    assert list(refusals(model)) != []


def test_a_free_size_is_told_apart(rtx, form):
    with pytest.raises(InputError, match="give --sizes"):
        build(rtx, form("free"), BuildOptions(targets=TARGETS))


def test_the_command_writes_an_engine_of_rtx(rtx, form, tmp_path, capsys):
    out = tmp_path / "icnet.engine"
    arguments = [str(form("half")), "-o", str(out), "--with", "tensorrt-rtx"]
    cache = ["--cache", str(tmp_path / "cache")]
    assert main([*arguments, "--target", "SM86,SM120", *cache]) == 0
    told = capsys.readouterr().out
    assert f"TensorRT-RTX {rtx.__version__} for SM86, SM120" in told
    assert "layers: not inspected" in told
    sidecar = read_sidecar(out)
    sidecar.check(out.read_bytes(), out)
    assert (sidecar.flavour, sidecar.targets, sidecar.gpu) == (
        "tensorrt-rtx",
        ("SM86", "SM120"),
        None,
    )
    again = build_engine(
        form("half"),
        tmp_path / "again.engine",
        rtx,
        BuildOptions(targets=("SM86", "SM120")),
        tmp_path / "cache",
    )
    assert again.cached
