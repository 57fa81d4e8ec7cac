"""Drawing exhibits, and saving each as picture, numbers and provenance."""

from rkdkit.figures.costs import model_costs
from rkdkit.figures.curves import entropy_curves, peer_tutoring, robust_accuracy_curves, trajectories_by_difficulty
from rkdkit.figures.look import COLOURS, METRICS, new_figure, style
from rkdkit.figures.overview import method_overview
from rkdkit.figures.pictures import easiest_and_hardest, embeddings, loss_landscapes, semantic_gradients
from rkdkit.figures.regions import decision_regions
from rkdkit.figures.saving import at_quick, save
from rkdkit.figures.tables import (
    accuracy_by_method,
    differences,
    guides_compared,
    in_per_cent,
    readings_compared,
    readings_in_points,
)
from rkdkit.figures.times import differences_and_times
from rkdkit.figures.trade_offs import both_in_per_cent, early_stopping_and_mixing, ensembles_mixed, teachers_compared

__all__ = [
    "COLOURS",
    "METRICS",
    "accuracy_by_method",
    "at_quick",
    "both_in_per_cent",
    "decision_regions",
    "differences",
    "differences_and_times",
    "early_stopping_and_mixing",
    "easiest_and_hardest",
    "embeddings",
    "ensembles_mixed",
    "entropy_curves",
    "guides_compared",
    "in_per_cent",
    "loss_landscapes",
    "method_overview",
    "model_costs",
    "new_figure",
    "peer_tutoring",
    "readings_compared",
    "readings_in_points",
    "robust_accuracy_curves",
    "save",
    "semantic_gradients",
    "style",
    "teachers_compared",
    "trajectories_by_difficulty",
]
