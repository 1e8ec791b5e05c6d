"""The paper's tables from a recorded result, for the terminal, HTML and Markdown."""

from collections.abc import Sequence
from typing import Any

from icnet_deploy.benchmarks.paper.networks import (
    BASELINE,
    ICNET,
    NETWORKS,
    PaperTable,
    tables_of,
)
from icnet_deploy.report.html import page, tag
from icnet_deploy.report.tables import Table, facts, number, where
from icnet_deploy.runtime.machine import machine, versions

_LEAST_TIME_RATIO, _LEAST_MEMORY_RATIO = 5.2, 5.8
"""The paper's half PSPNet50 over its ICNet: 170 / 33 ms and 9.2 / 1.6 GB."""

_TITLE = "The ICNet paper's tables"
_MET = {True: "reached", False: "not reached"}


def result_tables(result: dict[str, Any]) -> dict[str, Table]:
    """The tables of a result (`kind` "paper") by title, each number beside the paper's."""
    return {each.title: _table(each, result["networks"]) for each in tables_of(result["tables"])}


def _table(table: PaperTable, networks: dict[str, Any]) -> Table:
    with_memory = any(NETWORKS[name].paper.memory_gb is not None for name in table.rows)
    header = [
        *("network", "mIoU %", "paper", "ms", "p10 to p90", "paper", "frames/s", "paper"),
        *("speed-up", "paper", "memory GB", *(["paper"] if with_memory else [])),
        *("parameters M", "GMAC", "all layers GB", "live GB"),
    ]
    rows = [_row(name, table.baseline, networks, with_memory) for name in table.rows]
    failures = {name: networks[name]["failure"] for name in table.rows}
    notes = [f"{NETWORKS[name].title}: {why}" for name, why in failures.items() if why]
    return Table(header, rows, notes=notes)


def _row(name: str, baseline: str, networks: dict[str, Any], with_memory: bool) -> list[str]:
    network, paper = networks[name], NETWORKS[name].paper
    time, score = network["time"], network["score"]
    ms = time and time["median_ms"]
    base = networks[baseline]["time"]
    memory = [number(_gb(network["memory_bytes"]), 3)]
    if with_memory:
        memory.append(number(paper.memory_gb, 1))
    return [
        NETWORKS[name].title,
        number(score and score["miou_percent"], 1),
        number(paper.miou_percent, 1),
        "failed" if ms is None else number(ms, 1),
        f"{time['p10_ms']:.1f} to {time['p90_ms']:.1f}" if time else "-",
        number(paper.milliseconds, 0),
        number(1e3 / ms if ms else None, 2),
        number(1e3 / paper.milliseconds, 1),
        number(base["median_ms"] / ms if base and ms else None, 1),
        number(NETWORKS[baseline].paper.milliseconds / paper.milliseconds, 1),
        *memory,
        number(network["parameters"] / 1e6, 2),
        number(network["gmac"], 1),
        number(_gb(network["kept_bytes"]), 3),
        number(_gb(network["live_bytes"]), 3),
    ]


def _gb(count: int | None) -> float | None:
    return None if count is None else count / 1e9


def comparison(networks: dict[str, Any]) -> dict[str, Any] | None:
    """The half PSPNet50 over ICNet as a JSON value; None where one of them was not timed.

    Args:
        networks: name -> what was found, as in the result.
    """
    if not {BASELINE, ICNET} <= {name for name, network in networks.items() if network["time"]}:
        return None
    pspnet, icnet = networks[BASELINE], networks[ICNET]

    def ratio(key: str) -> float | None:
        above, below = pspnet[key], icnet[key]
        return round(above / below, 3) if above is not None and below else None

    time = round(pspnet["time"]["median_ms"] / icnet["time"]["median_ms"], 3)
    memory = ratio("memory_bytes")
    return {
        "time_ratio": time,
        "time_ratio_wanted": _LEAST_TIME_RATIO,
        "time_met": time >= _LEAST_TIME_RATIO,
        "memory_ratio": memory,
        "memory_ratio_wanted": _LEAST_MEMORY_RATIO,
        "memory_met": None if memory is None else memory >= _LEAST_MEMORY_RATIO,
        "gmac_ratio": ratio("gmac"),
        "kept_ratio": ratio("kept_bytes"),
        "live_ratio": ratio("live_bytes"),
    }


def statement(result: dict[str, Any]) -> list[str]:
    """Whether the half PSPNet50 costs as much more than ICNet as in the paper, and why.

    Returns:
        A paragraph on time and one on memory; none where the two were not compared.
    """
    compared = comparison(result["networks"])
    if compared is None:
        return []
    pspnet, icnet = (result["networks"][name] for name in (BASELINE, ICNET))
    rates = [one["gmac"] / one["time"]["median_ms"] * 1e3 for one in (pspnet, icnet)]
    lines = [
        f"Time: the half PSPNet50 takes {compared['time_ratio']:.1f} times as long as ICNet; the "
        f"paper's factor of {_LEAST_TIME_RATIO} is {_MET[compared['time_met']]}. The half PSPNet50 "
        f"needs {compared['gmac_ratio']:.1f} times as many multiply-adds ({pspnet['gmac']:.0f} "
        f"against {icnet['gmac']:.1f} GMAC). This runtime does {rates[0]:.0f} GMAC a second in the "
        f"half PSPNet50 and {rates[1]:.0f} in ICNet."
    ]
    if compared["memory_ratio"] is None:
        return [*lines, "Memory: not measured, because the system does not report it."]
    shares = [100 * one["memory_bytes"] / one["kept_bytes"] for one in (pspnet, icnet)]
    text = (
        f"Memory: the half PSPNet50 takes {compared['memory_ratio']:.1f} times as much as ICNet "
        f"({_gb(pspnet['memory_bytes']):.3f} against {_gb(icnet['memory_bytes']):.3f} GB); the "
        f"paper's factor of {_LEAST_MEMORY_RATIO} is {_MET[compared['memory_met']]}. Caffe holds "
        f"the outputs of all layers: {_gb(pspnet['kept_bytes']):.3f} against "
        f"{_gb(icnet['kept_bytes']):.3f} GB, {compared['kept_ratio']:.1f} times as much. The "
        f"largest outputs that are needed at one time are {_gb(pspnet['live_bytes']):.3f} against "
        f"{_gb(icnet['live_bytes']):.3f} GB, {compared['live_ratio']:.1f} times as much. This "
        f"runtime holds {shares[0]:.0f} % of all layers' outputs for the half PSPNet50 and "
        f"{shares[1]:.0f} % for ICNet"
    )
    reuses = max(shares) < 100
    why = ": it reuses the memory of outputs that it no longer needs." if reuses else "."
    return [*lines, text + why]


def method(result: dict[str, Any]) -> dict[str, str]:
    """Name -> words: what the numbers cover and how they were taken."""
    size = "x".join(map(str, result["size"]))
    threads = result["threads"]
    return {
        "runs on": f"{result['runtime']}, {result['device']}, float32, {size}, batch 1, "
        + ("the runtime chooses the threads" if threads is None else f"{threads} threads"),
        "time": result["scope"]["time"],
        "order": result["scope"]["order"],
        "memory": result["scope"]["memory"],
        "from the graph": result["scope"]["graph"],
        "weights": result["scope"]["weights"],
        "mIoU": result["scope"]["score"],
        "paper": result["scope"]["paper"],
    }


def _summary_line(result: dict[str, Any]) -> str:
    """The runtime, device and machine in one line."""
    where = result["machine"]
    if result["device"] == "cuda":
        chip = where["gpus"][0]["name"] if where["gpus"] else "a GPU"
    else:
        chip = f"{where['cpu']}, {where['cores']} cores"
    versions = result["versions"]
    package = {"pytorch": "torch"}.get(result["runtime"], result["runtime"])
    version = versions.get(package) or versions.get(f"{package}-gpu", "")
    return f"{result['runtime']} {version}, {result['device']} ({chip})"


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The tables of all recorded results of the kind `paper`, for the documentation."""
    parts = []
    for result in results:
        if result["kind"] != "paper":
            continue
        parts.append(f"### {_summary_line(result)}\n")
        for title, table in result_tables(result).items():
            parts += [f"**{title}**\n", table.markdown(right=True)]
            parts += [f"{note}\n" for note in table.notes]
        parts += [f"{line}\n" for line in statement(result)]
        parts.append("".join(f"- {name}: {words}\n" for name, words in method(result).items()))
    return "\n".join(parts) or "No result is recorded yet.\n"


def paper_text(result: dict[str, Any]) -> str:
    """A result of the kind `paper` for the terminal."""
    lines = [f"{_TITLE} on {_summary_line(result)}"]
    for title, table in result_tables(result).items():
        lines += ["", title, table.text()]
    compared = statement(result)
    lines += ["", *compared] if compared else []
    lines += ["", *(f"{name}: {words}" for name, words in method(result).items())]
    return "\n".join(lines)


def paper_page(result: dict[str, Any]) -> str:
    """A result of the kind `paper` as one HTML document."""
    compared = [tag("p", line) for line in statement(result)]
    shown = [
        part
        for title, table in result_tables(result).items()
        for part in (tag("h2", title), table.html(), [tag("p", note) for note in table.notes])
    ]
    return page(
        _TITLE,
        tag("p", _summary_line(result)),
        [tag("h2", "The half PSPNet50 against ICNet"), *compared] if compared else [],
        *shown,
        tag("h2", "How it was measured"),
        facts(method(result)),
        where(machine() | versions()),
    )
