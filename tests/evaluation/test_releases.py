"""What fell between two recorded releases: `icnet evaluate --compare`, and the records it reads."""

import json
import lzma
from dataclasses import replace

import numpy as np
import pytest
from report_page import check_page

from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.evaluate.records import (
    Counted,
    Key,
    Run,
    append,
    chosen,
    read_records,
    read_run,
)
from icnet_deploy.evaluation.evaluate.releases import compare_releases
from icnet_deploy.evaluation.score import Score
from icnet_deploy.labels import LabelSet

TWO = LabelSet("two", ("floor", "wall"), ((0, 0, 0), (255, 255, 255)))
INT8 = Key("net", "40x60", "logits", "int8", "openvino", "cpu")
FLOAT = INT8._replace(precision="fp32", runtime="onnxruntime")


@pytest.fixture
def counted(memory):
    """A function that scores a network which misses so many rows of each wall, of 40."""

    def count(key=INT8, missed=0, images=12, split="val"):
        truth = np.zeros((40, 60), np.uint8)
        truth[:, 30:] = 1
        dataset = memory(*[np.roll(truth, i, axis=1) for i in range(images)], label_set=TWO)
        object.__setattr__(dataset, "split", split)
        score = Score(dataset, TWO, None)
        for i, sample in enumerate(dataset):
            answer = sample.labels.copy()
            answer[: missed + (i % 2 if missed else 0)] = 0
            score.add(sample, answer)
        result = {
            "protocol": score.protocol().to_dict(),
            "score": score.to_dict(),
            "images": [one.to_dict() for one in score.images_counted],
        }
        return Counted(key, "ab" * 32, result)

    return count


def release(version, *rows, date="2030-01-02", **versions):
    named = {"icnet-deploy": version, "onnxruntime": "1.31", **versions}
    return Run(date, version, named, {"cpu": "A"}, rows)


@pytest.fixture
def records(counted, tmp_path):
    """Two releases: INT8 of the second finds less of the wall, float32 more."""
    path = tmp_path / "accuracy.jsonl"
    append(path, release("0.1.0", counted(INT8, 1), counted(FLOAT, 3)))
    fell, rose = counted(INT8, 6), counted(FLOAT, 1)
    append(path, release("0.2.0", fell, rose, date="2030-02-02", onnxruntime="1.32"))
    return path


def test_what_fell_is_past_and_what_rose_fails_nothing(run, records, tmp_path):
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    told = ("--records", records, "--json", out, "--report", page)
    done = run("evaluate", "--compare", "0.1.0", "0.2.0", *told)
    assert done.code == 1
    assert "1 of 2 are past their budget: net 40x60 logits, int8 on openvino" in done.err
    assert "OLD  0.1.0, 2030-01-02\nNEW  0.2.0, 2030-02-02\n" in done.out
    assert "they differ in onnxruntime: 1.31 and 1.32" in done.out
    first, second = [line for line in done.out.splitlines() if line.startswith("net ")]
    assert first.split()[:5] == ["net", "40x60", "logits", "int8", "openvino"]
    assert " past " in first
    assert " within " in second
    result = json.loads(out.read_text())
    assert (result["kind"], result["not_compared"], result["only_old"]) == ("releases", [], [])
    fell, rose = result["rows"]
    assert (fell["verdict"], rose["verdict"]) == ("past", "within")
    points = fell["miou_difference_points"]
    assert points["low"] < points["value"] < points["high"] < -0.3
    both = fell["miou_percent"]
    assert points["value"] == pytest.approx(both["new"] - both["old"], abs=1e-4)
    assert rose["miou_difference_points"]["low"] > 0
    check_page(page.read_text())


def test_the_same_release_is_within_and_the_other_way_round_nothing_fell(run, records):
    assert run("evaluate", "--compare", "0.2.0", "2030-02-02", "--records", records).code == 0
    done = run("evaluate", "--compare", "3", "1", "--records", records)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("OLD  0.2.0, 2030-02-02\nNEW  0.1.0")


def test_two_files_of_counts_are_compared(run, records):
    old, new = sorted((records.parent / "accuracy").iterdir())
    assert old.name == "2030-01-02-0.1.0.json.xz"
    assert run("evaluate", "--compare", old, new).code == 1
    assert run("evaluate", "--compare", old, old).code == 0


def test_two_records_of_one_version_and_day_are_told_apart(run, counted, tmp_path):
    """By their files of counts, whether they are named by a line or by that file."""
    path, out, page = (tmp_path / name for name in ("accuracy.jsonl", "out.json", "out.html"))
    files = [append(path, release("1", counted(INT8, missed))).as_posix() for missed in (3, 1)]
    said = [f"1, 2030-01-02 ({file})" for file in files]
    told = ("--records", path, "--json", out, "--report", page)
    for names in (("1", "2"), files):
        done = run("evaluate", "--compare", *names, *told)
        assert done.out.startswith(f"OLD  {said[0]}\nNEW  {said[1]}\n")
        result = json.loads(out.read_text())
        assert (result["old"], result["new"]) == ([said[0]], [said[1]])
        assert f"Accuracy of {said[0]} and of {said[1]}" in page.read_text()


def test_rows_that_only_one_has_are_named(counted):
    other = FLOAT._replace(network="other")
    old = [release("1", counted(INT8), counted(FLOAT))]
    found = compare_releases(old, [release("2", counted(INT8), counted(other))])
    assert (found.only_old, found.only_new) == ([FLOAT], [other])
    assert [change.key for change in found.changes] == [INT8]
    with pytest.raises(InputError, match="in common: OLD has net"):
        compare_releases([release("1", counted(FLOAT))], [release("2", counted(INT8))])


@pytest.mark.parametrize("how", [{"images": 8}, {"split": "test"}], ids=str)
def test_another_protocol_is_refused_with_the_reason(counted, how):
    old = [release("1", counted(INT8), counted(FLOAT))]
    found = compare_releases(old, [release("2", counted(INT8, **how), counted(FLOAT))])
    assert [*found.refused] == [INT8]
    assert next(iter(how)) in found.refused[INT8]
    assert [change.key for change in found.changes] == [FLOAT]
    with pytest.raises(InputError, match="the two releases cannot be compared: net 40x60"):
        compare_releases(old[:1], [release("2", counted(INT8, **how))])


def test_few_images_are_undecided_and_fail_nothing(counted):
    old, new = (release(v, counted(INT8, missed, images=4)) for v, missed in (("1", 0), ("2", 1)))
    [change] = compare_releases([old], [new]).changes
    assert change.judgement().verdict == "undecided"


def test_of_a_version_the_last_record_of_each_network_is_meant(counted, records):
    append(records, release("0.2.0", counted(INT8, 1), date="2030-03-03"))
    newest = chosen("0.2.0", records)
    assert [(run.date, [row.key for row in run.rows]) for run in newest] == [
        ("2030-03-03", [INT8]),
        ("2030-02-02", [FLOAT]),
    ]
    found = compare_releases(chosen("0.1.0", records), newest)
    assert {change.judgement().verdict for change in found.changes} == {"within"}
    assert "1.32, 1.31" in str(found.differing()[-1]) or "1.31, 1.32" in str(found.differing()[-1])


def test_a_second_record_of_a_day_has_a_name_of_its_own(counted, tmp_path):
    path = tmp_path / "accuracy.jsonl"
    names = [append(path, release("1", counted())).name for _ in range(2)]
    assert names == ["2030-01-02-1.json.xz", "2030-01-02-1-2.json.xz"]
    assert [record.counts.name for record in read_records(path)] == names
    assert read_run(path.parent / "accuracy" / names[0]).rows[0].key == INT8


def test_nothing_is_written_of_two_rows_of_one_key(counted, tmp_path):
    path = tmp_path / "accuracy.jsonl"
    with pytest.raises(
        InputError, match="two results have this name; give each result its own name"
    ):
        append(path, release("1", counted(), counted()))
    with pytest.raises(InputError, match="nothing to record"):
        append(path, release("1"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["0.3.0", "2031-01-01", "0", "5"])
def test_a_name_that_stands_for_nothing_is_told_what_there_is(run, records, name):
    done = run("evaluate", "--compare", name, "0.2.0", "--records", records)
    assert (done.code, done.out) == (2, "")
    for word in (repr(name), "0.1.0, 0.2.0", "2030-01-02, 2030-02-02", "1 to 4"):
        assert word in done.err


def test_what_does_not_go_with_it_is_refused(run, records, tmp_path):
    told = ("--compare", "1", "3", "--records", records)
    for more in (["a.onnx"], ["--limit", 3], ["--diagnose"], ["--against", "b.onnx"]):
        done = run("evaluate", *more, *told)
        assert done.code == 2
        assert f"{more[0]} does not go with --compare" in done.err
    done = run("evaluate", "a.onnx", "--records", records)
    assert (done.code, "--compare OLD NEW" in done.err) == (2, True)
    done = run("evaluate", "--compare", "1", "2", "--records", tmp_path / "none.jsonl")
    assert (done.code, "tools.accuracy" in done.err) == (2, True)


def test_damaged_records_and_counts_are_refused(counted, records):
    counts = records.parent / "accuracy" / "2030-01-02-0.1.0.json.xz"
    whole = counts.read_bytes()
    counts.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="not the file of counts that the record names"):
        chosen("0.1.0", records)
    with pytest.raises(InputError, match="the file is cut off; expected a file of counts"):
        chosen(str(counts), records)
    counts.write_bytes(b"something else")
    with pytest.raises(InputError, match="cannot read"):
        read_run(counts)
    value = json.loads(lzma.decompress(whole))
    value["rows"][0]["images"].pop()
    counts.write_bytes(lzma.compress(json.dumps(value).encode()))
    with pytest.raises(InputError, match="counts of 11 images that do not fit"):
        read_run(counts)
    records.write_text(records.read_text() + "{}\n")
    with pytest.raises(InputError, match="line 5"):
        append(records, replace(release("0.3.0"), rows=[counted()]))
