"""The HTML report of benchmarks: what was measured, as one document that fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence

from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.report import facts
from icnet_deploy.benchmarks.templates import page, tag

__all__ = ["report_page"]


def report_page(found: Sequence[Measurement]) -> str:
    """Measurements as one HTML document.

    Args:
        found: in the order in which they are to be told.
    """
    parts = [
        [tag("h2", f"{each.kind}: {each.subject['name']}"), facts({**each.subject, **each.values})]
        for each in found
    ]
    return page("Benchmark", *parts)
