"""A benchmark mode of one's own: a module, and an entry in `BENCHMARKS`; nothing else."""

from __future__ import annotations

from icnet_deploy.benchmarks.command import BENCHMARKS
from icnet_deploy.benchmarks.measurement import read_measurements

MODULE = '''
"""`icnet benchmark toy`: how many label maps differ from the first image's."""

from icnet_deploy.benchmarks.arguments import mode_parser, pictures, run_mode, runs_of
from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.measurement_tables import mode_text
from icnet_deploy.benchmarks.subjects import open_artefact
from icnet_deploy.command import command


def _measure(arguments):
    measured = []
    images = pictures(arguments)
    for run in runs_of(arguments):
        with open_artefact(run, arguments.threads) as subject:
            first, *others = (subject.predictor.predict(image).labels for image in images)
        values = {"other_frames": sum((labels != first).any() for labels in others).item()}
        setting = {"size": list(images[0].shape[:2]), "batch": 1}
        measured.append(Measurement("toy", "image-to-labels", subject.facts, setting, values))
    return measured


def _text(measured):
    return mode_text(measured, ["others"], lambda each: [str(each.values["other_frames"])], [])


@command
def main(argv=None):
    parser = mode_parser("toy", "Counts label maps.", "icnet benchmark toy icnet.onnx")
    return run_mode(parser.parse_args(argv), _measure, _text)
'''


def test_a_mode_is_added_by_one_entry(artefact, run, tmp_path, monkeypatch):
    (tmp_path / "toy_mode.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BENCHMARKS, "toy", ("toy_mode", "label maps that differ"))
    assert "toy        label maps that differ" in run("benchmark", "--help").out
    assert "example:\n  icnet benchmark toy icnet.onnx" in run("benchmark", "toy", "--help").out
    out, page = tmp_path / "toy.jsonl", tmp_path / "toy.html"
    where = ("--runtime", "onnxruntime", "--size", "96x128", "--json", out, "--report", page)
    done = run("benchmark", "toy", artefact, *where)
    assert done.code == 0, done.err
    assert "others" in done.out
    (measured,) = read_measurements(out)
    assert (measured.kind, measured.name) == ("toy", "random")
    assert measured.values == {"other_frames": 2}
    assert "other, frames" in page.read_text()  # a kind without an entry in `KINDS` has a table
