"""Readers for labelled street scenes, and the scores that models get on them."""

from icnet_deploy.data.datasets import DATASETS, Dataset, Sample, content_hash, open_dataset
from icnet_deploy.data.mapping import prediction_table
from icnet_deploy.data.scores import ConfusionMatrix, RegionAccuracy

__all__ = [
    "DATASETS",
    "ConfusionMatrix",
    "Dataset",
    "RegionAccuracy",
    "Sample",
    "content_hash",
    "open_dataset",
    "prediction_table",
]
