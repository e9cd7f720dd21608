"""The page of a report: one file, for any labels and texts, in a real browser as well."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import AXE, browser, dom
from labelled import Labelled, blocks_of, document, made_up

from pipeline.config import LIMITS
from pipeline.report.changes import Changes, in_step
from pipeline.report.checks import checks_of, verdict_of
from pipeline.report.comparison import compare, then_of
from pipeline.report.document import Document
from pipeline.report.markdown import as_markdown
from pipeline.report.page import as_page
from pipeline.report.sample import Draw, Filled

HOSTILE = (
    "<script>document.title='broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "\"'><svg onload=document.title='broken'>",
    "{{ 7 * 7 }}{% for x in y %}",
    "a\u202ebackwards\u2066 <b>",
    "]]>&lt;&#60;script>",
)
VOID = {"meta", "br", "img", "link", "hr", "input"}


def full(
    rows: list[Labelled], then: list[Labelled] | None = None, *, in_detail: bool = False, **about: Any
) -> Document:
    """A report with all that belongs to it; `in_detail` with a sample, and row by row where it can be."""
    found = document(rows, **about)
    if in_detail:
        found["sample"] = _sampled(rows)
        changes = Changes(3, {})
        for here, there in in_step(blocks_of(rows), blocks_of(then or [*rows[1:], rows[0]])):
            changes.add(here, there)
        found["changes"] = changes.as_member()
    if then is not None:
        found["drift"] = compare(found, then_of([document(then, started="2026-11-28T02:30:00.000+00:00")]))
    found["checks"] = checks_of(found, LIMITS, {"drift"})
    found["verdict"] = verdict_of(found)
    return found


def _sampled(rows: list[Labelled]) -> dict[str, Any]:
    """What a sample says that a person has filled in with the truth of each row, but for every tenth."""
    draw = Draw()
    for block in blocks_of(rows):
        draw.count(block)
    draw.draw(200, 1)
    for block in blocks_of(rows):
        draw.take(block, 1, "digest")
    drawn = [row._replace(truth=rows[row.row - 1].truth if at % 10 else None) for at, row in enumerate(draw.rows(), 1)]
    filled = Filled("sample.csv", drawn, "digest")
    for block in blocks_of(rows):
        filled.add(block, 1)
    return filled.estimate({row.truth or "" for row in rows}, is_complete=True)


CASES: dict[str, Callable[[], Document]] = {
    "plain": lambda: full(made_up(2000, 1), truth=None),
    "everything": lambda: full(made_up(3000, 1, (1, 2, 3, 9), 0.8), made_up(3000, 2)),
    "in detail": lambda: full(made_up(3000, 1, accuracy=0.8), made_up(3000, 1), in_detail=True),
    "nothing": lambda: full([]),
    "failures": lambda: full([Labelled(None, None, "rejected: 400 no")] * 30),
    "logits": lambda: full([Labelled("spam", 7.3, truth="spam")] * 30),
    "one row": lambda: full([Labelled("spam", 0.9, truth="spam")]),
    "no truth yet": lambda: full([row._replace(truth=None) for row in made_up(300, 1)]),
    "1,200 labels": lambda: full(
        [Labelled(f"label {number % 1200}", 0.4 + number % 60 / 100) for number in range(6000)]
    ),
    "long labels": lambda: full(
        [Labelled(f"{number} {'x' * 100}", 0.9, truth=f"{number} {'x' * 100}") for number in range(30)], in_detail=True
    ),
    "right to left": lambda: full(
        [row._replace(label=f"مرحبا {row.label}", text="שלום " * 80) for row in made_up(300, 1)], in_detail=True
    ),
    "hostile": lambda: full(
        [Labelled(text, 0.3, None, HOSTILE[at - 1], text * 3) for at, text in enumerate(HOSTILE)]
        + [Labelled(None, None, f"{text}: {text}", None, text) for text in HOSTILE],
        in_detail=True,
        model={"id": HOSTILE[0], "canary": None},
    ),
}


@cache
def case(name: str) -> Document:
    """One of them, made up when it is asked for first."""
    return CASES[name]()


class Reader(HTMLParser):
    """Collects the elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element."""
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}

    def handle_data(self, data: str) -> None:
        """Take a text."""
        self.text.append(data)


def read(page: bytes) -> Reader:
    """The page, taken apart."""
    reader = Reader()
    reader.feed(page.decode())
    return reader


@pytest.mark.parametrize("name", CASES)
def test_a_page_is_one_file(name: str) -> None:
    """No script, nothing that would be asked of a network, small, and it says what it is."""
    page = as_page(case(name))
    found = read(page)
    assert not found.tags & {"script", "link", "iframe", "object", "embed", "form", "img", "base"}
    assert not [each for each in found.attributes if each[0].startswith("on")]
    for attribute, value in found.attributes:
        if attribute in {"href", "xlink:href", "src"}:
            assert value.startswith("#"), value
    style = page.decode().partition("<style>")[2].partition("</style>")[0]
    assert not re.search(r"@import|url\(", style)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in found.attributes
    assert len(page) < 150_000
    assert b"nan" not in page.lower().replace(b"financ", b"")
    assert page.decode().rstrip().endswith("</html>")
    assert all(f"<{tag}" in page.decode() for tag in ("h1", "h2", "table"))


def test_hostile_texts_stay_texts() -> None:
    """Labels, texts, errors, a truth and a model's name are shown as they are, isolated from what is beside them."""
    page = as_page(case("hostile"))
    found = read(page)
    shown = "".join(found.text)
    for text in HOSTILE:
        assert text.replace("\n", " ") in shown
    assert "svg" in found.tags  # only ours
    assert not [each for each in found.attributes if "broken" in each[1] and each[0] not in ("title", "aria-label")]
    assert "49" not in shown.partition("7 * 7")[2][:10]


def test_markdown_has_no_meaning_that_a_label_could_give_it() -> None:
    """No HTML, no link, no new row or column of a table."""
    text = as_markdown(case("hostile"))
    assert "<script" not in text.replace("\\<", "")
    for line in text.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", _head(text, line)))
    assert as_markdown(case("everything")).startswith("### ❌ Do not use these labels without a look: out.parquet\n")


def _head(text: str, line: str) -> str:
    lines = text.splitlines()
    at = lines.index(line)
    while lines[at - 1].startswith("|"):
        at -= 1
    return lines[at]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("name", ["everything", "in detail", "long labels", "right to left", "hostile", "1,200 labels"])
def test_nothing_is_wider_than_the_window(name: str, width: int, tmp_path: Path) -> None:
    """On a screen and on a phone a page is read from top to bottom; a wide table scrolls in its own box.

    A frame around the page, which may run a script as the page may not, measures it.
    """
    page = tmp_path / "page.html"
    page.write_bytes(as_page(case(name)))
    script = "document.title = document.documentElement.scrollWidth + ' of ' + window.innerWidth"
    inner = page.read_text().replace("default-src 'none'", "default-src 'unsafe-inline'")
    (tmp_path / "measured.html").write_text(inner.replace("</body>", f"<script>{script}</script></body>"))
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<iframe src=measured.html width={width} height=2000 style='border:0'></iframe><script>onload = () => "
        "document.title = document.querySelector('iframe').contentDocument.title</script>"
    )
    title = re.search(r"<title>(.*?)</title>", dom(tmp_path, frame, 1400, "--allow-file-access-from-files"))
    assert title
    wide, _, window = title[1].partition(" of ")
    assert int(wide) <= int(window) == width


@pytest.mark.slow
@pytest.mark.parametrize("name", ["everything", "in detail", "hostile"])
def test_the_browser_has_nothing_to_complain_of(name: str, tmp_path: Path) -> None:
    """No error on the console, no script that ran, no request: of the page nothing leaves it."""
    page = tmp_path / "page.html"
    page.write_bytes(as_page(case(name)))
    done = browser(tmp_path, "--dump-dom", "--window-size=1280,2000", page=page)
    assert "CONSOLE" not in done.stderr
    assert "<title>broken" not in done.stdout
    log = tmp_path / "net.json"
    browser(tmp_path, f"--log-net-log={log}", "--dump-dom", page=page)
    asked = set(re.findall(r'"url":"(https?://[^"]*)"', log.read_text()))
    assert not {url for url in asked if "google" not in url and "gvt1" not in url}


@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
@pytest.mark.parametrize("name", ["everything", "in detail", "right to left", "failures", "no truth yet"])
def test_everybody_can_read_it(name: str, scheme: int, tmp_path: Path) -> None:
    """axe-core finds nothing: contrast, headers of tables, names of pictures."""
    if not AXE.exists():
        pytest.skip("no axe-core; npm install --prefix .axe axe-core")
    page = tmp_path / "page.html"
    text = as_page(case(name)).decode().replace("default-src 'none'", "default-src 'unsafe-inline'")
    checks = AXE.read_text().replace("</script", "<\\/script")
    ask = "axe.run().then(r => document.title = 'found ' + r.violations.map(v => v.id + ' ' + v.nodes[0].html).join())"
    page.write_text(text.replace("</body>", f"<script>{checks}</script><script>{ask}</script></body>"))
    dark = f"--blink-settings=preferredColorScheme={scheme}"
    title = re.search(
        r"<title>(.*?)</title>", dom(tmp_path, page, 1280, dark, "--virtual-time-budget=20000"), re.DOTALL
    )
    assert title
    assert title[1] == "found "


@pytest.mark.slow
def test_it_is_dark_in_the_dark_and_prints(tmp_path: Path) -> None:
    """Another background where the system asks for it; on paper it is light, on a few pages."""
    page = tmp_path / "page.html"
    page.write_bytes(as_page(case("everything")))
    for flag, is_dark in (
        ("--blink-settings=preferredColorScheme=0", True),
        ("--blink-settings=preferredColorScheme=1", False),
    ):
        picture = tmp_path / "page.png"
        browser(tmp_path, flag, "--hide-scrollbars", "--window-size=800,600", f"--screenshot={picture}", page=page)
        assert _is_dark(picture) == is_dark
    printed = tmp_path / "page.pdf"
    browser(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={printed}", page=page)
    pages = len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes()))
    assert 2 <= pages <= 10


def _is_dark(picture: Path) -> bool:
    from matplotlib.image import imread

    corner = imread(picture)[5:20, 5:20, :3]
    return bool(corner.mean() < 0.5)
