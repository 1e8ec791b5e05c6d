"""The release gate reads a file once, and finds one that changes while it is compared or later."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from contextlib import contextmanager

import onnx
import pytest

from icnet_deploy.data.scenes.dataset import drawn_scenes
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.pairing import default_runtimes, open_run
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.evaluation.verify.command import verify
from icnet_deploy.evaluation.verify.folder import read_folder
from icnet_deploy.evaluation.verify.record import record
from icnet_deploy.runtime.auto import folder
from icnet_deploy.runtime.auto.verdicts import read_verdicts

FEW = ("--limit", "2")


@pytest.fixture
def external(release):
    """The folder, the artefact's weights in a file beside it: as of version 0.1, unstamped."""
    model = onnx.load(release / "a.onnx")
    metadata = json.loads(model.metadata_props[0].value)
    for name in ("digest", "stamped"):
        del metadata[name]
    model.metadata_props[0].value = json.dumps(metadata)
    (release / "a.onnx").unlink()
    onnx.save(model, release / "a.onnx", save_as_external_data=True, location="a.data")
    assert (release / "a.data").stat().st_size > 10_000
    return release


def test_external_data_that_change_after_it_are_found(run, external):
    from icnet_deploy.runtime import Predictor

    assert run("verify", external, *FEW).code == 0
    Predictor.from_folder(external).close()
    before = read_folder(external).artefacts[0].sha256
    data = bytearray((external / "a.data").read_bytes())
    data[len(data) // 2] ^= 0x10
    (external / "a.data").write_bytes(data)
    with pytest.raises(InputError, match="changed after `icnet verify` checked it"):
        Predictor.from_folder(external)
    assert read_folder(external).artefacts[0].sha256 != before
    (external / "a.data").unlink()
    done = run("verify", external, *FEW)
    assert done.code == 1
    assert "external data" in done.out
    assert "are missing" in done.out
    assert read_verdicts(external).entries == ()


@pytest.fixture
def held(release, checkpoint):
    """A function that holds the folder to its limits, as the command does: its result."""

    def verify_release(opener=open_run):
        scenes = drawn_scenes(2, (96, 128))
        return verify(read_folder(release), scenes, Reference(checkpoint, None), opener=opener)

    return verify_release


def test_a_file_that_changes_while_it_is_compared_does_not_pass(release, held):
    @contextmanager
    def changing(run):
        with open_run(run) as predictor:
            run.path.touch()
            yield predictor

    result = held(changing)
    assert result.verdicts() == {"a.onnx": "failed"}
    assert "changed during the comparison" in str(result)
    record(result)
    assert not any(entry.passed for entry in read_verdicts(release).entries)


def test_each_file_is_read_once(release, held, monkeypatch):
    """What the metadata say and what the SHA-256 is, for all rows, failures and the record."""
    reads = Counter()

    def counted(name):
        real = getattr(folder, name)

        def read(path, *arguments):
            reads[name, path.name] += 1
            return real(path, *arguments)

        monkeypatch.setattr(folder, name, read)

    shutil.copy(release / "a.onnx", release / "b.onnx")
    (release / "text.onnx").write_text("not a model")
    (release / "e.engine").write_bytes(b"plan")
    for name in ("read_onnx_metadata", "read_sidecar", "digest_of"):
        counted(name)
    result = held()
    record(result)
    result.to_dict()
    assert len(result.rows) == 2 * len(default_runtimes())
    models = ("a.onnx", "b.onnx", "text.onnx")
    assert reads == Counter(
        [("digest_of", name) for name in (*models, "e.engine")]
        + [("read_onnx_metadata", name) for name in models]
        + [("read_sidecar", "e.engine")]
    )
