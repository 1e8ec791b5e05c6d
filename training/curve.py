"""What is seen of a run while it goes on: a bar, a table of losses and scores, and their plot."""

import csv
from collections.abc import Mapping
from os.path import isfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from tqdm import tqdm

from icnet_deploy.files import replacing

_LAST = ("epoch", "lr", "time")


class Curve(TensorBoardLogger):
    """TensorBoard's files, and `metrics.csv`: a row a logged step, a column a quantity.

    A cell is blank where it was not measured. A resumed run goes on in the same table; rows past
    the step from which it resumes are dropped.

    Args:
        run: the run's folder.
        resume: whether an earlier run is gone on with.
    """

    def __init__(self, run: Path, resume: bool) -> None:
        super().__init__(run, name="", version="tensorboard")
        self.path = run / "metrics.csv"
        self._rows = read_curve(self.path) if resume and isfile(self.path) else []

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds what was measured at a step."""
        super().log_metrics(metrics, step)
        if step is None:
            return
        kept = {k: v for k, v in metrics.items() if k not in _LAST}
        self._rows = [row for row in self._rows if row["step"] <= step]
        if self._rows and self._rows[-1]["step"] == step:
            self._rows[-1].update(kept)
        elif kept:
            self._rows.append({"step": step, **kept})

    @rank_zero_only
    def save(self) -> None:
        """Writes both; Lightning calls it as it goes."""
        super().save()
        if not self._rows:
            return
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(
                {k: v if k == "step" else f"{v:.6g}" for k, v in row.items()} for row in self._rows
            )

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes both a last time, also after an error."""
        self.save()
        super().finalize(status)


def read_curve(path: Path) -> list[dict[str, float]]:
    """Reads a `metrics.csv`: step and what was measured there, a dict a row."""
    with path.open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [{**row, "step": int(row["step"])} for row in rows]


def plot_curve(rows: list[dict[str, float]], path: Path) -> None:
    """Draws the losses of the heads and the mIoU over the steps.

    Args:
        rows: of `read_curve`.
        path: the picture; its suffix names the format, .png or .svg.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for row in rows for name in row))
    scores = [name for name in names if name.startswith("miou")]
    losses = [name for name in names if name.startswith("loss")]
    figure = Figure(figsize=(9, 3.6 if scores else 4), layout="constrained")
    panels = figure.subplots(1, 2 if scores else 1, squeeze=False)[0]
    for panel, shown, title in zip(panels, (losses, scores), ("loss", "mIoU, %"), strict=False):
        for name in shown:
            points = [(row["step"], row[name]) for row in rows if name in row]
            words = name.removeprefix("miou_").replace("loss_", "head ").replace("loss", "sum")
            mark = "o-" if shown is scores else "-"
            panel.plot(*zip(*points, strict=True), mark, label=words, linewidth=1, markersize=3)
        panel.set(xlabel="step", title=title, ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)


class Bar(pl.Callback):
    """A progress bar over the steps, on stderr, as the other commands have it."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Opens the bar, at the step from which the run goes on."""
        if trainer.is_global_zero:
            self._bar = tqdm(
                total=trainer.max_steps,
                initial=trainer.global_step,
                desc="train",
                unit="step",
                disable=None,
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Moves on by a step."""
        if self._bar is not None:
            shown = trainer.callback_metrics
            names = [n for n in shown if n == "loss" or n.startswith("miou")]
            self._bar.set_postfix({n: f"{float(shown[n]):.3g}" for n in names}, refresh=False)
            self._bar.update(trainer.global_step - self._bar.n)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Closes the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()
