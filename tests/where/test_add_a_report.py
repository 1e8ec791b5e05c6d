"""A kind of measurement with a report of its own: an entry in `KINDS`. Nothing else is touched."""

from __future__ import annotations

from icnet_deploy.benchmarks.measurement import write_measurements
from icnet_deploy.benchmarks.measurement_tables import KINDS, Kind, MeasuredTable
from tools.result_tables import main as write_tables


def table(group):
    """Watts by image, where any other kind has a column for each value."""
    rows = [[each.name, f"{each.values['watts']:.0f} W"] for each in group]
    return MeasuredTable(["way", "power"], rows, notes=["at the wall"], measured=group)


def test_a_kind_is_shown_by_one_entry(timed, run, tmp_path, monkeypatch):
    row = Kind("Power", table, best=("watts", min, "least power, watts"))
    monkeypatch.setitem(KINDS, "power", row)
    measured = [timed(name, [5.0], kind="power", values={"watts": w}) for name, w in WATTS.items()]
    write_measurements(tmp_path / "power.jsonl", measured)
    done = run("benchmark", "report", tmp_path / "power.jsonl", "-o", tmp_path / "power.html")
    assert done.code == 0, done.err
    page = (tmp_path / "power.html").read_text()
    assert "<h2>Power</h2>" in page
    assert "least power, watts, thrifty on openvino, cpu" in page
    assert '<td class="n">40 W</td>' in page
    assert "At the wall." in page


def test_it_is_a_table_of_the_documentation_too(timed, tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text("<!-- results: power -->\n<!-- end -->\n")
    measured = timed("a", [5.0], kind="power", values={"watts": 40})
    write_measurements(tmp_path / "power.jsonl", [measured])
    monkeypatch.setitem(KINDS, "power", Kind("Power", table))
    argv = ["--readme", str(tmp_path / "page.md"), "--results", str(tmp_path)]
    assert write_tables(argv) == 0
    assert "| way | power |\n| --- | --- |\n| a | 40 W |" in (tmp_path / "page.md").read_text()


WATTS = {"hungry": 95, "thrifty": 40}
