"""The site: Sphinx with MyST and furo, from the pages of this folder.

    python -m sphinx -W --keep-going docs build/site

The home page is the README. Links to what is not a page (examples, sources) become plain text,
since a site has no such files.
"""

import os
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "icnet-deploy"
author = "the authors of icnet-deploy"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["evidence"]
root_doc = "index"

html_theme = "furo"
html_title = "icnet-deploy"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
smartquotes = False  # they would make a dash of the two hyphens of an option

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"  # docstrings have single backticks
suppress_warnings = ["myst.header"]  # a generated table may begin with a small heading

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)


def _local(text: str, folder: Path) -> str:
    """A page's text, its links as the site has them.

    Args:
        text: Markdown.
        folder: from which its links lead.
    """

    def link(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return match[0]
        place = Path(os.path.normpath(folder / path))
        if place.is_relative_to(HERE) and place.is_file():
            inside = os.path.relpath(place, HERE if folder == ROOT else folder)
            return f"{picture}[{words}]({inside}{'#' + anchor if anchor else ''})"
        if not place.exists():
            raise FileNotFoundError(f"{folder}: the link {target} leads nowhere")
        if words.strip("`") == path:
            return f"`{place.relative_to(ROOT).as_posix()}`"
        return f"{words} (`{place.relative_to(ROOT).as_posix()}`)"

    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def _read(app: Any, name: str, source: list[str]) -> None:
    """Gives the home page the README's text, and every page the site's links."""
    if name == "index":
        toctree = source[0]
        source[0] = _local((ROOT / "README.md").read_text(encoding="utf-8"), ROOT) + "\n" + toctree
    else:
        source[0] = _local(source[0], (HERE / name).parent)


def _lists(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Puts an empty line before each list of a docstring, as Sphinx wants it."""
    for number in range(len(lines) - 1, 0, -1):
        before, here = lines[number - 1], lines[number]
        in_a_list = before.startswith("  ") or before.lstrip().startswith("-")
        if here.lstrip().startswith("- ") and before.strip() and not in_a_list:
            lines.insert(number, "")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _lists)
