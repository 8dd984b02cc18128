"""Confidence: how far it can be trusted, and calibrators that mend it, on logits as arrays; no torch."""

from .fit import calibrate
from .groups import frequency_groups
from .metrics import (
    Bin,
    Interval,
    accuracy,
    brier,
    class_loss_spread,
    class_losses,
    classwise_ece,
    ece,
    measure,
    nll,
    reliability,
)
from .objective import class_weights
from .scaling import Calibrator, ClassTemperature, Ensemble, Parametric, Temperature
from .split import GapSplit, split_gap

__all__ = [
    "Bin",
    "Calibrator",
    "ClassTemperature",
    "Ensemble",
    "GapSplit",
    "Interval",
    "Parametric",
    "Temperature",
    "accuracy",
    "brier",
    "calibrate",
    "class_loss_spread",
    "class_losses",
    "class_weights",
    "classwise_ece",
    "ece",
    "frequency_groups",
    "measure",
    "nll",
    "reliability",
    "split_gap",
]
