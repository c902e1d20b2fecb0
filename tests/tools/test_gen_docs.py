"""The reference pages are current, and every code that the code can raise is on them."""

from __future__ import annotations

import re

import pytest

from edgec.errors import EXIT_CODES
from tools.error_codes import all_codes, codes_in
from tools.gen_docs import DOCS, FAMILIES, PAGES, error_entries, main

WHOLE, BEGINNINGS = all_codes()


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PAGES[name](), "run `make docs`"


def test_check_mode_changes_nothing_and_agrees() -> None:
    assert main(["--check"]) == 0


def test_every_code_is_documented() -> None:
    undocumented = {code: modules for code, modules in WHOLE.items() if code not in error_entries()}
    assert not undocumented, "add them to docs/error_codes.toml"


def test_every_documented_code_exists() -> None:
    gone = [code for code in error_entries() if code not in WHOLE and not code.startswith(tuple(BEGINNINGS))]
    assert not gone, "remove them from docs/error_codes.toml"


def test_entries_are_complete() -> None:
    for code, entry in error_entries().items():
        assert re.fullmatch(rf"({'|'.join(EXIT_CODES)})/[a-z0-9]+(-[a-z0-9]+)*", code), code
        assert set(entry) == {"meaning", "remedy"}, code
        assert all(text.endswith(".") for text in entry.values()), code


def test_every_family_is_explained() -> None:
    assert set(FAMILIES) == set(EXIT_CODES)


def test_codes_are_found_where_they_stand() -> None:
    source = (
        'raise EdgecError("io/gone", f"{x} is gone", where="not/a-code")\nf"cli/unknown-{kind}"\nAgentError("dead")\n'
    )
    assert codes_in(source) == ({"io/gone", "validate/dead"}, {"cli/unknown-"})
