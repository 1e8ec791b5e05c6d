"""What every reader of a data set does: a new one subclasses `ReaderContract` in a few lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icnet_deploy.data import DATASETS, content_hash, open_dataset
from icnet_deploy.errors import DatasetError, ImageError
from icnet_deploy.images import write_image
from icnet_deploy.labels import IGNORE, LabelSet

SIZE = (4, 12)


def noise(seed=0, size=SIZE):
    """Pixels that no other seed has."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


class ReaderContract:
    """Tests of one reader, on files that it writes itself.

    A subclass says `name` (in `DATASETS`), `label_set`, `layout` (words of the message that says
    what was expected), and how an image and its labels are written.
    """

    name: str
    label_set: LabelSet
    layout: str

    def image_path(self, root: Path, name: str, split: str) -> Path:
        """Where an image of that name lies."""
        raise NotImplementedError

    def labels_path(self, root: Path, name: str, split: str) -> Path:
        """Where its labels lie."""
        raise NotImplementedError

    def write_labels(self, path: Path, indices: np.ndarray) -> None:
        """Writes indices of the label set, with 255 for ignored, as this layout has them."""
        raise NotImplementedError

    def write(self, root, name="a", indices=None, split="val", image=None):
        """Writes an image with its labels; returns where both lie."""
        indices = self.indices() if indices is None else indices
        image_path = self.image_path(root, name, split)
        labels_path = self.labels_path(root, name, split)
        write_image(image_path, noise() if image is None else image)
        self.write_labels(labels_path, indices)
        return image_path, labels_path

    def indices(self, size=SIZE):
        """Every class, and some ignored pixels."""
        every = np.arange(size[0] * size[1]) % (len(self.label_set) + 1)
        every = np.where(every == len(self.label_set), IGNORE, every)
        return every.astype(np.uint8).reshape(size)

    def test_it_is_known_by_its_name(self):
        assert self.name in DATASETS

    def test_it_reads_what_was_written(self, tmp_path):
        image, wanted = noise(7), self.indices()
        self.write(tmp_path, indices=wanted, image=image)
        dataset = open_dataset(self.name, tmp_path)
        assert (dataset.name, dataset.split) == (self.name, "val")
        assert (dataset.label_set, len(dataset)) == (self.label_set, 1)
        sample = dataset[0]
        assert (sample.image.dtype, sample.labels.dtype) == (np.uint8, np.uint8)
        assert np.array_equal(sample.image, image)
        assert np.array_equal(sample.labels, wanted)
        assert sample.content_hashes() == (content_hash(image),)

    def test_images_are_sorted_and_stay_in_their_split(self, tmp_path):
        for name in ("c", "a", "b"):
            self.write(tmp_path, name)
        self.write(tmp_path, "d", split="train")
        first = [sample.name for sample in open_dataset(self.name, tmp_path, "val")]
        assert first == sorted(first)
        assert [name[0] for name in first] == ["a", "b", "c"]
        second = [sample.name for sample in open_dataset(self.name, tmp_path, "train")]
        assert [name[0] for name in second] == ["d"]

    def test_every_image_says_its_group_without_being_decoded(self, tmp_path):
        for name in ("c", "a", "b"):
            self.write(tmp_path, name)
        dataset = open_dataset(self.name, tmp_path)
        groups = tuple(sample.group for sample in dataset)
        for image, _ in dataset.files:
            image.write_bytes(b"none")
        assert dataset.groups() == groups
        assert all(groups)
        own = open_dataset(self.name, tmp_path, group_by="^.")
        assert own.groups() == ("a", "b", "c")

    def test_labels_of_another_size_are_refused_with_both_sizes(self, tmp_path):
        self.write(tmp_path, indices=self.indices((5, 11)))
        with pytest.raises(DatasetError, match=r"5x11.*4x12"):
            open_dataset(self.name, tmp_path)[0]

    def test_missing_labels_are_counted_when_the_set_is_opened(self, tmp_path):
        self.write(tmp_path, "a")
        _, labels = self.write(tmp_path, "b")
        labels.unlink()
        with pytest.raises(DatasetError, match=rf"1 of 2 .* no labels; first: .*{labels.name}"):
            open_dataset(self.name, tmp_path)

    def test_an_empty_folder_is_refused_with_the_expected_layout(self, tmp_path):
        image, labels = self.write(tmp_path)
        image.unlink()
        labels.unlink()
        with pytest.raises(DatasetError, match=f"holds no {self.name} images.*'val'") as caught:
            open_dataset(self.name, tmp_path)
        assert f"expected {self.layout}" in str(caught.value)

    @pytest.mark.parametrize("broken", [b"nothing", b""])
    def test_a_label_file_that_is_no_image_is_a_data_set_error(self, tmp_path, broken):
        _, labels = self.write(tmp_path)
        labels.write_bytes(broken)
        with pytest.raises(DatasetError, match=r"labels of .*not an image"):
            open_dataset(self.name, tmp_path)[0]

    def test_labels_in_jpeg_are_refused(self, tmp_path):
        """Its compression invents classes, or colours of none."""
        _, labels = self.write(tmp_path)
        with Image.open(labels) as stored:
            stored.convert("RGB" if stored.mode == "P" else stored.mode).save(labels, "JPEG")
        with pytest.raises(DatasetError, match="is in JPEG, which may change values"):
            open_dataset(self.name, tmp_path)[0]

    def test_an_image_that_is_cut_off_is_an_image_error(self, tmp_path):
        image, _ = self.write(tmp_path)
        image.write_bytes(image.read_bytes()[:100])
        with pytest.raises(ImageError, match="cut off"):
            open_dataset(self.name, tmp_path)[0]

    def test_hidden_files_are_no_images(self, tmp_path):
        image, _ = self.write(tmp_path)
        image.with_name(f"._{image.name}").write_bytes(b"of another system")
        image.with_name(".a.77.tmp.png").write_bytes(b"left by a kill")
        assert len(open_dataset(self.name, tmp_path)) == 1

    def test_a_photo_in_jpeg_is_read_by_its_content(self, tmp_path):
        image, _ = self.write(tmp_path)
        Image.fromarray(noise()).save(image, "JPEG")
        assert open_dataset(self.name, tmp_path)[0].image.shape == (*SIZE, 3)
