"""The site's interactive pictures: their numbers are those of the CSVs, they are safe in a page, they can be used."""

import base64
import csv
import html.parser
import io
import itertools
import json
import shutil

import browsers
import numpy as np
import pandas as pd
import pytest
from committed import MADE, QUICK, made
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rkdkit import claims
from rkdkit.checks import UnknownNameError
from rkdkit.references import Images
from rkdkit.saved import ExhibitFilesError, read_exhibit, write_exhibit
from rkdkit.site import pictures
from rkdkit.site.drawn import MAKERS
from rkdkit.site.plots import new_figure, plain, rounded
from rkdkit.site.thumbnails import thumbnails


def rows(name, **columns):
    """The rows of a CSV, as texts, in which columns have these values."""
    with (QUICK / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[column] == value for column, value in columns.items())]


def numbers(some, column, scale=1):
    """A column, to the four digits that a picture has."""
    return [float(f"{scale * float(row[column]):.4g}") for row in some]


def drawn(name):
    """The pictures of a committed exhibit as plain JSON, as the page has them."""
    return {title: json.loads(figure.to_json()) for title, figure in pictures.interactive(name, QUICK).items()}


def traces(picture):
    """The traces that the legend or the pointer tells of, by name."""
    named = [trace for trace in picture["data"] if trace.get("hoverinfo") != "skip"]
    assert len({trace.get("name") for trace in named}) == len(named)
    return {trace.get("name"): trace for trace in named}


@pytest.mark.parametrize("name", MADE)
def test_each_picture_of_each_committed_exhibit_is_small_and_told_in_words(name):
    found = pictures.interactive(name, QUICK)
    assert bool(found) == (name in MAKERS)
    for title, figure in found.items():
        assert len(figure.to_json()) <= 1_000_000
        assert figure.layout.meta["text"] == f"{title}. {pictures.alternative_text(name, made(name))}"
        assert figure.layout.height >= 400
        assert figure.layout.width is None, "as wide as the page"


def test_an_exhibit_without_pictures_is_not_read(tmp_path):
    assert pictures.interactive("tab1_white_box", tmp_path) == {}
    assert pictures.interactive("nothing", tmp_path) == {}


@pytest.fixture
def copied(tmp_path):
    """A folder with the files of an exhibit."""
    for suffix in ("png", "csv", "json"):
        shutil.copy(QUICK / f"fig1_peer_vs_teacher.{suffix}", tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", ["png", "csv", "json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_missing_or_damaged_file_is_named_as_everywhere(copied, suffix, damage):
    file = copied / f"fig1_peer_vs_teacher.{suffix}"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ExhibitFilesError) as expected:
        read_exhibit(copied / "fig1_peer_vs_teacher.json")
    with pytest.raises(ExhibitFilesError) as raised:
        pictures.interactive("fig1_peer_vs_teacher", copied)
    assert str(raised.value) == str(expected.value)
    assert str(file) in str(raised.value)


def again(folder, name, change):
    """Write an exhibit's files with a changed table, as they would be saved."""
    table = pd.read_csv(QUICK / f"{name}.csv", keep_default_na=False, na_values=[""])
    summary = {key: value for key, value in made(name).items() if key != "files"}
    content = change(table).to_csv(index=False).encode()
    write_exhibit(folder / f"{name}.json", summary, picture=b"", numbers=content)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_table_of_another_version_is_refused(name, tmp_path):
    for column in MAKERS[name].columns:
        again(tmp_path, name, lambda table, column=column: table.drop(columns=column))
        with pytest.raises(ExhibitFilesError, match=f"has no column {column}: .* rkdkit figures {name} "):
            pictures.interactive(name, tmp_path)
    again(tmp_path, name, lambda table: table)
    assert {title: figure.to_json() for title, figure in pictures.interactive(name, tmp_path).items()} == {
        title: figure.to_json() for title, figure in pictures.interactive(name, QUICK).items()
    }


def test_names_of_networks_are_shown_as_they_are(tmp_path):
    def change(table):
        return table.replace({"network": {"peer": "<b>None</b> & more", "teacher": "None"}})

    again(tmp_path, "fig1_peer_vs_teacher", change)
    (figure,) = pictures.interactive("fig1_peer_vs_teacher", tmp_path).values()
    names = {trace.name for trace in figure.data if trace.name}
    assert names == {
        f"{network} on {examples}"
        for network in ("&lt;b&gt;None&lt;/b&gt; &amp; more", "None")
        for examples in ("own", "student")
    }


# what is drawn

FIG1 = {
    ("peer", "student"): "peer on the student's x*<sub>S</sub>",
    ("peer", "own"): "peer on its own x*<sub>P</sub>",
    ("teacher", "student"): "fixed teacher on the student's x*<sub>S</sub>",
    ("teacher", "own"): "fixed teacher on its own x*<sub>T</sub>",
}
FIG3 = {
    ("student", "student of the peer"): "student taught by the peer",
    ("peer", "student of the peer"): "peer",
    ("student", "student of the teacher"): "student taught by the fixed teacher",
    ("teacher", "student of the teacher"): "fixed teacher",
}


def is_curve(picture, name, some, x, y, ends=("low", "high"), scale=1, n="n"):
    """Check a line, the numbers that hovering tells, and the band that the legend shows and hides with it."""
    line = traces(picture)[name]
    low, high = (numbers(some, end, scale) for end in ends)
    assert line["x"] == numbers(some, x)
    assert line["y"] == numbers(some, y, scale)
    assert [row[:2] for row in line["customdata"]] == [list(pair) for pair in zip(low, high, strict=True)]
    assert [row[2].split()[0].replace(",", "") for row in line["customdata"]] == [row[n] for row in some]
    (band,) = [trace for trace in picture["data"] if trace.get("legendgroup") == name and trace is not line]
    assert (band["x"], band["y"]) == (line["x"] + line["x"][::-1], high + low[::-1])
    assert (band["showlegend"], line["legendgroup"]) == (False, name)


def test_figure_1():
    (picture,) = drawn("fig1_peer_vs_teacher").values()
    assert list(traces(picture)) == list(FIG1.values())
    for (network, examples), name in FIG1.items():
        some = rows("fig1_peer_vs_teacher", network=network, examples=examples)
        is_curve(picture, name, some, "epoch", "robust_accuracy", scale=100)
        assert traces(picture)[name]["customdata"][0][2] == "497 images, 5 seeds"
    assert len({(t["line"]["color"], t["line"]["dash"]) for t in traces(picture).values()}) == 4


def test_figure_3():
    found = drawn("fig3_peer_tutoring")
    assert list(found) == ["Over the epochs, test images", "Over the epochs, train images"]
    for images, picture in zip(("test", "train"), found.values(), strict=True):
        assert list(traces(picture)) == list(FIG3.values())
        for (network, examples), name in FIG3.items():
            some = rows("fig3_peer_tutoring", images=images, network=network, examples=examples)
            is_curve(picture, name, some, "epoch", "robust_accuracy", scale=100)


def test_figure_11():
    (picture,) = drawn("fig11_entropy").values()
    names = {
        "Natural": "Natural, the teacher",
        "PGD-AT": "PGD-AT, the teacher",
        "AKD-Std": "AKD-Std, student of Natural",
        "AKD-AT": "AKD-AT, student of PGD-AT",
    }
    assert set(traces(picture)) == set(names.values())
    for network, name in names.items():
        is_curve(picture, name, rows("fig11_entropy", network=network), "epoch", "entropy_nats")


def test_figure_4():
    found = drawn("fig4_loss_landscape")
    surfaces = {title: picture for title, picture in found.items() if title.startswith("Loss surface of ")}
    assert list(surfaces) == [f"Loss surface of {network}" for network in ("PGD-AT", "TRADES", "PeerAiD")]
    top = max(numbers(rows("fig4_loss_landscape", part="surface"), "loss"))
    for title, picture in surfaces.items():
        (surface,) = picture["data"]
        assert (surface["cmin"], surface["cmax"]) == (0, top)
        assert picture["layout"]["scene"]["zaxis"]["range"] == [0, top]
        some = rows("fig4_loss_landscape", part="surface", network=title.removeprefix("Loss surface of "))
        assert len(some) == 15 * 15
        at = {(x, y): surface["z"][i][j] for i, y in enumerate(surface["y"]) for j, x in enumerate(surface["x"])}
        assert at == dict(
            zip(zip(numbers(some, "second"), numbers(some, "first"), strict=True), numbers(some, "loss"), strict=True)
        )
        assert surface["x"] == sorted(surface["x"])
        assert surface["y"] == sorted(surface["y"])
        assert picture["layout"]["meta"]["turned"] == "together"
    networks = ["PGD-AT", "TRADES", "PeerAiD", "PeerAiD, not averaged"]
    assert list(traces(found["Loss profiles"])) == networks
    for network in networks:
        some = rows("fig4_loss_landscape", part="profile", network=network)
        is_curve(found["Loss profiles"], network, some, "first", "loss")


def pixels(uri):
    head, _, coded = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.array(Image.open(io.BytesIO(base64.b64decode(coded))))


def shows(picture, images):
    """Check that each point that names an image gets this one."""
    uris = picture["layout"]["meta"]["images"]
    labels = images.split().labels.tolist()
    pointed = [trace for trace in picture["data"] if trace.get("meta") == "images"]
    assert pointed
    for trace in pointed:
        for index, about, *_ in trace["customdata"]:
            assert (pixels(uris[index]) == images.split().images[index, 0].numpy()).all()
            assert about == f"{images.part} image {index}, class {images.class_names[labels[index]]}"


def test_figure_5():
    found = drawn("fig5_tsne")
    titles = {"PGD-AT": "fixed teacher (PGD-AT)", "TRADES": "fixed teacher (TRADES)", "peer": "peer"}
    assert list(found) == [f"t-SNE: {title}" for title in titles.values()]
    for network, picture in zip(titles, found.values(), strict=True):
        for examples, words in (("natural", "natural images"), ("student", "x*<sub>S</sub>")):
            (score,) = rows("fig5_tsne", network=network, examples=examples, image="all")
            told = f"{words}: {float(score['silhouette']):.3f} [{float(score['low']):.3f}, {float(score['high']):.3f}]"
            assert told in picture["layout"]["xaxis"]["title"]["text"]
            for name in ("0", "1", "3"):
                some = rows("fig5_tsne", network=network, examples=examples, **{"class": name})
                trace = traces(picture)[f"{name}, {words}"]
                assert (trace["x"], trace["y"]) == (numbers(some, "x"), numbers(some, "y"))
                assert [row[0] for row in trace["customdata"]] == [int(row["image"]) for row in some]
        shows(picture, Images("digits", classes=("0", "1", "3")))
        marked = {name: trace["marker"]["symbol"] for name, trace in traces(picture).items()}
        assert len(set(marked.values())) == 6, "classes can be told apart without colours"


def test_figure_13():
    (picture,) = drawn("fig13_sample_difficulty").values()
    for name in ("3", "8"):
        some, trace = rows("fig13_sample_difficulty", **{"class": name}), traces(picture)[f"class {name}"]
        assert (trace["x"], trace["y"]) == (numbers(some, "difficulty"), numbers(some, "likeness"))
        assert [row[2] for row in trace["customdata"]] == [int(row["rank"]) for row in some]
    shows(picture, Images("digits:3,8", "train"))


GAIN = "p_S,K - p_T,K"
FAMILIES = [(teacher, images) for teacher in ("PGD-AT", "Natural") for images in ("natural", "adversarial")]


def test_figure_12_by_difficulty():
    found = drawn("fig12_trajectories")
    for teacher, images in FAMILIES:
        picture = found[f"By difficulty: {teacher} teacher, {images} images"]
        names = {
            ("p_T,K", ""): "the teacher: p<sub>T,K</sub>",
            ("cosine", "AKD"): "cosine of student and teacher",
            **{
                (GAIN, student): f"{student}: p<sub>S,K</sub> − p<sub>T,K</sub>"
                for student in ("AKD", "AKD, teacher of epoch 5", "AKD+, alpha 0.3", "AKD+, alpha 0.7")
            },
        }
        assert set(traces(picture)) == set(names.values())
        for (quantity, student), name in names.items():
            some = rows("fig12_trajectories", teacher=teacher, images=images, quantity=quantity, student=student)
            points = traces(picture)[name]
            assert points["y"] == numbers(some, "value")
            assert points["x"] == [float(f"{100 * i / 92:.4g}") for i in range(93)]
            assert [row[2] for row in points["customdata"]] == numbers(some, "difficulty")
            (line,) = [t for t in picture["data"] if t["name"] == name and t is not points]
            assert (line["x"], line["y"]) == (points["x"], numbers(some, "smoothed"))
            assert points["visible"] == line["visible"] == ((quantity, student) == (GAIN, "AKD") or "legendonly")
        shows(picture, Images("digits:3,8"))


def followed():
    """The rows that follow images over the epochs."""
    return [row for row in rows("fig12_trajectories") if row.get("epoch")]


def test_figure_12_epoch_by_epoch():
    assert followed()
    found = drawn("fig12_trajectories")
    for teacher, images in FAMILIES:
        picture = found[f"Epoch by epoch: {teacher} teacher, {images} images"]
        some = [row for row in followed() if (row["teacher"], row["images"]) == (teacher, images)]
        epochs = list(dict.fromkeys(row["epoch"] for row in some))
        assert [frame["name"] for frame in picture["frames"]] == epochs
        (slider,) = picture["layout"]["sliders"]
        assert [(step["label"], step["args"][0]) for step in slider["steps"]] == [(e, [e]) for e in epochs]
        (points,) = picture["data"]
        for frame in picture["frames"]:
            at = [row for row in some if row["epoch"] == frame["name"]]
            student, guide = ([row for row in at if row["quantity"] == q] for q in ("p_S,k", "p_T,k"))
            assert [row[0] for row in points["customdata"]] == [int(row["image"]) for row in student]
            assert [row["image"] for row in student] == [row["image"] for row in guide]
            (moved,) = frame["data"]
            assert (moved["x"], moved["y"]) == (numbers(guide, "value"), numbers(student, "value"))
            assert frame["traces"] == [0]
        assert slider["active"] == len(epochs) - 1
        assert (points["x"], points["y"]) == (moved["x"], moved["y"]), "it begins after the last epoch"
        assert points["marker"]["color"] == numbers(student, "difficulty")
        shows(picture, Images("digits:3,8"))


def of_networks(trace, some, about):
    """Check points of clean and robust accuracy, and what hovering tells of them."""
    assert (trace["x"], trace["y"]) == (numbers(some, "clean", 100), numbers(some, "robust", 100))
    ends = ("clean_low", "clean_high", "robust_low", "robust_high")
    told = [list(row) for row in zip(*(numbers(some, end, 100) for end in ends), strict=True)]
    assert [row[1:5] for row in trace["customdata"]] == told
    assert [row[0] for row in trace["customdata"]] == about
    (seeds,) = {row["seeds"] for row in some}
    assert {row[5] for row in trace["customdata"]} == {"497 images" + f", {seeds} seeds" * (seeds != "1")}


@pytest.mark.parametrize("name", ["fig8_early_stopping_label_mixing", "fig9_teacher_robustness"])
def test_figures_8_and_9(name):
    apart = name.startswith("fig8")
    found = drawn(name)
    for teacher in ("Natural", "PGD-AT"):
        picture = found["Clean against robust accuracy" + (f", {teacher} teachers" if apart else "")]
        all_rows = [row for row in rows(name, teacher=teacher) if not apart or row["figure"].startswith("1")]
        for method in ("AKD+", "RSLAD+", "ARD+"):
            some = [row for row in all_rows if (row["role"], row["method"]) == ("student", method)]
            assert len(some) == 9
            about = [f"{teacher} teacher of epoch {row['teacher_epoch']}, alpha {row['alpha']}" for row in some]
            of_networks(traces(picture)[f"{method}, {teacher} teacher"], some, about)
        some = [row for row in all_rows if row["role"] == "teacher"]
        stars = traces(picture)[f"the {teacher} teacher itself"]
        of_networks(stars, some, [f"epoch {row['teacher_epoch']}" for row in some])
        assert stars["marker"]["symbol"] == "star"
        looks = {(t["marker"]["color"], t["marker"]["symbol"]) for t in picture["data"]}
        assert len(looks) == len(picture["data"])
    for figure, x, words in (("4a", "teacher_epoch", "epoch"), ("4b", "alpha", "weight")):
        if apart:
            some = rows(name, role="student", figure=figure)
            by = found[f"Accuracy by the {words} of the teacher"]
            clean, robust = ("clean_low", "clean_high"), ("robust_low", "robust_high")
            is_curve(by, "student, clean", some, x, "clean", clean, 100)
            is_curve(by, "student, robust (PGD-20)", some, x, "robust", robust, 100, "n_robust")


def test_figure_10():
    found = drawn("fig10_ensemble_mixing")
    plane = traces(found["Clean against robust accuracy"])
    students = rows("fig10_ensemble_mixing", role="student")
    of_networks(plane["students"], students, [row["name"] for row in students])
    for teacher in ("Natural", "PGD-AT"):
        some = rows("fig10_ensemble_mixing", role="teacher", teacher=teacher)
        of_networks(plane[f"the {teacher} teacher itself"], some, [row["name"] for row in some])
    by = found["Accuracy by the weight of the robust teachers"]
    is_curve(by, "student, clean", students, "beta", "clean", ("clean_low", "clean_high"), 100)
    robust = ("robust_low", "robust_high")
    is_curve(by, "student, robust (PGD-20)", students, "beta", "robust", robust, 100, "n_robust")


@pytest.mark.parametrize("name", ["fig12_trajectories", "fig13_sample_difficulty"])
def test_where_trainings_do_not_agree_nothing_is_drawn_by_difficulty(name):
    table, summary = pd.read_csv(QUICK / f"{name}.csv", dtype={"class": str}), made(name)
    assert MAKERS[name].draw(table, summary)
    summary["claims"][0]["verdict"] = claims.FAILS
    assert MAKERS[name].draw(table, summary) == {}


# images beside points


def test_images_of_other_data_are_not_shown():
    labels = Images("digits").split().labels.tolist()
    shown = {index: str(labels[index]) for index in (0, 5, 496)}
    found = thumbnails("digits", "test", shown)
    assert len(found) == 497
    assert (pixels(found[5]) == Images("digits").split().images[5, 0].numpy()).all()
    assert thumbnails("digits", "test", {**shown, 5: str((labels[5] + 1) % 10)}) == []
    assert thumbnails("digits", "test", {**shown, 497: "0"}) == []
    assert thumbnails("digits", "train", shown) == []
    assert thumbnails("cifar10", "test", shown) == []
    assert thumbnails("digits", "test", {}) == []


# the forest plot


def ledger(**changes):
    """Rows of a ledger, of all committed claims."""
    lines = []
    for name in MADE:
        for claim in made(name)["claims"]:
            unit = claim["difference"].get("unit", "points")
            scale = 100 if unit == "points" else 1
            low, value, high = (scale * claim["difference"][end] for end in ("low", "value", "high"))
            verdict = {"exhibit": name, "scale": "quick", "claim": claim["text"], "verdict": claim["verdict"]}
            lines.append({**verdict, "low": low, "difference": value, "high": high, "unit": unit})
    return pd.DataFrame(lines).assign(**changes)


def test_the_forest_has_every_difference_once_with_its_sentence():
    rows_ = ledger()
    picture = json.loads(pictures.forest(rows_).to_json())
    found = []
    for trace in picture["data"]:
        axis = picture["layout"]["x" + "axis" + trace["xaxis"][1:]]["title"]["text"]
        for x, plus, minus, (claim, low, high, exhibit, scale) in zip(
            trace["x"], trace["error_x"]["array"], trace["error_x"]["arrayminus"], trace["customdata"], strict=True
        ):
            near = 2e-3 * max(abs(x), plus, minus)
            assert (x - minus, x + plus) == (pytest.approx(low, abs=near), pytest.approx(high, abs=near))
            assert all(len(line) <= 80 for line in claim.split("<br>"))
            found.append((exhibit, claim.replace("<br>", " "), scale, trace["name"], low, x, high, axis))
    axes = {
        "points": "Difference in points of accuracy",
        "": "Difference of numbers without a unit (cosines, probabilities, ...)",
    }
    expected = [
        (
            *(row.exhibit, plain(row.claim), row.scale, row.verdict, *rounded([row.low, row.difference, row.high])),
            axes.get(row.unit, f"Difference in {row.unit}"),
        )
        for row in rows_.itertuples()
    ]
    assert sorted(found) == sorted(expected)
    assert len(found) > 200
    tally = ", ".join(f"{v}: {int((rows_.verdict == v).sum())}" for v in (claims.HOLDS, claims.FAILS, claims.OPEN))
    assert picture["layout"]["meta"]["text"].endswith(f"{tally}.")


def test_the_forest_is_grouped_and_no_two_lines_share_a_place():
    picture = json.loads(pictures.forest(pd.concat([ledger(), ledger(scale="small")])).to_json())
    layout = picture["layout"]
    for axis in sorted({trace["yaxis"] for trace in picture["data"]}):
        own = [trace for trace in picture["data"] if trace["yaxis"] == axis]
        headed = {note["y"]: note["text"] for note in layout["annotations"] if note["yref"] == axis}
        places = {y: row[3:] for trace in own for y, row in zip(trace["y"], trace["customdata"], strict=True)}
        assert sorted([*places, *headed]) == list(range(len(places) + len(headed)))
        assert len(places) == sum(len(trace["y"]) for trace in own)
        for place, (exhibit, scale) in places.items():
            heading = headed[max(y for y in headed if y < place)]
            assert heading == f"<b>{exhibit}, {scale}</b>"
        bottom, top = layout["yaxis" + axis[1:]]["domain"]
        assert (top - bottom) * layout["height"] / (len(places) + len(headed)) > 12, "lines can be told apart"
    domains = sorted(layout[key]["domain"] for key in layout if key.startswith("yaxis"))
    assert all(below[1] < above[0] for below, above in itertools.pairwise(domains))
    assert len(domains) > 1


def test_verdicts_differ_in_colour_and_in_symbol():
    picture = json.loads(pictures.forest(ledger()).to_json())
    looks = {(t["name"], t["marker"]["color"], t["marker"]["symbol"]) for t in picture["data"]}
    assert [len(set(column)) for column in zip(*looks, strict=True)] == [3, 3, 3]
    assert sum(trace["showlegend"] for trace in picture["data"]) == 3


def test_a_ledger_without_units_is_in_points_and_lines_without_numbers_are_left_out():
    rows_ = ledger().drop(columns="unit")
    rows_.loc[3, "low"] = float("nan")
    picture = json.loads(pictures.forest(rows_).to_json())
    assert sum(len(trace["x"]) for trace in picture["data"]) == len(rows_) - 1
    assert {trace["xaxis"] for trace in picture["data"]} == {"x"}
    empty = pictures.forest(rows_.iloc[:0])
    assert not empty.data
    assert "0 differences" in empty.layout.meta["text"]


def test_an_unknown_verdict_is_refused():
    with pytest.raises(UnknownNameError, match="'perhaps'"):
        pictures.forest(ledger(verdict="perhaps"))


# words


@pytest.mark.parametrize("name", MADE)
def test_the_alternative_text_tells_title_paper_and_verdicts(name):
    summary = made(name)
    text = pictures.alternative_text(name, summary)
    assert text.lower().startswith(name.partition("_")[2].replace("_", " "))
    assert summary["paper"] in text
    assert len(text) < 400
    verdicts = [claim["verdict"] for claim in summary["claims"]]
    words = {claims.HOLDS: "hold", claims.FAILS: "do not hold", claims.OPEN: "are too close to tell"}
    assert (f"Of {len(verdicts)} claims" in text) == bool(verdicts)
    for verdict, said in words.items():
        assert (f"{verdicts.count(verdict)} {said}" in text) == (verdict in verdicts)


def test_the_alternative_text_of_figure_1():
    text = pictures.alternative_text("fig1_peer_vs_teacher", made("fig1_peer_vs_teacher"))
    assert text.startswith("Peer vs teacher (PeerAiD, Figure 1): PGD-AT and PeerAiD on digits, 5 seeds. Of 3 claims, ")
    assert pictures.alternative_text("fig1_peer_vs_teacher", {}) == "Peer vs teacher."


# in a page


class Page(html.parser.HTMLParser):
    """What a browser finds in a fragment: the elements with their attributes, and the content of scripts."""

    def __init__(self, fragment):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(fragment)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


AWKWARD = st.text() | st.lists(
    st.sampled_from(["</script>", "<!--", "<script>", "]]>", '"', "'", "&quot;", "&", "\\", "\u2028", "\ud7ff", "a"])
).map("".join)


@given(AWKWARD, AWKWARD)
def test_no_text_of_a_picture_can_leave_its_script_or_its_label(name, text):
    figure = new_figure(meta={"text": text})
    figure.add_scatter(x=[1, 2.5], y=[None, 3], name=name)
    page = Page(pictures.write(figure, "picture-1"))
    assert [tag for tag, _ in page.elements] == ["div", "script"]
    place, script = (attributes for _, attributes in page.elements)
    assert place["aria-label"] == text.replace("\r\n", "\n").replace("\r", "\n") or place["aria-label"] == text
    assert (place["id"], place["role"]) == ("picture-1", "figure")
    assert script == {"type": "application/json", "data-rkdkit-picture": "picture-1"}
    content = "".join(page.texts).strip()
    assert not set("<>&\u2028\u2029") & set(content)
    assert json.loads(content) == json.loads(figure.to_json())
    assert json.loads(content)["data"][0]["name"] == name


@pytest.mark.parametrize("element_id", ["", "1", "a b", 'a"', "a>", "ä", "a\n"])
def test_what_is_no_id_is_refused(element_id):
    with pytest.raises(ValueError, match="is no id"):
        pictures.write(new_figure(), element_id)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_fragments_have_no_handlers_and_name_no_other_address(name):
    for figure in pictures.interactive(name, QUICK).values():
        for tag, attributes in Page(pictures.write(figure, "p")).elements:
            assert not [key for key in attributes if key.startswith("on") or key in ("src", "href")], tag
        assert "http" not in figure.to_json()


def test_numbers_are_rounded_to_four_digits():
    assert rounded([123456.0, 0.000123456, -1.0, 0.0]) == [123500.0, 0.0001235, -1.0, 0.0]
    assert rounded([float("nan"), 0.12345], 100) == [None, 12.35]
    found = json.dumps([drawn(name) for name in ("fig4_loss_landscape", "fig5_tsne")])
    assert len(found) < 500_000


# in a browser


@pytest.fixture(scope="module")
def browser():
    """A browser, if playwright and Chromium are there."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = browsers.executable()
    settings = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    settings += ["--no-first-run", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=settings)
        yield started
        started.close()


STYLE = "body { color: #222832; background: white } [data-theme=dark] body { color: #ced6dd; background: #14181e }"


def write_page(folder, names):
    """Write a page with an exhibit's pictures; return its address."""
    for script in pictures.scripts():
        shutil.copy(script, folder)
    figures = [figure for name in names for figure in pictures.interactive(name, QUICK).values()]
    parts = [pictures.write(figure, f"picture-{i}") for i, figure in enumerate(figures)]
    loaded = "".join(f'<script defer src="{script.name}"></script>' for script in pictures.scripts())
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>t</title>{loaded}'
    page = f'<!doctype html><html lang="en" data-theme="light"><head>{head}<style>{STYLE}</style></head><body>'
    (folder / "index.html").write_text(page + "".join(parts) + "</body></html>", encoding="utf-8")
    return (folder / "index.html").as_uri(), len(parts)


COUNT = "window.drawn = 0; document.addEventListener('rkdkit:drawn', () => (window.drawn += 1))"


@pytest.fixture
def opened(browser, tmp_path):
    """A function that opens a page with an exhibit's pictures, in which no error may occur."""
    errors, contexts = [], []

    def open_page(*names, width=1000):
        address, number = write_page(tmp_path, names)
        context = browser.new_context(viewport={"width": width, "height": 800})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.add_init_script(COUNT)
        page.goto(address)
        page.wait_for_function(f"window.drawn === {number}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


DARK, LIGHT = "rgb(206, 214, 221)", "rgb(34, 40, 50)"


def test_texts_take_the_colour_of_the_page_and_follow_its_theme(opened):
    page = opened("fig1_peer_vs_teacher")
    colour = "getComputedStyle(document.querySelector('.xtick text')).fill"
    assert page.evaluate(colour) == LIGHT
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function(f"{colour} === '{DARK}'")
    texts = "[...document.querySelectorAll('.js-plotly-plot text')].map(text => getComputedStyle(text).fill)"
    assert set(page.evaluate(texts)) == {DARK}
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.wait_for_function(f"{colour} === '{LIGHT}'")


PLACE = """([curve, point]) => {
    const div = document.querySelector(".rkdkit-picture"), box = div.getBoundingClientRect();
    const { xaxis, yaxis } = div._fullLayout;
    const trace = div.data[curve];
    return [box.left + xaxis._offset + xaxis.d2p(trace.x[point]), box.top + yaxis._offset + yaxis.d2p(trace.y[point])];
}"""


AT = """([x, y]) => {
    const image = document.querySelector(".rkdkit-thumbnail"), box = image.getBoundingClientRect();
    return box.width > 0 && Math.abs(box.top + box.height / 2 - y) < 60 && (box.right < x || box.left > x);
}"""


def test_the_image_of_a_point_is_shown_beside_it(opened):
    page = opened("fig5_tsne")
    image = page.locator(".rkdkit-thumbnail").first
    assert not image.is_visible()
    figure = drawn("fig5_tsne")["t-SNE: fixed teacher (PGD-AT)"]
    uris, told = figure["layout"]["meta"]["images"], set()
    for point in (0, 7, 20):
        x, y = page.evaluate(PLACE, [0, point])
        page.mouse.move(5, 5)
        image.wait_for(state="hidden")
        page.mouse.move(x, y)
        page.wait_for_function(AT, arg=[x, y])  # near the point, without hiding it
        about = image.get_attribute("alt")  # of a point that lies there: another may lie above it
        told.add(about)
        assert image.get_attribute("src") == uris[int(about.split()[2].rstrip(","))]
    assert len(told) > 1


def test_the_arrow_keys_go_from_point_to_point(opened):
    page = opened("fig5_tsne")
    data = drawn("fig5_tsne")["t-SNE: fixed teacher (PGD-AT)"]["data"]
    first, last = data[0]["customdata"], data[-1]["customdata"][-1]
    told = "text => document.querySelector('#picture-0 [role=status]').textContent === text"
    page.keyboard.press("Tab")
    for key, expected in (("Right", first[0]), ("Right", first[1]), ("Left", first[0]), ("Left", last)):
        page.keyboard.press(f"Arrow{key}")
        page.wait_for_function(told, arg=expected[1])
    assert page.locator("#picture-0 .rkdkit-thumbnail").is_visible()
    page.keyboard.press("Escape")
    page.locator("#picture-0 .rkdkit-thumbnail").wait_for(state="hidden")


def test_the_slider_moves_the_points_by_mouse_and_by_keys(opened):
    page = opened("fig12_trajectories")
    figure = drawn("fig12_trajectories")["Epoch by epoch: PGD-AT teacher, natural images"]
    drawn_y = "y => document.querySelector('#picture-0').data[0].y.every((value, i) => value === y[i])"
    page.wait_for_function(drawn_y, arg=figure["frames"][-1]["data"][0]["y"])
    page.locator("#picture-0").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function(drawn_y, arg=figure["frames"][-2]["data"][0]["y"])
    box = page.locator("#picture-0 .slider-rail-touch-rect").bounding_box()
    page.mouse.click(box["x"] + 1, box["y"] + box["height"] / 2)
    page.wait_for_function(drawn_y, arg=figure["frames"][0]["data"][0]["y"])
    assert page.evaluate("document.getElementById('picture-0').layout.sliders[0].active") == 0


def test_surfaces_are_turned_together_by_the_mouse(opened):
    page = opened("fig4_loss_landscape")
    camera = "id => document.getElementById(id).layout.scene.camera.eye"
    before = page.evaluate(camera, "picture-0")
    box = page.locator("#picture-0").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y + 30, steps=5)
    page.mouse.up()
    page.wait_for_function(
        "([id, x]) => document.getElementById(id).layout.scene.camera.eye.x !== x", arg=["picture-2", before["x"]]
    )
    after = [page.evaluate(camera, f"picture-{i}") for i in range(3)]
    assert after[0] != before
    assert after == [after[0]] * 3


@pytest.mark.parametrize("width", [1000, 390])
def test_no_picture_is_wider_than_the_window(opened, width):
    page = opened(*sorted(MAKERS), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widths = "div => [div.clientWidth, div.querySelector('svg').clientWidth]"
    for place, drawn_in in page.evaluate(f"[...document.querySelectorAll('.rkdkit-picture')].map({widths})"):
        assert drawn_in <= place


def test_no_button_sends_a_picture_elsewhere(opened):
    page = opened("fig4_loss_landscape", "fig1_peer_vs_teacher")
    titles = page.evaluate("[...document.querySelectorAll('[data-title]')].map(button => button.dataset.title)")
    assert "Download plot as a PNG" in titles
    assert not [title for title in titles if "Share" in title or "Cloud" in title or "Edit" in title]
    assert (
        page.evaluate("[...document.querySelectorAll('.rkdkit-picture')].map(d => d._context.plotlyServerURL)")
        == [""] * 5
    )
