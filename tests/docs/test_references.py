"""What the documentation names is there: files behind links, headings behind anchors, tests, and files in code marks."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md"), *(ROOT / "helm").rglob("*.md")])
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
CODE = re.compile(r"```.*?```", re.DOTALL)
OURS = re.compile(r"`((?:actors|benchmarks|circadian|deploy|docs|helm|pipelines|requirements|services|tests)/[\w./-]+\.\w+)`")
MADE = re.compile(r"\brequirements/\w+\.lock\b|\bbenchmarks/results/")
"""Of files that a command writes some are not in git."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = CODE.sub("", page.read_text())
    broken = [target for target in LINK.findall(text) if not leads_somewhere(page, target)]
    assert not broken, f"{page.relative_to(ROOT)}: {broken}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_every_test_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    missing = [name for name in OURS.findall(text) if not (ROOT / name).exists() and not MADE.search(name)]
    missing += [f"{file}::{test}" for file, test in TEST.findall(text) if test and test not in functions_of(file)]
    assert not missing, f"{page.relative_to(ROOT)}: {missing}"


def test_a_page_that_names_what_is_not_there_would_be_found() -> None:
    assert not leads_somewhere(ROOT / "README.md", "docs/no-such-page.md")
    assert not leads_somewhere(ROOT / "README.md", "README.md#no-such-heading")
    assert "test_nothing_of_this_name" not in functions_of("tests/docs/test_references.py")
    assert OURS.findall("`services/no_such_file.py`") == ["services/no_such_file.py"]


def leads_somewhere(page: Path, target: str) -> bool:
    """Addresses elsewhere are not asked."""
    if target.startswith(("http://", "https://", "mailto:")):
        return True
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    return file.exists() and (not anchor or file.suffix != ".md" or anchor in anchors(file))


@cache
def anchors(page: Path) -> frozenset[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings)


@cache
def functions_of(file: str) -> frozenset[str]:
    """Names of the functions in a file of tests; none of a file that is not there."""
    path = ROOT / file
    if not path.exists():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
