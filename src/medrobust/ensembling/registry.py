"""Ensemble methods by name. To add one: write its function, and add a line below and its name in core/params.

A method is called with the members' predictions on validation images and the block `ensemble`. It selects its
hyper-parameters (the penalty of a regression) on them and returns a function that fits a `Combination` to any
predictions, so that the same hyper-parameters can be fitted out of fold.
"""

from collections.abc import Callable
from importlib import import_module

from medrobust.core.params.ensemble import EnsembleParams
from medrobust.ensembling.member_predictions import MemberPredictions
from medrobust.models.combination import Combination

Fit = Callable[[MemberPredictions], Combination]
Method = Callable[[MemberPredictions, EnsembleParams], Fit]

#: ensemble.method -> module:function, imported on first use
METHODS = {
    "equal": "medrobust.ensembling.weighted:equal",
    "convex": "medrobust.ensembling.weighted:convex",
    "stacking": "medrobust.ensembling.linear:stacking",
    "blending": "medrobust.ensembling.linear:blending",
}


def load_method(name: str) -> Method:
    """The function of a name in `METHODS`."""
    module, _, function = METHODS[name].partition(":")
    return getattr(import_module(module), function)
