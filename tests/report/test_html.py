"""Elements escape what is not markup, and a page fetches nothing."""

from report_page import Reader, check_page

from icnet_deploy.report.html import Html, figures, page, tag
from icnet_deploy.report.tables import facts, where


def test_text_is_escaped_and_elements_are_not():
    inner = tag("b", "<x>", title='"&')
    assert inner == '<b title="&quot;&amp;">&lt;x&gt;</b>'
    assert tag("p", "a&b", [inner, "<"], class_="c") == f'<p class="c">a&amp;b{inner}&lt;</p>'
    assert isinstance(inner, Html)
    assert "<title>&lt;t&gt;</title>" in page("<t>")


def test_elements_without_content_close_themselves():
    assert tag("rect", x=1, y=2.5) == '<rect x="1" y="2.5"/>'
    assert tag("line", stroke_width=1) == '<line stroke-width="1"/>'
    assert tag("g") == "<g></g>"


def test_a_page_is_whole_and_fetches_nothing():
    parts = [facts({"a<b": 1, "none": None}), figures({"mIoU": "67.7 %"})]
    reader = check_page(page("A title", tag("h2", "more"), parts))
    assert [text for text in reader.text if text in ("A title", "more", "a<b", "67.7 %")][1:] == [
        "A title",
        "more",
        "a<b",
        "67.7 %",
    ]


def test_where_says_what_is_known_in_words():
    reader = Reader("".join(where({"cpu_flags": ["avx2", "vnni"], "gpu": None, "cores": 2})))
    assert reader.text == ["Machine and versions", "cpu flags", "avx2 vnni", "cores", "2"]
