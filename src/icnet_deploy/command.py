"""What every command shares: its parser, its argument types, and how errors become exit codes."""

import argparse
import difflib
import errno
import functools
import importlib
import math
import os
import re
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from os.path import exists, isfile
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

from icnet_deploy.documents import Kind
from icnet_deploy.errors import IcnetError, InputError
from icnet_deploy.files import make_folder, open_file, real_path, require_replaceable


class _Main(Protocol):
    """A command: takes its arguments, or the process's, and returns an exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


class _Parser(argparse.ArgumentParser):
    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but an unknown option is named before one that is missing."""
        words = list(sys.argv[1:] if args is None else args)
        known = self._option_string_actions
        if self._subparsers is not None:  # which have options of their own
            return super().parse_args(words, namespace)
        for word in words[: words.index("--")] if "--" in words else words:
            name = word.partition("=")[0]
            if re.fullmatch(r"--\w[\w-]*", name) and name not in known:
                self.error(f"unknown option {name}{did_you_mean(name, known)}")
        return super().parse_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Answers with one line, where argparse would print the whole usage, too."""
        text = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {text} (see {self.prog} --help)\n")


def did_you_mean(word: str, known: Collection[str]) -> str:
    """A question for whoever misspelt a name: ": did you mean X?"; empty if none is like it."""
    like = difflib.get_close_matches(word, known, 1)
    return f": did you mean {like[0]}?" if like else ""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks of a description and breaks long lines; usage is what must be given."""

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        due = [action for action in actions if action.required or not action.option_strings]
        width, self._width = self._width, 1000  # argparse would break between "-o" and its "FILE"
        text = super()._format_usage(usage, due, [], prefix)
        self._width = width
        more = any(action.dest != "help" for action in actions if action not in due)
        return f"{text.rstrip()} [OPTIONS]\n\n" if more else text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for line in text.splitlines():
            example = line.startswith(" ")  # stays a line, to be copied
            lines += [line] if example else textwrap.wrap(line, _LONGEST - len(indent)) or [""]
        return "".join(f"{indent}{line}".rstrip() + "\n" for line in lines)


_LONGEST = 92  # characters in a line of a description


def parser(prog: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser whose `--help` shows an example, and that takes no abbreviated options.

    Args:
        prog: such as `icnet export`.
        description: what it does, in one sentence.
        example: a command that runs.
    """
    return _Parser(
        prog=prog,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=_Help,
        allow_abbrev=False,
    )


class Goal(StrEnum):
    """What a user wants of a group of options: its title in `--help`."""

    IMAGES = "to choose the images"
    LABELS = "to read their labels"
    NETWORK = "to name a network of your own"
    REFERENCE = "to name the float32 reference"
    LIMITS = "to set limits"
    RUN = "to choose how it runs"
    TRUST = "to open only what you trust"
    RESULTS = "to write results"


def options(
    parser: argparse._ActionsContainer, goal: str, description: str | None = None
) -> argparse._ActionsContainer:
    """The group of options that serve a goal: the one that the parser has, or a new one."""
    there = [group for group in parser._action_groups if group.title == goal]
    return there[0] if there else parser.add_argument_group(goal, description)


def size(text: str, least: int = 64) -> tuple[int, int]:
    """Reads `HEIGHTxWIDTH` in pixels, each at least `least`, e.g. `1024x2048` as (1024, 2048)."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, e.g. 1024x2048")
    height, width = int(match[1]), int(match[2])
    if not (least <= height <= 16384 and least <= width <= 16384):
        raise argparse.ArgumentTypeError(f"{text!r}: each side must be {least} to 16384 pixels")
    return height, width


def count(text: str) -> int:
    """Reads a whole number that is at least 1."""
    if not re.fullmatch(r"\d+", text.strip()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def number_type(kind: Kind) -> Callable[[str], float]:
    """A type of arguments: a number of that kind."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not kind.fits(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {kind.words}")
        return value

    return read


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Adds where results go."""
    group = options(parser, Goal.RESULTS)
    group.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    group.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write an HTML report in one file; it shows some of the images",
    )


def check_outputs(arguments: argparse.Namespace, *names: str) -> None:
    """Finds a file that cannot be written before the long work, not after it.

    Args:
        arguments: of a command.
        names: of those that name files to write, besides `json` and `report`; None is no file.
            All but `out` are text.

    Raises:
        InputError: another argument names the same file: it would replace what is read, or another
            result; or text would replace a file that is none, such as a model.
        OutputError: its folder cannot be written, or a folder, a pipe or a device has its name.
    """
    every = {name: [*_paths(given)] for name, given in vars(arguments).items()}
    for name, path in ((n, p) for n in ("json", "report", *names) for p in every.get(n, ())):
        for other, paths in every.items():
            if other != name and any(_is_same(path, each) for each in paths):
                raise InputError(
                    f"--{name.replace('_', '-')} {path} is also given as "
                    f"{other.replace('_', '-')}, and would replace it: name another file"
                )
        if name != "out" and _is_binary(path):
            raise InputError(
                f"--{name.replace('_', '-')} {path} is a binary file, which text would replace: "
                "name another file"
            )
        make_folder(path.parent)
        require_replaceable(path)


def _paths(given: object) -> Iterator[Path]:
    """The paths of an argument."""
    if isinstance(given, Path):
        yield given
    elif isinstance(given, list | tuple):
        for part in given:
            yield from _paths(part)


def _is_binary(path: Path) -> bool:
    """Whether a file is there that is no text: no text holds a zero byte."""
    if not isfile(path):
        return False
    with suppress(OSError), open_file(path) as file:
        return b"\0" in file.read(1 << 20)
    return False


def _is_same(path: Path, other: Path) -> bool:
    """Whether both are one file, of whatever name, or will be."""
    if exists(path) and exists(other):
        return path.samefile(other)
    return real_path(path) == real_path(other)


_PART = r"[^\W\d]\w*"
_NAMED = re.compile(rf"({_PART}(?:\.{_PART})*):({_PART}(?:\.{_PART})*)")


def import_named(text: str, option: str) -> Callable[..., Any]:
    """Imports a function or class that was named on the command line: code of the user's own.

    The current folder is searched before the installed packages, as `python -m` does.

    Args:
        text: `PACKAGE.MODULE:NAME`; NAME may have dots: `PACKAGE.MODULE:Class.method`.
        option: that it was given to, for the messages, e.g. `--network`.

    Raises:
        InputError: it is not written so; there is no such module; the module fails when it is
            imported; it has no such name, or what has that name cannot be called.
    """
    match = _NAMED.fullmatch(text)
    if match is None or match[1].endswith(".py"):
        path = text.partition(":")[0]
        dotted = path.removesuffix(".py").strip("./").replace("/", ".")
        named = f"; the file {path} is named {dotted}" if path.endswith(".py") else ""
        raise InputError(
            f"{option} {text} is not PACKAGE.MODULE:NAME; expected e.g. my_code:make, for the "
            f"function make of my_code.py in the current folder{named}"
        )
    module = _import_own(match[1], option, text)
    value: Any = module
    for depth, name in enumerate(parts := match[2].split(".")):
        if not hasattr(value, name):
            there = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise InputError(
                f"{option} {text}: {'.'.join([match[1], *parts[:depth]])} has no {name}; "
                f"{match[1]} has {', '.join(sorted(there)[:20]) or 'nothing that can be called'}"
            )
        value = getattr(value, name)
    if not callable(value):
        raise InputError(
            f"{option} {text} names {type(value).__name__} {match[2]}, which cannot be called; "
            "expected a function or a class"
        )
    return cast(Callable[..., Any], value)


def _import_own(name: str, option: str, text: str) -> Any:
    """The module of that name, from the current folder or an installed package."""
    folder = os.getcwd()
    if sys.path[:1] != [folder]:  # a console script does not search it; it may import more later
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise InputError(
                f"{option} {text}: there is no module {error.name}, neither in the folder {folder} "
                "nor installed: run the command in the folder that holds it, or install it"
            ) from error
        raise InputError(
            f"{option} {text}: the module {name} needs {error.name}, which is not installed: "
            "install it"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the user's code does
        raise InputError(
            f"{option} {text}: the module {name} fails when it is imported: {error_words(error)}; "
            f'`python -c "import {name}"` shows where'
        ) from error


def error_words(error: BaseException) -> str:
    """What an error of the user's own code says, and the line that raised it: for a message."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = ""
    if last and not isinstance(error, SyntaxError):  # which says itself where it is
        where = f" ({Path(last[0].filename).name}, line {last[0].lineno})"
    return f"{type(error).__name__}{f': {error}' if str(error) else ''}{where}"


_OF_PATHS = frozenset(
    {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS}
)
"""Errors of the system that speak of a path that somebody named."""

_OF_DISKS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})  # full, or damaged

_LONGEST_NAME = 120  # characters of a path that is shown with them


def command(main: _Main) -> _Main:
    """Turns errors raised on purpose into one line on stderr and their exit code.

    0: done. 1: a budget or check failed. 2: the request was wrong. A reader that closes the pipe
    early (`icnet doctor | head -1`) ends the command quietly, as with other Unix tools. SIGTERM
    and SIGHUP end it as Ctrl-C does: nothing half-written stays.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        came: list[int] = []
        _open_standard_streams()
        try:
            try:
                with _interrupted_by(came):
                    status = main(argv)
            except SystemExit as stop:  # argparse: 0 after --help, 2 after a usage error
                status = stop.code if isinstance(stop.code, int) else 2
            sys.stdout.flush()  # a closed pipe shows here, not when the interpreter ends
            return status
        except IcnetError as error:
            print(f"icnet: error: {' '.join(str(error).split())}", file=sys.stderr)
            return error.exit_code
        except BrokenPipeError:
            _be_quiet()
            return 141
        except OSError as error:
            if error.errno in _OF_DISKS:
                _be_quiet()
                what = f" {str(error.filename)!a}" if error.filename else ""
                print(f"icnet: error: cannot write{what}: {error.strerror}", file=sys.stderr)
            elif error.errno in _OF_PATHS and error.filename is not None:
                name = ascii(str(error.filename))
                name = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
                print(f"icnet: error: cannot use {name}: {error.strerror}", file=sys.stderr)
            else:
                raise
            return 2
        except KeyboardInterrupt:
            print(f"icnet: {'terminated' if came else 'interrupted'}", file=sys.stderr)
            return 128 + (came[0] if came else signal.SIGINT)

    return run


def _open_standard_streams() -> None:
    """Opens those that the caller closed, as a daemon's: what is written there goes nowhere.

    The next file that is opened would get the number of one, and what a library says into its
    midst; and where Python has no stderr, it prints errors among the results.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What machines and terminals that are closed end a program with."""


@contextmanager
def _interrupted_by(came: list[int]) -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt what is done in here, unless the program has its own way.

    Args:
        came: the signal is added to it.
    """

    def stop(number: int, frame: object) -> None:
        came.append(number)
        if len(came) == 1:  # a second one is not to interrupt the tidying up
            raise KeyboardInterrupt

    mine = threading.current_thread() is threading.main_thread()
    taken = [one for one in _ENDING if mine and signal.getsignal(one) is signal.SIG_DFL]
    for one in taken:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one in taken:
            signal.signal(one, signal.SIG_DFL)


def _be_quiet() -> None:
    """What is still to be written to stdout goes nowhere: the interpreter would try again."""
    with suppress(OSError):  # one that a caller put there may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
