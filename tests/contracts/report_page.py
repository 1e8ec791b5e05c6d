"""What every report is held to: elements nest, nothing is fetched, nothing runs."""

from html.parser import HTMLParser


class Reader(HTMLParser):
    """Checks that elements nest, and collects them."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in self.VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)


def check_page(text):
    """Reads a report, and holds it to fetching nothing."""
    assert text.startswith("<!doctype html>")
    reader = Reader(text)
    for name, attributes in reader.elements:
        assert name not in ("script", "link", "iframe")
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href"):
                assert value.startswith("data:image/")
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 8e6
    return reader
