"""Every command that the documentation shows says where it is run; those of the tests run here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import pages, reference
from tools.pages import Block, blocks, run_page, unmarked

PAGES = pages.pages()
HERE = [page for page in PAGES if any(block.where == "test" for block in blocks(page))]


def test_every_block_says_what_it_is_and_where_it_is_run():
    assert [words for page in PAGES for words in unmarked(page)] == []


def test_blocks_are_found_with_their_marks(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    page = tmp_path / "a.md"
    page.write_text(
        "text\n<!-- run: test -->\n```sh\nls\n\nls\n```\n"
        "1. item\n\n   <!-- not run: it needs a GPU -->\n   ```python\n   x = 1\n   ```\n"
        "```sh\nls\n```\n```\nx\n```\n```json\n{}\n```\n"
    )
    found = list(blocks(page))
    assert found[0] == Block(page, 3, "sh", "ls\n\nls\n", "test")
    assert found[1] == Block(page, 11, "python", "x = 1\n", "", "it needs a GPU")
    assert unmarked(page) == ["a.md:14: not said where it is run", "a.md:17: no language"]


def test_the_page_of_commands_is_what_the_commands_say():
    assert reference.PAGE.read_text("utf-8") == reference.page()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    for package in ("torch", "onnx", "onnxsim", "onnxruntime", "openvino", "av", "model_signing"):
        pytest.importorskip(package, reason=f"the pages need {package}")
    return tmp_path_factory.mktemp("stand-ins")


@pytest.mark.parametrize("page", HERE, ids=lambda page: page.name)
def test_the_commands_of_a_page(page, made, tmp_path):
    assert run_page(page, made, tmp_path / "here", ["test"]) == []


def test_a_block_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    page, made = tmp_path / "a.md", tmp_path / "made"
    page.write_text("<!-- run: test -->\n```sh\nfalse\ntrue\n```\n")
    (failed,) = run_page(page, made, tmp_path / "here", ["test"])
    assert failed.startswith("a.md:2 ended with 1")
    assert run_page(page, made, Path(tmp_path / "here"), ["long"]) == []
