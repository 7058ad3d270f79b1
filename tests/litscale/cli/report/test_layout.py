"""What keeps a report inside of a narrow window, read from the file itself, as there may be no browser."""

import re
from html.parser import HTMLParser

import pytest

from litscale.cli.report.page import Selection, report

NARROW = 390  # pixels
ROOT = 15  # pixels of 1rem
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """The elements of a page, each with the classes and names of those around it."""

    def __init__(self, text):
        super().__init__()
        self.style, self.elements, self._open = "", [], []
        self.feed(text.replace("<wbr>", ""))  # which only says where a word may break
        assert not self._open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        here = (tag, set((given.get("class") or "").split()))
        self.elements.append((tag, given, list(self._open)))
        if tag not in VOID:
            self._open.append(here)

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        if self._open and self._open[-1][0] == "style":
            self.style += data


@pytest.fixture
def page(make_run):
    return Page(
        report(
            [make_run("demo"), make_run("a-run-of-another-kind-with-a-name-of-many-words-and-no-spaces")], Selection()
        )
    )


def rules(style):
    """Selector -> property -> value; a later rule wins."""
    found = {}
    for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", style):
        for selector in selectors.split(","):
            pairs = (entry.split(":", 1) for entry in body.split(";") if entry.strip())
            found.setdefault(selector.strip(), {}).update({name.strip(): value.strip() for name, value in pairs})
    return found


def pixels(value):
    """The largest length that a value demands whatever the window; what is at most 100 % demands none."""
    value = re.sub(r"min\([^()]*100%[^()]*\)", "", value)
    return max(
        (float(n) * {"rem": ROOT, "em": ROOT, "px": 1}[unit] for n, unit in re.findall(r"([\d.]+)(rem|em|px)", value)),
        default=0,
    )


def test_nothing_demands_more_than_a_narrow_window(page):
    style = rules(page.style)
    assert re.search(rf"{ROOT}px", style[":root"]["font"])
    for selector, body in style.items():
        for name in ("width", "min-width", "grid-template-columns", "flex-basis"):
            assert pixels(body.get(name, "")) <= NARROW - 2 * ROOT, f"{selector}: {name}"
        assert body.get("white-space") != "nowrap"
    assert style["img"]["max-width"] == "100%"
    assert style["img"]["height"] == "auto"
    assert style["audio"]["width"] == "100%"
    assert style["figure"]["min-width"] == "0"  # a cell of a grid is else as wide as its content
    for selector in ("h1", "h2", "h3", "p", "figcaption", "summary", ".note"):
        assert style[selector]["overflow-wrap"] == "anywhere", selector
    assert style[".wide"]["overflow-x"] == style["pre"]["overflow-x"] == "auto"
    assert style["nav"]["flex-wrap"] == "wrap"


def test_what_is_wide_stands_in_what_scrolls(page):
    named = [tag for tag, _, _ in page.elements]
    assert {"table", "img", "audio", "pre", "figure"} <= set(named)
    for tag, given, around in page.elements:
        if tag == "table":
            assert "wide" in around[-1][1]
        # sizes of elements' own would win over the style
        assert not {"width", "height"} & set(given), (tag, given)
        assert re.fullmatch(r"(background:#[0-9a-f]{6})?", given.get("style", "")), given
        if tag == "meta" and given.get("name") == "viewport":
            assert given["content"] == "width=device-width, initial-scale=1"
    assert any(given.get("name") == "viewport" for _, given, _ in page.elements)


def test_the_page_needs_nothing_else_and_pictures_have_words(page):
    tags = {tag for tag, _, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "link", "form"}
    for tag, given, _ in page.elements:
        for name in ("src", "href"):
            assert re.match(r"data:|#", given.get(name, "#")), (tag, given[name][:80])
        assert not [name for name in given if name.startswith("on")]
        if tag == "img":
            assert given["alt"]
    targets = {given["id"] for _, given, _ in page.elements if "id" in given}
    links = {given["href"][1:] for tag, given, _ in page.elements if tag == "a" and given["href"].startswith("#")}
    assert links <= targets
    assert len(links) >= 6
