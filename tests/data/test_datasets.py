"""Readers of Cityscapes, CamVid in its layouts, and generated scenes."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reader_contract import ReaderContract, noise

from icnet_deploy.data import content_hash, open_dataset
from icnet_deploy.errors import DatasetError, ImageError
from icnet_deploy.images import read_image, write_image, write_labels
from icnet_deploy.labels import CAMVID, CITYSCAPES

# Which trainId each of Cityscapes' 34 labelIds has, from the data set's own table of labels.
TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12,
    26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip

# The colours of the original CamVid's 32 classes, and the one of 11 that each belongs to.
CAMVID_COLOURS = """
064 128 064 pedestrian    Animal
192 000 128 building      Archway
000 128 192 bicyclist     Bicyclist
000 128 064 building      Bridge
128 000 000 building      Building
064 000 128 car           Car
064 000 192 pedestrian    CartLuggagePram
192 128 064 pedestrian    Child
192 192 128 pole          Column_Pole
064 064 128 fence         Fence
128 000 192 road          LaneMkgsDriv
192 000 064 road          LaneMkgsNonDriv
128 128 064 sign/symbol   Misc_Text
192 000 192 bicyclist     MotorcycleScooter
128 064 064 car           OtherMoving
064 192 128 pavement      ParkingBlock
064 064 000 pedestrian    Pedestrian
128 064 128 road          Road
128 128 192 pavement      RoadShoulder
000 000 192 pavement      Sidewalk
192 128 128 sign/symbol   SignSymbol
128 128 128 sky           Sky
064 128 192 car           SUVPickupTruck
000 000 064 pole          TrafficCone
000 064 064 sign/symbol   TrafficLight
192 064 128 car           Train
128 128 000 tree          Tree
192 128 192 car           Truck_Bus
064 000 064 building      Tunnel
192 192 000 tree          VegetationMisc
000 000 000 -             Void
064 192 000 building      Wall
"""


def add_cityscapes(root, name="bonn_000000_000019", labels=None, split="val"):
    """Writes one image and its labels in Cityscapes' layout."""
    city = name.split("_")[0]
    image = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
    write_image(image, noise())
    label = root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"
    write_labels(label, np.full((4, 12), 7, np.uint8) if labels is None else labels)
    return image, label


def add_camvid(root, name="0001TP_006690", labels=None, split="val"):
    """Writes one image and its labels in the layout of CamVid with indices."""
    write_image(root / split / f"{name}.png", noise())
    labels = np.zeros((4, 12), np.uint8) if labels is None else labels
    write_labels(root / f"{split}annot" / f"{name}.png", labels)


def colour_map():
    """All 32 colours in a row of pixels each, and the indices that they stand for."""
    rows = [line.split() for line in CAMVID_COLOURS.strip().split("\n")]
    colours = np.array([[int(v) for v in row[:3]] for row in rows], np.uint8)
    indices = [255 if row[3] == "-" else CAMVID.names.index(row[3]) for row in rows]
    assert len(rows) == 32
    return np.repeat(colours[:, None], 5, axis=1), np.repeat(np.uint8(indices)[:, None], 5, axis=1)


class TestCityscapes(ReaderContract):
    name, label_set, layout = "cityscapes", CITYSCAPES, "leftImg8bit/SPLIT/CITY/"

    def image_path(self, root, name, split):
        return root / "leftImg8bit" / split / "bonn" / f"{name}_leftImg8bit.png"

    def labels_path(self, root, name, split):
        return root / "gtFine" / split / "bonn" / f"{name}_gtFine_labelIds.png"

    def write_labels(self, path, indices):
        write_labels(path, np.frombuffer(CITYSCAPES.train_to_label_ids(), np.uint8)[indices])

    def test_a_hidden_folder_is_no_city(self, tmp_path):
        image, _ = self.write(tmp_path)
        hidden = image.parent.with_name(".ipynb_checkpoints") / f"b-checkpoint{image.name}"
        write_image(hidden, noise())
        assert len(open_dataset(self.name, tmp_path)) == 1


class TestScenes(TestCityscapes):
    name = "scenes"


class TestCamVid(ReaderContract):
    name, label_set, layout = "camvid", CAMVID, "SPLIT/ and SPLITannot/"

    def image_path(self, root, name, split):
        return root / split / f"{name}.png"

    def labels_path(self, root, name, split):
        return root / f"{split}annot" / f"{name}.png"

    def write_labels(self, path, indices):
        write_labels(path, indices)


class TestCamVidColours(TestCamVid):
    def labels_path(self, root, name, split):
        return root / f"{split}_labels" / f"{name}_L.png"

    def write_labels(self, path, indices):
        colours, known = colour_map()
        of_index = {int(i): colours[row, 0] for row, i in enumerate(known[:, 0])}
        write_image(path, np.array([[of_index[int(i)] for i in row] for row in indices]))


class TestOriginalCamVid(TestCamVidColours):
    def image_path(self, root, name, split):
        root.mkdir(exist_ok=True)
        with (root / f"{split}.txt").open("a") as names:
            names.write(f"{name}\n")
        return root / "701_StillsRaw_full" / f"{name}.png"

    def labels_path(self, root, name, split):
        return root / "LabeledApproved_full" / f"{name}_L.png"

    def test_an_empty_folder_is_refused_with_the_expected_layout(self, tmp_path):
        """Its list names an image that is not there."""
        image, _ = self.write(tmp_path)
        image.unlink()
        with pytest.raises(
            DatasetError, match=r"names 1 images, and 1 of them are not in .*; first: a"
        ):
            open_dataset("camvid", tmp_path)


def test_cityscapes_turns_all_34_label_ids_into_train_ids(tmp_path):
    ids = np.arange(48, dtype=np.uint8).reshape(4, 12)
    ids[ids > 33] = 255
    image, _ = add_cityscapes(tmp_path, labels=ids)
    sample = open_dataset("cityscapes", tmp_path)[0]
    assert sample.name == "bonn_000000_000019"
    assert np.array_equal(sample.image, read_image(image))
    assert sample.labels.dtype == np.uint8
    expected = [[TRAIN_IDS.get(int(i), 255) for i in row] for row in ids]
    assert sample.labels.tolist() == expected


def test_cityscapes_is_sorted_over_its_cities_and_split_by_folder(tmp_path):
    for name in ("ulm_000001_000019", "aachen_000002_000019", "aachen_000001_000019"):
        add_cityscapes(tmp_path, name)
    add_cityscapes(tmp_path, "bonn_000000_000019", split="train")
    val = open_dataset("cityscapes", tmp_path, "val")
    assert [sample.name[:-7] for sample in val] == ["aachen_000001", "aachen_000002", "ulm_000001"]
    assert (val.name, val.split, val.label_set) == ("cityscapes", "val", CITYSCAPES)
    assert len(open_dataset("cityscapes", tmp_path, "train")) == 1


def test_camvid_with_indices_ignores_the_unlabelled(tmp_path):
    labels = np.arange(12, dtype=np.uint8)[None].repeat(4, axis=0)
    labels[0, 0] = 255
    add_camvid(tmp_path, labels=labels)
    dataset = open_dataset("camvid", tmp_path)
    assert (dataset.name, dataset.label_set) == ("camvid", CAMVID)
    sample = dataset[0]
    assert sample.name == "0001TP_006690"
    assert sample.labels[1].tolist() == [*range(11), 255]
    assert sample.labels[0, 0] == 255


def test_camvid_with_a_folder_of_colours_a_split(tmp_path):
    colours, indices = colour_map()
    write_image(tmp_path / "val" / "0016E5_07959.png", noise(size=(32, 5)))
    write_image(tmp_path / "val_labels" / "0016E5_07959_L.png", colours)
    assert np.array_equal(open_dataset("camvid", tmp_path)[0].labels, indices)


@pytest.fixture
def original(tmp_path):
    colours, _ = colour_map()
    for index in range(3):
        stem = f"0016E5_0{index}"
        write_image(tmp_path / "701_StillsRaw_full" / f"{stem}.png", noise(index, (32, 5)))
        write_image(tmp_path / "LabeledApproved_full" / f"{stem}_L.png", colours)
    return tmp_path


def test_the_original_camvid_as_a_whole(original):
    dataset = open_dataset("camvid", original, "all")
    assert len(dataset) == 3
    assert np.array_equal(dataset[2].labels, colour_map()[1])


@pytest.mark.parametrize(
    "line",
    [
        *("0016E5_01", "0016E5_01.png", "701_StillsRaw_full/0016E5_01.png", "0016E5_01_L.png"),
        "\ufeff0016E5_01",
    ],
)
def test_the_original_camvid_with_a_file_of_names(original, line):
    (original / "val.txt").write_text(f"{line}\n0016E5_02.png\n")
    names = [sample.name for sample in open_dataset("camvid", original, "val")]
    assert names == ["0016E5_01", "0016E5_02"]


def test_the_original_camvid_without_a_file_of_names_says_how_to_get_one(original):
    with pytest.raises(DatasetError, match=r"val\.txt, or give --split all"):
        open_dataset("camvid", original, "val")


def test_a_name_of_a_split_that_has_no_image_is_refused(original):
    (original / "val.txt").write_text("0016E5_01\n0016E5_77\n0016E5_78\n")
    with pytest.raises(
        DatasetError, match=r"names 3 images, and 2 of them are not in .*; first: 0016E5_77"
    ):
        open_dataset("camvid", original, "val")


def test_a_colour_that_is_no_class_is_ignored(tmp_path):
    write_image(tmp_path / "val" / "a.png", noise(size=(1, 2)))
    write_image(tmp_path / "val_labels" / "a_L.png", np.uint8([[[1, 2, 3], [128, 128, 128]]]))
    assert open_dataset("camvid", tmp_path)[0].labels.tolist() == [[255, 0]]


def test_a_split_of_camvid_that_is_not_there_is_told_by_its_name(tmp_path):
    add_camvid(tmp_path)
    with pytest.raises(DatasetError, match=r"no camvid images of the split 'test'.*SPLITannot"):
        open_dataset("camvid", tmp_path, "test")


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(DatasetError, match=r"does not exist|is a file, not a folder"):
            open_dataset("camvid", path)


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(DatasetError, match="'coco'; known: cityscapes, camvid, scenes"):
        open_dataset("coco", tmp_path)


@pytest.mark.parametrize("value", [12, 100, 254])
def test_an_index_that_camvid_does_not_have_is_refused(value, tmp_path):
    add_camvid(tmp_path, labels=np.full((4, 12), value, np.uint8))
    with pytest.raises(DatasetError, match=f"holds {value}; CamVid's indices are 0 to 11"):
        open_dataset("camvid", tmp_path)[0]


def test_a_label_file_that_is_no_label_map_is_a_data_set_error(tmp_path):
    _, label = add_cityscapes(tmp_path)
    write_image(label, noise())
    with pytest.raises(DatasetError, match=r"labels of bonn.*expected one 8-bit channel"):
        open_dataset("cityscapes", tmp_path)[0]


def test_first_spreads_over_the_whole_set(tmp_path):
    for index in range(10):
        add_camvid(tmp_path, f"{index:02}")
    dataset = open_dataset("camvid", tmp_path)
    assert [sample.name for sample in dataset.first(4)] == ["00", "03", "06", "09"]
    assert [sample.name for sample in dataset.first(1)] == ["00"]
    assert dataset.first(None) is dataset
    assert len(dataset.first(10)) == len(dataset.first(99)) == 10
    assert [len(set(dataset.first(n).files)) for n in range(1, 11)] == list(range(1, 11))


def palette_png(path, values, colours, **options):
    """Writes indices with a palette, as most annotation tools do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values, "P")
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    image.save(path, "PNG", **options)


@pytest.mark.parametrize("options", [{}, {"bits": 4}, {"transparency": bytes([0, 255])}])
def test_a_palettes_indices_are_labels(options, tmp_path):
    values = (np.arange(48, dtype=np.uint8) % 12).reshape(4, 12)
    add_camvid(tmp_path)
    palette_png(tmp_path / "valannot" / "0001TP_006690.png", values, noise(2, (16, 1)), **options)
    expected = np.where(values == 11, 255, values)
    assert np.array_equal(open_dataset("camvid", tmp_path)[0].labels, expected)


def test_a_palettes_indices_are_label_ids(tmp_path):
    ids = (np.arange(48, dtype=np.uint8) % 34).reshape(4, 12)
    _, label = add_cityscapes(tmp_path)
    palette_png(label, ids, noise(2, (256, 1)))
    expected = [[TRAIN_IDS.get(int(i), 255) for i in row] for row in ids]
    assert open_dataset("cityscapes", tmp_path)[0].labels.tolist() == expected


def test_of_a_map_drawn_in_colours_the_palettes_colours_count(tmp_path):
    colours, indices = colour_map()
    write_image(tmp_path / "val" / "a.png", np.zeros((32, 5, 3), np.uint8))
    order = np.random.default_rng(5).permutation(32)
    values = np.argsort(order).astype(np.uint8)[:, None].repeat(5, axis=1)
    palette_png(tmp_path / "val_labels" / "a_L.png", values, colours[order, 0])
    assert np.array_equal(open_dataset("camvid", tmp_path)[0].labels, indices)


def test_labels_of_sixteen_bits_are_read_exactly_or_refused(tmp_path):
    ids = (np.arange(48) % 34).reshape(4, 12)
    _, label = add_cityscapes(tmp_path)
    Image.fromarray(ids.astype(np.uint16)).save(label)
    expected = [[TRAIN_IDS.get(int(i), 255) for i in row] for row in ids]
    assert open_dataset("cityscapes", tmp_path)[0].labels.tolist() == expected
    Image.fromarray((ids * 1000).astype(np.uint16)).save(label)
    with pytest.raises(DatasetError, match=r"values up to 33000.*instance ids"):
        open_dataset("cityscapes", tmp_path)[0]


def test_a_photo_in_jpeg_has_its_labels_in_png(tmp_path):
    add_camvid(tmp_path)
    photo = tmp_path / "val" / "0001TP_006690.png"
    Image.fromarray(noise()).save(photo.with_suffix(".jfif"), "JPEG")
    photo.unlink()
    assert open_dataset("camvid", tmp_path)[0].labels.shape == (4, 12)


def test_labels_of_another_size_are_refused_before_they_are_decoded(tmp_path):
    """A header may promise much."""
    add_camvid(tmp_path)
    path = tmp_path / "valannot" / "0001TP_006690.png"
    content = path.read_bytes()
    header = b"IHDR" + (9_000).to_bytes(4) * 2 + content[24:29]
    path.write_bytes(content[:12] + header + zlib.crc32(header).to_bytes(4) + content[33:])
    with pytest.raises(DatasetError, match=r"is 9000x9000, its image .* is 4x12"):
        open_dataset("camvid", tmp_path)[0]


def test_an_image_of_several_pictures_is_refused(tmp_path):
    add_camvid(tmp_path)
    frames = [Image.fromarray(noise(i)) for i in range(3)]
    photo = tmp_path / "val" / "0001TP_006690.png"
    frames[0].save(photo, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="holds 3 pictures; expected one"):
        open_dataset("camvid", tmp_path)[0]


def test_the_content_hash_is_that_of_the_pixels(tmp_path):
    image = noise()
    for name in ("a.png", "b.bmp", "c.tiff"):
        write_image(tmp_path / name, image)
    hashes = {content_hash(read_image(p)) for p in tmp_path.iterdir()}
    assert hashes == {content_hash(image)}
    assert len(hashes.pop()) == 64


def test_the_content_hash_sees_size_pixels_and_channel_order():
    image = noise()
    others = [image.reshape(12, 4, 3), image[:, :, ::-1], image[::-1], image[:, :11], image.copy()]
    others[-1][2, 3, 1] ^= 1
    assert len({content_hash(i) for i in [image, *others]}) == 6


def real_camvid():
    """The user's own copy of CamVid, or None."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "camvid"
    named = os.environ.get("ICNET_CAMVID")
    root = Path(named) if named else beside
    return root if (root / "valannot").is_dir() else None


@pytest.mark.skipif(
    real_camvid() is None, reason="no CamVid: name its folder in the variable ICNET_CAMVID"
)
@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101)])
def test_the_real_camvid(split, count):
    dataset = open_dataset("camvid", real_camvid(), split)
    assert len(dataset) == count
    assert len({image.stem for image, _ in dataset.files}) == count
    seen = set()
    for _, label_file in dataset.files:
        seen |= set(np.flatnonzero(np.bincount(dataset.read_labels(label_file).ravel())).tolist())
    assert seen == {*range(11), 255}
    for sample in dataset.first(3):
        assert sample.image.shape == (360, 480, 3)
        assert sample.labels.shape == (360, 480)
        # Sky is above road: labels and images are not upside down.
        sky, road = (np.nonzero(sample.labels == index)[0].mean() for index in (0, 3))
        assert sky < road
