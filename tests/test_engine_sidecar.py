"""The sidecar comes back as it was written, and holds an engine to its bytes."""

import contextlib
import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from icnet_deploy.documents import sealed
from icnet_deploy.engine_sidecar import EngineSidecar, Gpu, read_sidecar, sidecar_path
from icnet_deploy.errors import ModelError
from icnet_deploy.export.engine.cache import write_engine
from icnet_deploy.files import write_json
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.metadata import ArtefactMetadata

SIDECAR = EngineSidecar(
    engine_sha256=hashlib.sha256(b"plan").hexdigest(),
    onnx_sha256="ab" * 32,
    metadata=ArtefactMetadata(CITYSCAPES, (128, 256), "logits", "fp16"),
    flavour="tensorrt",
    version="10.16.1.11",
    gpu=Gpu("NVIDIA GeForce RTX 3090", (8, 6), "580.65.06"),
    targets=("SM86",),
    profiles=({"image": ((1, 128, 256, 3), (1, 128, 256, 3), (4, 128, 256, 3))},),
    options={"level": 3, "tf32": False},
    precisions={"fp16": 60, "unknown": 2},
)


@pytest.mark.parametrize("change", [{}, {"gpu": None, "precisions": None, "profiles": ()}])
def test_it_comes_back_equal(tmp_path, change):
    engine, sidecar = tmp_path / "icnet.engine", dataclasses.replace(SIDECAR, **change)
    assert read_sidecar(engine) is None
    write_json(sidecar_path(engine), sidecar.to_dict())
    assert sidecar_path(engine) == tmp_path / "icnet.engine.json"
    assert read_sidecar(engine) == sidecar


def test_of_engines_that_are_written_at_once_a_pair_that_matches_stays(tmp_path):
    """Two builds of one file differ: TensorRT's measurements do."""
    path = tmp_path / "cache" / "a.engine"
    path.parent.mkdir()

    def write(number):
        plan = bytes([number]) * 100_000
        one = dataclasses.replace(SIDECAR, engine_sha256=hashlib.sha256(plan).hexdigest())
        for _ in range(10):
            write_engine(path, plan, one)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    read_sidecar(path).check(path.read_bytes(), path)
    assert len(list(path.parent.iterdir())) == 2


def test_another_engine_is_refused():
    SIDECAR.check(b"plan", "icnet.engine")
    with pytest.raises(ModelError, match=r"is not the engine that icnet.engine.json describes"):
        SIDECAR.check(b"plan ", "icnet.engine")


def broken(**change):
    return {k: v for k, v in (SIDECAR.to_dict() | change).items() if v is not Ellipsis}


BROKEN = [
    (broken(schema=2), "upgrade icnet-deploy"),
    (broken(schema=...), "schema"),
    (sealed(broken(metadata={})), "the artefact's metadata is not what .*schema is missing"),
    (broken(gpu={"name": "x"}), "compute_capability"),
    (broken(profiles=[{"image": [[1], [1]]}]), "profiles is .*a list of 3"),
    (broken(profiles=3), "profiles is 3"),
    (broken(engine_sha256=...), "engine_sha256"),
    (broken(engine_sha256=None), "engine_sha256"),
    (broken(flavour=1), "flavour"),
    (broken(options=[]), "options"),
    (broken(version="10.16.1.12"), "not what was written"),
    ([], "it holds .*, expected an object"),
]


@pytest.mark.parametrize(("value", "message"), BROKEN)
def test_a_broken_one_is_refused_by_name(tmp_path, value, message):
    write_json(tmp_path / "icnet.engine.json", value)
    with pytest.raises(ModelError, match=rf"icnet\.engine\.json.*{message}"):
        read_sidecar(tmp_path / "icnet.engine")


def test_every_damaged_letter_is_found(tmp_path):
    path = tmp_path / "icnet.engine.json"
    write_json(path, SIDECAR.to_dict())
    text = path.read_bytes()
    random = np.random.default_rng(0)
    for at in (*random.integers(0, len(text), 300), *range(text.index(b'"digest"'), len(text))):
        changed = bytearray(text)
        changed[at] ^= 1 << int(random.integers(0, 7))
        path.write_bytes(bytes(changed))
        with contextlib.suppress(ModelError):
            # White space may differ, and the value be the same.
            assert read_sidecar(tmp_path / "icnet.engine") == SIDECAR


def test_what_is_no_json_is_refused(tmp_path):
    (tmp_path / "icnet.engine.json").write_text("{")
    with pytest.raises(
        ModelError, match=r"icnet\.engine\.json is not what `icnet build-engine` writes"
    ):
        read_sidecar(tmp_path / "icnet.engine")
