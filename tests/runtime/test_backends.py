"""One contract, held by the fake and by every runtime; and what `auto` and a missing one mean."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from backend_contract import BackendContract, FileContract, StreamsContract
from fake_backend import FakeBackend

from icnet_deploy.errors import (
    BackendError,
    DeviceError,
    InputError,
    MissingPackage,
    UnavailableError,
    pip_install,
)
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.runtime import RUNTIMES, choose, open_backend


class TestFake(BackendContract):
    @pytest.fixture
    def opened(self):
        return FakeBackend.of_colours(CITYSCAPES, (64, 96))

    def test_it_counts_and_fails_on_demand(self, backend):
        feed = {"image": np.zeros((1, 64, 96, 3), np.uint8)}
        backend.run(feed)
        backend.fail_with = "out of memory"
        with pytest.raises(BackendError, match="out of memory"):
            backend.run(feed)
        assert backend.runs == 1


class TestOnnxRuntime(FileContract, StreamsContract):
    name = "onnxruntime"


class TestOpenVino(FileContract, StreamsContract):
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


def test_both_distributions_of_onnx_runtime_are_refused(monkeypatch, tiny_model, tmp_path):
    for name in ("onnxruntime", "onnxruntime-gpu"):
        described = tmp_path / f"{name.replace('-', '_')}-1.32.dist-info" / "METADATA"
        described.parent.mkdir()
        described.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.32\n")
    model = tiny_model()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnavailableError, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        open_backend("onnxruntime", model, "cpu")


def test_unknown_names_list_the_known(tmp_path):
    with pytest.raises(InputError, match=r"auto, onnxruntime, .*openvino, tensorrt, tensorrt-rtx"):
        open_backend("tensorflow", tmp_path / "x.onnx", "cpu")
    with pytest.raises(InputError, match="auto, cpu, cuda"):
        open_backend("onnxruntime", tmp_path / "x.onnx", "tpu")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_wants_an_engine_and_says_how_to_get_one(name, tmp_path):
    with pytest.raises(
        InputError, match=rf"'openvino'; or, .* build-engine MODEL.onnx --with {name}`"
    ):
        open_backend(name, tmp_path / "x.onnx", "cuda")


@pytest.mark.parametrize(
    ("missing", "device", "expected"),
    [
        ((), "cpu", "openvino"),
        (("openvino",), "cpu", "onnxruntime"),
        ((), "cuda", "onnxruntime"),
    ],
)
def test_auto_is_the_fastest_that_is_installed(without, missing, device, expected):
    without(*missing)
    assert choose("auto", device) == (expected, device)


@pytest.mark.parametrize("works", [True, False])
def test_auto_takes_cuda_only_where_it_works(monkeypatch, works):
    module = SimpleNamespace(cuda_works=lambda: works)
    monkeypatch.setitem(sys.modules, "another_runtime", module)
    row = replace(RUNTIMES["onnxruntime"], module="another_runtime")
    monkeypatch.setitem(RUNTIMES, "onnxruntime", row)
    assert choose("onnxruntime", "auto") == ("onnxruntime", "cuda" if works else "cpu")
    assert choose("auto", "auto") == (("onnxruntime", "cuda") if works else ("openvino", "cpu"))
    assert choose("openvino", "auto") == ("openvino", "cpu")


def test_without_any_runtime_both_extras_are_named(without):
    without("onnxruntime", "openvino")
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
    assert pip_install(extra) in done.stdout


def test_a_package_that_is_broken_says_so(broken, tmp_path):
    broken("openvino")
    with pytest.raises(UnavailableError, match=r"does not import.*--force-reinstall"):
        open_backend("openvino", tmp_path / "x.onnx", "cpu")
