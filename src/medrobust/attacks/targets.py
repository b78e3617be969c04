"""Target classes of attacks, and the losses that lead to them or away from the true class."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.base import margin
from medrobust.core.errors import UserError

Loss = Literal["ce", "margin", "dlr"]
#: Rules that choose a target class for each image. A class's index or name is accepted as well.
RULES = ("next_down", "next_up", "healthy", "least_likely", "most_costly")
COST_REMEDY = "Set costs: one row per true class, one column per prediction"

Target = int | str | None
Costs = Sequence[Sequence[float]] | None


def choose_targets(model: nn.Module, images: Tensor, labels: Tensor, target: int | str, costs: Costs) -> Tensor:
    """The target class of each image, n. An image whose target is its own label cannot be attacked.

    Args:
        target: a class (index, or a name in `model.classes`) or one of `RULES`: the grade below or above (the
            lowest grade has none below), `healthy` (class 0 of ordered classes), the least likely class of the
            clean image (Kurakin et al. 2017), or the prediction with the highest cost.
        costs: for `most_costly`, K×K; rows are true classes, columns are predictions.

    Raises:
        UserError: the class or rule does not exist, or the table of costs has another size.
    """
    with torch.no_grad():
        logits = model(images)
    classes = logits.shape[1]
    if target == "next_down":
        return (labels - 1).clamp_min(0)
    if target == "next_up":
        return (labels + 1).clamp_max(classes - 1)
    if target == "healthy":
        return torch.zeros_like(labels)
    if target == "least_likely":
        infinity = torch.full_like(logits[:, :1], torch.inf)
        return logits.scatter(1, labels[:, None], infinity).argmin(1)
    if target == "most_costly":
        table = torch.tensor(costs, dtype=torch.float64, device=labels.device)
        if table.shape != (classes, classes):
            found = f"{' x '.join(map(str, table.shape))} for {classes} classes"
            raise UserError("attack.costs", found, COST_REMEDY)
        table.fill_diagonal_(-torch.inf)
        return table[labels].argmax(1)
    return torch.full_like(labels, _class_index(model, target, classes))


def _class_index(model: nn.Module, target: int | str, classes: int) -> int:
    names = list(getattr(model, "classes", []))
    if target in names:
        return names.index(str(target))
    if isinstance(target, int) and 0 <= target < classes:
        return target
    known = ", ".join([*RULES, *names, f"0 to {classes - 1}"])
    raise UserError("attack.target", f"no class or rule {target!r}", f"Known: {known}")


def attack_loss(logits: Tensor, labels: Tensor, targets: Tensor | None, loss: Loss) -> Tensor:
    """The loss per image that an attack maximises, n.

    Args:
        logits, labels: n×K, n.
        targets: n, the classes to move towards; None = away from the labels.
        loss: `ce` is cross-entropy. `margin` is the target's logit minus the largest other one (Carlini & Wagner
            2017). `dlr` is the margin divided by the spread of the logits, so that it does not depend on their
            scale (Croce & Hein 2020, equations 6 and 7); with targets its numerator is the target's logit minus
            the label's. With too few classes for the divisor (2 without targets, 2 and 3 with targets), `dlr` is
            its numerator alone.
    """
    if loss == "ce":
        sign, wanted = (1, labels) if targets is None else (-1, targets)
        return sign * F.cross_entropy(logits, wanted, reduction="none")
    if loss == "margin":
        return margin(logits, labels) if targets is None else -margin(logits, targets)
    ranked, classes = logits.sort(dim=1, descending=True).values, logits.shape[1]
    if targets is None:
        top = margin(logits, labels)
        return top if classes == 2 else top / (ranked[:, 0] - ranked[:, 2] + 1e-12)
    top = (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)
    return top if classes < 4 else top / (ranked[:, 0] - 0.5 * (ranked[:, 2] + ranked[:, 3]) + 1e-12)
