"""JSON is read by the letter: what is not as it was written is refused, and said."""

from __future__ import annotations

import json

import pytest

from icnet_deploy import documents

VALUES = [None, True, False, 0, 1, -1, 1.5, "", "1", "true", [], ["a"], [1], {}, {"a": 1}]

FIT = {
    "TEXT": ["", "1", "true"],
    "BOOL": [True, False],
    "NUMBER": [0, 1, -1, 1.5],
    "FROM_ZERO": [0, 1, 1.5],
    "PERCENT": [0, 1, 1.5],
    "COUNT": [0, 1],
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


def test_json_is_read_as_it_is_written(tmp_path):
    value = {"a": [1, 2.5, -1e-300, None, True, "ä"], "b": {"c": {}}}
    (tmp_path / "a.json").write_text(json.dumps(value), encoding="utf-8")
    assert documents.read(tmp_path / "a.json") == value
