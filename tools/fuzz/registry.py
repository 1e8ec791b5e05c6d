"""The targets by name."""

from tools.fuzz.target import Target
from tools.fuzz.targets import (
    arrays,
    documents,
    folders,
    images,
    models,
    options,
    videos,
    weights,
)

_ROOMS = (images, arrays, documents, folders, options, weights, videos, models)

TARGETS: dict[str, Target] = {one.name: one for room in _ROOMS for one in room.TARGETS}
"""In the order in which they are tried, the quick ones first."""
