"""Scores and parity: how good a model is, and how far an artefact is from it.

The reference needs torch, which is imported when a reference is built, not before.
"""

from icnet_deploy.evaluation.answer import dense_labels, margins_at
from icnet_deploy.evaluation.budgets import BUDGETS, Budget
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.evaluation.score import (
    Protocol,
    Score,
    refuse_calibration_images,
    require_same_protocol,
    score_dataset,
)

__all__ = [
    "BUDGETS",
    "Budget",
    "Protocol",
    "Reference",
    "Score",
    "dense_labels",
    "margins_at",
    "refuse_calibration_images",
    "require_same_protocol",
    "score_dataset",
]
