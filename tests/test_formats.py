"""Pictures in further formats: asked for in every exhibit, always the same bytes, and never of another exhibit."""

import json
import os

import matplotlib.pyplot as plt
import pytest
from typer.testing import CliRunner

from rkdkit import cli, drawing, exhibits, figures, methods, saved
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits.fig2_method_overview import overview
from rkdkit.saved import ExhibitFilesError, read_exhibit, write_exhibit

NAME = "fig2_method_overview"


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Commands set the variable."""
    monkeypatch.setenv(saved.FORMATS_VARIABLE, "")


def test_formats_are_a_text_or_a_list_and_png_is_among_them(monkeypatch):
    assert saved.formats() == ("png",)
    assert saved.formats("svg, PDF") == ("png", "pdf", "svg")
    assert saved.formats(["pdf"]) == ("png", "pdf")
    assert saved.formats("") == ("png",)
    monkeypatch.setenv(saved.FORMATS_VARIABLE, "svg")
    assert saved.formats() == ("png", "svg")
    assert saved.formats("png") == ("png",), "what is given goes before"
    for wrong in ("jpg", ["pdf", 5], "png,eps"):
        with pytest.raises(UnknownNameError, match=r"^Unknown format of pictures .* Known: .*png"):
            saved.formats(wrong)
    with pytest.raises(ValueError, match="formats must be a list, as in png,pdf, not 5"):
        saved.formats(5)
    monkeypatch.setenv(saved.FORMATS_VARIABLE, "jpg")
    with pytest.raises(UnknownNameError, match="RKDKIT_FORMATS 'jpg'"):
        saved.formats()


@pytest.mark.parametrize("name", ["fig1_peer_vs_teacher", NAME, "tab11_model_cost"])
def test_every_exhibit_takes_formats_and_no_notebook_sees_them(name):
    _, parameters = cli._asked([name], "smoke", ["formats=pdf,svg"])
    assert parameters[name] == {"profile": "smoke"}
    assert os.environ[saved.FORMATS_VARIABLE] == "png,pdf,svg"
    assert exhibits.setup(name, "smoke").formats == ("png", "pdf", "svg")
    assert exhibits.setup(name, "smoke", formats="svg").formats == ("png", "svg")
    assert not exhibits.setup(name, "smoke", formats="svg").overrides


def test_an_unknown_format_is_refused_before_anything_is_run(monkeypatch):
    monkeypatch.setattr(drawing, "draw_all", lambda *_: pytest.fail("a notebook was run"))
    done = CliRunner().invoke(cli.app, ["figures", "fig1", "-p", "formats=png,jpg"])
    assert done.exit_code == 1
    assert "Unknown format of pictures 'jpg'" in done.output
    with pytest.raises(UnknownNameError, match="Unknown format of pictures 'tiff'"):
        exhibits.setup("fig1_peer_vs_teacher", "smoke", formats=["tiff"])


def drawn(folder, formats):
    setup = exhibits.setup(NAME, "smoke", output_dir=str(folder), formats=formats)
    lines = overview({"PeerAiD": methods.get("PeerAiD")})
    return figures.save(setup, figures.method_overview(lines), lines)


@pytest.mark.usefixtures("closed")
def test_further_pictures_stand_beside_the_png_and_are_the_same_bytes_every_time(tmp_path):
    first = drawn(tmp_path / "first", "png,pdf,svg")
    assert [path.suffix for path in first] == [".png", ".csv", ".pdf", ".svg", ".json"]
    (tmp_path / "first" / f"{NAME}.pdf").read_bytes().index(b"%PDF")
    pdf, svg = first[2].read_bytes(), first[3].read_bytes()
    assert b"CreationDate" not in pdf
    assert b"dc:date" not in svg
    assert f"<dc:title>{NAME}</dc:title>".encode() in svg
    plt.close("all")
    plt.figure()  # ids in an SVG must not depend on what was drawn before
    second = drawn(tmp_path / "second", "svg,pdf")
    for one, other in zip(first[:-1], second[:-1], strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    listed = read_exhibit(first[-1])["files"]
    assert list(listed) == [path.name for path in first[:-1]]
    alone = drawn(tmp_path / "alone", None)
    assert alone[0].read_bytes() == first[0].read_bytes(), "other formats do not change the PNG"


def write(file, word, **further):
    return write_exhibit(
        file, {"word": word}, picture=word.encode(), numbers=word.encode(),
        further={name: f"{word} {name}".encode() for name in further},
    )  # fmt: skip


def test_what_is_saved_without_a_format_leaves_no_picture_of_before_in_it(tmp_path):
    file = tmp_path / "fig99_new.json"
    write(file, "old", pdf=1, svg=1)
    write(file, "new", svg=1)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".json", ".png", ".svg"]
    assert file.with_suffix(".svg").read_text() == "new svg"
    file.with_suffix(".pdf").write_text("somebody's own")
    file.with_suffix(".svg").write_text("changed by hand")
    write(file, "newest")
    assert file.with_suffix(".pdf").read_text() == "somebody's own"
    assert file.with_suffix(".svg").read_text() == "changed by hand", "it is no longer the kit's"
    assert set(json.loads(file.read_text())["files"]) == {"fig99_new.png", "fig99_new.csv"}


def test_a_further_picture_of_another_set_is_noticed_and_one_that_is_gone_is_not_missed(tmp_path):
    file = tmp_path / "fig99_new.json"
    write(file, "old", pdf=1)
    assert read_exhibit(file)["word"] == "old"
    file.with_suffix(".pdf").write_text("another")
    with pytest.raises(ExhibitFilesError, match=r"fig99_new\.pdf and fig99_new\.json do not belong together"):
        read_exhibit(file)
    file.with_suffix(".pdf").unlink()
    assert read_exhibit(file)["word"] == "old"
    file.with_suffix(".svg").write_text("somebody's own")
    assert read_exhibit(file)["word"] == "old"
