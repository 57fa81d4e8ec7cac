"""The page of methods cannot drift from the table, and what it shows works."""

import re

import pytest
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


@pytest.mark.usefixtures("store")
def test_the_method_of_ones_own_works_in_under_15_lines(monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(example.splitlines()) < 15
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    namespace = {}
    exec(example, namespace)
    run = namespace["run"]
    assert run.spec.method == "Mine"
    assert run.record["finished"] == run.spec.epochs
    assert methods.get("Mine").guides == ("T",)
