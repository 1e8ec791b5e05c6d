"""The README's tables are those of the recorded results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from icnet_deploy.benchmarks.readme import main, with_tables
from icnet_deploy.errors import InputError

ROOT = Path(__file__).parents[2]


def test_the_readme_is_up_to_date(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["--check"]) == 0


def test_recorded_results_name_no_path_of_a_machine():
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert files
    for file in files:
        result = json.loads(file.read_text("utf-8"))
        assert result["schema"] == 1
        rows = result.get("rows", [])
        model = [result["model"]] if "model" in result else [r.get("artefact", "") for r in rows]
        assert not any(Path(m).is_absolute() for m in model)


def test_a_changed_number_is_noticed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    text = Path("README.md").read_text("utf-8")
    start = text.index("<!-- results: scores -->")
    (tmp_path / "README.md").write_text(text[:start] + text[start:].replace("| ", "| 9", 9))
    assert main(["--check", "--readme", str(tmp_path / "README.md")]) == 1
    assert main(["--readme", str(tmp_path / "README.md")]) == 0
    assert (tmp_path / "README.md").read_text("utf-8") == text


def test_an_unknown_table_is_refused():
    with pytest.raises(InputError, match="no table"):
        with_tables("<!-- results: nosuch -->\n<!-- end -->", [])
