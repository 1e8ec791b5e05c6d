"""TensorRT-RTX, which needs no GPU to parse and build, takes every file that we write."""

from __future__ import annotations

import pytest

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


@pytest.mark.parametrize("form", ["logits", "labels", "half", "free"])
def test_parses_and_builds(artefact, form):
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(
        1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    )  # held in a name: a parser does not keep its network alive
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(artefact(form).read_bytes())
    assert parsed, [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("image", (1, 97, 161, 3), (1, 97, 161, 3), (4, 97, 161, 3))
    assert config.add_optimization_profile(profile) >= 0
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    assert bytes(plan)[:4] == b"vtrt"
