"""docs/security.md: every test it names exists, and no row is without one."""

import ast

import pytest
from doc_file import DOCS, ROOT, code_spans, tables

ROWS = tables(DOCS / "security.md")["Requirements and tests"]


def defined(file: str) -> set[str]:
    """The tests of a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_the_tests_of_a_requirement_exist(row):
    named = [one.partition("::") for one in code_spans(row[2])]
    assert named
    for file, _, name in named:
        assert name in defined(file), f"{file}::{name}"


def test_the_table_is_there():
    assert len(ROWS) > 25
