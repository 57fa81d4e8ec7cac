"""The page of methods cannot drift from the table."""

import re

from conftest import ROOT

from rkdkit import methods
from rkdkit.documentation import methods_page

PAGE = (ROOT / "docs" / "methods.md").read_text()


def test_the_page_is_what_the_table_says():
    assert methods_page() == PAGE, "run `rkdkit methods > docs/methods.md`"


def test_every_method_has_formula_source_settings_and_differences():
    for name, row in methods.METHODS.items():
        section = re.split(r"\n## ", PAGE.split(f"\n## {name}\n")[1])[0]
        assert all(str(term) in section for term in (*row.minimises, *row.maximises))
        assert row.source.replace("*", "\\*") in section
        assert all(f"{setting} " in section for setting in row.settings)
        assert row.differences.replace("*", "\\*") in section
