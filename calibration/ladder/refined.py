"""The rungs that cost no time of inference: each makes a better recipe of one."""

from dataclasses import replace

import onnx

from icnet_deploy.calibration.artefact import Recipe
from icnet_deploy.calibration.calibrate import Calibration
from icnet_deploy.calibration.ladder.rounding import Int8, learn_rounding
from icnet_deploy.calibration.ladder.smoothing import STRENGTH, smoothed
from icnet_deploy.calibration.selection import CalibrationSet


class Refinery:
    """Learns what placements share once: neither rounding nor smoothing depends on a placement.

    Args:
        model: the float32 graph.
        images: those that it is calibrated on.
    """

    def __init__(self, model: onnx.ModelProto, images: CalibrationSet) -> None:
        self._model, self._images = model, images
        self._learned: dict[float | None, dict[str, Int8]] = {}
        self._smoothed: list[Calibration | None] = []

    def rounding(self, recipe: Recipe) -> Recipe:
        """The recipe with learned rounding. Shows progress, the first time."""
        if recipe.smoothing not in self._learned:
            learned = learn_rounding(self._model, recipe.ranges, self._images)
            self._learned[recipe.smoothing] = learned
        return replace(recipe, learned=self._learned[recipe.smoothing])

    def smoothing(self, recipe: Recipe) -> Recipe | None:
        """The recipe with smoothed channels, and rounding learned of them; None without any."""
        if not self._smoothed:
            self._smoothed.append(smoothed(self._model, recipe.calibration, self._images))
        [calibration] = self._smoothed
        if calibration is None:
            return None
        return self.rounding(replace(recipe, calibration=calibration, smoothing=STRENGTH))
