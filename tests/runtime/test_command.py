"""`icnet predict` from files to files, and its answers to bad requests."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from PIL import Image

from icnet_deploy.images import read_grey, read_image, write_image
from icnet_deploy.labels import CAMVID, CITYSCAPES
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.predict.command import main
from icnet_deploy.runtime.predict.inputs import find_items
from icnet_deploy.runtime.predict.sure import SureLabels, overlay_of

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
    return sorted(["predictions.jsonl", *(f"{n}{ending}" for n in names for ending in ENDINGS)])


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


class TestUnsure:
    """`--unsure-below`: what the network is not sure of is no class in what is written."""

    @pytest.fixture
    def image(self, blocks, tmp_path):
        """A third is between the colours of a bus and of a train, so that no class is sure."""
        image = blocks(SIZE)
        image[:, 64:] = (0, 70, 100)
        write_image(tmp_path / "street.png", image)
        return image

    @pytest.fixture
    def expected(self, model, image):
        with Predictor.open(model, "onnxruntime") as predictor:
            prediction = predictor.predict(image)
            unsure = prediction.confidence < 0.6
        assert 0.05 < unsure.mean() < 0.95
        return prediction, unsure

    def test_an_image(self, predict, out, image, expected, tmp_path, capfd):
        prediction, unsure = expected
        assert predict(tmp_path / "street.png", options=("--unsure-below", "0.6")) == 0
        labels = read_grey(out / "street_labels.png")
        np.testing.assert_array_equal(labels, np.where(unsure, 255, prediction.labels))
        colours = read_image(out / "street_colour.png")
        assert (colours[unsure] == 0).all()
        np.testing.assert_array_equal(colours[~unsure], prediction.colours()[~unsure])
        said = capfd.readouterr().out
        pixels = SIZE[0] * SIZE[1]
        assert f"confidence below 0.6: {unsure.sum():,} of {pixels:,} pixels" in said
        assert f"({unsure.mean():.1%})" in said
        assert "have no class (255 in the label maps)" in said
        assert ", confidence " in said  # its milliseconds

    def test_label_ids(self, predict, out, expected, tmp_path, capfd):
        prediction, unsure = expected
        options = ("--unsure-below", "0.6", "--label-ids")
        assert predict(tmp_path / "street.png", options=options) == 0
        table = np.frombuffer(CITYSCAPES.train_to_label_ids(), np.uint8)
        ids = np.where(unsure, 0, table[prediction.labels])
        np.testing.assert_array_equal(read_grey(out / "street_labels.png"), ids)
        assert "have no class (0 in the label maps)" in capfd.readouterr().out

    def test_the_overlay_shows_the_image_there(self, expected):
        prediction, unsure = expected
        sure = SureLabels(lambda image: prediction, 0.6)
        marked = sure(prediction.image)
        overlay = overlay_of(marked)
        np.testing.assert_array_equal(overlay[unsure], prediction.image[unsure])
        np.testing.assert_array_equal(overlay[~unsure], prediction.overlay()[~unsure])
        np.testing.assert_array_equal(overlay_of(prediction), prediction.overlay())
        assert (sure.pixels, sure.ignored) == (unsure.size, unsure.sum())

    def test_a_folder_with_an_animation_and_tiles(self, predict, out, image, tmp_path, capfd):
        folder = tmp_path / "both"
        folder.mkdir()
        write_image(folder / "one.png", np.tile(image, (2, 2, 1)))
        frames = [Image.fromarray(image), Image.fromarray(255 - image)]
        frames[0].save(folder / "two.gif", save_all=True, append_images=frames[1:])
        assert predict(folder, options=("--unsure-below", "0.6", "--tiles")) == 0
        assert (read_grey(out / "one_labels.png") == 255).any()
        assert (out / "two_overlay.mp4").exists()
        assert f"of {6 * SIZE[0] * SIZE[1]:,} pixels" in capfd.readouterr().out

    def test_what_cannot_be_is_refused_before_any_work(
        self, predict, tiny_model, out, image, tmp_path, capfd
    ):
        picture = str(tmp_path / "street.png")
        for number in ("0", "1", "50", "nan", "much"):
            assert predict(picture, options=("--unsure-below", number)) == 2
            error = capfd.readouterr().err
            assert f"--unsure-below: '{number}' is not a number between 0 and 1" in error
        words = ["-o", str(out), "--runtime", "onnxruntime", "--unsure-below", "0.5"]
        labels = tiny_model(head="labels")
        assert_refused(
            main([picture, "--model", str(labels), *words]),
            capfd,
            "--unsure-below",
            "--head logits",
        )
        zero = dataclasses.replace(CITYSCAPES, label_ids=tuple(range(19)))
        own = tiny_model(label_set=zero)
        assert_refused(
            main([picture, "--model", str(own), *words, "--label-ids"]),
            capfd,
            "0 is the id of a class",
            "leave out --label-ids",
        )
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


def test_what_a_folder_holds_is_labelled_or_named(predict, out, blocks, tmp_path, capfd):
    """Linked sub-folders, every suffix of an image; of the rest the number and the names."""
    street, other = tmp_path / "street", tmp_path / "other"
    (street / "in").mkdir(parents=True)
    other.mkdir()
    write_image(street / "a.png", blocks(SIZE))
    write_image(street / "in" / "b.jpg", blocks(SIZE))
    write_image(other / "c.png", blocks(SIZE))
    for name in ("d.jfif", "e.avif", "f.jp2", "g.JPEG"):
        Image.fromarray(blocks(SIZE)).save(street / name)
    (street / "linked").symlink_to(other)
    (street / "linked" / "back").symlink_to(street)
    for name in ("notes.txt", "in/scan.psd"):
        (street / name).write_text("neither image nor video")
    (street / "dead.png").symlink_to(tmp_path / "nowhere.png")
    (street / "itself.png").symlink_to("itself.png")
    assert predict(street) == 0
    assert files(out) == results("a", "in/b", "linked/c", "d", "e", "f", "g")
    said = capfd.readouterr().out
    assert f"{street}: 4 left out: dead.png, scan.psd, itself.png, notes.txt" in said
    assert "7 inputs labelled" in said


def test_a_folder_without_anything_else_says_nothing_of_it(predict, blocks, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "a.png", blocks(SIZE))
    assert predict(tmp_path / "in") == 0
    assert "left out" not in capfd.readouterr().out


def test_the_pages_of_a_tiff(predict, model, out, blocks, tmp_path):
    pages = [Image.fromarray(blocks(SIZE, seed)) for seed in range(3)]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    write_image(tmp_path / "scan_page2.png", blocks(SIZE, 9))
    assert predict(tmp_path / "scan.tif", tmp_path / "scan_page2.png") == 0
    names = [f"scan_page{number}" for number in (1, 2, 3)]
    assert files(out) == results(*names, "scan_page2_png")
    predictor = Predictor.from_onnx(model, "onnxruntime")
    for seed, name in enumerate(names):
        expected = predictor.predict(blocks(SIZE, seed)).labels
        np.testing.assert_array_equal(read_grey(out / f"{name}_labels.png"), expected)


def test_a_tiff_that_lost_a_page(predict, out, blocks, tmp_path, capfd):
    pages = [Image.fromarray(blocks(SIZE, seed)) for seed in range(3)]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    data = (tmp_path / "scan.tif").read_bytes()
    (tmp_path / "scan.tif").write_bytes(data[: len(data) * 3 // 4])
    assert_refused(predict(tmp_path / "scan.tif"), capfd, "scan.tif")


@pytest.mark.parametrize(
    ("name", "ending"), [("result.png", ".png"), ("a/b.JPEG", ".JPEG"), ("c.mp4", ".mp4")]
)
def test_a_folder_of_results_that_is_called_like_one_file(
    predict, blocks, tmp_path, capfd, name, ending
):
    """`-o result.png`: who writes that expects one picture, not a folder."""
    write_image(tmp_path / "a.png", blocks(SIZE))
    result = tmp_path / name
    code = predict(tmp_path / "a.png", options=("-o", result))
    wanted = f"-o {result} ends in {ending}, as a file does, but -o names a folder: give"
    assert_refused(code, capfd, wanted, f"such as -o {result.with_suffix('')}")
    assert not result.parent.exists() or not result.exists()
    result.mkdir(parents=True)  # there is such a folder: it is meant
    assert predict(tmp_path / "a.png", options=("-o", result)) == 0


def test_a_suffix_of_nothing(predict, out, blocks, tmp_path, capfd):
    """An image by its content is labelled; what is none is refused with the suffixes of videos."""
    write_image(tmp_path / "a.png", blocks(SIZE))
    (tmp_path / "a.png").rename(tmp_path / "a.dat")
    assert predict(tmp_path / "a.dat") == 0
    assert files(out) == results("a")
    (tmp_path / "b.xyz").write_bytes(b"neither " * 99)
    capfd.readouterr()
    assert_refused(
        predict(tmp_path / "b.xyz"),
        capfd,
        "b.xyz",
        "the name of a video must end in one of",
        ".mp4",
    )


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


def test_one_name_that_is_too_long_does_not_keep_the_others(predict, out, blocks, tmp_path, capfd):
    """The image's name fits; those of its results are longer than a file system takes."""
    names = ("a" * 246, "b")
    for name in names:
        write_image(tmp_path / "in" / f"{name}.png", blocks(SIZE))
    code = predict(tmp_path / "in")
    assert files(out) == results("b")
    assert_refused(code, capfd, "1 of 2 inputs failed", "aaa_labels.png: File name too long")


def test_larger_images_than_asked_for_are_refused(
    predict, out, blocks, tmp_path, capfd, monkeypatch
):
    monkeypatch.setenv("ICNET_MAX_MEGAPIXELS", "100")  # and as it was before, afterwards
    for name, factor in (("small", 1), ("large", 2)):
        write_image(tmp_path / "in" / f"{name}.png", blocks([side * factor for side in SIZE]))
    code = predict(tmp_path / "in", "--max-megapixels", SIZE[0] * SIZE[1] / 1e6)
    assert files(out) == results("small")
    assert_refused(code, capfd, "1 of 2 inputs failed", "set ICNET_MAX_MEGAPIXELS=1")


@pytest.mark.parametrize("name", ["empty.png", "text.jpg", "text.mp4", "noise"])
def test_an_input_that_is_no_image(predict, out, tmp_path, capfd, name):
    (tmp_path / name).write_bytes(b"" if name == "empty.png" else b"abc" * 400)
    assert_refused(predict(tmp_path / name), capfd, name)
    assert files(out) == results()


def test_an_image_too_small_for_a_free_size_is_named(tiny_model, out, blocks, tmp_path, capfd):
    write_image(tmp_path / "small.png", blocks((20, 20)))
    words = [tmp_path / "small.png", "--model", tiny_model(size=None), "-o", out]
    assert_refused(main([str(w) for w in words]), capfd, "small.png", "20 x 20", "64 x 64")


def test_requests_that_cannot_be(predict, model, out, blocks, tmp_path, capfd):
    image = tmp_path / "a.png"
    write_image(image, blocks(SIZE))
    (tmp_path / "nothing").mkdir()
    assert_refused(predict(tmp_path / "absent.png"), capfd, "absent.png", "does not exist")
    assert_refused(predict(tmp_path / "nothing"), capfd, "there is no image or video in the folder")
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


def test_help_has_an_example(capsys):
    assert main(["--help"]) == 0
    assert "icnet predict street.jpg --model" in capsys.readouterr().out
