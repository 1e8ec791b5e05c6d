"""Which engine files are loaded, which are refused, and what the refusal says."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest
from fake_tensorrt import Machine, make_fake
from host_cuda import HostCuda

from icnet_deploy.engine_sidecar import Gpu, sidecar_path
from icnet_deploy.errors import (
    BackendError,
    DeviceError,
    InputError,
    MissingPackage,
    ModelError,
    UnavailableError,
)
from icnet_deploy.images import read_image, write_image
from icnet_deploy.labels import CAMVID
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime import Predictor, cuda, loading, machine
from icnet_deploy.runtime.predict.command import main

SIZE = (64, 96)


class TestSidecar:
    def test_a_changed_engine_is_refused_before_tensorrt_sees_it(self, desk, batched, monkeypatch):
        engine = batched()
        data = bytearray(engine.read_bytes())
        data[-3] ^= 1
        engine.write_bytes(data)
        monkeypatch.setattr(desk.trt.Runtime, "deserialize_cuda_engine", None)
        with pytest.raises(ModelError, match=r"SHA-256 is [0-9a-f]{16}.*expected.*build it again"):
            desk.open(engine)

    def test_one_that_cannot_be_read_is_refused(self, desk, batched):
        engine = batched()
        sidecar_path(engine).write_text("{}")
        with pytest.raises(ModelError, match=r"engine\.json is not what .*schema is missing"):
            desk.open(engine)

    def test_it_can_be_required(self, desk, batched):
        with desk.open(batched(), require_manifest=True) as predictor:
            assert predictor.metadata.precision == "fp32"
        with pytest.raises(ModelError, match=r"has no sidecar tiny\d+\.engine\.json.*a program"):
            desk.open(batched(sidecar=False), require_manifest=True)

    def test_what_it_says_of_the_engine_must_be_so(self, desk, batched):
        engine = batched()
        onnx = engine.with_suffix(".onnx")
        desk.describe(engine, onnx, metadata=replace(read_onnx_metadata(onnx), label_set=CAMVID))
        with pytest.raises(ModelError, match=r"\.engine: .*'camvid' has 11 classes"):
            desk.open(engine)
        assert desk.cuda.live == 0


class TestOtherVersions:
    @pytest.mark.parametrize("sidecar", [True, False])
    def test_the_message_says_which_is_which_and_what_to_do(
        self, desk, batched, monkeypatch, sidecar
    ):
        engine = batched(sidecar=sidecar)
        other = make_fake("11.4" if desk.trt.__version__.startswith("10") else "10.16")
        other.machine = Machine()
        monkeypatch.setitem(sys.modules, "tensorrt", other)
        built = desk.trt.__version__ if sidecar else desk.trt.__version__.rpartition(".")[0]
        with pytest.raises(
            ModelError,
            match=rf"built with TensorRT {built}, but this machine has "
            rf"TensorRT {other.__version__}: .*"
            r"`icnet build-engine MODEL\.onnx --with tensorrt -o tiny0\.engine`",
        ):
            desk.open(engine)
        assert desk.cuda.live == 0

    def test_a_version_compatible_one_holds_code_that_is_asked_for(self, desk, blocks):
        """Its code for the CPU is not let in unless somebody says so."""
        engine = desk.engine(desk.onnx(batch=1), version_compatible=True)
        with pytest.raises(ModelError, match=r"code for the CPU.*host_code=True"):
            desk.open(engine)
        with desk.open(engine, host_code=True) as predictor:
            assert predictor.predict(blocks(SIZE)).labels.shape == SIZE
        with pytest.raises(ModelError, match="code for the CPU"):
            desk.open(engine)


class TestOtherGpus:
    def test_with_a_sidecar_both_are_named(self, desk, batched):
        engine = batched()
        desk.trt.machine.compute = (8, 9)
        desk.cuda = HostCuda((8, 9))
        with pytest.raises(
            ModelError, match=r"RTX 3090 \(compute capability 8\.6.*a fake GPU \(compute 8\.9\)"
        ):
            desk.open(engine)

    def test_without_one_tensorrts_own_words_say_it(self, desk, batched):
        engine = batched(sidecar=False)
        desk.trt.machine.compute = (8, 9)
        with pytest.raises(
            ModelError, match=r"built for compute 8\.6, but this machine has .*--with tens"
        ):
            desk.open(engine)


class TestOtherFiles:
    def test_rubbish_and_a_cut_file(self, desk, batched):
        engine = batched(sidecar=False)
        whole = engine.read_bytes()
        engine.write_bytes(whole[: len(whole) // 40])
        with pytest.raises(ModelError, match=r"cut off or changed \(\d+ bytes\)"):
            desk.open(engine)
        engine.write_bytes(b"PK\x03\x04" + whole)
        with pytest.raises(ModelError, match="does not begin like a TensorRT engine"):
            desk.open(engine)
        with pytest.raises(ModelError, match=r"cannot load .*: it is not a TensorRT engine \("):
            desk.open(engine, runtime="tensorrt")  # TensorRT is asked, as its header may change
        engine.write_bytes(b"")
        with pytest.raises(ModelError, match=r"does not begin like a TensorRT engine .*\(0 bytes"):
            desk.open(engine)

    def test_an_engine_of_rtx_is_for_rtx(self, desk, batched):
        engine = batched(sidecar=False)
        data = engine.read_bytes()
        engine.write_bytes(b"vtrt" + data[4:])
        with pytest.raises(ModelError, match="an engine of tensorrt-rtx, not of tensorrt"):
            desk.open(engine, runtime="tensorrt")
        with pytest.raises(MissingPackage, match=r"'tensorrt_rtx'.*icnet-deploy\[tensorrt-rtx\]"):
            desk.open(engine)
        with pytest.raises(InputError, match="known: auto, tensorrt, tensorrt-rtx"):
            desk.open(engine, runtime="onnxruntime")

    def test_rtx_is_driven_by_the_same_code(self, desk, batched, blocks, monkeypatch):
        """With the module under the other name, as its surface has the same calls."""
        engine = batched(sidecar=False)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", desk.trt)
        data = engine.read_bytes()
        assert data[:4] == b"ftrt"
        monkeypatch.setattr(desk.trt.Runtime, "deserialize_cuda_engine", _as_rtx(desk.trt))
        engine.write_bytes(b"vtrt" + data[4:])
        with desk.open(engine) as predictor:
            assert predictor.runtime == "tensorrt-rtx"
            assert predictor.predict(blocks(SIZE)).labels.shape == SIZE

    def test_classes_that_nobody_names(self, desk, batched, blocks):
        engine = batched(sidecar=False, label_set=CAMVID)
        with pytest.raises(ModelError, match=r"has 11 classes and does not name them.*label_set="):
            desk.open(engine)
        with desk.open(engine, label_set=CAMVID) as predictor:
            assert predictor.predict(blocks(SIZE)).label_set is CAMVID
        assert desk.cuda.live == 0

    def test_a_network_of_another_kind(self, desk):
        engine = desk.engine(desk.onnx(batch=1, input_name="picture"), sidecar=False)
        with pytest.raises(ModelError, match="input is picture: uint8"):
            desk.open(engine)
        assert desk.cuda.live == 0

    def test_a_layout_of_trtexecs_options_is_refused(self, desk, batched, monkeypatch):
        other = desk.trt.TensorFormat.CHW4
        monkeypatch.setattr(
            desk.trt.ICudaEngine, "get_tensor_format", lambda *args, **kwargs: other
        )
        with pytest.raises(ModelError, match=r"'image' is not linear.*without --inputIOFormats"):
            desk.open(batched(sidecar=False))


def _as_rtx(trt):
    real = trt.Runtime.deserialize_cuda_engine

    def deserialize(this, plan):
        return real(this, b"ftrt" + bytes(plan)[4:])

    return deserialize


class TestMissing:
    def test_no_tensorrt_names_the_extra(self, desk, batched, without):
        engine = batched()
        without("tensorrt")
        with pytest.raises(MissingPackage, match=r"'tensorrt'.*icnet-deploy\[tensorrt\]"):
            Predictor.from_engine(engine)

    def test_no_cuda_library_names_the_extra(self, desk, batched, without):
        without("cuda.core", "pycuda")
        with pytest.raises(MissingPackage, match=r"'cuda\.core'.*icnet-deploy\[tensorrt\]"):
            Predictor.from_engine(batched())
        with pytest.raises(MissingPackage, match="'pycuda'"):
            Predictor.from_engine(batched(), cuda="pycuda")
        with pytest.raises(InputError, match="known: auto, cuda-python, pycuda"):
            Predictor.from_engine(batched(), cuda="cupy")

    def test_a_tensorrt_that_is_broken_says_so(self, desk, batched, broken):
        engine = batched()
        broken("tensorrt")
        with pytest.raises(UnavailableError, match=r"'tensorrt' is installed but does not import"):
            desk.open(engine)

    def test_no_driver(self, desk, batched, monkeypatch):
        def refuse(this, logger):
            raise TypeError("pybind11::init(): factory function returned nullptr")

        engine = batched()
        monkeypatch.setattr(desk.trt.Runtime, "__init__", refuse)
        with pytest.raises(BackendError, match=r"does not start .*nullptr.*nvidia-smi"):
            desk.open(engine)

    def test_cuda_python_without_a_gpu_is_a_device_error(self):
        pytest.importorskip("cuda.core", reason="cuda-python is not installed")
        if machine.gpus():
            pytest.skip("there is a GPU")
        with pytest.raises(DeviceError, match="check that nvidia-smi lists one"):
            cuda.open_cuda("cuda-python")


class TestCommand:
    @pytest.fixture
    def opened(self, desk, monkeypatch):
        """`icnet predict` on this machine: its engines open on the host's memory."""
        monkeypatch.setattr(loading, "open_cuda", lambda adapter: desk.cuda)

    def test_it_takes_an_engine(self, desk, opened, batched, blocks, tmp_path, capsys):
        image = tmp_path / "in" / "street.png"
        image.parent.mkdir()
        write_image(image, blocks((100, 130)))
        engine, out = batched(), tmp_path / "out"
        arguments = [str(image), "--model", str(engine), "-o", str(out), "--require-manifest"]
        assert main(arguments) == 0
        assert "labelled with tensorrt on cuda" in capsys.readouterr().out
        labels = read_image(out / "street_labels.png")[:, :, 0]
        with desk.open(engine) as predictor:
            np.testing.assert_array_equal(labels, predictor.predict(blocks((100, 130))).labels)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--require-manifest"], "has no sidecar"),
            (["--device", "cpu"], "is an engine: it runs on the GPU"),
            (["--threads", "2"], "is an engine: it runs on the GPU"),
            (["--runtime", "openvino"], "known: auto, tensorrt, tensorrt-rtx"),
        ],
    )
    def test_it_refuses(self, opened, batched, blocks, tmp_path, capsys, options, message):
        image = tmp_path / "street.png"
        write_image(image, blocks(SIZE))
        engine = batched(sidecar=False)
        arguments = [str(image), "--model", str(engine), "-o", str(tmp_path / "out"), *options]
        assert main(arguments) == 2
        assert message in capsys.readouterr().err

    def test_a_manifest_is_an_engines(self, desk, blocks, tmp_path, capsys):
        image = tmp_path / "street.png"
        write_image(image, blocks(SIZE))
        arguments = [str(image), "--model", str(desk.onnx()), "-o", str(tmp_path / "out")]
        assert main([*arguments, "--require-manifest"]) == 2
        assert (
            "--require-manifest (require_manifest in Python) is for an engine"
            in capsys.readouterr().err
        )

    def test_evaluate_and_parity_open_it(self, desk, opened, batched, blocks):
        models = importlib.import_module("icnet_deploy.evaluation.model")
        engine, image = batched(), blocks((100, 130))
        with models.open_model(engine, None, "auto", "auto") as model:
            assert (model.runtime, model.device) == ("tensorrt", "cuda")
            assert model.metadata.head == "logits"
            labels = model.label(image)
        with desk.open(engine) as predictor:
            np.testing.assert_array_equal(labels, predictor.predict(image).labels)
        pairing = importlib.import_module("icnet_deploy.evaluation.pairing")
        for other in (
            models.open_model(engine, None, "tensorrt-rtx", "auto"),
            pairing.open_run(pairing.Run(engine, "tensorrt-rtx", "cuda")),
        ):
            with pytest.raises(ModelError, match="of tensorrt, not of tensorrt-rtx"), other:
                pass


def test_a_gpu_is_named_as_a_person_would(desk):
    assert str(desk.cuda.gpu) == "a fake GPU (compute 8.6)"
    assert "RTX 3090" in str(Gpu("NVIDIA GeForce RTX 3090", (8, 6), ""))
