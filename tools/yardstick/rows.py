"""What the yardstick finds: a row for each street, size and look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from icnet_deploy.data import Dataset
from icnet_deploy.documents import COUNT, OBJECT, TEXT, Schema, list_of, object_with, one_of
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.confidence.differences import Differences, differences, own_scores
from icnet_deploy.evaluation.model import float_model
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.evaluation.score import Score
from tools.yardstick.looks import LOOKS, PLAIN
from tools.yardstick.streets import SIZES

_SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """A score.

    Attributes:
        street: `camvid` or `kitti`.
        deployed: the size that is deployed; see `SIZES`.
        look: of `LOOKS`.
        score: what was counted.
    """

    street: str
    deployed: str
    look: str
    score: Score

    def to_dict(self, plain: "Row") -> dict[str, Any]:
        """The JSON form.

        Args:
            plain: the row of the same frames as they are, which is this one or was taken with it.
        """
        counts = self.score.images_counted
        names = self.score.dataset.label_set.names
        alone = own_scores(counts, names)
        form = {
            "street": self.street,
            "deployed": self.deployed,
            "look": self.look,
            "protocol": self.score.protocol().to_dict(),
            "score": self.score.to_dict(),
            "miou_points": alone.miou.to_dict(),
            "classes_left_out": list(alone.left_out),
            "basis": alone.basis(),
        }
        if self.look == PLAIN:  # what another checkpoint is compared with, image by image
            return {**form, "images": [one.to_dict() for one in counts]}
        moved = differences(counts, plain.score.images_counted, names)
        return {**form, "moved_points": _moved(moved)}


def _moved(moved: Differences) -> dict[str, Any]:
    return {
        "miou": moved.miou.to_dict(),
        "pixel_accuracy": moved.pixel_accuracy.to_dict(),
        "classes": {name: one.to_dict() for name, one in moved.classes.items()},
    }


def score_street(
    network: Reference,
    path: Path,
    dataset: Dataset,
    deployed: Mapping[str, Sequence[str]],
) -> list[Row]:
    """Scores a checkpoint on one street.

    Args:
        network: the checkpoint.
        path: its file.
        dataset: the street's frames.
        deployed: the sizes that are asked for, each with its looks, `plain` the first; those that
            the street does not have are passed over.
    """
    rows = []
    for name, looks in deployed.items():
        if name not in SIZES[dataset.name]:
            continue
        model = float_model(network.at(SIZES[dataset.name][name]), path)
        scores = {look: Score.of(dataset, model.metadata) for look in looks}
        for sample in tqdm(dataset, f"{dataset.name} {name}", unit="image", disable=None):
            for look, score in scores.items():
                changed = replace(sample, image=LOOKS[look].change(sample.image))
                score.add(changed, model.label(changed.image))
        for score in scores.values():
            score.require_truth()
        rows += [Row(dataset.name, name, look, score) for look, score in scores.items()]
    return rows


def forms(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The JSON forms of rows, among which each street and size has its plain one."""
    plain = {(row.street, row.deployed): row for row in rows if row.look == PLAIN}
    return [row.to_dict(plain[row.street, row.deployed]) for row in rows]


_ROW = object_with(
    {
        **dict.fromkeys(("street", "deployed", "look"), TEXT),
        **dict.fromkeys(("protocol", "score", "miou_points"), OBJECT),
    }
)
_RESULT = Schema(
    "a result that `python -m tools.yardstick --json` writes",
    {"schema": COUNT, "kind": one_of("yardstick"), "model": TEXT, "rows": list_of(_ROW)},
    newest=_SCHEMA,
    most_bytes=64 << 20,
)


def result(model: Path, sha256: str, trained_on: str | None, rows: Sequence[Row]) -> Any:
    """The JSON form of all; versions and machine are the caller's."""
    return {
        "schema": _SCHEMA,
        "kind": "yardstick",
        "model": model.name,
        "sha256": sha256,
        "trained_on": trained_on,
        "rows": forms(rows),
    }


def read_result(path: Path) -> dict[str, Any]:
    """Reads the JSON form; InputError if it is none."""
    return _RESULT.read(path)


def compared(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], Differences]:
    """How far the plain scores are above those of another result, by street and size.

    Raises:
        InputError: a street and size of both was scored on other frames or labels.
    """
    others = {(row["street"], row["deployed"]): row for row in theirs if row["look"] == PLAIN}
    found = {}
    for row in ours:
        key = row["street"], row["deployed"]
        if row["look"] != PLAIN or key not in others:
            continue
        if row["protocol"] != others[key]["protocol"]:
            raise InputError(
                f"{' '.join(key)} was scored on other frames in the other result: score both "
                "with the same data, --limit and --held-out-... options"
            )
        names = list(row["score"]["iou_percent"])
        mine, its = (
            [ImageCounts.from_dict(one) for one in each["images"]] for each in (row, others[key])
        )
        found[key] = differences(mine, its, names)
    return found
