"""`icnet evaluate --diagnose`: each usual slip, made on purpose, is found; a right word stands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the float network needs torch")

from icnet_deploy.data import Sample, prediction_table  # noqa: E402
from icnet_deploy.errors import DatasetError, LabelSetError  # noqa: E402
from icnet_deploy.evaluation.diagnose import diagnosis  # noqa: E402
from icnet_deploy.evaluation.diagnose.counting import Runs  # noqa: E402
from icnet_deploy.evaluation.diagnose.diagnosis import Outcome, diagnose  # noqa: E402
from icnet_deploy.evaluation.diagnose.report import (  # noqa: E402
    Diagnosed,
    diagnosis_page,
    diagnosis_text,
    markdown,
)
from icnet_deploy.evaluation.diagnose.slips import Reading, Setting, slips_of  # noqa: E402
from icnet_deploy.labels import CAMVID, CITYSCAPES, LabelSet  # noqa: E402
from icnet_deploy.networks.base import SegmentationNetwork  # noqa: E402
from icnet_deploy.networks.checkpoint import Checkpoint  # noqa: E402
from icnet_deploy.networks.layers import resize  # noqa: E402
from icnet_deploy.networks.preprocessing import (  # noqa: E402
    CAFFE,
    PREPROCESSINGS,
    STREET,
    Preprocessing,
)

COLOURS = (
    (200, 60, 30),
    (40, 180, 70),
    (60, 50, 190),
    (230, 220, 90),
    (20, 30, 40),
    (120, 130, 125),
)
SET = LabelSet("colours", ("red", "green", "blue", "yellow", "black", "grey"), COLOURS)
COUNTED = replace(SET, label_ids=(1, 2, 3, 4, 5, 6))  # from 1 on, as ADE20K's
SCATTERED = replace(SET, label_ids=(0, 2, 4, 1, 3, 5))
SHAPE = (32, 48)

UNIT, SYMMETRIC = PREPROCESSINGS["unit"], PREPROCESSINGS["symmetric"]
RAW = Preprocessing((0.0, 0.0, 0.0))
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def times(values, factor):
    return tuple(value * factor for value in values)


TWICE = times(STREET.scale, 255)
SQUARED = tuple(s * t for s, t in zip(STREET.scale, TWICE, strict=True))


class Nearest(SegmentationNetwork):
    """Tells colours apart by the nearest, for one preprocessing alone; 1 x 1 convolutions."""

    min_side = 8

    def __init__(self, right: Preprocessing, stride: int = 1, upsampling: str = "none") -> None:
        super().__init__()
        self.num_classes, self.upsampling = len(SET), upsampling
        self._stride, self._rule = stride, upsampling
        means = right.tensor(np.array(COLOURS, np.uint8)[None])[0, :, 0].T
        self.score = torch.nn.Conv2d(3, len(SET), 1)
        self.score.weight.data = 2 * means[:, :, None, None]
        self.score.bias.data = -means.square().sum(1)

    def heads(self, image):
        logits = self.score(image)
        small = tuple(-(-side // self._stride) for side in image.shape[2:])
        return [logits if self._stride == 1 else resize(logits, small, self._rule)]

    def description(self, guidance=None):
        return {"architecture": "nearest"}


class Flawed(Nearest):
    """One whose logits are not finite."""

    def heads(self, image):
        return [super().heads(image)[0] / 0]


def checkpoint(network, said=STREET, label_set=SET):
    return Checkpoint(Path("colours.py"), network.eval(), label_set, said, {}, "0" * 64)


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    """A fifth of them, in a fifth of the time."""
    monkeypatch.setattr(diagnosis, "LEVEL", 0.95)


@pytest.fixture
def coloured(memory):
    """A function from (images, shape, label set, what a file's labels become) to a data set."""

    def make(count=8, shape=SHAPE, label_set=SET, read=lambda truth: truth, blank=False):
        truths, samples = [], []
        for index in range(count):
            random = np.random.default_rng(index)
            coarse = random.integers(0, len(SET), (5, 7)).astype(np.uint8)
            cuts = [np.sort(random.choice(n, m)) for n, m in zip(shape, (4, 6), strict=True)]
            rows, columns = (
                np.searchsorted(cut, np.arange(n)) for cut, n in zip(cuts, shape, strict=True)
            )
            truth = coarse[rows][:, columns]
            noise = random.normal(0, 22, (*shape, 3))
            image = np.clip(np.array(COLOURS)[truth] + noise, 0, 255).astype(np.uint8)
            labels = np.asarray(read(truth) if not blank else truth * 0 + 255, np.uint8)
            truths.append(labels)
            samples.append(Sample(f"s{index}", image, labels))
        dataset = memory(*truths, label_set=label_set)
        object.__setattr__(dataset, "samples", samples)
        return dataset

    return make


def changed(found):
    return [slip.name for slip in found.found]


def alike(one, other):
    assert (one.channels, one.fit) == (other.channels, other.fit)
    assert one.mean == pytest.approx(other.mean)
    assert one.scale == pytest.approx(other.scale)


INPUTS = {
    "channels: bgr": (STREET, replace(STREET, channels="bgr")),
    "channels: rgb": (replace(STREET, channels="bgr"), STREET),
    "channels: bgr, mean and scale turned": (
        Preprocessing(CAFFE.mean[::-1], CAFFE.scale),
        CAFFE,
    ),
    "mean and scale turned": (Preprocessing((60, 120, 180)), Preprocessing((180, 120, 60))),
    "mean * 255, scale / 255": (
        Preprocessing(times(STREET.mean, 1 / 255), times(STREET.scale, 255)),
        STREET,
    ),
    "mean / 255, scale * 255": (
        STREET,
        Preprocessing(times(STREET.mean, 1 / 255), times(STREET.scale, 255)),
    ),
    "scale / 255": (RAW, UNIT),
    "scale * 255": (UNIT, RAW),
    "mean: 0": (STREET, replace(STREET, mean=ZERO)),
    "scale: 1": (STREET, replace(STREET, scale=ONE)),
    "scale: 1/255": (STREET, replace(STREET, scale=UNIT.scale)),
    "mean: 0, scale: 1": (STREET, RAW),
    "mean twice": (STREET, replace(STREET, mean=times(STREET.mean, 2))),
    "scale twice": (STREET, replace(STREET, scale=SQUARED)),
    "mean and scale twice": (
        STREET,
        Preprocessing(tuple(m + m / s for m, s in zip(STREET.mean, TWICE, strict=True)), SQUARED),
    ),
    "preprocessing: imagenet": (replace(STREET, mean=ZERO), STREET),
    "preprocessing: caffe": (STREET, CAFFE),
    "preprocessing: symmetric": (UNIT, SYMMETRIC),
    "mean and scale of unit": (CAFFE, replace(UNIT, channels="bgr")),
}
"""The slip's name -> what is said, and what is right."""


@pytest.mark.parametrize("name", INPUTS)
def test_a_wrong_input_is_found(name, coloured, one_thread):
    said, right = INPUTS[name]
    found = diagnose(checkpoint(Nearest(right), said), coloured())
    first = found.rounds[0]
    assert name in [one.slip.name for one in (first.best, *first.as_good)]
    alike(found.best.preprocessing, right)
    assert found.total.low > 0


def test_two_slips_at_once_are_found(coloured, one_thread):
    right = replace(RAW, channels="bgr")
    found = diagnose(checkpoint(Nearest(right), UNIT), coloured())
    assert sorted(changed(found)) == ["channels: bgr", "scale * 255"]
    alike(found.best.preprocessing, right)
    assert found.total.value > found.rounds[0].best.difference.value


@pytest.mark.parametrize("right", [STREET, CAFFE, UNIT], ids=["imagenet", "caffe", "unit"])
def test_a_right_word_raises_no_alarm(right, coloured, one_thread):
    found = diagnose(checkpoint(Nearest(right), right), coloured())
    assert (changed(found), found.total, len(found.rounds)) == ([], None, 1)
    assert found.best == found.said
    assert len(found.rounds[0].tries) > 8


LABELS = {
    "labels: one up": (SET, lambda truth: np.where(truth < 5, truth + 1, 255)),
    "labels: one down": (SET, lambda truth: np.where(truth > 0, truth - 1, 255)),
    "labels: the files hold ids": (SCATTERED, lambda truth: np.array(SCATTERED.label_ids)[truth]),
    "labels: the files hold indices": (
        SCATTERED,
        lambda truth: np.argsort(SCATTERED.label_ids)[truth],
    ),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_that_are_read_wrongly_are_found(name, coloured, one_thread):
    label_set, read = LABELS[name]
    found = diagnose(checkpoint(Nearest(STREET)), coloured(label_set=label_set, read=read))
    assert changed(found) == [name]
    alike(found.best.preprocessing, STREET)


def test_a_class_that_stands_first_in_one_and_last_in_the_other_is_found(coloured, one_thread):
    rolled = coloured(read=lambda truth: (truth - 1) % len(SET))
    found = diagnose(checkpoint(Nearest(STREET)), rolled)
    assert changed(found) == ["labels: one down"]
    assert found.rounds[1].miou > 85


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("labels: the files hold ids", lambda truth: np.where(truth < 5, truth + 1, 255)),
        ("labels: the files hold indices", lambda truth: np.where(truth > 0, truth - 1, 255)),
    ],
)
def test_where_ids_count_from_one_a_shift_is_called_what_mends_it(name, read, coloured, one_thread):
    found = diagnose(checkpoint(Nearest(STREET)), coloured(label_set=COUNTED, read=read))
    assert changed(found) == [name]


def test_ids_of_a_network_are_tried_where_the_data_has_its_names_and_no_ids():
    plain = replace(SCATTERED, label_ids=None)
    reading = Reading(STREET, "none", bytes([*range(6), *[255] * 250]))
    slips = {s.name: s for s in slips_of(reading, Setting(SCATTERED, plain, False, False))}
    ids = slips["network: ids"].reading.table
    assert [ids[number] for number in SCATTERED.label_ids] == [0, 1, 2, 3, 4, 5]


def test_a_network_that_answers_in_another_order_is_found_in_its_own_classes():
    table = prediction_table(CITYSCAPES, CAMVID)[:19].tobytes()
    reading = Reading(STREET, "none", table)
    slips = {s.name: s for s in slips_of(reading, Setting(CITYSCAPES, CAMVID, False, False))}
    assert slips["network: indices one up"].reading.table == table[1:] + table[:1]
    assert slips["network: indices one down"].reading.table == table[-1:] + table[:-1]
    ids = slips["network: ids"].reading.table
    assert (ids[7], ids[8], ids[0]) == (table[0], table[1], 255)
    assert not any(name.startswith(("fit", "upsampling")) for name in slips)


@pytest.mark.parametrize(
    "rules", [("half-pixel", "aligned-corners"), ("aligned-corners", "half-pixel")]
)
def test_the_other_rule_of_upsampling_is_found(rules, coloured, one_thread):
    right, said = rules
    network = Nearest(STREET, 8, right)
    images = coloured(16, (64, 96))
    assert changed(diagnose(checkpoint(network), images)) == []
    network.upsampling = said
    assert changed(diagnose(checkpoint(network), images)) == [f"upsampling: {right}"]


def test_logits_of_the_inputs_size_have_no_other_rule(coloured, one_thread):
    found = diagnose(checkpoint(Nearest(STREET)), coloured(6), (48, 72))
    assert not any("upsampling" in one.slip.name for one in found.rounds[0].tries)


class Placed(Nearest):
    """One that knows where in its input things are: of what is below it makes the next class."""

    def heads(self, image):
        logits = super().heads(image)[0]
        half = logits.shape[2] // 2
        return [torch.cat([logits[:, :, :half], logits[:, :, half:].roll(1, 1)], dim=2)]


@pytest.mark.parametrize("right", ["letterbox", "stretch"])
def test_the_other_fit_is_found(right, coloured, one_thread):
    def below_is_next(truth):
        # What a letterbox of 48x48 has above its middle is three quarters of an image of 32x48.
        rows = 24 if right == "letterbox" else 16
        return np.concatenate([truth[:rows], (truth[rows:] + 1) % len(SET)])

    said = replace(STREET, fit="stretch" if right == "letterbox" else "letterbox")
    images = coloured(read=below_is_next)
    found = diagnose(checkpoint(Placed(STREET), said), images, (48, 48))
    assert changed(found) == [f"fit: {right}"]


def test_too_few_images_decide_nothing(coloured, one_thread):
    wrong = checkpoint(Nearest(STREET), CAFFE)
    found = diagnose(wrong, coloured(5))
    assert (changed(found), found.enough) == ([], False)
    assert {one.outcome for one in found.rounds[0].tries} == {Outcome.UNDECIDED}
    text = diagnosis_text(Diagnosed(found, wrong, coloured(5), None, True))
    assert text.startswith("Undecided: 5 images are too few; give at least 6 (--limit).\n")


def test_what_is_worse_for_certain_is_not_run_on_all_images(coloured, one_thread, monkeypatch):
    runs = []
    real = Runs._count
    monkeypatch.setattr(Runs, "_count", lambda *a: runs.append(a[2]) or real(*a))
    found = diagnose(checkpoint(Nearest(STREET)), coloured(14))
    tries = found.rounds[0].tries
    assert sum(one.images == 6 for one in tries) > 10
    assert len(runs) == len({*runs}) * 6 + 8 * (1 + sum(one.images == 14 for one in tries))


def test_images_without_labels_are_no_images(coloured, one_thread):
    with pytest.raises(DatasetError, match="none of the 6 images has a labelled pixel"):
        diagnose(checkpoint(Nearest(STREET)), coloured(6, blank=True))


def test_a_label_set_of_another_size_is_refused(coloured):
    few = LabelSet("few", SET.names[:5], SET.palette[:5])
    with pytest.raises(LabelSetError, match="has 6 classes, but the label set few has 5"):
        diagnose(checkpoint(Nearest(STREET), label_set=few), coloured())


def test_logits_that_are_not_finite_are_wrong_and_end_nothing(coloured, one_thread):
    found = diagnose(checkpoint(Flawed(STREET)), coloured(6))
    assert found.rounds[0].miou == 0
    assert changed(found) == []
    text = diagnosis_text(shown(found, STREET, coloured(6)))
    assert "0.00 % mIoU is low, and none of the usual mistakes explains it. Are the weigh" in text


def shown(found, said, images, own=True):
    return Diagnosed(found, checkpoint(Nearest(STREET), said), images, None, own)


def test_the_first_line_says_what_is_wrong_and_the_second_what_to_do(coloured, one_thread):
    images = coloured()
    said, right = INPUTS["channels: bgr"]
    found = diagnose(checkpoint(Nearest(right), said), images)
    first, second, *_ = diagnosis_text(shown(found, said, images)).splitlines()
    assert first.startswith("`channels: bgr` scores ")
    assert first.endswith("): the network expects BGR.")
    assert " points better (" in first
    start, _, content = second.partition(" with the content ")
    assert start == "Give --preprocessing FILE.json"
    alike(Preprocessing.from_dict(json.loads(content.removesuffix("."))), right)
    of_a_file = diagnosis_text(shown(found, said, images, own=False)).splitlines()[1]
    assert of_a_file.startswith("The checkpoint states another preprocessing: write it again")


def test_a_preprocessing_with_a_name_is_named(coloured, one_thread):
    images = coloured()
    said, right = INPUTS["mean * 255, scale / 255"]
    found = diagnose(checkpoint(Nearest(right), said), images)
    assert "\nGive --preprocessing imagenet.\n" in diagnosis_text(shown(found, said, images))


def test_the_result_holds_every_try_with_its_interval(coloured, one_thread):
    images = coloured()
    said, right = INPUTS["preprocessing: caffe"]
    result = shown(diagnose(checkpoint(Nearest(right), said), images), said, images)
    value = json.loads(json.dumps(result.to_dict()))
    assert (value["kind"], value["found"]) == ("diagnose", ["preprocessing: caffe"])
    assert value["best"]["preprocessing"]["channels"] == "bgr"
    assert value["difference_points"]["low"] > 0
    first, second = value["rounds"]
    assert (first["best"], second["best"]) == ("preprocessing: caffe", None)
    assert {"value", "low", "high"} <= set(first["tries"][0]["difference_points"])
    assert len({one["changed"] for one in first["tries"]}) == len(first["tries"])
    table = markdown([value, {"kind": "parity"}]).splitlines()
    assert len(table) == 3
    assert "| `preprocessing: caffe` |" in table[2]
    drawn = diagnosis_page(result)
    assert "<svg" in drawn
    assert "With `preprocessing: caffe`" in drawn
    for one in first["tries"]:
        assert one["changed"] in drawn
