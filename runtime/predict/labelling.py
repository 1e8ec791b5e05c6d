"""Files labelled one after another, and what is written of each."""

import errno
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain
from typing import Any

from icnet_deploy.drawing import palette, with_legend
from icnet_deploy.errors import ImageError, InputError, MissingPackage, OutputError
from icnet_deploy.images import IMAGE_SUFFIXES, ImageFile, write_image, write_labels
from icnet_deploy.runtime.ahead import ahead
from icnet_deploy.runtime.answer import Prediction
from icnet_deploy.runtime.cores import usable_cores
from icnet_deploy.runtime.predict.inputs import Item
from icnet_deploy.runtime.predict.log import Made, PredictionLog, digest
from icnet_deploy.runtime.predict.sure import overlay_of
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.runtime.video import VIDEO_SUFFIXES, Frame, open_frames, writing_video

Timings = list[dict[str, float]]
_Predict = Callable[..., Prediction]


def label_files(
    predictor: Predictor,
    items: Sequence[Item],
    table: Any = None,
    predict: _Predict | None = None,
    log: PredictionLog | None = None,
) -> tuple[Timings, list[InputError]]:
    """Labels every item; one that cannot be read does not keep the others from it.

    Images are read, drawn and written in as many threads as there are cores while the network works
    on others; videos come after them, one at a time.

    Args:
        predictor: what labels them.
        items: of `find_items`.
        table: uint8 256, what is written for each class index; None for the index.
        predict: labels one image; None: `predictor.predict`.
        log: is told of each item when its results are written.

    Returns:
        `Prediction.timings_ms` of each image and frame; and what failed, with its path. Of a video
        that can be read in part, the frames that can be read are labelled, and it has failed.

    Raises:
        OutputError: a result cannot be written, as on a full disk.
    """
    from tqdm import tqdm

    predict = predict or predictor.predict
    timings: Timings = []
    failures: list[InputError] = []

    def label(item: Item) -> tuple[Item, Made, Item | None]:
        made = Made(sha256=digest(item) if log else None)
        try:
            if item.video:
                _label_video(predictor, item, made, predict)
            elif not _label_image(predict, item, table, made):
                return item, made, replace(item, video=True)
        except (ImageError, MissingPackage) as error:
            named = str(item.path) in str(error)
            made.failure = error if named else ImageError(f"{item.path}: {error}")
        except OutputError as error:  # the next result may have a shorter name
            if getattr(error.__cause__, "errno", None) != errno.ENAMETOOLONG:
                raise
            made.failure = error
        return item, made, None

    images = [item for item in items if not item.video]
    videos = [item for item in items if item.video]
    # disable=None: no bar where stderr is not a terminal.
    with (
        tqdm(total=len(items), unit="input", disable=None) as bar,
        ahead(images, label, predictor.streams + usable_cores()) as labelled,
    ):
        for item, made, animation in chain(labelled, map(label, videos)):
            if animation is not None:
                videos.append(animation)
                continue
            timings += made.timings
            if made.failure is not None:
                failures.append(made.failure)
            if log is not None:
                log.add(item, made)
            bar.update()
    return timings, failures


def _label_image(predict: _Predict, item: Item, table: Any, made: Made) -> bool:
    """Labels an image, or each page of one; False if it is an animation."""
    try:
        file = ImageFile(item.path)
    except ImageError as error:
        if item.path.suffix.lower() in IMAGE_SUFFIXES:
            raise
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        raise ImageError(f"{error}; the name of a video must end in one of {suffixes}") from error
    if file.pictures == 1:
        _label_picture(predict, item, file.rgb(), table, made)
    elif item.pages == 1:
        return False
    else:
        for number, (image, _) in enumerate(file.frames(), 1):
            _label_picture(predict, item.page(number), image, table, made)
    return True


def _label_picture(predict: _Predict, item: Item, image: Any, table: Any, made: Made) -> None:
    prediction = predict(image)
    overlay = with_legend(overlay_of(prediction), prediction.labels, prediction.label_set)
    write_results(item, prediction, overlay, table)
    made.add(prediction)
    made.results += item.results()


def write_results(item: Item, prediction: Prediction, overlay: Any, table: Any = None) -> None:
    """Writes what an image gets: its label map, the same in colours, and the overlay.

    Args:
        item: names the files.
        prediction: of the image.
        overlay: uint8 H x W x 3, RGB.
        table: uint8 256, what is written for each class index; None for the index.
    """
    labels = prediction.labels
    write_labels(item.result("_labels.png"), labels if table is None else table[labels])
    write_labels(item.result("_colour.png"), labels, palette(prediction.label_set))
    write_image(item.result("_overlay.jpg"), overlay)


def _label_video(predictor: Predictor, item: Item, made: Made, predict: _Predict) -> None:
    """Labels the frames of a video, or of an animation.

    Raises:
        ImageError: it cannot be read, or in part only: the frames that can be read are written.
    """
    from tqdm import tqdm

    def draw(frame: Frame) -> tuple[Frame, Any, Made]:
        prediction = predict(frame.image)
        labels, label_set = prediction.labels, prediction.label_set
        overlay = with_legend(overlay_of(prediction), labels, label_set, every_class=True)
        one = Made()
        one.add(prediction)
        return frame, overlay, one

    with (
        closing(open_frames(item.path)) as reader,
        writing_video(item.overlay_video, reader) as writer,
        ahead(reader, draw, predictor.streams + 1) as drawn,
        tqdm(total=reader.count, unit="frame", leave=False, disable=None) as bar,
    ):
        for frame, overlay, one in drawn:
            writer.write(overlay, frame.time, frame.duration)
            made.timings += one.timings
            made.counts += one.counts
            bar.update()
    made.results.append(item.overlay_video)
    if reader.note:
        print(f"{item.path}: {reader.note}")
    if reader.problem:
        raise ImageError(
            f"{item.path}: {reader.problem}; those are labelled in {item.overlay_video}"
        )
