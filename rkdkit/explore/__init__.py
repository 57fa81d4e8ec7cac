"""Looking at single images: the networks of the store, how an attack changes an image, and what each network answers.

`found` says what the store has, `answers` attacks images and asks networks, `drawing` makes pictures of it, `view` is
the widgets of ``notebooks/explore.ipynb``. Only `view` needs ipywidgets. Nothing is trained, fetched or written.
"""

from typing import TYPE_CHECKING

from rkdkit.explore.answers import Answers, Member, Trajectory
from rkdkit.explore.found import Found, FoundRun, look_through

if TYPE_CHECKING:
    from rkdkit.explore.view import Explorer

__all__ = ["Answers", "Found", "FoundRun", "Member", "Trajectory", "explorer", "look_through"]


def explorer(
    found: Found, run: str | None = None, beside: str | None = None, *, n_images: int = 40, steps: int = 20
) -> "Explorer":
    """Return the widgets that show what was found; ``explorer(...).widget`` is what a notebook's cell ends with.

    Parameters
    ----------
    found : as :func:`look_through` returns it. If there is no run in it, the widget says what to do.
    run, beside : the run to begin with, and the one beside it: as `Found.named` takes them; None: a run of PeerAiD, or
        else one with a peer, and none beside it.
    n_images : the number of images in a page of the grid.
    steps : the number of steps of the attack, PGD.

    Raises
    ------
    UnknownNameError
        If there is no such run, or the two are of different datasets.
    ValueError
        If `n_images` is not between 1 and 200, or `steps` not between 1 and 200.
    """
    from rkdkit.explore.view import Explorer

    return Explorer(found, run, beside, n_images=n_images, steps=steps)
