"""The widgets of ``notebooks/explore.ipynb``: they choose what `answers` computes and show what `drawing` makes."""

import asyncio
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
import pandas as pd

from rkdkit import checks, data
from rkdkit.explore import drawing
from rkdkit.explore.answers import UNUSABLE, Answers
from rkdkit.explore.column import WIDE, Column
from rkdkit.explore.found import Found

MOST_IMAGES = 200
"""The largest number of images in a page of the grid."""

CURVES = {"probability of the true class": "probability", "loss (nats)": "loss"}
"""The quantities that can be chosen for curves, by their labels."""

PAUSE, SHARE = 0.01, 0.05
"""Seconds between two parts of the work on curves, for others to be served; and in which a part may begin epochs."""

_numbers = itertools.count()


class Explorer:
    """All widgets, and what they show.

    Whatever is moved is answered at once. The curves over the epochs, for which a network of each epoch is attacked,
    are filled in afterwards, an epoch at a time, while nothing is moved; :meth:`finish` does all of that at once.

    Parameters
    ----------
    found, run, beside, n_images, steps : as `explore.explorer`.

    Attributes
    ----------
    widget : what a notebook displays.
    dataset, page, eps, step, quantity : the widgets that choose for both runs.
    buttons : the images of the page, as buttons.
    columns : the two runs.
    index : which test image is shown, from 0 on.

    Raises
    ------
    UnknownNameError, ValueError
        As `explore.explorer`.
    """

    def __init__(
        self, found: Found, run: str | None = None, beside: str | None = None, *, n_images: int = 40, steps: int = 20
    ) -> None:
        self.found, self.answers = found, Answers(found.root, steps)
        self._per_page = checks.whole("n_images", n_images, 1, MOST_IMAGES)
        self._token = f"rkdkit-image-{next(_numbers)}"
        # JupyterLab may let another thread than the cells' handle what is moved
        self._lock = threading.RLock()
        self._filling = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self.index = 0
        self._make_widgets()
        if not found.runs:
            self.widget = widgets.HTML(f"<style>{drawing.STYLE}</style>{drawing.problem(str(found))}")
            return
        first = None if run is None else found.named(run)
        second = None if beside is None else found.named(beside, first.spec.dataset if first else None)
        begin = first or second
        with self._quietly():
            self.dataset.options = found.datasets
            self.dataset.value = begin.spec.dataset if begin else found.datasets[0]
            self._fill_dataset()
            for column, chosen in zip(self.columns, (first, second), strict=True):
                if chosen is not None:
                    column.choose(chosen)
        self._show_grid()
        self.show()

    def _make_widgets(self) -> None:
        look, row = {"style": WIDE, "layout": widgets.Layout(width="400px")}, widgets.Layout(flex_flow="row wrap")
        steps = self.answers.steps
        self.dataset = widgets.Dropdown(description="Dataset", **look)
        self.page = widgets.IntSlider(value=1, min=1, max=1, description="Page of images", **look)
        self.eps = widgets.FloatSlider(
            value=0, min=0, max=1, step=0.01, description="eps", readout_format=".4f", continuous_update=False, **look
        )
        self.step = widgets.IntSlider(value=steps, min=0, max=steps, description="Attack step", **look)
        self.play = widgets.Play(value=steps, min=0, max=steps, interval=250)
        self._link = widgets.jslink((self.play, "value"), (self.step, "value"))
        self.quantity = widgets.Dropdown(options=CURVES, description="Curves show", **look)
        self.columns = (Column(self, optional=False), Column(self, optional=True))
        self.buttons = [
            widgets.Button(layout=widgets.Layout(width="46px", height="46px")) for _ in range(self._per_page)
        ]
        for place, button in enumerate(self.buttons):
            button.add_class("rkdkit-button").add_class(f"{self._token}-{place}")
            button.on_click(self._chooser(place))
        self._images_style, self._marks_style, self._said = widgets.HTML(), widgets.HTML(), widgets.HTML()
        rules = widgets.HTML(f"<style>{drawing.STYLE}</style>")
        grid = widgets.Box(self.buttons, layout=widgets.Layout(flex_flow="row wrap", max_width="960px"))
        moving = widgets.HBox([self.eps, self.step, self.play], layout=row)
        both = widgets.HBox([each.widget for each in self.columns], layout=row)
        self.widget = widgets.VBox(
            [
                *(rules, self._images_style, self._marks_style, widgets.HBox([self.dataset, self.page], layout=row)),
                *(grid, self._said, moving, self.quantity, both),
            ]
        ).add_class("rkdkit-explorer")
        self.dataset.observe(self.moved(self._fill_dataset, grid=True), "value")
        self.page.observe(self.moved(self._to_page, grid=True), "value")
        for each in (self.eps, self.step, self.quantity):
            each.observe(self.moved(), "value")

    # what is moved

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Change widgets within a ``with`` block without answering to each change."""
        self._filling += 1
        try:
            yield
        finally:
            self._filling -= 1

    def moved(self, fill: Callable[[], object] | None = None, *, grid: bool = False) -> Callable[[Any], None]:
        """Return what answers to a change of a widget.

        Parameters
        ----------
        fill : changes the widgets that depend on it; None: there are none.
        grid : whether the grid shows other images then.
        """

        def answer(_: Any) -> None:
            with self._lock:
                if self._filling:
                    return
                if fill is not None:
                    with self._quietly():
                        fill()
                if grid:
                    self._show_grid()
                self.show()

        return answer

    def _chooser(self, place: int) -> Callable[[Any], None]:
        def choose() -> None:
            self.index = self.places[min(place, len(self.places) - 1)]

        return self.moved(choose)

    def _to_page(self) -> None:
        self.index = self.places[0]

    def _fill_dataset(self) -> None:
        by_method = self.found.of(self.dataset.value)
        for column in self.columns:
            column.fill(by_method)
        self.index = 0
        usual = data.source_of(self.dataset.value).eps
        self.eps.max = min(2 * usual, 1.0)
        self.eps.step = usual / 20
        self.eps.value = usual
        self.page.value = 1
        self.page.max = max(math.ceil(self._number_of_images() / self._per_page), 1)

    def _number_of_images(self) -> int:
        """Return how many test images the dataset has; 0: they cannot be read."""
        run = self.columns[0].chosen
        try:
            return 0 if run is None else len(self.answers.images(run))
        except UNUSABLE:  # the column says why
            return 0

    @property
    def places(self) -> range:
        """Which test images the page shows, from 0 on; one at least, though the dataset may not be here."""
        begin = (self.page.value - 1) * self._per_page
        return range(begin, max(min(begin + self._per_page, self._number_of_images()), begin + 1))

    # what is shown

    def show(self) -> None:
        """Show what is chosen, from memory or computed now; only the curves over the epochs may come later."""
        with self._lock:
            for column in self.columns:
                column.show()
                column.draw_trajectory()
            self._mark()
            self._later()

    def numbers(self) -> pd.DataFrame:
        """Return the probabilities that are shown: a row for each run, network and image, a column for each class."""
        rows = []
        for column in self.columns:
            run, seen = column.chosen, column.seen
            if run is not None and seen is not None:
                classes = self.answers.classes(run)
                for name in seen.logits:
                    for image, step in (("x", None), (f"after step {self.step.value}", self.step.value)):
                        answer = dict(zip(classes, seen.probabilities(name, step).tolist(), strict=True))
                        rows.append({"run": run.name, "network": name, "image": image, **answer})
        return pd.DataFrame(rows)

    def _show_grid(self) -> None:
        run, number = self.columns[0].chosen, self._number_of_images()
        shown = [place for place in self.places if place < number]
        if run is not None and shown:
            split, classes = self.answers.images(run), self.answers.classes(run)
            images = [data.to_float(split.images[index]) for index in shown]
            self._images_style.value = drawing.grid_style(self._token, images)
            for button, index in zip(self.buttons, shown, strict=False):
                button.tooltip = f"test image {index}: {classes[int(split.labels[index])]}"
        for place, button in enumerate(self.buttons):
            button.layout.display = None if place < len(shown) else "none"

    def _mark(self) -> None:
        """Mark the chosen image, and those that the attacked network of the first run mistakes."""
        run, member = self.columns[0].chosen, self.columns[0].attacked
        chosen, wrong, said = None, list[int](), ""
        try:
            if run is not None and member is not None:
                correct = self.answers.correct(run, member, self.places)
                chosen, wrong = self.index - self.places.start, (~correct).nonzero().flatten().tolist()
                said = (
                    f"Click an image; the blue frame is around test image {self.index}. Dashed frames: the "
                    f"{escape(member.name)} is wrong about the image itself ({len(wrong)} of {len(correct)})."
                )
        except UNUSABLE:  # the column says why
            pass
        self._marks_style.value = drawing.mark_style(self._token, chosen, wrong)
        self._said.value = f"<p>{said}</p>"

    # the curves over the epochs

    @property
    def unfinished(self) -> bool:
        """Whether a curve over the epochs lacks epochs."""
        return any(column.trajectory is not None and column.trajectory.missing for column in self.columns)

    def finish(self) -> None:
        """Complete the curves over the epochs now, however long that takes."""
        with self._lock:
            self._work(math.inf)

    def _work(self, seconds: float) -> None:
        """Go on with the curves; after some time, no epoch is begun any more."""
        end = time.monotonic() + seconds
        for column in self.columns:
            trajectory = column.trajectory
            while trajectory is not None and trajectory.missing and time.monotonic() < end:
                trajectory.go_on()
            column.draw_trajectory()

    def _later(self) -> None:
        """Go on with the curves when nothing else is to be done; without an event loop, only :meth:`finish` does."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self.unfinished and self._loop is not loop:
            self._loop = loop
            loop.call_later(PAUSE, self._go_on)

    def _go_on(self) -> None:
        with self._lock:
            self._loop = None
            self._work(SHARE)
            self._later()
