"""The fuzz finds faults of every kind, goes on behind them, and adds up what it tried."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from planted_targets import TARGETS as PLANTED

from icnet_deploy.errors import InputError
from tools.fuzz.command import main
from tools.fuzz.corpus import KEPT, faults, keep, kept
from tools.fuzz.judge import FAILED, FOUND, REFUSED, RESULT, judge
from tools.fuzz.mutate.tree import changed_json, dumps, to_toml
from tools.fuzz.mutate.wire import changed_message, fields_in, written
from tools.fuzz.record import markdown, read_runs, totals, write_runs
from tools.fuzz.registry import TARGETS
from tools.fuzz.watch import try_target

OUTCOMES = {
    "good": (RESULT, ""),
    "wrong": (REFUSED, ""),
    "error": (FOUND, "KeyError in no function of ours"),
    "terse": (FOUND, "InputError in no function of ours: the message says nothing"),
    "failed": (FOUND, "BackendError in no function of ours"),
    "half": (FOUND, "a file that is half-written"),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_comes_of_an_input(name, tmp_path):
    target = PLANTED[name]
    verdict = judge(target, target.prepare(tmp_path), name.encode(), tmp_path)
    assert (verdict.outcome, verdict.kind) == OUTCOMES[name]
    assert verdict.marks[0] == "begun"
    assert target.name in verdict.text or verdict.outcome in (RESULT, FOUND)


def test_a_runtime_may_fail_where_that_is_said(tmp_path):
    import dataclasses

    target = dataclasses.replace(PLANTED["failed"], may_fail=True)
    assert judge(target, target.prepare(tmp_path), b"failed", tmp_path).outcome == FAILED


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("crash", "a crash by the signal SIGABRT in run"),
        ("hang", "it took more than 1 s"),
        ("wait", "it waited for more than 1 s"),
        ("memory", "memory"),
    ],
)
def test_what_ends_a_process_is_found_and_another_goes_on(name, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "tests/fakes")
    target = PLANTED[name]
    tally = try_target(target, tmp_path, 60, 6, 1, guided=False, registry="planted_targets")
    assert list(tally.found) == [kind]
    assert tally.inputs >= 6
    assert tally.outcomes[RESULT] > 0
    assert tally.outcomes[FOUND] == tally.found[kind]["count"] > 0
    file = tmp_path / name / "found" / name / tally.found[kind]["input"]
    assert file.read_bytes() == name.encode()
    assert kind in file.with_suffix(".txt").read_text("utf-8")


def test_changes_are_those_of_their_seed_and_most_are_changes():
    for target in TARGETS.values():
        seed = target.seeds()[0]
        changes = [target.change(seed, Random(number)) for number in range(8)]
        assert changes == [target.change(seed, Random(number)) for number in range(8)]
        assert len({*changes} - {seed}) >= 4, target.name


def test_documents_are_changed_by_their_structure():
    seed = b'{"a": [1, 2, {"b": "c"}], "d": null}'
    changes = [changed_json(seed, Random(number)) for number in range(200)]
    readable = 0
    for data in changes:
        try:
            json.loads(data)
            readable += 1
        except (ValueError, RecursionError):
            pass
    assert readable > 100
    assert dumps({"a": [1, None, "x"]}) == '{"a": [1, null, "x"]}'
    assert to_toml({"t": {"u": 1.5}, "a": [1, "x"]}) == '"a" = [1, "x"]\n["t"]\n"u" = 1.5\n'


def test_messages_are_changed_by_their_fields():
    message = b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01"
    assert written(fields_in(message)) == message
    changes = [changed_message(message, Random(number)) for number in range(200)]
    assert sum(fields_in(data) is not None for data in changes) > 100


def test_runs_are_added_up(tmp_path, capsys):
    path = tmp_path / "fuzz.json"
    for _ in range(2):
        arguments = ["class_map", "--plain", "--inputs", "20", "--seed", "3"]
        assert main([*arguments, "--json", str(path), "--work", str(tmp_path / "work")]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("class_map")
    assert "20 inputs" in line
    runs = read_runs(path)
    assert [run["targets"]["class_map"]["inputs"] for run in runs] == [20, 20]
    total = totals(runs)["class_map"]
    assert total["inputs"] == 40 == total[RESULT] + total[REFUSED]
    table = markdown([json.loads(path.read_text("utf-8"))])
    assert "| `class_map` | class maps | 40 |" in table


def test_what_was_found_is_said_and_exits_with_1(tmp_path, monkeypatch, capsys):
    from tools.fuzz import command
    from tools.fuzz.watch import Tally

    found = Tally()
    found.outcomes[FOUND] = 1
    found.note("KeyError in x", {"count": 1, "text": "", "input": "abc"})
    monkeypatch.setattr(command, "try_target", lambda *arguments: found)
    assert main(["class_map", "--inputs", "1", "--work", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "1 x KeyError in x" in out
    assert "1 kinds of faults" in err


def test_wrong_requests(tmp_path, capsys):
    assert main(["no_such_target"]) == 2
    assert "unknown target no_such_target; known: images" in capsys.readouterr().err
    (tmp_path / "a.json").write_text("{}", "utf-8")
    assert main(["class_map", "--json", str(tmp_path / "a.json")]) == 2
    with pytest.raises(InputError, match="is not what `python -m tools"):
        read_runs(tmp_path / "a.json")
    assert read_runs(tmp_path / "none.json") == []
    write_runs(tmp_path / "b.json", [])
    assert read_runs(tmp_path / "b.json") == []


def test_what_is_kept_is_small_and_drawn(tmp_path):
    assert sum(path.stat().st_size for path in KEPT.parent.rglob("*.xz")) < 300_000
    assert {path.name.removesuffix(".tar.xz") for path in KEPT.glob("*")} <= TARGETS.keys()
    assert {path.parent.name for path in Path("tests/fuzz/found").glob("*/*")} <= TARGETS.keys()
    keep("x", [b"ab", b"a", b"c"], tmp_path)
    assert kept("x", tmp_path) == [b"a", b"c", b"ab"]
    assert faults("x", tmp_path) == []


def test_the_goals_are_a_million_inputs():
    assert sum(target.goal for target in TARGETS.values()) >= 1_000_000
    assert TARGETS["models"].goal >= 10_000
    assert TARGETS["images"].goal >= 100_000
    assert TARGETS["videos"].goal >= 10_000
