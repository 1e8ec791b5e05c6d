"""The help of every command: one sentence, options by what a user wants to do, one example."""

import argparse
import re

import pytest

from icnet_deploy.command import Goal, options, parser
from tools.reference import parsers

MOST = 6
"""Options that may stand under `options:`, as a command of few need not sort them."""

PARSERS = {one.prog: one for one in parsers()}


def faults(one):
    """What is wrong with a parser's help, in words."""
    said = " ".join((one.description or "").split())
    if not re.fullmatch(r"[A-Z][^.]*(?:\.\w[^.]*)*\.", said):
        yield f"it is not described in one sentence: {said}"
    if (one.epilog or "").count("icnet ") != 1:
        yield f"not one example: {one.epilog}"
    groups = {group.title: group for group in one._action_groups}
    loose = [a for a in groups["options"]._group_actions if a.help != argparse.SUPPRESS]
    if len(loose) > MOST + 1:  # and --help
        yield f"{len(loose) - 1} options that no goal gathers"
    for title in groups:
        if title not in ("positional arguments", "options") and not title.startswith("to "):
            yield f"the options of {title!r} are not named by what they are for"
    for action in one._actions:
        if not action.help or action.help.startswith("("):
            yield f"{action.dest} has no help"


@pytest.mark.parametrize("name", PARSERS)
def test_help_is_one_sentence_and_options_by_goal(name):
    assert list(faults(PARSERS[name])) == []


def test_a_help_that_says_too_much_is_found():
    one = parser("icnet toy", "Plays. It wins.", "icnet toy\n  icnet toy --again")
    for number in range(MOST + 1):
        one.add_argument(f"--option-{number}", help="plays")
    one.add_argument_group("ladder").add_argument("--high")
    assert len(list(faults(one))) == 5


def test_options_of_one_goal_are_in_one_group():
    one = parser("icnet toy", "Plays.", "icnet toy")
    for name in ("--json", "--report"):
        options(one, Goal.RESULTS).add_argument(name, help="write it")
    titles = [group.title for group in one._action_groups]
    assert titles.count(Goal.RESULTS) == 1


def test_usage_shows_what_must_be_given(capsys):
    one = parser("icnet toy", "Plays.", "icnet toy")
    one.add_argument("model", metavar="MODEL", help="which")
    one.add_argument("--out", required=True, metavar="DIR", help="where")
    one.add_argument("--seed", metavar="N", help="of the draw")
    assert one.format_help().startswith("usage: icnet toy --out DIR MODEL [OPTIONS]\n\nPlays.\n")
