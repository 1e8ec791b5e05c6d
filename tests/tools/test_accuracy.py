"""Accuracy is recorded from what `icnet verify` found, in a file or of a folder."""

from __future__ import annotations

import json
import shutil

import pytest

from icnet_deploy.cli import main as icnet
from icnet_deploy.evaluation.evaluate.records import read_records, read_run
from tools import accuracy


@pytest.fixture(scope="module")
def verified(artefact, checkpoint, scenes, tmp_path_factory):
    """A folder of one artefact, and what `icnet verify --json` wrote of it."""
    tmp_path = tmp_path_factory.mktemp("verified")
    folder = tmp_path / "tiny"
    folder.mkdir()
    shutil.copy(artefact, folder / "a.onnx")
    shutil.copy(checkpoint, folder)
    result = tmp_path / "tiny.json"
    data = ("--dataset", "scenes", "--data", scenes)
    assert icnet(["verify", str(folder), *map(str, data), "--json", str(result)]) == 0
    return folder, result, [str(each) for each in data]


def test_results_and_folders_become_lines_that_compare(run, verified, tmp_path, capsys):
    folder, result, data = verified
    records = tmp_path / "records" / "accuracy.jsonl"
    told = ["--records", str(records), "--date", "2030-01-02"]
    assert accuracy.main([str(result), f"other={result}", *told]) == 0
    assert accuracy.main([str(folder), *told, "--", *data]) == 0
    assert "2030-01-02-0" in capsys.readouterr().out
    lines = read_records(records)
    rows = json.loads(result.read_text())["parity"]["rows"]
    assert [line.key.network for line in lines] == ["tiny"] * len(rows) + ["other"] * len(rows) + [
        "tiny"
    ] * len(rows)
    assert lines[0].key[1:] == ("96x128", "logits", "fp32", rows[0]["runtime"], "cpu")
    first, again = (read_run(line.counts) for line in (lines[0], lines[-1]))
    assert first.rows[0].result["images"] == again.rows[0].result["images"] == rows[0]["images"]
    assert first.versions == json.loads(result.read_text())["versions"]
    kept = json.loads(records.read_text().splitlines()[0])
    assert kept["miou_percent"] == rows[0]["score"]["miou_percent"]
    done = run("evaluate", "--compare", lines[0].counts, lines[-1].counts)
    assert (done.code, done.err) == (0, "")
    assert f"only OLD has other 96x128 logits, fp32 on {rows[0]['runtime']}" in done.out


def test_a_file_called_verify_has_the_name_of_its_folder(verified, tmp_path):
    _, result, _ = verified
    (tmp_path / "unet").mkdir()
    shutil.copy(result, tmp_path / "unet" / "verify.result")
    records = tmp_path / "accuracy.jsonl"
    assert accuracy.main([str(tmp_path / "unet/verify.result"), "--records", str(records)]) == 0
    assert {line.key.network for line in read_records(records)} == {"unet"}


def test_what_is_no_result_is_refused_and_nothing_is_written(verified, tmp_path, capsys):
    folder, result, data = verified
    records = tmp_path / "accuracy.jsonl"
    told = ["--records", str(records)]
    value = json.loads(result.read_text())
    (tmp_path / "none.json").write_text(json.dumps({**value, "parity": None}))
    del value["parity"]["rows"][0]["images"]
    (tmp_path / "old.json").write_text(json.dumps(value))
    for given, words in (
        ([tmp_path / "missing.json"], "cannot read"),
        ([tmp_path / "old.json"], "this version's `icnet verify --json`"),
        ([tmp_path / "none.json"], "nothing to record"),
        ([result, result], "two results have this name"),
        ([folder, "--", "--dataset", "nosuch", "--data", data[-1]], "could not be verified"),
    ):
        assert accuracy.main([*told, *map(str, given)]) == 2
        assert words in capsys.readouterr().err
    assert not records.exists()
