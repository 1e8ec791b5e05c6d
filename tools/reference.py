"""`python -m tools.reference`: writes the page of all commands and options from their parsers."""

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from icnet_deploy.benchmarks.command import BENCHMARKS
from icnet_deploy.cli import COMMANDS
from icnet_deploy.command import command, parser
from icnet_deploy.errors import CheckFailed
from icnet_deploy.files import write_text
from icnet_deploy.report.tables import Table

PAGE = Path("docs/reference/cli.md")

_HEAD = """# Commands

Every command and its options. `icnet COMMAND --help` prints the same.
`python -m tools.reference` writes this page from the program; do not edit it.

Exit codes of every command: 0 done, 1 a check failed or a runtime failed, 2 the request was wrong.
"""


class _Caught(BaseException):
    """Carries a command's parser out of it, before the command does anything."""

    def __init__(self, caught: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = caught


def _catch(self: argparse.ArgumentParser, *arguments: Any, **more: Any) -> NoReturn:
    raise _Caught(self)


def parser_of(module: str, words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser that a command makes.

    Args:
        module: whose `main` runs the command.
        words: what leads to the command within it, such as `check` of `icnet dataset check`.
    """
    main = import_module(module).main
    main = getattr(main, "__wrapped__", main)
    with patch.object(argparse.ArgumentParser, "parse_args", _catch):
        try:
            main([*words, "--help"])
        except _Caught as caught:
            return caught.parser
    raise CheckFailed(f"{module}.main parsed nothing")


def parsers() -> Iterator[argparse.ArgumentParser]:
    """Those of all commands, in the order of `icnet --help`."""
    for name, (module, _) in COMMANDS.items():
        if name == "dataset":
            yield parser_of(module, ["check"])
        elif name == "benchmark":
            yield from (parser_of(each) for each, _ in BENCHMARKS.values())
        else:
            yield parser_of(module)


def page() -> str:
    """The page."""
    return "\n".join([_HEAD, *(_section(each) for each in parsers())])


def _section(one: argparse.ArgumentParser) -> str:
    example = (one.epilog or "").removeprefix("example:\n")
    parts = [
        f"## {one.prog}",
        " ".join((one.description or "").split()),
        f"```text\n{textwrap.dedent(example)}\n```",
    ]
    for group in one._action_groups:
        if table := _table(group):
            title = {"positional arguments": "", "options": "Options"}.get(group.title or "")
            name = f"**{(group.title or '').rstrip(':').capitalize() if title is None else title}**"
            said = " ".join((group.description or "").split())
            parts += [text for text in (name if name != "****" else "", said, table) if text]
    return "\n\n".join(parts) + "\n"


def _table(group: argparse._ArgumentGroup) -> str:
    rows = []
    for action in group._group_actions:
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        rows.append([_name(action), _meaning(action)])
    if not rows:
        return ""
    head = ["option" if rows[0][0].startswith("`-") else "argument", "meaning"]
    return Table(head, rows, left=2).markdown().rstrip()


def _name(action: argparse.Action) -> str:
    value = _value(action)
    words = [", ".join(action.option_strings), value]
    return f"`{' '.join(filter(None, words))}`".replace("|", "\\|")


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""
    name = action.metavar or choices or (action.dest.upper() if action.option_strings else "")
    names = list(name) if isinstance(name, tuple) else [name or action.dest]
    if isinstance(action.nargs, int):
        return " ".join(names if len(names) > 1 else names * action.nargs)
    return f"{names[0]}{' ...' if action.nargs in ('+', '*') else ''}"


def _meaning(action: argparse.Action) -> str:
    text = (action.help or "") % {**vars(action), "prog": "icnet"}
    # Words in capitals and angles stay as they are; a bar would end the cell.
    return re.sub(r"([<>|*_])", r"\\\1", " ".join(text.split()))


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    p = parser(
        "python -m tools.reference",
        "Writes the page of all commands and options.",
        "python -m tools.reference --check",
    )
    p.add_argument(
        "--page", type=Path, default=PAGE, metavar="FILE", help="the page (default: %(default)s)"
    )
    p.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if the page is out of date"
    )
    args = p.parse_args(argv)
    text = page()
    if not args.check:
        write_text(args.page, text)
    elif args.page.read_text("utf-8") != text:
        raise CheckFailed(f"{args.page} is out of date: run python -m tools.reference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
