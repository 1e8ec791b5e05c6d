"""`Predictor` and the commands open only what a key signed, or what has a SHA-256."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="an artefact with external data is written with onnx")

from icnet_deploy.errors import InputError, MissingPackage, ModelError
from icnet_deploy.files import write_text
from icnet_deploy.images import write_image
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import read_onnx_metadata, stamped
from icnet_deploy.runtime import Predictor, predictor
from icnet_deploy.runtime.auto.verdicts import Entry, Verdicts, write_verdicts
from icnet_deploy.runtime.backends.openvino import backend as openvino_backend
from icnet_deploy.runtime.signing.signature import NAME, sign_folder

SIZE = (64, 96)


@pytest.fixture(autouse=True)
def private(tmp_path, monkeypatch):
    """The folder for temporary files, which is empty in the end, and for what is kept."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("ICNET_CACHE", str(tmp_path / "cache"))
    yield folder
    assert list(folder.iterdir()) == []


def verdicts(folder, *names, runtime="onnxruntime"):
    """Writes what `icnet verify` would, of files that pass."""
    told = ("", 0.01, "2 images", "mIoU within 0.3 points", "2026-01-01T00:00:00+00:00", "a cpu")
    entries = [
        Entry(name, artefact_sha256(folder / name), runtime, "cpu", "within", *told)
        for name in names
    ]
    write_verdicts(folder, Verdicts(tuple(entries)))


@pytest.fixture
def release(tiny_model, tmp_path, keys):
    """A folder with two verified artefacts, signed."""
    folder = tmp_path / "release"
    folder.mkdir()
    shutil.move(tiny_model(), folder / "a.onnx")
    other = replace(read_onnx_metadata(folder / "a.onnx"), tools={"another": "file"})
    (folder / "b.onnx").write_bytes(stamped((folder / "a.onnx").read_bytes(), other))
    verdicts(folder, "a.onnx", "b.onnx")
    sign_folder(folder, keys[0])
    return folder


@pytest.fixture
def evil(tiny_model):
    """Another model, whose classes are in another order, so that it labels otherwise."""
    import onnx

    path = tiny_model()
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if tensor.name in ("weights", "bias"):
            turned = np.ascontiguousarray(values[::-1])
            tensor.CopyFrom(onnx.numpy_helper.from_array(turned, tensor.name))
    path.write_bytes(stamped(model.SerializeToString(), read_onnx_metadata(path)))
    return path


@pytest.fixture
def image(blocks):
    return blocks(SIZE)


def labels(path, image, **options):
    with Predictor.open(path, device="cpu", **options) as opened:
        return opened.predict(image).labels


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_that_was_signed(release, evil, keys, image, runtime):
    path = release / "a.onnx"
    wanted = labels(path, image, runtime=runtime)
    assert not np.array_equal(labels(evil, image, runtime=runtime), wanted)
    for trust in (
        {"trusted_key": keys[1]},
        {"trusted_key": str(keys[1])},
        {"sha256": artefact_sha256(path)},
        {"sha256": artefact_sha256(path).upper()},
        {"trusted_key": keys[1], "sha256": artefact_sha256(path)},
    ):
        np.testing.assert_array_equal(labels(path, image, runtime=runtime, **trust), wanted)
    sha256 = artefact_sha256(path)
    with pytest.raises(ModelError, match=r"a\.onnx is not the file that you asked for"):
        labels(path, image, trusted_key=keys[1], sha256="0" * 64)
    shutil.copy(evil, path)
    with pytest.raises(ModelError, match=r"release/a\.onnx is not the file that was signed"):
        labels(path, image, trusted_key=keys[1])
    with pytest.raises(ModelError, match=rf"{artefact_sha256(evil)}, expected {sha256}"):
        labels(path, image, sha256=sha256)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("trust", ["key", "sha256"])
def test_what_was_verified_is_what_is_loaded(
    release, evil, keys, image, monkeypatch, runtime, trust
):
    """Somebody swaps the file after its SHA-256 was taken, and before a runtime reads it."""
    path = release / "a.onnx"
    wanted = labels(path, image, runtime=runtime)
    asked = {"trusted_key": keys[1]} if trust == "key" else {"sha256": artefact_sha256(path)}
    load = predictor.load_onnx

    def swap(copy, *args, **options):
        shutil.copy(evil, path)
        return load(copy, *args, **options)

    monkeypatch.setattr(predictor, "load_onnx", swap)
    np.testing.assert_array_equal(labels(path, image, runtime=runtime, **asked), wanted)
    assert not np.array_equal(labels(path, image, runtime=runtime), wanted)


def test_a_folder_that_is_swapped_while_it_is_opened(release, evil, keys, image, monkeypatch):
    wanted = labels(release, image, runtime="onnxruntime")
    load = predictor.load_onnx

    def swap(copy, *args, **options):
        for name in ("a.onnx", "b.onnx"):
            shutil.copy(evil, release / name)
        verdicts(release, "a.onnx", "b.onnx")
        return load(copy, *args, **options)

    monkeypatch.setattr(predictor, "load_onnx", swap)
    found = labels(release, image, runtime="onnxruntime", trusted_key=keys[1])
    np.testing.assert_array_equal(found, wanted)
    with pytest.raises(ModelError, match="is not the file that was signed"):
        labels(release, image, trusted_key=keys[1])


def test_a_folder_says_its_own_name(release, keys, tmp_path, image):
    with Predictor.open(release, "onnxruntime", "cpu", trusted_key=keys[1]) as opened:
        assert opened.choice.folder == str(release)
        assert "temporary" not in str(opened.choice)
        assert opened.predict(image).labels.shape == SIZE
    (kept,) = (tmp_path / "cache" / "choices").iterdir()
    assert "temporary" not in kept.read_text()
    assert str(release) in kept.read_text()
    assert not (tmp_path / "cache" / "digests").exists()  # of a copy that is gone
    with Predictor.open(release, "onnxruntime", "cpu", trusted_key=keys[1]) as opened:
        assert opened.choice.remembered
    with pytest.raises(InputError, match="no artefact in") as told:
        Predictor.open(release, "openvino", "cpu", trusted_key=keys[1])
    assert "temporary" not in str(told.value)
    assert f"icnet verify {release}" in str(told.value)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda folder: (folder / "b.onnx").unlink(), "lacks files that were signed: b.onnx"),
        (
            lambda folder: (folder / "verified.json").unlink(),
            "lacks files that were signed: verified",
        ),
        (lambda folder: verdicts(folder, "b.onnx"), "verified.json is not the file that was"),
        (lambda folder: shutil.copy(folder / "a.onnx", folder / "c.onnx"), "not signed: c.onnx"),
        (lambda folder: write_text(folder / "c.engine.json", "{}"), "not signed: c.engine.json"),
        (lambda folder: (folder / NAME).unlink(), "is not signed: it holds no model.sig"),
    ],
)
def test_a_folder_that_was_changed(release, keys, attack, message):
    attack(release)
    with pytest.raises(ModelError, match=message):
        Predictor.open(release, device="cpu", trusted_key=keys[1])


def test_external_data(release, keys, image):
    import onnx

    path = release / "a.onnx"
    wanted = labels(path, image, runtime="onnxruntime")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name)
        )
    metadata = read_onnx_metadata(path)
    path.unlink()
    options = {"save_as_external_data": True, "location": "a.data", "size_threshold": 0}
    onnx.save(model, path, **options)
    path.write_bytes(stamped(path.read_bytes(), metadata, release))
    sign_folder(release, keys[0])
    for runtime in ("onnxruntime", "openvino"):
        for trust in ({"trusted_key": keys[1]}, {"sha256": artefact_sha256(path)}):
            np.testing.assert_array_equal(labels(path, image, runtime=runtime, **trust), wanted)
    sha256 = artefact_sha256(path)
    data = bytearray((release / "a.data").read_bytes())
    data[len(data) // 2] ^= 1
    (release / "a.data").write_bytes(data)
    with pytest.raises(ModelError, match=r"a\.data is not the file that was signed"):
        labels(path, image, trusted_key=keys[1])
    with pytest.raises(ModelError, match="is not the file that you asked for"):
        labels(path, image, sha256=sha256)
    (release / "a.data").unlink()
    for trust in ({"trusted_key": keys[1]}, {"sha256": sha256}):
        with pytest.raises(ModelError, match=r"a\.data are missing"):
            labels(path, image, **trust)


def test_nothing_that_openvino_kept_is_loaded(release, keys, image, monkeypatch, tmp_path):
    """It is held to a SHA-256 that lies in the same file, which proves nothing of who wrote it."""
    path = release / "a.onnx"
    labels(path, image, runtime="openvino")  # ICNET_CACHE is set: it is kept
    assert list((tmp_path / "cache" / "openvino").iterdir())
    monkeypatch.setattr(
        openvino_backend._Kept, "read", lambda self: pytest.fail("what was kept was read")
    )
    for trust in ({"trusted_key": keys[1]}, {"sha256": artefact_sha256(path)}):
        labels(path, image, runtime="openvino", **trust)
        with pytest.raises(InputError, match="OpenVINO compiled and kept"):
            labels(path, image, runtime="openvino", cached=True, **trust)
    verdicts(release, "a.onnx", runtime="openvino")
    sign_folder(release, keys[0])
    labels(release, image, trusted_key=keys[1])


def test_a_file_beside_which_there_is_no_signature(release, keys, tmp_path, image):
    shutil.copy(release / "a.onnx", tmp_path / "a.onnx")
    with pytest.raises(ModelError, match=r"is not signed: it holds no model\.sig"):
        labels(tmp_path / "a.onnx", image, trusted_key=keys[1])
    for name in ("absent.onnx", "absent.engine"):
        with pytest.raises(ModelError, match=f"cannot read the model .*{name}: No such file"):
            Predictor.open(release / name, trusted_key=keys[1])
    shutil.copy(release / "a.onnx", release / "c.onnx")
    with pytest.raises(ModelError, match=r"were not signed: c\.onnx"):
        labels(release / "c.onnx", image, trusted_key=keys[1])


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, f"{'0' * 64}\n", f"sha256:{'0' * 64}"])
def test_what_is_no_sha256(release, sha256):
    with pytest.raises(InputError, match="64 hex digits"):
        Predictor.open(release / "a.onnx", sha256=sha256)


def test_a_sha256_is_of_a_file(release):
    with pytest.raises(InputError, match="a SHA-256 identifies one file"):
        Predictor.open(release, sha256="0" * 64)


def test_without_the_package_a_sha256_is_held_all_the_same(release, keys, without, image):
    without("model_signing")
    path = release / "a.onnx"
    labels(path, image, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    for place in (path, release):
        with pytest.raises(MissingPackage, match=r'icnet-deploy\[sign\]"'):
            labels(place, image, trusted_key=keys[1])


def test_the_copies_stay_while_a_gpu_may_load_them_again(release, keys, image, private):
    with Predictor.from_onnx(
        release / "a.onnx", "onnxruntime", "cpu", trusted_key=keys[1]
    ) as opened:
        assert list(private.iterdir()) == []
        opened.device = "cuda"
        with predictor.ExitStack() as files:
            copy = files.enter_context(predictor.trusted_file(release / "a.onnx", keys[1], None))
            opened._keeping(files)
        assert copy.exists()
    assert not copy.exists()


def test_the_commands(release, evil, keys, image, tmp_path, run):
    write_image(tmp_path / "image.png", image)
    private, public = keys
    (release / NAME).unlink()
    signing = run("sign", release, "--key", private)
    assert (signing.code, signing.err) == (0, "")
    digest = hashlib.sha256((release / "a.onnx").read_bytes()).hexdigest()
    assert f"{digest}  a.onnx\n" in signing.out
    assert "signed 3 files" in signing.out
    done = run("verify-signature", release, "--public-key", public)
    assert (done.code, done.err) == (0, "")
    assert "holds exactly the files that" in done.out
    predict = ["predict", tmp_path / "image.png", "-o", tmp_path / "out", "--device", "cpu"]
    for model in (release, release / "a.onnx"):
        labelled = run(*predict, "--model", model, "--trusted-key", public)
        assert labelled.code == 0, labelled.err
    assert run(*predict, "--model", release / "a.onnx", "--sha256", digest).code == 0
    doctor = run("doctor", "--model", release, "--trusted-key", public)
    assert doctor.code == 0
    assert str(release) in doctor.out
    shutil.copy(evil, release / "a.onnx")
    for command in (
        ["doctor", "--model", release, "--trusted-key", public],
        [*predict, "--model", release, "--trusted-key", public],
        [*predict, "--model", release / "a.onnx", "--trusted-key", public],
        [*predict, "--model", release / "a.onnx", "--sha256", digest],
    ):
        refused = run(*command)
        assert refused.code == 2
        assert "release/a.onnx is not the file that " in refused.err
        assert refused.err.count("\n") == 1
    found = run("verify-signature", release, "--public-key", public)
    assert found.code == 1
    assert "is not the file that was signed" in found.err


def test_the_commands_refuse_what_they_cannot_use(release, keys, tmp_path, run):
    for command, message in (
        (["verify-signature", release, "--public-key", keys[0]], "expected a public key"),
        (["verify-signature", tmp_path / "absent", "--public-key", keys[1]], "is not signed"),
        (["sign", release, "--key", keys[1]], "expected a private key"),
        (["sign", release / "a.onnx", "--key", keys[0]], "is a file, not a folder"),
        (["sign", tmp_path / "absent", "--key", keys[0]], "does not exist"),
        (
            ["doctor", "--trusted-key", keys[1]],
            "--trusted-key needs a folder to choose from: give --model",
        ),
    ):
        done = run(*command)
        assert message in done.err
        assert done.code == (1 if "is not signed" in message else 2)
    (release / ".icnet-0123456789abcdef.tmp").write_bytes(b"half")
    assert "left when it was killed" in run("sign", release, "--key", keys[0]).err


def test_a_help_names_the_extra_and_shows_an_example(run):
    for command in ("sign", "verify-signature"):
        assert f"icnet {command} release" in run(command, "--help").out
    assert "[sign]" in run("predict", "--help").out


def test_the_files_of_a_link(release, keys, image):
    """Who links to a release, as `current`, opens what it leads to; the bytes alone count."""
    (release.parent / "current").symlink_to(release)
    labels(release.parent / "current", image, trusted_key=keys[1])
    labels(release.parent / "current" / "a.onnx", image, trusted_key=keys[1])
    link = Path(release.parent / "link.onnx")
    link.symlink_to(release / "a.onnx")
    labels(link, image, sha256=artefact_sha256(link))
