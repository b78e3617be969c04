"""How members may be combined. To add a method: its function in a file here, a line below, its name in params.

A method takes the validation sample and the block `ensemble`, makes its choices (a penalty) there, and returns a
function that fits a `Rule` to any sample: so the same choice can be fitted out of fold.
"""

from collections.abc import Callable
from importlib import import_module

from medrobust.core.params.ensemble import EnsembleParams
from medrobust.ensembling.sample import Sample
from medrobust.models.vote import Rule

Fit = Callable[[Sample], Rule]
Method = Callable[[Sample, EnsembleParams], Fit]

#: ensemble.method -> module:function, imported when it is asked for
METHODS = {
    "equal": "medrobust.ensembling.weighted:equal",
    "convex": "medrobust.ensembling.weighted:convex",
    "stacking": "medrobust.ensembling.linear:stacking",
    "blending": "medrobust.ensembling.linear:blending",
}


def method(name: str) -> Method:
    """The method of a name in `METHODS`."""
    module, _, function = METHODS[name].partition(":")
    found: Method = getattr(import_module(module), function)
    return found
