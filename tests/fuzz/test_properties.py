"""Whatever stands in a file or is given to a call, there is a result or an error of ours.

Here a few hundred inputs of each kind; `make fuzz` tries a million. What runs inside the runtimes
of others is tried in processes of their own, by `make fuzz` alone.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from random import Random
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icnet_deploy.documents import sealed
from tools.fuzz.corpus import faults, kept
from tools.fuzz.judge import FOUND, RESULT, judge
from tools.fuzz.registry import TARGETS
from tools.fuzz.targets import documents

APART = {"models", "adopted", "options", "compared_measurements"}
"""Targets whose inputs take long, or may end the process."""

QUICK = [name for name in TARGETS if name not in APART]
DOCUMENTS = [one.name for one in documents.TARGETS if one.name in QUICK]
SEALED = {"sidecar", "calibration"}
LINES = {"measurements", "records"}

_PATIENT = settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 10**400, 255, 256])
    | st.floats()
    | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


@cache
def prepared(name):
    """A target, what gives an input to the product, its folder and its right inputs."""
    target, folder = TARGETS[name], Path(mkdtemp(prefix="icnet-fuzz-"))
    return target, target.prepare(folder), folder, target.seeds()


def tried(name, data):
    target, run, folder, _ = prepared(name)
    verdict = judge(target, run, data, folder)
    assert verdict.outcome != FOUND, f"{verdict.kind}: {verdict.text}"
    return verdict


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setenv("ICNET_MAX_MEGAPIXELS", "1")
    monkeypatch.setenv("ICNET_CACHE", "off")


@pytest.mark.parametrize("name", QUICK)
def test_a_target_begins_with_an_input_that_is_right(name):
    seeds = prepared(name)[3]
    assert any(tried(name, seed).outcome == RESULT for seed in seeds)


@pytest.mark.parametrize("name", QUICK)
@_PATIENT
@given(number=st.integers(0, 2**32 - 1))
def test_an_input_that_was_changed(name, number):
    target, _, _, seeds = prepared(name)
    rng = Random(number)
    tried(name, target.change(rng.choice(seeds), rng))


@pytest.mark.parametrize("name", DOCUMENTS)
@_PATIENT
@given(data=st.data())
def test_a_document_with_any_value_in_any_place(name, data):
    seed = data.draw(st.sampled_from(prepared(name)[3]))
    lines = seed.splitlines() if name in LINES else [seed]
    at = data.draw(st.integers(0, len(lines) - 1))
    holder = {"all": json.loads(lines[at])}
    places = [(holder, "all")]
    for outer, key in places:
        inner = outer[key]
        if isinstance(inner, dict | list):
            keys = list(inner) if isinstance(inner, dict) else range(min(len(inner), 4))
            places += [(inner, each) for each in keys]
    outer, key = data.draw(st.sampled_from(places))
    outer[key] = data.draw(JUNK)
    changed = holder["all"]
    if name in SEALED and isinstance(changed, dict):
        changed = sealed(changed)
    lines[at] = json.dumps(changed).encode()
    tried(name, b"\n".join(lines))


@pytest.mark.parametrize("name", QUICK)
def test_what_showed_new_ways(name):
    for data in kept(name)[:20]:
        tried(name, data)


@pytest.mark.parametrize(
    ("name", "file"), [(name, file) for name in TARGETS for file, _ in faults(name)]
)
def test_what_once_showed_a_fault(name, file):
    tried(name, dict(faults(name))[file])
