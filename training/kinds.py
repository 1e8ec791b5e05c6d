"""What a setting of a training run may be."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from icnet_deploy.documents import Kind


def numbers(
    words: str,
    fit: Callable[..., bool],
    lengths: tuple[int, ...] | None = None,
    kind: type[Integral] | type[Real] = Real,
) -> Kind:
    """What a setting of one number, or of a tuple of them, may be.

    Args:
        words: the same for a person.
        fit: whether finite numbers may stand there; all of the setting's are its arguments.
        lengths: of a tuple, the lengths that it may have; empty: any; None: it is one number.
        kind: whole numbers, or all.
    """

    def fits(value: Any) -> bool:
        several = (value,) if lengths is None else value
        if not isinstance(several, tuple) or (lengths and len(several) not in lengths):
            return False
        if any(not isinstance(n, kind) or isinstance(n, bool) for n in several):
            return False
        try:
            return all(map(math.isfinite, several)) and fit(*several)
        except OverflowError:  # a whole number beyond all floats
            return False

    return Kind(fits, words)
