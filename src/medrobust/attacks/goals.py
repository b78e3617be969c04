"""What an attack wants: any wrong answer, or one class that hurts; and the losses that lead there.

A targeted attack knows for each image the class that it must bring about. The rules below say which: a clinical
attacker does not want just any error (an insurer's fraud wants a worse grade, a missed case a better one).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.base import margin
from medrobust.core.errors import UserError

Loss = Literal["ce", "margin", "dlr"]
#: Rules that choose a target class for each image, beside a class's index or name.
RULES = ("next_down", "next_up", "healthy", "least_likely", "most_costly")
COST_REMEDY = "Give costs: one row a true class, one column an answer"

Target = int | str | None
Costs = Sequence[Sequence[float]] | None


def check_goal(target: Target, costs: Costs) -> None:
    """Refuse a most costly answer without costs, or with costs that are no square.

    Raises:
        UserError: one of them.
    """
    if target == "most_costly" and (costs is None or any(len(row) != len(costs) for row in costs)):
        found = "no costs" if costs is None else "rows of another length than their number"
        raise UserError("attack.costs", f"target most_costly with {found}", COST_REMEDY)


def choose_targets(model: nn.Module, images: Tensor, labels: Tensor, target: int | str, costs: Costs) -> Tensor:
    """The class to bring about, n; where it is the label itself, the image has no such target.

    Args:
        model: [0, 1] images to logits.
        images: n×C×H×W.
        labels: n.
        target: a class (index, or a name in `model.classes`) or one of `RULES`: the grade below or above (the
            lowest has none below), `healthy` (class 0 of ordered classes), the least likely class of the clean
            image (Kurakin et al. 2017), or the answer that costs most.
        costs: for `most_costly`, K×K: rows true classes, columns answers.

    Raises:
        UserError: a class or a rule that does not exist, or a cost matrix of another size.
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
        likeliest = torch.full_like(logits[:, :1], torch.inf)
        least: Tensor = logits.scatter(1, labels[:, None], likeliest).argmin(1)
        return least
    if target == "most_costly":
        table = torch.tensor(costs, dtype=torch.float64, device=labels.device)
        if table.shape != (classes, classes):
            found = f"{' x '.join(map(str, table.shape))} for {classes} classes"
            raise UserError("attack.costs", found, COST_REMEDY)
        table.fill_diagonal_(-torch.inf)
        dearest: Tensor = table[labels].argmax(1)
        return dearest
    return torch.full_like(labels, _class_index(model, target, classes))


def _class_index(model: nn.Module, target: int | str, classes: int) -> int:
    names = list(getattr(model, "classes", []))
    if target in names:
        return names.index(str(target))
    if isinstance(target, int) and 0 <= target < classes:
        return target
    known = ", ".join([*RULES, *names, f"0 to {classes - 1}"])
    raise UserError("attack.target", f"no class or rule {target!r}", f"Known: {known}")


def objective(logits: Tensor, labels: Tensor, aim: Tensor | None, loss: Loss) -> Tensor:
    """The loss of each image that an attack raises, n.

    Args:
        logits: n×K.
        labels: n, true classes.
        aim: n, the class to move towards, or None: away from the label.
        loss: `ce` cross-entropy; `margin` the wanted logit less the largest other one (Carlini & Wagner 2017);
            `dlr` the margin over the spread of the logits (Croce & Hein 2020, equations 6 and 7; targeted it is
            the aim's logit less the label's), blind to their scale. Where it has too few classes to be defined
            (untargeted 2, targeted 2 and 3) it is its numerator, the margin.
    """
    if loss == "ce":
        sign, wanted = (1, labels) if aim is None else (-1, aim)
        return sign * F.cross_entropy(logits, wanted, reduction="none")
    if loss == "margin":
        return margin(logits, labels) if aim is None else -margin(logits, aim)
    ranked, classes = logits.sort(dim=1, descending=True).values, logits.shape[1]
    if aim is None:
        top = margin(logits, labels)
        return top if classes == 2 else top / (ranked[:, 0] - ranked[:, 2] + 1e-12)
    top = (logits.gather(1, aim[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)
    return top if classes < 4 else top / (ranked[:, 0] - 0.5 * (ranked[:, 2] + ranked[:, 3]) + 1e-12)
