"""Tables of measurements: what stands together, which ratios are taken, and in which words."""

from __future__ import annotations

from icnet_deploy.benchmarks.measurement_tables import across_scopes, markdown_of, tables, text


def column(table, name):
    return [row[table.header.index(name)] for row in table.rows]


def test_a_latency_has_percentiles_and_its_ratio_to_the_first(timed):
    slow = timed("a", [10.0 * n for n in range(1, 101)])
    fast = timed("b", [5.0] * 100, values={"inference": slow.values["total"]})
    (table,) = tables([slow, fast])
    assert column(table, "total") == ["505.0", "5.0"]
    assert column(table, "p99") == ["990.1", "5.0"]
    assert column(table, "ratio to first") == ["1.00", "0.01"]
    assert column(table, "frames/s") == ["2.0", "200.0"]
    assert column(table, "inference") == ["-", "505.0"]
    assert column(table, "95 %")[0] == ""
    assert "label map" not in table.header
    assert "100 runs each, in turn" in table.notes[0]


def test_a_percentile_beyond_which_no_sample_lies_is_a_dash(timed):
    (table,) = tables([timed("a", [1.0] * 9), timed("b", [1.0] * 10)])
    assert column(table, "p90") == column(table, "p10") == ["-", "1.0"]
    assert column(table, "p99") == ["-", "-"]


def test_unlike_scopes_stand_apart_and_their_ratio_says_so(timed):
    whole, other = timed("a", [110.0] * 9), timed("b", [55.0] * 9)
    bare = timed("a, bare", [100.0] * 9, scope="network", subject={"sha256": f"{'a':0<64}"})
    first, second = tables([whole, bare, other])
    assert [table.measured[0].scope for table in (first, second)] == ["image-to-labels", "network"]
    assert column(first, "ratio to first") == ["1.00", "0.50"]
    assert column(second, "ratio to first") == ["1.00"]
    (line,) = across_scopes([whole, bare, other])
    assert line.startswith("across scopes: a on openvino, cpu (image-to-labels) takes 1.10 times")
    assert "(network, which covers less)" in line
    told = text([whole, bare, other])
    assert "scope, network: the runtime's own inference call alone" in told
    assert line in told
    assert "across scopes" not in text([whole, other])


def test_what_times_itself_is_said_to_have_had_no_turns(timed):
    bare = timed("a", [100.0] * 9, scope="network")
    alone = timed("tool", [1.0], scope="network")
    alone.values.clear()
    alone.values.update(median_ms=50.0, min_ms=40.0)
    (table,) = tables([bare, alone])
    assert column(table, "total") == ["100.0", "50.0"]
    assert column(table, "95 %") == ["", "-"]
    assert table.notes[1].startswith("timed in its own process by its own clock, not in turn")
    assert table.notes[1].endswith(": tool")


def test_sizes_batches_and_machines_stand_apart(timed):
    found = [
        timed("a", [1.0]),
        timed("a", [1.0], setting={"size": [48, 64]}),
        timed("a", [1.0], setting={"batch": 2}),
        timed("a", [1.0], machine={"cpu": "b cpu", "cores": 4}),
        timed("b", [1.0]),
    ]
    assert [[m.name for m in table.measured] for table in tables(found)] == [
        *(["a", "b"], ["a"], ["a"], ["a"])
    ]
    assert "b cpu, 4 cores" in text(found)


def measured(timed, rate, **values):
    row = timed("a", [2.0] * 10, kind="paced", setting={"rate_per_s": rate, "seconds": 5})
    row.values.update(peak_bytes=3 * 2**20, missed_percent=1.25, operators=[{"name": "x"}])
    row.values.update(values)
    return row


def test_any_other_kind_has_its_units_and_what_tells_its_rows_apart(timed):
    (table,) = tables([measured(timed, 15), measured(timed, 30, late_frames=7)])
    assert column(table, "rate, a second") == ["15", "30"]
    assert column(table, "peak, MiB") == ["3.0", "3.0"]
    assert column(table, "missed, %") == ["1.2", "1.2"]
    assert column(table, "late, frames") == ["-", "7"]
    assert column(table, "total, ms") == column(table, "p90") == ["2.0", "2.0"]
    assert not {"seconds", "operators", "size"} & set(table.header)
    assert "seconds: 5" in table.notes[0]


def test_markdown_has_the_scope_and_nothing_where_there_is_nothing(timed):
    found = [timed("a", [1.0] * 9), measured(timed, 15)]
    assert markdown_of("start", found) == ""
    told = markdown_of("latency", found)
    header = "| artefact | precision | runs on | total | p90 | ratio to first |"
    assert told.startswith(f"{header}\n| --- |")
    assert "Scope: one image at a time" in told
    assert markdown_of("paced", found).count("\n| a |") == 1
