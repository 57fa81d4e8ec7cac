"""What a command and a notebook import before they begin: seconds that everybody waits for."""

import json
import re
from pathlib import Path

from conftest import ROOT, run_python

from rkdkit import cli, profiles, runtime

COMMAND = """
import sys
from pathlib import Path
from typer.testing import CliRunner
from rkdkit import cli, drawing, saved

def drawn(notebooks, _):
    for each in notebooks:
        empty = {"provenance": {"runs": []}, "claims": []}
        file = Path(each.parameters["output_dir"], f"{each.name}.json")
        saved.write_exhibit(file, empty, picture=b"", numbers=b"")
        yield drawing.Drawn(each, 0.0)

drawing.draw_all = drawn
done = CliRunner().invoke(cli.app, ["figures", "fig1", "-p", f"output_dir={sys.argv[1]}"])
assert done.exit_code == 0, done.output
assert "Exhibits: 1" in done.output, done.output
import papermill
print(*sorted(sys.modules))
"""


def imported(code, folder, *arguments):
    """Return the modules that a process has imported at the end of some code."""
    process = run_python(f"import sys; sys.argv[1:] = {list(arguments)!r}\n{code}", folder / "store")
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return set(said.split())


def test_a_command_that_makes_one_exhibit_waits_for_no_library_that_computes(tmp_path):
    found = imported(COMMAND, tmp_path, str(tmp_path))
    assert "papermill" in found
    assert found.isdisjoint({"torch", "numpy", "pandas", "scipy", "matplotlib", "dask", "distributed", "bokeh"})
    assert "lark" not in found, "jsonschema took a second to build a parser with it"


def test_notebooks_wait_neither_for_dask_nor_for_what_counts_work(tmp_path):
    code = []
    counting = ROOT / "notebooks" / "tab9_fast_ard.ipynb"  # compares times with work that is counted
    for notebook in sorted({*(ROOT / "notebooks").glob("*.ipynb")} - {counting}):
        for cell in json.loads(notebook.read_text())["cells"]:
            if cell["cell_type"] == "code":
                code += [line for line in "".join(cell["source"]).splitlines() if re.match("import|from", line)]
    assert len(code) > 30
    found = imported("\n".join([*code, "import sys; print(*sys.modules)"]), tmp_path)
    assert {"torch", "rkdkit.figures", "rkdkit.runs"} <= found
    assert found.isdisjoint({"dask", "distributed", "bokeh", "papermill", "rkdkit.cluster", "rkdkit.plan", "sklearn"})


def test_what_the_command_line_knows_without_importing_it_is_so():
    assert tuple(profiles.PROFILES) == cli.PROFILES
    assert set(re.findall("RKDKIT_[A-Z_]+", Path(runtime.__file__).read_text())) == set(cli.SPEED)
