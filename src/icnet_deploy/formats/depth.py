"""From samples of 16 bits to 8."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from icnet_deploy.formats.header import Unreadable

_DARK = 1 << 14
_BRIGHT_SHARE = 1e-3


def to_8_bits(
    values: npt.NDArray[np.uint16], significant: int | None = None
) -> npt.NDArray[np.uint8]:
    """The upper 8 of the bits that are used.

    Args:
        values: uint16 of any shape.
        significant: how many bits the file says are used; None or 16: it says nothing.

    Returns:
        uint8 of the same shape.

    Raises:
        Unreadable: the file says nothing, and not one value in a thousand reaches a quarter of
            the range: cameras of 10, 12 or 14 bits write such files, which would be near black.
    """
    largest = int(values.max(initial=0))
    if significant is None or significant >= 16:
        if largest and np.count_nonzero(values >= _DARK) < _BRIGHT_SHARE * values.size:
            raise Unreadable(
                f"holds 16-bit values of which fewer than 1 in 1,000 exceed {_DARK} (the largest "
                f"is {largest}), and does not say of what range: a camera's 10, 12 or 14 bits "
                "would be read as near black. Convert it to 8 bits, by the range that it has"
            )
        return (values >> 8).astype(np.uint8)
    if largest >= 1 << significant:  # they were brought to 16 bits, as PNG asks for
        return (values >> 8).astype(np.uint8)
    if significant < 8:
        return (values.astype(np.uint32) * 255 // ((1 << significant) - 1)).astype(np.uint8)
    return (values >> (significant - 8)).astype(np.uint8)
