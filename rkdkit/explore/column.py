"""A column of the explorer: one run, the epoch, which of its networks is attacked, and what is shown of them."""

from html import escape
from typing import TYPE_CHECKING

import ipywidgets as widgets  # type: ignore[import-untyped]

from rkdkit.explore import drawing
from rkdkit.explore.answers import UNUSABLE, Member, Seen, Trajectory
from rkdkit.explore.found import FoundRun

if TYPE_CHECKING:
    from rkdkit.explore.view import Explorer

NONE = "none"
"""The choice of no second run."""

WIDE = {"description_width": "100px"}
"""The style of all widgets with a description."""


class Column:
    """One run: which it is, the epoch, which of its networks is attacked, and what is shown of it.

    Parameters
    ----------
    explorer : whose column it is.
    optional : whether no run may be chosen.

    Attributes
    ----------
    widget : all of it.
    method, run, epoch, who : the widgets that choose the run, the epoch and the attacked network.
    shown, curves : HTML of the image, the answers and the steps; and of the epochs.
    seen : what is shown; None: nothing is.
    trajectory : what the curve over the epochs shows; None: nothing is.
    """

    def __init__(self, explorer: "Explorer", *, optional: bool) -> None:
        self._explorer, self._optional = explorer, optional
        self._runs: dict[str, FoundRun] = {}
        self._by_method: dict[str, list[FoundRun]] = {}
        self.seen: Seen | None = None
        self.trajectory: Trajectory | None = None
        self._drawn_for: tuple[object, ...] = ()
        look = {"style": WIDE, "layout": widgets.Layout(width="400px")}
        self.method = widgets.Dropdown(description="Other method" if optional else "Method", **look)
        self.run = widgets.Dropdown(description="Run", **look)
        self.epoch = widgets.SelectionSlider(options=[1], description="Epoch", **look)
        self.who = widgets.Dropdown(description="Attacked", **look)
        self.shown, self.curves = widgets.HTML().add_class("rkdkit-shown"), widgets.HTML().add_class("rkdkit-shown")
        self._chosen = widgets.VBox([self.run, self.epoch, self.who, self.shown, self.curves])
        self.widget = widgets.VBox([self.method, self._chosen], layout=widgets.Layout(width="412px"))
        self.method.observe(explorer.moved(self._fill_runs), "value")
        self.run.observe(explorer.moved(self._fill_epochs), "value")
        self.epoch.observe(explorer.moved(self._fill_who), "value")
        self.who.observe(explorer.moved(), "value")

    # what is chosen

    @property
    def chosen(self) -> FoundRun | None:
        """The run; None: no run is chosen."""
        return self._runs.get(self.run.value)

    @property
    def members(self) -> tuple[Member, ...]:
        """The networks that have to do with the run, at the chosen epoch."""
        run = self.chosen
        return () if run is None else self._explorer.answers.members(run, self.epoch.value)

    @property
    def attacked(self) -> Member | None:
        """The network that is attacked; None: there is none."""
        return next((each for each in self.members if each.name == self.who.value), None)

    def fill(self, by_method: dict[str, list[FoundRun]]) -> None:
        """Offer the runs of another dataset, and choose one: of PeerAiD, or else of another method with a peer."""
        self._by_method = by_method
        self.method.options = [*([NONE] if self._optional else []), *by_method]
        with_peer = [label for label, runs in by_method.items() if "peer" in runs[0].epochs]
        first = next((label for label in ("PeerAiD", *with_peer) if label in by_method), next(iter(by_method)))
        self.method.value = NONE if self._optional else first
        self._fill_runs()

    def choose(self, run: FoundRun) -> None:
        """Choose a run of those that are offered."""
        self.method.value = run.spec.label
        self._fill_runs()
        self.run.value = run.id
        self._fill_epochs()

    def _fill_runs(self) -> None:
        runs = self._by_method.get(self.method.value, [])
        self._runs = {run.id: run for run in runs}
        self.run.options = [(run.name, run.id) for run in runs]
        self.run.value = runs[0].id if runs else None
        self._chosen.layout.display = None if runs else "none"
        self._fill_epochs()

    def _fill_epochs(self) -> None:
        run = self.chosen
        if run is not None:
            epochs, before = run.every_epoch, self.epoch.value
            stays = before in epochs and before != self.epoch.options[-1]
            self.epoch.options = epochs
            self.epoch.value = before if stays else epochs[-1]
        self._fill_who()

    def _fill_who(self) -> None:
        before = self.who.value
        names = [each.name for each in self.members if not each.problem]
        self.who.options = names
        self.who.value = before if before in names else next(iter(names), None)

    # what is shown

    def show(self) -> None:
        """Show the chosen image, the attack on it and the answers; or why that cannot be."""
        run, attacked, explorer = self.chosen, self.attacked, self._explorer
        self.seen, before = None, self.trajectory
        self.trajectory = None
        if run is None or attacked is None:
            self.shown.value = ""
            return
        problems = [run.note] if run.note else []
        problems += [f"{each.name}: {each.problem}" for each in self.members if each.problem]
        asked = [*(each for each in self.members if not each.problem), *self._others()]
        index, eps = explorer.index, explorer.eps.value
        try:
            self.seen = explorer.answers.see(run, attacked, asked, index, eps)
        except UNUSABLE as error:
            self.shown.value = "".join(map(drawing.problem, [f"{run.name}: {error}", *problems]))
            return
        problems += [f"{name}: {problem}" for name, problem in self.seen.problems.items()]
        self.shown.value = self._drawn(self.seen, run) + "".join(map(drawing.problem, problems))
        wanted = (run.id, attacked.name, index, eps)
        if before is None or self._drawn_for != wanted:
            before = Trajectory(explorer.answers, run, attacked.name, index, eps)
        self.trajectory, self._drawn_for = before, wanted

    def _others(self) -> list[Member]:
        """Return the network that is attacked in the other column, under a name of its own."""
        (other,) = (each for each in self._explorer.columns if each is not self)
        run, attacked = other.chosen, other.attacked
        if run is None or attacked is None:
            return []
        name = f"beside: {attacked.name} of {run.spec.label}, epoch {other.epoch.value}"
        return [Member(name, attacked.kind, attacked.snapshot)]

    def _drawn(self, seen: Seen, run: FoundRun) -> str:
        step, quantity = self._explorer.step.value, self._explorer.quantity
        drawn = drawing.pictures(seen, step)
        if seen.logits:
            classes = self._explorer.answers.classes(run)
            drawn += drawing.verdicts(seen, classes, step) + drawing.all_bars(seen, classes, step)
            lines, ends = drawing.step_lines(seen, quantity.value), (0, len(seen.iterates) - 1)
            title = f"{quantity.label} over the steps of the attack"
            drawn += drawing.curves(title, lines, step, ends, share=quantity.value == "probability")
        return drawn

    def draw_trajectory(self) -> None:
        """Draw what is known by now of the curve over the epochs."""
        trajectory, quantity, name = self.trajectory, self._explorer.quantity, self.who.value
        if trajectory is None:
            self.curves.value = ""
            return
        if not trajectory.epochs:
            self.curves.value = f"<p>The {escape(name)} is fixed: it is the same at all epochs.</p>"
            return
        trajectory.recall()
        epochs, natural, attacked = trajectory.curves(quantity.value)
        kind = drawing.colour("peer" if name == "peer" else "student")
        lines = [
            drawing.Line(f"{name}, to x", kind, epochs, natural, drawing.DASHES[1]),
            drawing.Line(f"{name}, to x* against the {name} of that epoch", kind, epochs, attacked),
        ]
        left = len(trajectory.missing)
        title = f"{quantity.label} over the epochs" + (f" ({left} epochs to come)" if left else "")
        ends = trajectory.epochs[0], trajectory.epochs[-1]
        drawn = drawing.curves(title, lines, self.epoch.value, ends, share=quantity.value == "probability")
        for epoch, text in list(trajectory.problems.items())[:1]:
            more = f" (and {len(trajectory.problems) - 1} more)" if len(trajectory.problems) > 1 else ""
            drawn += drawing.problem(f"Epoch {epoch}{more}: {text}")
        self.curves.value = drawn
