"""Whether what the product made of an input is a result or an error of ours; all else is found."""

import traceback
from dataclasses import dataclass
from pathlib import Path

from icnet_deploy.errors import BackendError, CheckFailed, InputError
from icnet_deploy.files import is_leftover
from tools.fuzz.target import Run, Target

RESULT, REFUSED, FAILED, FOUND = "a result", "refused", "failed", "found"
"""What may come of an input: the last is a fault of ours."""

_LONGEST = 4000
"""Characters of a message that a person still reads."""


@dataclass(frozen=True)
class Verdict:
    """What came of an input.

    Attributes:
        outcome: one of the above.
        marks: what it went through, for the counts.
        kind: of what was found, the same for inputs that show the same fault.
        text: what was said.
    """

    outcome: str
    marks: tuple[str, ...] = ()
    kind: str = ""
    text: str = ""


def judge(target: Target, run: Run, data: bytes, folder: Path) -> Verdict:
    """Gives an input to the product.

    Args:
        target: whose input it is.
        run: of `target.prepare`.
        data: the input.
        folder: the target's own, in which nothing half-written may stay.
    """
    marks: list[str] = []
    try:
        for mark in run(data):
            marks.append(mark)  # noqa: PERF402  # what was reached counts where it fails later
        verdict = Verdict(RESULT, tuple(marks))
    except (InputError, BackendError, CheckFailed) as error:
        verdict = _of_error(target, error, tuple(marks))
    except Exception as error:
        verdict = Verdict(FOUND, tuple(marks), kind_of(error), _traceback(error))
    left = [path.name for path in folder.rglob("*") if is_leftover(path)]
    if left and verdict.outcome != FOUND:
        return Verdict(FOUND, verdict.marks, "a file that is half-written", ", ".join(left))
    return verdict


def _of_error(target: Target, error: Exception, marks: tuple[str, ...]) -> Verdict:
    text = str(error)
    if problem := _problem(text):
        return Verdict(FOUND, marks, f"{kind_of(error)}: {problem}", ascii(text[:_LONGEST]))
    if isinstance(error, InputError):
        return Verdict(REFUSED, marks, text=text)
    if target.may_fail:
        return Verdict(FAILED, marks, text=text)
    return Verdict(FOUND, marks, kind_of(error), _traceback(error))


def _problem(text: str) -> str:
    """Why nobody can read a message; "" if one can."""
    if len(text) < 15:
        return "the message says nothing"
    if len(text) > _LONGEST:
        return "the message is a book"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "the message cannot be written"
    return ""


def kind_of(error: BaseException) -> str:
    """An error's type, and the innermost function of ours that it went through."""
    place = "no function of ours"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module.startswith("icnet_deploy"):
            place = f"{module.removeprefix('icnet_deploy.')}.{frame.f_code.co_qualname}"
    return f"{type(error).__name__} in {place}"


def _traceback(error: BaseException) -> str:
    lines = traceback.format_exception(error, limit=-12)
    return ascii("".join(lines)[-_LONGEST:]).replace("\\n", "\n")
