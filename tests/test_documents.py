"""JSON is read by the letter: what is not as it was written is refused, and said."""

from __future__ import annotations

import dataclasses
import json
import os
import threading

import pytest

from icnet_deploy import documents
from icnet_deploy.errors import DatasetError

VALUES = [None, True, False, 0, 1, -1, 1.5, "", "1", "true", [], ["a"], [1], {}, {"a": 1}]

FIT = {
    "TEXT": ["", "1", "true"],
    "BOOL": [True, False],
    "NUMBER": [0, 1, -1, 1.5],
    "FROM_ZERO": [0, 1, 1.5],
    "PERCENT": [0, 1, 1.5],
    "WHOLE": [0, 1, -1],
    "COUNT": [0, 1],
    "FROM_ONE": [1],
    "OBJECT": [{}, {"a": 1}],
    "SHA256": [],
}


@pytest.mark.parametrize("name", sorted(FIT))
def test_a_kind_takes_nothing_else(name):
    kind = getattr(documents, name)
    fit = [value for value in VALUES if kind.fits(value)]
    assert list(map(repr, fit)) == list(map(repr, FIT[name]))
    assert [value for value in VALUES if documents.or_null(kind).fits(value)] == [None, *fit]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_no_number(value):
    for kind in (documents.NUMBER, documents.FROM_ZERO, documents.PERCENT):
        assert not kind.fits(value)


def test_kinds_of_kinds():
    assert documents.SHA256.fits("0123456789abcdef" * 4)
    assert not documents.SHA256.fits("0123456789ABCDEF" * 4)
    assert not documents.SHA256.fits("0123456789abcdef" * 4 + "\n")
    assert not documents.PERCENT.fits(100.1)
    assert documents.one_of(1, "a").fits(1)
    assert not documents.one_of(1, "a").fits(True)
    assert not documents.one_of(1, "a").fits(1.0)
    texts = documents.list_of(documents.TEXT)
    assert texts.fits(["a", ""])
    assert not any(map(texts.fits, ("ab", ["a", None], {"a": "b"})))
    pairs = documents.list_of(documents.COUNT, 2)
    assert pairs.fits([1, 2])
    assert not any(map(pairs.fits, ([1], [1, 2, 3], [1, "2"], "12")))
    assert pairs.words == "a list of 2, each item a whole number from 0 on"
    with_a = documents.object_with({"a": documents.COUNT})
    assert with_a.fits({"a": 1, "b": None})
    assert not any(map(with_a.fits, ({}, {"a": None}, ["a"])))
    named = documents.object_of(documents.COUNT)
    assert named.fits({"a": 1})
    assert not any(map(named.fits, ([1], {"a": "1"})))


def test_known_fields_are_taken_and_what_is_wrong_is_said():
    fields = {"a": documents.BOOL, "b": documents.TEXT}
    assert documents.take({"a": True, "b": "", "c": 1}, fields) == {"a": True, "b": ""}
    assert documents.take({"a": True}, fields, optional=("b",)) == {"a": True}
    with pytest.raises(ValueError, match='a is "true", expected true or false'):
        documents.take({"a": "true", "b": ""}, fields)
    with pytest.raises(ValueError, match="b is missing"):
        documents.take({"a": True}, fields)
    with pytest.raises(ValueError, match="b is null, expected a text"):
        documents.take({"a": True, "b": None}, fields, optional=("b",))
    for value in ([], None, "text"):
        with pytest.raises(ValueError, match="expected an object"):
            documents.take(value, fields)


@pytest.mark.parametrize(
    "text",
    ["", "{", "NaN", "[Infinity]", "-Infinity", "1e999", '{"a": 1, "a": 1}', "[" * 100_000],
    ids=lambda text: text[:20],
)
def test_what_is_no_json_of_ours_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        documents.parse(text)


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a": ', "}")])
def test_nesting_has_a_bound(open_, close):
    deepest = documents.DEEPEST
    documents.parse(open_ * deepest + "1" + close * deepest)
    with pytest.raises(ValueError, match="nested too deeply"):
        documents.parse(open_ * (deepest + 1) + "1" + close * (deepest + 1))
    with pytest.raises(ValueError, match="nested too deeply"):
        documents.parse(open_ * 100_000, strict=False)


def test_what_another_program_wrote_may_hold_its_own_numbers():
    assert documents.parse('{"a": 1, "a": 1e999}', strict=False) == {"a": float("inf")}


def test_an_object_is_closed_where_that_is_asked_for():
    fields = {"a": documents.COUNT, "b": documents.COUNT}
    assert documents.take({"a": 1, "b": 2}, fields, closed=True) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="it holds c, d; known: a, b"):
        documents.take({"a": 1, "b": 2, "d": 1, "c": 1}, fields, closed=True)


RECORD = documents.Schema(
    "a record that `icnet verify` writes",
    {"file": documents.TEXT, "runs": documents.COUNT},
    optional=("runs",),
    most_bytes=100,
    error=DatasetError,
)


@pytest.fixture
def write(tmp_path):
    def written(content, name="record.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def test_a_file_of_a_kind_is_read(write):
    assert RECORD.read(write('{"file": "ä", "runs": 2, "more": []}')) == {"file": "ä", "runs": 2}
    assert RECORD.read(write('{"file": ""}')) == {"file": ""}
    assert RECORD.read(write("file = 'ä'\nruns = 2", "record.toml")) == {"file": "ä", "runs": 2}
    assert RECORD.read_if_there(write('{"file": ""}')) == {"file": ""}


@pytest.mark.parametrize("name", ["record.json", "record.toml"])
def test_a_byte_order_mark_is_left_out(write, name):
    content = "file = 'ä'" if name.endswith("toml") else '{"file": "ä"}'
    assert RECORD.read(write(b"\xef\xbb\xbf" + content.encode(), name)) == {"file": "ä"}


@pytest.mark.parametrize("name", ["nul\0.json", "half \ud800.json", "long" * 100 + ".json"])
def test_a_path_that_no_system_has_is_said(tmp_path, name):
    with pytest.raises(DatasetError, match="cannot read"):
        RECORD.read(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_read_and_one_that_nobody_writes_to_is_not_waited_for(tmp_path):
    path = tmp_path / "record.json"
    os.mkfifo(path)
    with pytest.raises(DatasetError, match=r"record\.json is not a record"):
        RECORD.read(path)
    writer = os.open(path, os.O_RDWR)
    threading.Timer(0.2, lambda: (os.write(writer, b'{"file": ""}'), os.close(writer))).start()
    assert RECORD.read(path) == {"file": ""}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "Expecting"),
        ("[]", r"it holds \[\], expected an object"),
        ('{"file": 1}', "file is 1, expected a text"),
        ('{"runs": 1}', "file is missing"),
        ('{"file": NaN}', "NaN is no number"),
        (b'{"file": "\xff"}', "utf-8"),
        ('{"file": "' + 100 * "a" + '"}', "larger than 100 bytes"),
    ],
)
def test_another_kind_of_file_is_refused_by_its_name_and_what_was_expected(content, why, write):
    path = write(content)
    message = rf"record\.json is not a record that `icnet verify` writes: .*{why}"
    for read in (RECORD.read, RECORD.read_if_there):
        with pytest.raises(DatasetError, match=message):
            read(path)


@pytest.mark.parametrize("content", ["{", "file = 1", "runs = 1", "file = " + 60 * "[" + 60 * "]"])
def test_toml_of_another_kind_is_refused(content, write):
    with pytest.raises(DatasetError, match=r"record\.toml is not a record"):
        RECORD.read(write(content, "record.toml"))


def test_a_file_of_the_largest_size_is_read_and_no_larger(write):
    content = '{"file": ""}'.ljust(100)
    assert RECORD.read(write(content)) == {"file": ""}
    with pytest.raises(DatasetError, match="larger than 100 bytes"):
        RECORD.read(write(content + " "))


def test_a_file_that_is_not_there_is_said_or_none(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read .*none\.json: No such.*expected a record"):
        RECORD.read(tmp_path / "none.json")
    assert RECORD.read_if_there(tmp_path / "none.json") is None
    with pytest.raises(DatasetError, match="Is a directory"):
        RECORD.read_if_there(tmp_path)


def test_a_newer_schema_says_what_to_do_whatever_else_is_in_it():
    schema = dataclasses.replace(RECORD, newest=2)
    assert schema.fit({"schema": 1, "file": ""}, "it") == {"schema": 1, "file": ""}
    with pytest.raises(DatasetError, match=r"it has schema 3, this .* up to 2: upgrade icnet-dep"):
        schema.fit({"schema": 3}, "it")
    for value in ({"file": ""}, {"file": "", "schema": 0}, {"file": "", "schema": True}, []):
        with pytest.raises(DatasetError, match="it is not a record"):
            schema.fit(value, "it")


def test_a_sealed_value_that_was_changed_is_refused():
    schema = dataclasses.replace(RECORD, sealed=True)
    value = documents.sealed({"file": "a", "more": [1]})
    assert schema.fit(value, "it") == {"file": "a"}
    assert schema.fit({"file": "a"}, "it") == {"file": "a"}
    for change in ({"file": "b"}, {"more": [2]}, {"digest": 0}, {"stamped": False}, {"new": 1}):
        with pytest.raises(DatasetError, match="it is not what was written"):
            schema.fit(value | change, "it")
    for name in ("digest", "stamped"):
        with pytest.raises(DatasetError, match="it is not what was written"):
            schema.fit({key: one for key, one in value.items() if key != name}, "it")


def test_json_is_read_as_it_is_written():
    value = {"a": [1, 2.5, -1e-300, None, True, "ä"], "b": {"c": {}}}
    assert documents.parse(json.dumps(value)) == value
    assert documents.parse(json.dumps(value).encode()) == value
    assert documents.as_read({"a": (1, "b")}) == {"a": [1, "b"]}


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400])
def test_a_whole_number_that_no_array_holds_is_refused(number):
    for text in (f"{number}", f'{{"a": [1, {{"b": {number}}}]}}'):
        with pytest.raises(ValueError, match="beyond 64 bits"):
            documents.parse(text)
    assert documents.parse(f"[{2**63 - 1}, {-(2**63)}]") == [2**63 - 1, -(2**63)]
    with pytest.raises(DatasetError, match="beyond 64 bits"):
        dataclasses.replace(RECORD, most_bytes=1000).parse(f"file = {number}", "it", toml=True)
    assert not documents.NUMBER.fits(10**400)


@pytest.mark.parametrize("text", ['"\\ud800"', '{"a\\udfff": 1}', '[["\\udc00\\ud800"]]'])
def test_half_a_character_is_refused(text):
    """It can neither be printed nor written."""
    with pytest.raises(ValueError, match="half a character"):
        documents.parse(text)
    assert documents.parse('"\\ud83d\\ude00"') == "\U0001f600"
