"""HTML without a template engine: elements that escape what they are given, parts, and the page."""

import html
from collections.abc import Iterable, Mapping

_VOID = frozenset({"img", "circle", "line", "polyline", "rect"})


class Html(str):
    """Markup that is escaped already; any other text is escaped when it is put into an element."""

    __slots__ = ()


def tag(name: str, *children: str | Iterable[str], **attributes: str | int | float) -> Html:
    """An element.

    Args:
        name: of the element.
        children: text, which is escaped, or elements, or lists of them.
        attributes: values are escaped; `_` at a name's end is dropped, elsewhere it becomes `-`.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
    )
    if name in _VOID:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{''.join(_flat(children))}</{name}>")


def _flat(children: Iterable[str | Iterable[str]]) -> Iterable[str]:
    for child in children:
        if isinstance(child, Html):
            yield child
        elif isinstance(child, str):
            yield html.escape(child)
        else:
            yield from _flat(child)


def page(title: str, *body: str | Iterable[str]) -> str:
    """A whole HTML document that fetches nothing."""
    head = tag("title", title)
    main = tag("main", tag("h1", title), *body)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{head}\n<style>{PALETTE}{_CSS}</style>\n</head>\n<body>\n{main}\n</body>\n</html>\n"
    )


def figures(values: Mapping[str, str]) -> Html:
    """The few numbers that a reader came for, large."""
    return tag(
        "div",
        [
            tag("div", tag("b", value), tag("span", name, class_="quiet"))
            for name, value in values.items()
        ],
        class_="figures",
    )


PALETTE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1d2126; --quiet: #5d6670; --line: #dde1e5;
  --good: #12693f; --good-paper: #dcf3e5; --bad: #a31621; --bad-paper: #fde2e1; --mark: #2457b8;
  --other: #b4501a; --unsure: #8f5f00; --unsure-paper: #fbefcf;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1c2024; --ink: #e8eaed; --quiet: #9aa4ae; --line: #333a41;
    --good: #7fe0ab; --good-paper: #143a28; --bad: #ff9d97; --bad-paper: #4a1a1c; --mark: #8ab4ff;
    --other: #ffab73; --unsure: #f0c552; --unsure-paper: #45360d;
  }
}
"""
"""The colours of everything that is drawn, on light and on dark screens."""

_CSS = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .4rem 0; max-width: 75ch; }
.quiet { color: var(--quiet); font-size: .9rem; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; width: fit-content; max-width: 100%; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; }
td.wrap { white-space: normal; min-width: 14rem; overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; }
th { color: var(--quiet); font-weight: 600; }
thead th { white-space: normal; vertical-align: bottom; min-width: 4rem; }
.n { text-align: right; }
.badge { display: inline-block; padding: 0 .55em; border-radius: 1em; font-weight: 600; }
.good, .within { color: var(--good); background: var(--good-paper); }
.bad, .past { color: var(--bad); background: var(--bad-paper); }
.undecided { color: var(--unsure); background: var(--unsure-paper); }
.figures { display: grid; gap: .75rem; margin: 1rem 0 0;
  grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem .8rem; }
.figures b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.exhibit { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .9rem; margin: .9rem 0; }
.pictures { display: grid; gap: .75rem; margin-top: .6rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; }
figure img { display: block; width: 100%; height: auto; border-radius: 4px; background: #000; }
figcaption { font-size: .85rem; color: var(--quiet); margin-top: .2rem; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem .9rem; font-size: .85rem; margin: .6rem 0; }
.legend span { white-space: nowrap; }
.legend i { display: inline-block; width: .9em; height: .9em; margin-right: .35em;
  border-radius: 3px; vertical-align: -.1em; border: 1px solid var(--line); }
"""
