"""Does a page hold together on its own: every tag closed, nothing fetched, both themes readable, views that need no script?"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from itertools import product
from pathlib import Path

import pytest

from perfmodel.report.figures.drawing.palette import contrast
from perfmodel.report.html.document import Page, PageChoice, PageHeader, Section, page, views
from tests.report.html.parsed_pages import ParsedPage, first_sight

WEIRD = '<script>alert(1)</script> "it\'s" & $title ${x} 模型 ' + "x" * 200
CHOICE = PageChoice(what="stage", labels=("one", WEIRD, "three"), first=1)
TEXTS = ("ink", "muted", "accent", "good", "bad", "doubt")
BACKGROUNDS = ("paper", "raised")


def _page(choice: PageChoice | None = CHOICE, *, answer: bool = True) -> Page:
    opening = PageHeader(
        title=WEIRD,
        subtitle=WEIRD,
        answer=answer,
        verdict="<p>so it is</p>",
        glance={"days": ("12.9", WEIRD), "MFU": ("1 %", "")},
    )
    content = views([f"<p>content {place}</p>" for place in range(3)], choice)
    return page(opening, [Section(name="peak", title=WEIRD, content=content)], choice=choice, command=WEIRD)


@pytest.fixture
def parsed() -> ParsedPage:
    """A page full of weird names."""
    return ParsedPage(_page().html)


def test_every_tag_is_closed_and_every_id_is_its_own(parsed: ParsedPage) -> None:
    """As HTML wants it."""
    assert parsed.faults == []
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert {target.removeprefix("#") for target in parsed.targets} <= set(parsed.ids)


def test_names_are_text(parsed: ParsedPage) -> None:
    """Markup in them, quotes and the marks of the template among it."""
    assert (parsed.tags["script"], parsed.tags["style"], parsed.tags["title"]) == (1, 1, 1)
    words = " ".join(WEIRD.split())
    for place in ("title", "h1", "dl", "nav", "h2", "footer"):
        assert words in " ".join(" ".join(text.split()) for around, text in parsed.words if place in around)


def test_nothing_is_fetched_and_only_its_own_script_runs(parsed: ParsedPage) -> None:
    """Whatever slips through: the policy of the page forbids it."""
    policy = parsed.meta["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    (script,) = re.findall(r"<script>(.*?)</script>", parsed.text, re.DOTALL)
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert all(target.startswith("#") for target in parsed.targets)
    assert parsed.handlers == []
    style = parsed.text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_each_view_has_a_button_and_rules_that_hide_the_others(parsed: ParsedPage) -> None:
    """Without a script; where such rules are not known, all views are shown. One more button shows all."""
    assert parsed.tags["input"] == 4
    for place in range(3):
        assert f'body:has(#view-{place}:checked) .view:not([data-view="{place}"]) {{ display: none; }}' in parsed.text
        assert f"content {place}" in parsed.said("peak")
    assert parsed.text.count(" checked>") == 1
    assert 'id="view-1" checked>' in parsed.text
    assert "#view-all:checked" not in parsed.text


def test_one_view_needs_no_button() -> None:
    """Nor a heading."""
    parsed = ParsedPage(_page(None).html)
    assert parsed.tags["input"] == 0
    assert "data-view" not in parsed.said("peak")
    assert parsed.tags["h3"] == 0


def test_a_no_looks_like_one() -> None:
    """The colour of the verdict's edge."""
    assert 'class="verdict no"' in _page(answer=False).html
    assert 'class="verdict yes"' in _page().html


def test_it_can_be_kept_and_shown(tmp_path: Path) -> None:
    """As a file, and in a notebook."""
    kept = _page()
    kept.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == kept.html
    frame = ParsedPage(kept._repr_html_())
    assert frame.tags["iframe"] == 1
    assert frame.tags["script"] == 0


def _themes() -> dict[str, dict[str, str]]:
    """The colours of each block of the style sheet that sets them."""
    style = files("perfmodel.report.html").joinpath("assets", "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r"\{([^{}]*--paper:[^{}]*)\}", style)
    assert len(blocks) == 4
    themes = [dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in blocks]
    return dict(zip(("light", "asked dark", "chosen dark", "printed"), themes, strict=True))


@pytest.mark.parametrize("theme", ["light", "asked dark", "chosen dark", "printed"])
def test_text_has_the_contrast_of_wcag_aa(theme: str) -> None:
    """4.5 to 1 on every background."""
    colours = _themes()[theme]
    for text, background in product(TEXTS, BACKGROUNDS):
        assert contrast(colours[text], colours[background]) >= 4.5, (text, background)


def test_dark_is_dark_however_it_is_asked_for() -> None:
    """By the system, or with the button of the page."""
    themes = _themes()
    assert themes["asked dark"] == themes["chosen dark"]
    assert themes["printed"]["paper"] == themes["light"]["paper"]


def test_the_script_writes_text_and_fetches_nothing() -> None:
    """No way to markup, to code in a text, to the network or to what a browser keeps."""
    script = files("perfmodel.report.html").joinpath("assets", "page.js").read_text(encoding="utf-8")
    ways = ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "fetch(", "XMLHttp", "import(")
    assert not [way for way in (*ways, "setTimeout(", "localStorage", "cookie", "createContextualFragment") if way in script]


def test_a_part_is_folded_unless_it_is_open() -> None:
    """Its title with a few words of it in the line that opens it, escaped; its content in a section of its own."""
    opening = PageHeader(title="t", subtitle="s", answer=True, verdict="", glance={})
    parts = [
        Section(name="one", title="One", content="<p>in one</p>", is_open=True),
        Section(name="two", title="Two", content="<p>in two</p>", gist=WEIRD),
    ]
    made = page(opening, parts).html
    assert '<details class="part" open>\n<summary><h2>One</h2></summary>\n<section id="one">' in made
    assert '<details class="part">\n<summary><h2>Two</h2> <span class="gist">&lt;script&gt;' in made
    seen = first_sight(made)
    assert "in one" in seen
    assert "in two" not in seen
