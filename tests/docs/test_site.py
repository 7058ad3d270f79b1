"""The site of README, docs, results and notebooks: its pages, its links, and what it loads."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("[A-Z]*.md"), *(ROOT / "benchmarks").glob("*.md"), *(ROOT / "docs").rglob("*.md")],
)
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def prose(page):
    """A page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leaves(nav):
    """The pages of a navigation."""
    for entry in nav:
        (value,) = entry.values() if isinstance(entry, dict) else [entry]
        yield from leaves(value) if isinstance(value, list) else [value]


def test_each_page_is_in_the_navigation_once():
    nav = list(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    expected = [page.relative_to(ROOT).as_posix() for page in PAGES]
    expected += [page.relative_to(ROOT).with_suffix(".md").as_posix() for page in NOTEBOOKS]
    assert sorted(nav) == sorted(expected)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_and_pictures_have_texts(page):
    for text, link in re.findall(r"(!?\[[^\]]*\])\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"
        assert text != "![]", f"{link} has no alternative text"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, timeout=900
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(PAGES) + len(NOTEBOOKS)
    for page in pages:
        html = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]* src=\"?([^\"\s>]+)", html)
        loaded += re.findall(r"<link[^>]* rel=\"?(?:stylesheet|icon|preconnect)[^>]*href=\"?([^\"\s>]+)", html)
        assert loaded
        assert not [name for name in loaded if re.match(r"(https?:)?//", name)], page.name
    assert "Train, evaluate and sample hierarchical" in (site / "index.html").read_text()  # README is the first page
    assert (site / "docs" / "images" / "sample.png").is_file()


@pytest.mark.slow
def test_the_reference_has_every_public_name(site):
    for page in (ROOT / "docs" / "api").glob("*.md"):
        html = (site / "docs" / "api" / page.with_suffix(".html").name).read_text()
        shown = {name.rpartition(".")[2] for name in re.findall(r'<h\d id="([\w.]+)" class="doc', html)}
        (package, *_) = re.findall(r"^::: ([\w.]+)$", page.read_text(), flags=re.MULTILINE)
        public = set(importlib.import_module(package).__all__)
        shown |= {name for name in public if re.search(rf'id="[\w.]*\.{name}"', html)}
        assert public <= shown, f"{page.name} lacks {sorted(public - shown)}"
