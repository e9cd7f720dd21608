"""What the pages say of codes and members is what the code has; links lead somewhere; the README is short."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from pipeline import errors
from pipeline.errors import ClassifyError
from pipeline.monitoring.record import RunRecord

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "pipeline" / "docs"
README = ROOT / "README.md"
PAGES = [README, ROOT / ".github" / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]


def first_cells(page: Path, heading: str) -> list[str]:
    """The first cell of each row of the first table below a heading."""
    table = page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n\n| ")[2]
    return re.findall(r"^\| (.*?) \|", table.partition("\n\n")[0], re.MULTILINE)[1:]


# -- tables


def test_every_exit_code_is_in_both_tables() -> None:
    """In the README and in the page on failures: those of the errors, and 0, 1, 3 and 5, which no error has."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ClassifyError)]
    codes = {kind.exit_code for kind in kinds} | {0, 1, 3, 5, 128 + 1, 128 + 2, 128 + 15, 128 + 13}
    for page, heading in ((README, "The output"), (DOCS / "failures.md", "Exit codes")):
        table = page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("code | meaning")[2]
        cells = re.findall(r"^\| (\d[\d, ]*) \|", table.partition("\n\n")[0], re.MULTILINE)
        assert {int(code) for cell in cells for code in cell.split(",")} == codes, page.name


def test_the_members_of_the_record_are_those_of_the_code() -> None:
    """What a page says of the record is a member of it."""
    cells = first_cells(DOCS / "output.md", "The run record")
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert len(named) > 20
    assert named <= {field.name for field in msgspec.structs.fields(RunRecord)}


# -- links and shape


def anchors_of(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that is there, and a heading that is in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors_of(linked), target


def test_every_page_is_in_both_lists() -> None:
    """The README and the index of the reference name all pages."""
    names = {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    for page, prefix in ((README, "pipeline/docs/"), (DOCS / "README.md", "")):
        text = page.read_text(encoding="utf-8")
        assert {name for name in names if f"]({prefix}{name})" in text} == names


def test_the_readme_is_short() -> None:
    """A newcomer reads it in a few minutes; what is longer belongs into the reference."""
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 120
