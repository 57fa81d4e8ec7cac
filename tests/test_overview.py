"""The overview is the table of methods: every term, where its gradient goes, and a new row by itself."""

import dataclasses
import json
import re

import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from rkdkit import data, executors, exhibits, figures, methods
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits.fig2_method_overview import overview
from rkdkit.methods import Maximised, Method, Term
from rkdkit.store import Store


def gradients(name, part):
    lines = overview({name: methods.get(name)})
    return [(line.term, line.gradient_to) for line in lines[lines.part == part].itertuples()]


def test_every_term_of_every_method_is_a_line():
    lines = overview(methods.METHODS)
    for name, row in methods.METHODS.items():
        of_row = lines[lines.method == name]
        assert list(of_row[of_row.part == "minimise"].term) == [str(term) for term in row.minimises]
        if row.maximises:
            assert list(of_row[of_row.part == "maximise"].term) == [str(term) for term in row.maximises]
        else:
            assert (of_row.part == "maximise").sum() == 1


def test_gradients_go_where_the_row_lets_them():
    assert gradients("PeerAiD", "minimise") == [
        ("g1 CE(y, P(x*))", "P(x*)"),
        ("g2 tau_p^2 KL(S(x*), P(x*); tau_p)", "S(x*) P(x*)"),
        ("l1 CE(y, S(x*))", "S(x*)"),
        ("l2 tau^2 KL(P(x*) const, S(x*); tau)", "S(x*)"),
        ("l3 tau^2 KL(S(x), S(x*); tau)", "S(x) S(x*)"),
    ]
    assert gradients("RSLAD", "maximise") == [("KL(T(x), S(x~))", "S(x~)")]
    assert gradients("AdaAD", "maximise") == [("KL(T(x~), S(x~))", "T(x~) S(x~)")]
    assert gradients("KD", "maximise") == [("nothing: natural images", "")]
    # a replayed batch is moved by the update's own gradient, where that passes through the image moved
    assert gradients("Fast-ARD", "maximise") == [("alpha tau^2 KL(T(x), S(x*); tau)", "S(x*)")]


def test_a_new_row_is_drawn_by_itself():
    row = Method(
        title="Mine",
        source="a test",
        maximises=(Maximised("KL", "P(x)", "S(x~)", makes="x*_S"),),
        minimises=(Term("CE", "y", "P(x)"), Term("KL", "P(x*_S).detach", "S(x*_S)", weight="w")),
        settings={"w": 2.0, "kl_reduction": "mean"},
    )
    (axes,) = figures.method_overview(overview({**methods.METHODS, "Mine": row})).axes
    texts = [text.get_text() for text in axes.texts]
    assert "Mine" in texts
    assert "x*_S: KL(P(x), S(x~))" in texts
    assert "w KL(P(x*_S) const, S(x*_S))" in texts
    plt.close()


def test_arrows_and_colours_say_what_the_table_says():
    (axes,) = figures.method_overview(overview({"AKD2": methods.get("AKD2")})).axes
    arrows = [text.arrow_patch.get_arrowstyle() for text in axes.texts if getattr(text, "arrow_patch", None)]
    # an attack and three terms; each has its gradient at the student alone
    assert len(arrows) == 8
    assert sum(type(style).__name__ == "CurveFilledB" for style in arrows) == 4
    edges = [patch.get_edgecolor()[:3] for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    assert edges.count(figures.COLOURS["student"]) == 4
    assert edges.count(figures.COLOURS["teacher"]) == 1
    assert edges.count(figures.COLOURS["natural"]) == 1
    plt.close()


def test_an_overview_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"at least one row of methods\.METHODS"):
        overview({})


class NoData(executors.Here):
    """Where no data are at all."""

    @property
    def context(self):
        def load(name):
            raise data.DataNotFoundError(f"{name} is not here")

        return dataclasses.replace(super().context, load=load)


@pytest.mark.parametrize("profile", ["smoke", "paper"])
def test_an_exhibit_without_a_training_needs_no_data_and_is_saved_with_a_caption_that_names_none(tmp_path, profile):
    with executors.using(NoData(Store(tmp_path / "store"), "cpu")):
        setup = exhibits.setup("fig2_method_overview", profile, output_dir=str(tmp_path))
        lines = overview({"PeerAiD": methods.get("PeerAiD")})
        figure = figures.method_overview(lines)
        picture, numbers, summary = figures.save(setup, figure, lines)
    assert {path.name for path in (picture, numbers, summary)} == {
        f"fig2_method_overview.{suffix}" for suffix in ("png", "csv", "json")
    }
    assert re.fullmatch(r"rkdkit [^ ]+, torch [^ ]+\.", Image.open(picture).text["Description"])
    assert len(numbers.read_text().splitlines()) == 1 + len(lines)
    said = json.loads(summary.read_text())
    nothing = {key: said.pop(key) for key in ("claims", "measured", "teachers", "networks")}
    assert list(nothing.values()) == [[]] * 4
    assert (said.pop("exhibit"), said.pop("profile")) == ("fig2_method_overview", profile)
    assert said.pop("paper") == "PeerAiD, Figure 2; ARD, Figure 1"
    assert said.pop("provenance")["runs"] == []
    assert set(said.pop("files")) == {picture.name, numbers.name}
    assert said.pop("family")["size"] == 0
    assert said == {}, "it says nothing of a scale"


def test_an_exhibit_without_a_training_is_given_nothing_of_a_profile():
    with pytest.raises(UnknownNameError, match="This exhibit does not use epochs: leave it out"):
        exhibits.setup("fig2_method_overview", "smoke", epochs=3)
    with pytest.raises(UnknownNameError, match="Unknown parameter 'epoch'"):
        exhibits.setup("fig2_method_overview", "smoke", epoch=3)


def test_other_exhibits_need_their_data(tmp_path):
    with executors.using(NoData(Store(tmp_path), "cpu")), pytest.raises(data.DataNotFoundError, match="cifar10 is not"):
        exhibits.setup("tab1_white_box", "paper")
