"""One contract, held by the fake and by every runtime; and what `auto` and a missing one mean."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest
from fake_backend import FakeBackend

from icnet_deploy.errors import (
    BackendError,
    DeviceError,
    InputError,
    MissingPackage,
    ModelError,
    UnavailableError,
)
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.runtime import choose, open_backend
from icnet_deploy.runtime.backends import registry as backends
from icnet_deploy.runtime.backends.onnxruntime import session as onnx_runtime


class BackendContract:
    """What every backend must do, on a model of 64 x 96 with a free batch."""

    @pytest.fixture
    def backend(self, tiny_model):
        backend = self.open(tiny_model)
        yield backend
        backend.close()

    def test_it_says_what_it_takes_and_gives(self, backend):
        (image,), (logits,) = backend.inputs, backend.outputs
        assert (image.name, image.shape, image.dtype) == ("image", (None, 64, 96, 3), np.uint8)
        assert (logits.name, logits.dtype) == ("logits", np.float32)
        assert logits.shape == (None, 19, 16, 24)

    def test_it_runs_batches(self, backend, blocks):
        images = np.stack([blocks((64, 96), seed) for seed in range(3)])
        values = backend.run({"image": images})
        assert list(values) == ["logits"]
        assert values["logits"].shape == (3, 19, 16, 24)
        closest = np.array(CITYSCAPES.palette)[values["logits"].argmax(axis=1)]
        np.testing.assert_array_equal(closest, images[:, ::4, ::4])

    def test_another_threads_run_leaves_the_results_as_they_are(self, backend, blocks):
        first = backend.run({"image": blocks((64, 96), 1)[None]})["logits"]
        kept = first.copy()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(backend.run, {"image": blocks((64, 96), 2)[None]}).result()
        np.testing.assert_array_equal(first, kept)

    def test_it_takes_arrays_that_are_not_contiguous(self, backend, blocks):
        image = blocks((64, 192))[None, :, ::2]
        expected = backend.run({"image": image.copy()})["logits"]
        np.testing.assert_array_equal(backend.run({"image": image})["logits"], expected)

    @pytest.mark.parametrize(
        "feed",
        [
            {},
            {"picture": np.zeros((1, 64, 96, 3), np.uint8)},
            {"image": np.zeros((1, 64, 96, 3), np.uint8), "other": np.zeros(1)},
            {"image": np.zeros((1, 64, 96, 3), np.float32)},
            {"image": np.zeros((1, 64, 97, 3), np.uint8)},
            {"image": np.zeros((64, 96, 3), np.uint8)},
            {"image": np.zeros((0, 64, 96, 3), np.uint8)},
        ],
        ids=["empty", "name", "extra", "dtype", "size", "rank", "nothing"],
    )
    def test_it_refuses_what_does_not_fit(self, backend, feed):
        with pytest.raises(BackendError, match="the model takes"):
            backend.run(feed)

    def test_closing_twice_is_fine_and_running_then_is_not(self, backend):
        backend.close()
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            backend.run({"image": np.zeros((1, 64, 96, 3), np.uint8)})


class TestFake(BackendContract):
    def open(self, tiny_model):
        return FakeBackend.of_colours(CITYSCAPES, (64, 96))

    def test_it_counts_and_fails_on_demand(self, backend):
        feed = {"image": np.zeros((1, 64, 96, 3), np.uint8)}
        backend.run(feed)
        backend.fail_with = "out of memory"
        with pytest.raises(BackendError, match="out of memory"):
            backend.run(feed)
        assert backend.runs == 1


class RuntimeContract(BackendContract):
    """What a runtime that loads files must do besides."""

    def open(self, tiny_model):
        return open_backend(self.name, tiny_model(), "cpu", threads=1)

    def test_it_agrees_with_the_fake(self, backend, blocks):
        image = blocks((64, 96), 5)[None]
        fake = FakeBackend.of_colours(CITYSCAPES, (64, 96)).run({"image": image})["logits"]
        real = backend.run({"image": image})["logits"]
        # The fake's score has a term that is the same for all classes of a pixel.
        np.testing.assert_allclose(real - real[:, :1], fake - fake[:, :1], atol=1e-3)

    def test_half_precision_and_free_sizes(self, tiny_model, blocks):
        backend = open_backend(self.name, tiny_model(size=None, half="out"), "cpu")
        assert backend.inputs[0].shape == (None, None, None, 3)
        assert backend.outputs[0].dtype == np.float16
        for size in ((64, 96), (100, 72)):
            logits = backend.run({"image": blocks(size)[None]})["logits"]
            assert logits.dtype == np.float16
            assert logits.shape == (1, 19, size[0] // 4, size[1] // 4)
        backend.close()

    def test_the_outputs_name_outlives_its_cast(self, tiny_model, blocks):
        """A float16 artefact ends in a cast, which a runtime that computes in float32 drops."""
        backend = open_backend(self.name, tiny_model(half="inside"), "cpu")
        assert [spec.name for spec in backend.outputs] == ["logits"]
        assert backend.outputs[0].dtype == np.float32
        assert list(backend.run({"image": blocks((64, 96))[None]})) == ["logits"]

    def test_a_broken_file_is_a_model_error(self, tiny_model, tmp_path):
        whole = tiny_model().read_bytes()
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(whole.replace(b"Transpose", b"Transqose"))
        with pytest.raises(ModelError, match="cannot load"):
            open_backend(self.name, broken, "cpu")
        with pytest.raises(ModelError):
            open_backend(self.name, tmp_path / "absent.onnx", "cpu")


class TestOnnxRuntime(RuntimeContract):
    name = "onnxruntime"


class TestOpenVino(RuntimeContract):
    name = "openvino"

    def test_a_batch_is_image_by_image_to_the_byte_and_compiles_nothing_more(
        self, tiny_model, blocks
    ):
        from icnet_deploy.runtime.backends.openvino.backend import (
            OpenVinoBackend,
            compile_for,
            core,
        )

        made = []

        def compile_model(model):
            made.append(model)
            return core().compile_model(model, "CPU")

        backend = OpenVinoBackend(*compile_for(core().read_model(tiny_model()), compile_model))
        images = np.stack([blocks((64, 96), seed) for seed in range(3)])
        single = [backend.run({"image": image[None]})["logits"].copy() for image in images]
        together = backend.run({"image": images})["logits"]
        np.testing.assert_array_equal(np.concatenate(single), together)
        backend.run({"image": images[::-1].copy()})
        np.testing.assert_array_equal(np.concatenate(single), together)  # in memory of its own
        assert [model.inputs[0].shape[0] for model in made] == [1]

    def test_closed_while_a_run_begins_it_stays_closed(self, backend, blocks, monkeypatch):
        def check(*_):
            backend.close()

        monkeypatch.setattr("icnet_deploy.runtime.backends.openvino.backend.check_feed", check)
        for count in (1, 2):
            with pytest.raises(BackendError, match="closed"):
                backend.run({"image": np.stack([blocks((64, 96))] * count)})
            assert backend._compiled is None
            backend._closed = False  # as it was seen just before

    def test_a_signal_after_models_were_closed_in_any_order_is_only_a_signal(self, tiny_model):
        """A core of its own for each model would leave a stack for signals that is gone."""
        script = """
import gc, os, signal, sys
from icnet_deploy.runtime import open_backend
from icnet_deploy.runtime.machine import examine
signal.signal(signal.SIGUSR1, lambda *_: None)
first, second = (open_backend("openvino", sys.argv[1], "cpu") for _ in range(2))
examine()
first.close(); del first; gc.collect()
second.close(); del second; gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""
        subprocess.run([sys.executable, "-c", script, tiny_model()], check=True)

    def test_cuda_is_an_error(self, tiny_model):
        with pytest.raises(DeviceError, match="not on 'cuda'"):
            open_backend("openvino", tiny_model(), "cuda")


def test_both_distributions_of_onnx_runtime_are_refused(monkeypatch, tiny_model):
    monkeypatch.setattr(onnx_runtime, "distribution", lambda name: SimpleNamespace(version="1.32"))
    with pytest.raises(UnavailableError, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        open_backend("onnxruntime", tiny_model(), "cpu")

    def only_gpu(name):
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return SimpleNamespace(version="1.32")

    monkeypatch.setattr(onnx_runtime, "distribution", only_gpu)
    open_backend("onnxruntime", tiny_model(), "cpu").close()


def test_unknown_names_list_the_known(tmp_path):
    with pytest.raises(InputError, match=r"auto, onnxruntime, .*openvino, tensorrt, tensorrt-rtx"):
        open_backend("tensorflow", tmp_path / "x.onnx", "cpu")
    with pytest.raises(InputError, match="auto, cpu, cuda"):
        open_backend("onnxruntime", tmp_path / "x.onnx", "tpu")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_wants_an_engine_and_says_how_to_get_one(name, tmp_path):
    with pytest.raises(InputError, match=rf"build-engine MODEL.onnx --with {name}`.*'openvino'"):
        open_backend(name, tmp_path / "x.onnx", "cuda")


@pytest.mark.parametrize(
    ("installed", "device", "expected"),
    [
        ({"openvino", "onnxruntime"}, "cpu", "openvino"),
        ({"onnxruntime"}, "cpu", "onnxruntime"),
        ({"openvino", "onnxruntime"}, "cuda", "onnxruntime"),
    ],
)
def test_auto_is_the_fastest_that_is_installed(monkeypatch, installed, device, expected):
    monkeypatch.setattr(backends, "_installed", installed.__contains__)
    assert choose("auto", device) == (expected, device)


def test_auto_takes_cuda_only_where_it_works(monkeypatch):
    monkeypatch.setattr(onnx_runtime, "cuda_works", lambda: True)
    assert choose("auto", "auto") == ("onnxruntime", "cuda")
    assert choose("openvino", "auto") == ("openvino", "cpu")
    monkeypatch.setattr(onnx_runtime, "cuda_works", lambda: False)
    assert choose("auto", "auto")[1] == "cpu"


def test_without_any_runtime_both_extras_are_named(monkeypatch):
    monkeypatch.setattr(backends, "_installed", lambda package: False)
    with pytest.raises(MissingPackage, match=r"'openvino'.*icnet-deploy\[cpu\]"):
        choose("auto", "cpu")


@pytest.mark.parametrize(
    ("name", "device", "extra"),
    [
        ("onnxruntime", "cpu", "cpu"),
        ("onnxruntime", "cuda", "cuda"),
        ("openvino", "cpu", "openvino"),
    ],
)
def test_a_package_that_cannot_be_imported_names_its_extra(name, device, extra):
    script = f"""
import sys
from pathlib import Path

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("onnxruntime", "openvino"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
from icnet_deploy.errors import MissingPackage
from icnet_deploy.runtime import open_backend
try:
    open_backend({name!r}, Path("x.onnx"), {device!r})
except MissingPackage as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert f'pip install "icnet-deploy[{extra}]"' in done.stdout


def test_a_package_that_is_broken_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(backends, "_installed", lambda package: True)
    with pytest.raises(UnavailableError, match=r"does not import.*--force-reinstall"):
        open_backend("openvino", tmp_path / "x.onnx", "cpu")
