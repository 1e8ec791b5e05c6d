"""`icnet predict` from files to files, and its answers to bad requests."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from icnet_deploy.images import read_grey, read_image, write_image
from icnet_deploy.labels import CAMVID, CITYSCAPES
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.command import main
from icnet_deploy.runtime.inputs import find_items
from icnet_deploy.runtime.video import _cv2

SIZE = (64, 96)
ENDINGS = ("_labels.png", "_colour.png", "_overlay.jpg")


@pytest.fixture
def model(tiny_model):
    return tiny_model()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def predict(model, out):
    """Runs the command on some inputs, with ONNX Runtime unless another is named."""

    def run(*inputs, options=()):
        runtime = () if "--runtime" in options else ("--runtime", "onnxruntime")
        words = [*inputs, "--model", model, "-o", out, *runtime, *options]
        return main([str(word) for word in words])

    return run


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def results(*names):
    return sorted(f"{name}{ending}" for name in names for ending in ENDINGS)


def assert_refused(code, capfd, *words):
    """Exit code 2 and one line, which says all of the words; nothing of it on stdout."""
    error = capfd.readouterr().err
    assert code == 2, error
    assert error.count("\n") == 1, error
    assert error.startswith("icnet: error: ")
    for word in words:
        assert word in error


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "auto"])
def test_an_image(predict, model, out, blocks, tmp_path, capfd, runtime):
    image = blocks((80, 100))
    write_image(tmp_path / "street.png", image)
    assert predict(tmp_path / "street.png", options=("--runtime", runtime)) == 0
    assert files(out) == results("street")
    expected = Predictor.from_onnx(model, runtime).predict(image)
    np.testing.assert_array_equal(read_grey(out / "street_labels.png"), expected.labels)
    np.testing.assert_array_equal(read_image(out / "street_colour.png"), expected.colours())
    assert cv2.imread(out / "street_colour.png", cv2.IMREAD_UNCHANGED).shape == (80, 100, 3)
    overlay = read_image(out / "street_overlay.jpg")
    off = np.abs(overlay[:80, :100].astype(int) - expected.overlay())
    assert off.mean() < 8  # JPEG: borders of saturated colours are not kept
    assert overlay.shape[0] > 80  # the legend is below the picture
    said, errors = capfd.readouterr()
    assert "1 input labelled" in said
    assert "preprocess" in said
    assert str(out) in said
    assert errors == ""


def test_label_ids(predict, out, blocks, tmp_path):
    write_image(tmp_path / "a.png", blocks(SIZE))
    assert predict(tmp_path / "a.png") == 0
    labels = read_grey(out / "a_labels.png")
    assert predict(tmp_path / "a.png", options=("--label-ids",)) == 0
    ids = read_grey(out / "a_labels.png")
    np.testing.assert_array_equal(ids, np.array(CITYSCAPES.label_ids)[labels])


def test_label_ids_that_the_label_set_lacks(tiny_model, out, blocks, tmp_path, capfd):
    write_image(tmp_path / "a.png", blocks(SIZE))
    model = tiny_model(label_set=CAMVID)
    words = [tmp_path / "a.png", "--model", model, "-o", out, "--label-ids"]
    assert_refused(main([str(w) for w in words]), capfd, "'camvid' has no label ids")
    assert not out.exists()


def test_folders_keep_their_sub_folders(predict, out, blocks, tmp_path):
    street = tmp_path / "street"
    for name in ("b.png", "a.jpg", "inner/a.jpg", "inner/deep/c.bmp"):
        (street / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(street / name, blocks(SIZE))
    (street / "notes.txt").write_text("no image")
    (street / ".hidden.png").write_bytes(b"no image")
    assert predict(street) == 0
    assert files(out) == results("a", "b", "inner/a", "inner/deep/c")


def test_no_two_inputs_share_a_result(predict, out, blocks, tmp_path):
    for folder, seed in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "x.png", blocks(SIZE, seed))
    write_image(tmp_path / "one" / "x.jpg", blocks(SIZE, 3))
    assert predict(tmp_path / "one", tmp_path / "two", tmp_path / "two" / "x.png") == 0
    assert files(out) == results("x", "x_png", "x_png_2")


def test_results_never_take_an_inputs_name(blocks, tmp_path):
    write_image(tmp_path / "x.png", blocks(SIZE))
    write_image(tmp_path / "x_labels.png", blocks(SIZE))
    items = find_items([str(tmp_path / "x.png"), str(tmp_path / "x_labels.png")], tmp_path)
    written = {path.name for item in items for path in item.results()}
    assert written.isdisjoint({"x.png", "x_labels.png"})
    assert len(written) == 6


def test_a_folder_does_not_hold_its_own_results(predict, blocks, tmp_path, out, capfd):
    """The output folder is below the input: a second run finds what the first one found."""
    write_image(tmp_path / "x.png", blocks(SIZE))
    for _ in range(2):
        assert predict(tmp_path) == 0
        assert files(out) == results("x")
    capfd.readouterr()
    assert_refused(predict(out), capfd, "both an input and the output folder")


def test_one_broken_image_does_not_keep_the_others(predict, out, blocks, tmp_path, capfd):
    for name in "ac":
        write_image(tmp_path / f"{name}.png", blocks(SIZE))
    (tmp_path / "b.png").write_bytes(b"this is no image")
    code = predict(*(tmp_path / f"{name}.png" for name in "abc"))
    assert files(out) == results("a", "c")
    assert_refused(code, capfd, "1 of 3 inputs failed", "b.png")


@pytest.mark.parametrize("name", ["empty.png", "text.jpg", "text.mp4", "noise"])
def test_an_input_that_is_no_image(predict, out, tmp_path, capfd, name):
    (tmp_path / name).write_bytes(b"" if name == "empty.png" else b"abc" * 400)
    assert_refused(predict(tmp_path / name), capfd, name)
    assert not files(out)


def test_an_image_too_small_for_a_free_size_is_named(tiny_model, out, blocks, tmp_path, capfd):
    write_image(tmp_path / "small.png", blocks((20, 20)))
    words = [tmp_path / "small.png", "--model", tiny_model(size=None), "-o", out]
    assert_refused(main([str(w) for w in words]), capfd, "small.png", "20 x 20", "64 x 64")


def test_requests_that_cannot_be(predict, model, out, blocks, tmp_path, capfd):
    image = tmp_path / "a.png"
    write_image(image, blocks(SIZE))
    (tmp_path / "nothing").mkdir()
    assert_refused(predict(tmp_path / "absent.png"), capfd, "absent.png", "no such file")
    assert_refused(predict(tmp_path / "nothing"), capfd, "there is no image under")
    assert_refused(predict(image, options=("--runtime", "caffe")), capfd, "unknown runtime 'caffe'")
    assert_refused(predict(image, options=("--runtime", "tensorrt")), capfd, "build-engine")
    assert_refused(
        predict(image, options=("--runtime", "openvino", "--device", "cuda")), capfd, "openvino"
    )
    assert not out.exists()
    out.write_text("a file where the folder should be")
    assert_refused(predict(image), capfd, "cannot write")


@pytest.mark.parametrize("damage", ["cut", "text", "foreign", "graph"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_models_that_cannot_be(predict, model, out, blocks, tmp_path, capfd, damage, runtime):
    image = tmp_path / "a.png"
    write_image(image, blocks(SIZE))
    whole = model.read_bytes()
    model.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "text": b"this is no model\n" * 50,
            "foreign": whole.replace(b"icnet_deploy", b"other_author"),
            "graph": whole.replace(b"Transpose", b"Transqose"),
        }[damage]
    )
    assert_refused(predict(image, options=("--runtime", runtime)), capfd, "tiny1.onnx")
    assert not out.exists()


@pytest.fixture
def video(tmp_path, blocks):
    """A video of 7 frames of 64 x 96, 12.5 a second."""
    path = tmp_path / "drive.mp4"
    _cv2()  # FFmpeg reads how loud to be when it is first used
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.5, (96, 64))
    for seed in range(7):
        writer.write(np.ascontiguousarray(blocks(SIZE, seed)[:, :, ::-1]))
    writer.release()
    return path


def test_a_video(predict, out, video, blocks, capfd):
    assert predict(video) == 0
    assert files(out) == ["drive_overlay.mp4"]
    capture = cv2.VideoCapture(str(out / "drive_overlay.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1])
    assert len(frames) == 7
    assert frames[0].shape[0] > 64  # with the legend
    # The blocks are drawn in the classes' colours: laid over the picture, they change little.
    for seed, frame in enumerate(frames):
        assert np.abs(frame[:64, :96, ::-1].astype(int) - blocks(SIZE, seed)).mean() < 25
        assert np.abs(frame[:64, :96, ::-1].astype(int) - blocks(SIZE, seed + 1)).mean() > 40
    said, errors = capfd.readouterr()
    assert "of 7:" in said
    assert errors == ""


def test_a_video_that_is_cut_off_leaves_nothing(predict, out, video, capfd):
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert_refused(predict(video), capfd, "drive.mp4")
    assert not files(out)


def test_a_run_that_fails_in_the_middle_of_a_video_leaves_nothing(
    predict, out, video, capfd, monkeypatch
):
    finish, runs = Predictor._finish, []

    def failing(self, batch, on_device):
        runs.append(1)
        if len(runs) == 4:
            raise KeyboardInterrupt
        return finish(self, batch, on_device)

    monkeypatch.setattr(Predictor, "_finish", failing)
    assert predict(video) == 130
    assert not files(out)


def test_without_an_encoder_it_says_so(predict, out, video, capfd, monkeypatch):
    class NoEncoder:
        fourcc = cv2.VideoWriter.fourcc

        def __init__(self, *args):
            pass

        def isOpened(self):  # noqa: N802
            return False

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoWriter", NoEncoder)
    assert_refused(predict(video), capfd, "cannot write an MP4 video", "FFmpeg")
    assert not files(out)


def test_help_has_an_example(capsys):
    assert main(["--help"]) == 0
    assert "icnet predict street.jpg --model" in capsys.readouterr().out
