"""What OpenVINO compiled is kept with a digest: what is not that, byte for byte, is never run."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed")

from icnet_deploy.errors import ModelError
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.runtime import Predictor, open_backend
from icnet_deploy.runtime.backends.openvino import backend as open_vino


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of compiled models, which `ICNET_CACHE` asks for."""
    monkeypatch.setenv("ICNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


@pytest.fixture
def imports(monkeypatch):
    """Whether each load found what it could import: what `Kept.read` gave."""
    given = []
    read = open_vino._Kept.read

    def noted(self):
        given.append(read(self))
        return given[-1]

    monkeypatch.setattr(open_vino._Kept, "read", noted)
    return given


def logits(path, image, cached=None):
    backend = open_backend("openvino", path, "cpu", cached=cached)
    try:
        return backend.run({"image": image[None]})["logits"].copy()
    finally:
        backend.close()


def test_what_is_kept_answers_as_what_was_compiled(tiny_model, cache, imports, blocks):
    path, image = tiny_model(), blocks((64, 96))
    first = logits(path, image)
    [kept] = cache.iterdir()
    content = kept.read_bytes()
    np.testing.assert_array_equal(logits(path, image), first)
    assert [found is None for found in imports] == [True, False]
    assert [entry.read_bytes() for entry in cache.iterdir()] == [content]


def weights_changed(content):
    """The file with one byte of a weight changed: OpenVINO itself loads that, and says nothing."""
    from icnet_deploy.labels import CITYSCAPES

    weight = (2 * np.array(CITYSCAPES.palette, np.float32) / 255).astype("<f4").tobytes()
    assert content.count(weight) == 1
    at = content.index(weight) + 3 + 4 * 30
    return content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        weights_changed,
        lambda content: content[: len(content) // 2],
        lambda content: content[:64],
        lambda content: b"",
        lambda content: bytes(len(content)),
        lambda content: content + b"\0",
        lambda content: content[64:],  # as OpenVINO's own cache has it
    ],
    ids=["weight", "cut", "digest only", "empty", "zeros", "longer", "no digest"],
)
def test_wrong_bytes_are_compiled_anew_and_replaced(tiny_model, cache, imports, blocks, damage):
    path, image = tiny_model(), blocks((64, 96))
    first = logits(path, image)
    [kept] = cache.iterdir()
    content = kept.read_bytes()
    kept.write_bytes(damage(content))
    np.testing.assert_array_equal(logits(path, image), first)
    assert imports == [None, None]
    logits(path, image)
    assert imports[2] is not None


@pytest.mark.parametrize("content", [b"", b"\xdc\xc0 no JSON\n", b"no line's end", b"{\n"])
def test_another_layout_with_its_right_digest_is_compiled_anew(
    tiny_model, cache, imports, blocks, monkeypatch, content
):
    path, image = tiny_model(), blocks((64, 96))
    made, real = [], open_vino._Kept.write
    monkeypatch.setattr(
        open_vino._Kept, "write", lambda self, *given: (made.append(self), real(self, *given))
    )
    first = logits(path, image)
    [kept] = made
    kept.path.write_bytes(kept._digest(content) + content)
    np.testing.assert_array_equal(logits(path, image), first)
    assert imports[-1] is None


def test_another_models_under_its_name_is_compiled_anew(tiny_model, cache, imports, blocks):
    """Also one whose digest is sound: the digest is over the key, too."""
    from icnet_deploy.labels import CITYSCAPES, LabelSet

    names, palette = CITYSCAPES.names, CITYSCAPES.palette
    other = LabelSet("other", names, (*palette[1:], palette[0]))
    path, image = tiny_model(), blocks((64, 96))
    first = logits(path, image)
    [kept] = cache.iterdir()
    assert not np.array_equal(logits(tiny_model(label_set=other), image), first)
    [another] = set(cache.iterdir()) - {kept}
    shutil.copy(another, kept)
    np.testing.assert_array_equal(logits(path, image), first)
    assert imports == [None, None, None]


def test_what_openvino_does_not_take_is_compiled_anew(tiny_model, cache, monkeypatch, blocks):
    path, image = tiny_model(), blocks((64, 96))
    first = logits(path, image)
    [kept] = cache.iterdir()
    size = kept.stat().st_size
    kept.write_bytes(b"")
    garbage = ({}, b"of another version")
    monkeypatch.setattr(open_vino._Kept, "read", lambda self: garbage)
    np.testing.assert_array_equal(logits(path, image), first)
    assert abs(kept.stat().st_size - size) < size / 10  # some bytes are not the same each time


@pytest.mark.parametrize("what", ["bytes", "threads", "streams", "version", "graph", "processor"])
def test_all_that_it_depends_on_is_in_its_name(tiny_model, cache, monkeypatch, what):
    path, options = tiny_model(), {}
    open_backend("openvino", path, "cpu").close()
    if what == "bytes":
        path.write_bytes(path.read_bytes() + b"\x72\x00")  # an empty field: still a sound file
    elif what in ("threads", "streams"):
        options = {"threads": 2} if what == "threads" else {"streams": 2}
    elif what == "version":
        monkeypatch.setattr(open_vino, "__version__", "0.0.0")
    elif what == "graph":
        monkeypatch.setattr(open_vino, "PREPARED", 0)
    else:
        monkeypatch.setattr(open_vino, "_machine", lambda: {"FULL_DEVICE_NAME": "another"})
    open_backend("openvino", path, "cpu", **options).close()
    assert len(list(cache.iterdir())) == 2


def test_a_file_that_changes_while_it_is_compiled_is_not_kept(tiny_model, cache, monkeypatch):
    path = tiny_model()
    real = open_vino.for_one

    def for_one(model):
        path.write_bytes(path.read_bytes() + b"\x72\x00")
        return real(model)

    monkeypatch.setattr(open_vino, "for_one", for_one)
    open_backend("openvino", path, "cpu").close()
    assert not cache.exists()


def test_several_at_once_leave_a_whole_one(tiny_model, cache, imports, blocks):
    path, image = tiny_model(), blocks((64, 96))
    with ThreadPoolExecutor(8) as pool:
        first, *others = pool.map(lambda _: logits(path, image), range(8))
    for other in others:
        np.testing.assert_array_equal(other, first)
    imports.clear()
    np.testing.assert_array_equal(logits(path, image), first)
    assert imports[0] is not None
    assert len(list(cache.iterdir())) == 1


def test_without_being_asked_nothing_is_kept(tiny_model, tmp_path, monkeypatch):
    monkeypatch.delenv("ICNET_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    open_backend("openvino", tiny_model(), "cpu").close()
    assert not (tmp_path / "home").exists()
    open_backend("openvino", tiny_model(), "cpu", cached=True).close()
    assert list((tmp_path / "home" / "icnet-deploy" / "openvino").iterdir())
    monkeypatch.setenv("ICNET_CACHE", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    open_backend("openvino", tiny_model(), "cpu", cached=True).close()
    assert not (tmp_path / "other").exists()


def test_false_wins_over_the_environment(tiny_model, cache, imports, blocks):
    image = blocks((64, 96))
    with Predictor.from_onnx(tiny_model(), "openvino", cached=False) as predictor:
        predictor.predict(image)
    assert not cache.exists()
    assert imports == []


def test_a_cache_that_cannot_be_written_is_done_without(tiny_model, tmp_path, monkeypatch, blocks):
    path, image = tiny_model(), blocks((64, 96))
    first = logits(path, image, cached=False)
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        monkeypatch.setenv("ICNET_CACHE", str(tmp_path / place))
        np.testing.assert_array_equal(logits(path, image), first)
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("ICNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(open_vino, "replacing", lambda path: (_ for _ in ()).throw(OSError))
    np.testing.assert_array_equal(logits(path, image), first)


def test_a_model_compiled_wrongly_for_several_streams_is_compiled_anew(tiny_model):
    """OpenVINO does so now and then on a busy machine; here the wrong one is another model."""
    other = replace(CITYSCAPES, palette=CITYSCAPES.palette[::-1])
    config = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 2}

    def compiled(path):
        core = open_vino.core()
        compile_model = partial(core.compile_model, device_name="CPU", config=config)
        return open_vino.compile_for(core.read_model(path), compile_model)

    path = tiny_model()
    sound, wrong = compiled(path), compiled(tiny_model(label_set=other))
    answers = iter([wrong, wrong, sound])
    assert open_vino.load_alike(lambda: next(answers), sound, 2, path) is sound
    with pytest.raises(ModelError, match=r"compiled .* wrongly for 2 streams, 3 times"):
        open_vino.load_alike(lambda: wrong, sound, 2, path)


def test_several_streams_are_loaded_beside_one_that_they_are_held_to(tiny_model, monkeypatch):
    loads = []
    load = open_vino._load
    monkeypatch.setattr(
        open_vino, "_load", lambda *a: loads.append(a[2]["NUM_STREAMS"]) or load(*a)
    )
    for size in ((64, 96), None):
        with Predictor.open(tiny_model(size=size), "openvino", "cpu", streams=2) as predictor:
            predictor.warmup(1)
    with Predictor.open(tiny_model(), "openvino", "cpu"):
        pass
    assert loads == [1, 2, 1, 2, 1]
