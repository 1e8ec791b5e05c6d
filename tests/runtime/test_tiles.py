"""Tiles: one is `predict`, a pointwise network's are the whole image, and seams are averaged."""

from __future__ import annotations

import numpy as np
import pytest
from fake_backend import FakeBackend
from PIL import Image

from icnet_deploy.errors import ImageError, InputError, NotFinite
from icnet_deploy.images import read_grey, write_image
from icnet_deploy.labels import CITYSCAPES, LabelSet
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import Predictor, TensorSpec, tiles
from icnet_deploy.runtime.predict.command import main
from icnet_deploy.runtime.tiles import starts

SIZE = (48, 64)
FIVE = LabelSet("five", tuple("abcde"), tuple((40 * i, 255 - 40 * i, 7 * i) for i in range(5)))
OVERLAPS = [0, 0.125, 0.25, 0.5, 0.75]


def predictor_of(network, size=SIZE, *, stride=1, label_set=FIVE, head="logits", **said):
    """A predictor of a function from uint8 N x H x W x 3 to float N x C x h x w."""
    image = TensorSpec("image", (None, *(size or (None, None)), 3), np.dtype(np.uint8))
    grid = [side and -(-side // stride) for side in size or (None, None)]
    shape = (None, len(label_set), *grid) if head == "logits" else (None, *(size or grid))
    output = TensorSpec(head, shape, np.dtype(np.float32 if head == "logits" else np.uint8))
    backend = FakeBackend((image,), (output,), lambda feed: {head: network(feed["image"])})
    said = {"stride": stride, "upsampling": "half-pixel"} | said
    return Predictor(backend, ArtefactMetadata(label_set, size, head, "fp32", **said))


def pointwise(images):
    """Logits of a pixel's colour alone, with many ties."""
    x = images.astype(np.float32)
    red, green, blue = x[..., 0] // 16, x[..., 1] // 16, x[..., 2] // 16
    return np.stack([red, green, blue, (red + green) / 2, blue * 0.7], axis=1)


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize("rule", ["none", "half-pixel", "aligned-corners"])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_a_pointwise_network_gives_the_whole_images_answer(rule, overlap):
    predictor = predictor_of(pointwise, upsampling=rule)
    for size in [(48, 65), (49, 64), (97, 129), (200, 150), (20, 300), (300, 20), (48, 640)]:
        image = noise(size)
        whole = pointwise(image[None])[0].argmax(axis=0)
        np.testing.assert_array_equal(predictor.predict_tiles(image, overlap).labels, whole)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [SIZE, (30, 40), (48, 20), (1, 64)])
def test_one_tile_is_predict_to_the_byte(blocks, size, fit):
    backend = FakeBackend.of_colours(CITYSCAPES, SIZE)
    predictor = Predictor(backend, ArtefactMetadata(CITYSCAPES, SIZE, "logits", "fp32", fit=fit))
    image = blocks(size)
    expected = predictor.predict(image)
    backend.runs = 0
    found = predictor.predict_tiles(image)
    assert backend.runs == 1
    assert found.labels.tobytes() == expected.labels.tobytes()
    assert found.labels.shape == size


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("tile", [1, 2, 7, 64, 65])
def test_tiles_cover_the_image_and_overlap_as_asked(tile, overlap):
    for side in [1, tile, tile + 1, 2 * tile, 2 * tile + 1, 333]:
        found = starts(side, tile, overlap)
        assert found[0] == 0
        assert found[-1] == max(0, side - tile)
        steps = np.diff(found)
        assert (steps > 0).all()
        assert (steps <= tile - int(overlap * tile)).all()
        assert np.ptp(steps) <= 1 if len(steps) else side <= tile


def averaged(image, size, overlap, network, stride):
    """The plain statement: every tile's logits at every pixel, weighted, added, divided."""
    from icnet_deploy.runtime.grid import axes

    height, width = image.shape[:2]
    total, weights = np.zeros((5, height, width)), np.zeros((height, width))
    for top in starts(height, size[0], overlap):
        for left in starts(width, size[1], overlap):
            cut = image[top : top + size[0], left : left + size[1]]
            tile = np.zeros((*size, 3), np.uint8)
            tile[: cut.shape[0], : cut.shape[1]] = cut
            logits = network(tile[None])[0].astype(np.float64)
            rows, columns = axes(logits.shape[1:], size, "half-pixel")
            w = rows.weight[:, None].astype(float)
            lines = logits[:, rows.cell] * (1 - w) + logits[:, rows.cell + rows.step] * w
            w = columns.weight.astype(float)
            near, far = lines[:, :, columns.cell], lines[:, :, columns.cell + columns.step]
            dense = near * (1 - w) + far * w
            ramps = []
            for first, tile_side, side in ((top, size[0], height), (left, size[1], width)):
                place = np.arange(tile_side)
                before = place + 1 if first else np.full(tile_side, tile_side)
                after = tile_side - place if first + tile_side < side else before
                ramps.append(np.minimum(before, after))
            weight = (ramps[0][:, None] * ramps[1])[: cut.shape[0], : cut.shape[1]]
            at = slice(top, top + cut.shape[0]), slice(left, left + cut.shape[1])
            total[(slice(None), *at)] += dense[:, : cut.shape[0], : cut.shape[1]] * weight
            weights[at] += weight
    return total / weights


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("size", [(100, 150), (30, 200), (131, 64)])
def test_it_is_the_plain_average(size, overlap):
    def network(images):
        """Every fourth pixel, and a tile's own error, which grows with its mean."""
        scores = pointwise(images[:, ::4, ::4])
        return scores + np.sin(np.arange(5) + images.mean()).reshape(5, 1, 1).astype(np.float32)

    image = noise(size, 3)
    predictor = predictor_of(network, stride=4)
    found = predictor.predict_tiles(image, overlap).labels
    mean = averaged(image, SIZE, overlap, network, 4)
    best, second = np.sort(mean, axis=0)[[-1, -2]]
    clear = best - second > 1e-4
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(found[clear], mean.argmax(axis=0)[clear])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_that_uses_its_memory_again_gives_every_tile_its_own(tiny_model, blocks, runtime):
    image = blocks((150, 200))
    fake = FakeBackend.of_colours(CITYSCAPES, (64, 96))
    metadata = ArtefactMetadata(CITYSCAPES, (64, 96), "logits", "fp32")
    expected = Predictor(fake, metadata).predict_tiles(image, 0.5).labels
    with Predictor.from_onnx(tiny_model(), runtime, "cpu") as predictor:
        found = predictor.predict_tiles(image, 0.5).labels
    assert (found == expected).mean() > 0.9999


def test_the_weights_of_two_tiles_are_a_ramp():
    """Two tiles that contradict each other by logits of 1 and -1 meet in the middle."""
    network_calls = iter([1.0, -1.0])

    def network(images):
        score = np.full((1, *images.shape[1:3]), next(network_calls), np.float32)
        return np.stack([score, -score, *[score * 0 - 9] * 3], axis=1)

    labels = predictor_of(network).predict_tiles(noise((48, 96)), 0.5).labels
    assert (labels[:, :48] == 0).all()
    assert (labels[:, 48:] == 1).all()


def test_a_border_is_never_labelled_and_has_the_means_colour():
    fed = []

    def network(images):
        fed.append(images)
        return pointwise(images)

    mean = {"mean": [10.0, 20.0, 30.0], "scale": [1.0, 1.0, 1.0], "channels": "rgb"}
    predictor = predictor_of(network, preprocessing=mean)
    labels = predictor.predict_tiles(noise((20, 100))).labels
    assert labels.shape == (20, 100)
    assert all(one.shape == (1, *SIZE, 3) for one in fed)
    assert all((one[0, 20:] == (10, 20, 30)).all() for one in fed)


@pytest.mark.parametrize(
    ("options", "overlap", "message"),
    [
        ({"size": None}, 0.25, "takes images of any size as a whole: leave out the tiles"),
        (
            {"head": "labels"},
            0.25,
            "need a model with the head logits, .* 'labels': export it with --head",
        ),
        ({}, -0.1, r"overlap is -0\.1, expected 0 to 0\.75"),
        ({}, 0.8, "expected 0 to 0"),
        ({}, float("nan"), "the overlap is nan"),
    ],
)
def test_what_cannot_be_tiled_is_refused(options, overlap, message):
    with pytest.raises(InputError, match=message):
        predictor_of(pointwise, **options).predict_tiles(noise((100, 100)), overlap)


def test_what_predict_refuses_is_refused():
    predictor = predictor_of(lambda images: pointwise(images) * np.float32(np.nan))
    with pytest.raises(NotFinite):
        predictor.predict_tiles(noise((100, 100)))
    with pytest.raises(ImageError, match="an image is"):
        predictor.predict_tiles(np.zeros((100, 100), np.uint8))


def test_timings_are_of_all_tiles_and_the_image_is_a_copy():
    predictor, image = predictor_of(pointwise), noise((100, 100))
    prediction = predictor.predict_tiles(image)
    kept = image.copy()
    image[:] = 0
    np.testing.assert_array_equal(prediction.image, kept)
    times = prediction.timings_ms
    assert set(times) == {"preprocess", "inference", "label_map", "total"}
    assert times["total"] == pytest.approx(sum(times.values()) - times["total"])
    assert prediction.overlay().shape == (100, 100, 3)


def test_only_the_tiles_that_reach_a_row_are_kept(monkeypatch):
    kept, join = [], tiles._join

    def counted(band, top, reaching):
        kept.append(len(reaching))
        join(band, top, reaching)

    monkeypatch.setattr(tiles, "_join", counted)
    predictor_of(pointwise).predict_tiles(noise((480, 100)))
    columns = len(starts(100, SIZE[1], 0.25))
    assert len(kept) == len(starts(480, SIZE[0], 0.25)) == 13
    assert max(kept) == 2 * columns


class TestCommand:
    def run(self, model, out, *words):
        words = [*words, "--model", model, "-o", out, "--runtime", "onnxruntime"]
        return main([str(word) for word in words])

    def test_images_and_animations_are_tiled(self, tiny_model, blocks, tmp_path):
        model, image, out = tiny_model(), blocks((150, 200)), tmp_path / "out"
        write_image(tmp_path / "large.png", image)
        frames = [Image.fromarray(blocks((64, 150), seed)) for seed in (0, 1)]
        frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
        inputs = (tmp_path / "large.png", tmp_path / "two.gif")
        assert self.run(model, out, *inputs, "--tiles", "--overlap", 0.5) == 0
        with Predictor.from_onnx(model, "onnxruntime") as predictor:
            expected = predictor.predict_tiles(image, 0.5).labels
            assert (expected != predictor.predict(image).labels).any()
        np.testing.assert_array_equal(read_grey(out / "large_labels.png"), expected)
        assert (out / "two_overlay.mp4").exists()

    @pytest.mark.parametrize(
        ("options", "words", "message"),
        [
            ({}, ("--overlap", "0.5"), "--overlap says how far tiles overlap: give --tiles"),
            ({}, ("--tiles", "--overlap", "2"), "expected 0 to 0.75"),
            ({"head": "labels"}, ("--tiles",), "export it with --head logits"),
            ({"size": None}, ("--tiles",), "leave out the tiles"),
        ],
    )
    def test_what_cannot_be_is_refused_before_anything(
        self, tiny_model, blocks, tmp_path, capfd, options, words, message
    ):
        write_image(tmp_path / "large.png", blocks((150, 200)))
        out = tmp_path / "out"
        assert self.run(tiny_model(**options), out, tmp_path / "large.png", *words) == 2
        assert message in capfd.readouterr().err
        assert not out.exists()
