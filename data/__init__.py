"""Readers for labelled street scenes, and the scores that models get on them."""

from icnet_deploy.data.dataset import Dataset, Sample, content_hash, content_hashes, open_image
from icnet_deploy.data.mapping import prediction_table
from icnet_deploy.data.metrics import ConfusionMatrix, RegionAccuracy
from icnet_deploy.data.photos import image_files
from icnet_deploy.data.registry import DATASETS, EXIF, open_dataset

__all__ = [
    "DATASETS",
    "EXIF",
    "ConfusionMatrix",
    "Dataset",
    "RegionAccuracy",
    "Sample",
    "content_hash",
    "content_hashes",
    "image_files",
    "open_dataset",
    "open_image",
    "prediction_table",
]
