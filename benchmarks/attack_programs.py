"""The programs that `benchmarks/attacks.py` compares: this engine, torchattacks, foolbox and ART."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.base import margin
from medrobust.attacks.engine.attempts import worst_case
from medrobust.attacks.engine.evaluate import attack_suite
from medrobust.attacks.engine.suite import resolve_suite
from medrobust.core.params.attacks import SuiteParams
from medrobust.data.store import Subset

STEPS, QUERIES, BATCH = 20, 200, 64
#: PGD's step as a share of eps: that of the engine's `alpha: null`.
SHARE = 2.5 / STEPS
#: The program that the column `times` compares with: the first of these that runs.
RIVALS = ("torchattacks MultiAttack", "torchattacks")


class Counted(nn.Module):
    """A model that counts the images of its forward passes: `gradients` with a gradient, `queries` without."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.gradients, self.queries = model, 0, 0
        self.attempts: pd.DataFrame | None = None  # the engine's records

    def forward(self, images: Tensor) -> Tensor:
        """The model's logits."""
        if torch.is_grad_enabled() and images.requires_grad:
            self.gradients += len(images)
        else:
            self.queries += len(images)
        logits: Tensor = self.model(images)
        return logits


#: A program: model, n labelled images, radii in [0, 1] pixel units -> which images withstand, bool radii×n.
Program = Callable[[Counted, Subset, list[float]], np.ndarray]


def batches(subset: Subset) -> list[tuple[Tensor, Tensor]]:
    """Images, float32 n×C×H×W in [0, 1], and labels, n, in batches of at most `BATCH`."""
    rows = [range(start, min(start + BATCH, len(subset))) for start in range(0, len(subset), BATCH)]
    return [(subset.batch(part), subset.targets(part)) for part in rows]


def right(model: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    """Which images the model classifies correctly, bool n."""
    with torch.no_grad():
        known: np.ndarray = (model(images).argmax(1) == labels).numpy()
    return known


def engine(attacks: list[dict[str, Any]], **settings: Any) -> Program:
    """This project's engine with a list of attacks; `settings` are further keys of a suite, such as `give_up`."""

    def run(model: Counted, subset: Subset, radii: list[float]) -> np.ndarray:
        suite = resolve_suite("benchmark", SuiteParams(norm="Linf", eps=radii, attacks=attacks, **settings))
        attempts = attack_suite(model, subset, suite, seed=0, batch_size=BATCH)
        model.attempts = attempts
        return ~worst_case(attempts, radii)["fooled"].to_numpy().reshape(len(radii), len(subset))

    return run


def torchattacks_all(build: Callable[[nn.Module, float], list[Any]]) -> Program:
    """Every attack of `build(model, eps)` on all images; an image withstands if it withstands all attacks."""

    def run(model: Counted, subset: Subset, radii: list[float]) -> np.ndarray:
        robust = np.ones((len(radii), len(subset)), dtype=bool)
        for number, eps in enumerate(radii):
            for attack in build(model, eps):
                found = [right(model, attack(images, labels), labels) for images, labels in batches(subset)]
                robust[number] &= np.concatenate(found)
        return robust

    return run


def torchattacks_multi(build: Callable[[nn.Module, float], list[Any]]) -> Program:
    """MultiAttack of torchattacks over `build(model, eps)`; it drops images once they are fooled."""

    def run(model: Counted, subset: Subset, radii: list[float]) -> np.ndarray:
        import torchattacks

        robust = []
        for eps in radii:
            attack = torchattacks.MultiAttack(build(model, eps))
            robust.append([right(model, attack(images, labels), labels) for images, labels in batches(subset)])
        return np.stack([np.concatenate(parts) for parts in robust])

    return run


def pgd_of_torchattacks(model: nn.Module, eps: float) -> list[Any]:
    """PGD with 20 steps, as a list of one attack of torchattacks."""
    import torchattacks

    return [torchattacks.PGD(model, eps=eps, alpha=SHARE * eps, steps=STEPS)]


def five_of_torchattacks(model: nn.Module, eps: float) -> list[Any]:
    """FGSM, BIM-20, PGD-20, PGD-20 on the margin loss (torchattacks' own loop with that loss), Square-200."""
    import torchattacks

    class MarginPGD(torchattacks.PGD):  # type: ignore[misc]
        def forward(self, images: Tensor, labels: Tensor) -> Tensor:
            images, labels = images.clone().detach(), labels.clone().detach()
            adv = (images + torch.empty_like(images).uniform_(-self.eps, self.eps)).clamp(0, 1).detach()
            for _ in range(self.steps):
                adv.requires_grad = True
                cost = margin(self.get_logits(adv), labels).sum()
                gradient = torch.autograd.grad(cost, adv)[0]
                adv = adv.detach() + self.alpha * gradient.sign()
                adv = (images + (adv - images).clamp(-self.eps, self.eps)).clamp(0, 1).detach()
            return adv

    options = {"eps": eps, "alpha": SHARE * eps, "steps": STEPS}
    return [
        torchattacks.FGSM(model, eps=eps), torchattacks.BIM(model, **options), torchattacks.PGD(model, **options),
        MarginPGD(model, **options), torchattacks.Square(model, eps=eps, n_queries=QUERIES),
    ]  # fmt: skip


def foolbox_pgd(model: Counted, subset: Subset, radii: list[float]) -> np.ndarray:
    """PGD of foolbox with 20 steps at every radius; arguments and result as in `Program`."""
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(rel_stepsize=SHARE, steps=STEPS, random_start=True)
    found = [attack(wrapped, images, labels, epsilons=radii)[2] for images, labels in batches(subset)]
    return ~torch.cat(found, dim=1).numpy()


def art_pgd(model: Counted, subset: Subset, radii: list[float]) -> np.ndarray:
    """PGD of ART with 20 steps at every radius; arguments and result as in `Program`."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    images, labels = subset.batch(range(len(subset))), subset.targets(range(len(subset)))
    estimator = PyTorchClassifier(
        model=model, loss=nn.CrossEntropyLoss(), input_shape=tuple(images.shape[1:]), clip_values=(0, 1),
        nb_classes=len(subset.classes), device_type="cpu",
    )  # fmt: skip
    robust = []
    for eps in radii:
        attack = ProjectedGradientDescentPyTorch(
            estimator, eps=eps, eps_step=SHARE * eps, max_iter=STEPS, num_random_init=1, batch_size=BATCH,
            verbose=False,
        )  # fmt: skip
        found = torch.from_numpy(attack.generate(images.numpy(), y=F.one_hot(labels, len(subset.classes)).numpy()))
        robust.append(np.concatenate([
            right(model, found[start : start + BATCH], labels[start : start + BATCH])
            for start in range(0, len(labels), BATCH)
        ]))  # fmt: skip
    return np.stack(robust)


def programs(task: str) -> dict[str, Program]:
    """Name -> program for a task, `curve` or `worst`; prints which libraries are not installed and left out."""
    pgd: dict[str, Any] = {"name": "pgd", "steps": STEPS}
    if task == "worst":
        attacks = [
            {"name": "fgsm"}, {**pgd, "random_start": False}, pgd, {**pgd, "loss": "margin"},
            {"name": "square", "queries": QUERIES},
        ]  # fmt: skip
        return {
            "medrobust": engine(attacks),
            "medrobust fast": engine(attacks, give_up=True),
            "torchattacks MultiAttack": torchattacks_multi(five_of_torchattacks),
            "torchattacks": torchattacks_all(five_of_torchattacks),
        }
    found = {"medrobust": engine([pgd]), "medrobust fast": engine([pgd], give_up=True)}
    found |= {"torchattacks": torchattacks_all(pgd_of_torchattacks)}
    for name, module, program in (("foolbox", "foolbox", foolbox_pgd), ("ART", "art", art_pgd)):
        if find_spec(module):
            found[name] = program
        else:
            print(f"{name} is not installed and left out (pip install medrobust[bench])")
    return found
