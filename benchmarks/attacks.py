"""Time the attack engine against torchattacks, foolbox and ART: same model, images and threads, in turn.

    python benchmarks/attacks.py --models models/resnet34/clean models/resnet34/adv --threads 2

Two questions, each for every model ("fast" adds the suite's precision: bf16 and give_up: true):
  curve  robust accuracy at eight radii under PGD-20;
  worst  the worst case at one radius of FGSM, BIM-20, PGD-20, PGD-20 on the margin loss, and Square-200.
The images are cut into parts and every program attacks a part before the next part begins, so that what else the
machine does falls on all alike. Printed are seconds by the clock and of the processor, images a second, how many
times less of the processor than torchattacks (MultiAttack where it runs), gradient evaluations and queries an
image, the share of the machine's own float32 matrix product that the arithmetic reaches (both by processor
seconds), and the robust accuracies.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from medrobust.attacks.attempts import worst_case
from medrobust.attacks.base import margin
from medrobust.attacks.engine import attack_suite
from medrobust.attacks.suite import resolve_suite
from medrobust.data.store import ImageStore, Subset
from medrobust.models.checkpoint import load
from medrobust.params.attacks import SuiteParams
from medrobust.params.schema import load_params
from medrobust.records import read_table

STEPS, QUERIES, BATCH = 20, 200, 64
#: PGD's step as a share of eps: that of the engine's `alpha: auto`.
SHARE = 2.5 / STEPS


class Counted(nn.Module):
    """A model that counts the images it sees, with and without a gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.gradients, self.queries = model, 0, 0

    def forward(self, images: Tensor) -> Tensor:
        """The model's logits."""
        if torch.is_grad_enabled() and images.requires_grad:
            self.gradients += len(images)
        else:
            self.queries += len(images)
        logits: Tensor = self.model(images)
        return logits


#: A program: model, images, labels as a subset, radii -> which images withstand at each radius, bool radii×n.
Program = Callable[[Counted, Subset, list[float]], np.ndarray]


@dataclass
class Tally:
    """What a program did over all parts."""

    seconds: float = 0.0
    busy: float = 0.0
    gradients: int = 0
    queries: int = 0
    robust: list[np.ndarray] = field(default_factory=list)


def batches(subset: Subset) -> list[tuple[Tensor, Tensor]]:
    """Images and labels, `BATCH` at a time."""
    rows = [range(start, min(start + BATCH, len(subset))) for start in range(0, len(subset), BATCH)]
    return [(subset.batch(part), subset.targets(part)) for part in rows]


def right(model: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    """Which images the model knows, bool n."""
    with torch.no_grad():
        known: np.ndarray = (model(images).argmax(1) == labels).numpy()
    return known


def engine(attacks: list[dict[str, Any]], **settings: Any) -> Program:
    """This project's engine, with settings of the suite."""

    def run(model: Counted, subset: Subset, radii: list[float]) -> np.ndarray:
        suite = resolve_suite("benchmark", SuiteParams(norm="Linf", eps=radii, attacks=attacks, **settings))
        attempts = attack_suite(model, subset, suite, seed=0, batch_size=BATCH)
        # The records count every evaluation; `model` cannot count those of its twin.
        model.gradients, model.queries = int(attempts["gradients"].sum()), int(attempts["queries"].sum())
        return ~worst_case(attempts, radii)["fooled"].to_numpy().reshape(len(radii), len(subset))

    return run


def torchattacks_all(build: Callable[[nn.Module, float], list[Any]]) -> Program:
    """Each attack of torchattacks on all images; an image counts where it withstands all of them."""

    def run(model: Counted, subset: Subset, radii: list[float]) -> np.ndarray:
        robust = np.ones((len(radii), len(subset)), dtype=bool)
        for number, eps in enumerate(radii):
            for attack in build(model, eps):
                found = [right(model, attack(images, labels), labels) for images, labels in batches(subset)]
                robust[number] &= np.concatenate(found)
        return robust

    return run


def torchattacks_multi(build: Callable[[nn.Module, float], list[Any]]) -> Program:
    """MultiAttack of torchattacks, which drops images that are fooled."""

    def run(model: Counted, subset: Subset, radii: list[float]) -> np.ndarray:
        import torchattacks

        robust = []
        for eps in radii:
            attack = torchattacks.MultiAttack(build(model, eps))
            robust.append([right(model, attack(images, labels), labels) for images, labels in batches(subset)])
        return np.stack([np.concatenate(parts) for parts in robust])

    return run


def pgd_of_torchattacks(model: nn.Module, eps: float) -> list[Any]:
    """PGD-20."""
    import torchattacks

    return [torchattacks.PGD(model, eps=eps, alpha=SHARE * eps, steps=STEPS)]


def five_of_torchattacks(model: nn.Module, eps: float) -> list[Any]:
    """FGSM, BIM-20, PGD-20, PGD-20 on the margin loss (its own loop with another loss), Square-200."""
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
    """PGD-20 of foolbox at every radius."""
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(rel_stepsize=SHARE, steps=STEPS, random_start=True)
    found = [attack(wrapped, images, labels, epsilons=radii)[2] for images, labels in batches(subset)]
    return ~torch.cat(found, dim=1).numpy()


def art_pgd(model: Counted, subset: Subset, radii: list[float]) -> np.ndarray:
    """PGD-20 of ART at every radius."""
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
        found = torch.from_numpy(attack.generate(images.numpy(), y=F.one_hot(labels).numpy()))
        robust.append(np.concatenate([
            right(model, found[start : start + BATCH], labels[start : start + BATCH])
            for start in range(0, len(labels), BATCH)
        ]))  # fmt: skip
    return np.stack(robust)


def programs(task: str) -> dict[str, Program]:
    """Who competes; a library that is not installed is named and left out."""
    pgd: dict[str, Any] = {"name": "pgd", "steps": STEPS}
    if task == "worst":
        attacks = [
            {"name": "fgsm"}, {**pgd, "random_start": False}, pgd, {**pgd, "loss": "margin"},
            {"name": "square", "queries": QUERIES},
        ]  # fmt: skip
        return {
            "medrobust": engine(attacks),
            "medrobust fast": engine(attacks, precision="bf16", give_up=True),
            "torchattacks MultiAttack": torchattacks_multi(five_of_torchattacks),
            "torchattacks": torchattacks_all(five_of_torchattacks),
        }
    found = {"medrobust": engine([pgd]), "medrobust fast": engine([pgd], precision="bf16", give_up=True)}
    found |= {"torchattacks": torchattacks_all(pgd_of_torchattacks)}
    for name, module, program in (("foolbox", "foolbox", foolbox_pgd), ("ART", "art", art_pgd)):
        if find_spec(module):
            found[name] = program
        else:
            print(f"{name} is not installed and left out (pip install medrobust[bench])")
    return found


def compete(
    model: nn.Module, parts: list[Subset], radii: list[float], who: dict[str, Program]
) -> dict[str, Tally]:
    """Every program on every part, in turn; the order changes from part to part."""
    tallies = {name: Tally() for name in who}
    for number, part in enumerate(parts):
        for name in list(who) if number % 2 == 0 else list(who)[::-1]:
            counted, tally = Counted(model).eval(), tallies[name]
            torch.manual_seed(number)
            begin, busy = time.perf_counter(), time.process_time()
            tally.robust.append(who[name](counted, part, radii))
            tally.seconds += time.perf_counter() - begin
            tally.busy += time.process_time() - busy
            tally.gradients += counted.gradients
            tally.queries += counted.queries
    return tallies


def flops(model: nn.Module, images: Tensor) -> tuple[float, float]:
    """Floating-point operations of a query and of a gradient evaluation of one image."""
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(images)
    images = images.clone().requires_grad_(True)
    with FlopCounterMode(display=False) as both:
        model(images).sum().backward()  # the parameters need no gradient
    return forward.get_total_flops() / len(images), both.get_total_flops() / len(images)


def peak(side: int = 2048, repeats: int = 8) -> float:
    """Floating-point operations a processor second of a float32 matrix product: the best of some repeats."""
    matrix, best = torch.randn(side, side), 0.0
    for _ in range(repeats):
        begin = time.process_time()
        matrix @ matrix
        best = max(best, 2 * side**3 / (time.process_time() - begin))
    return best


def show(title: str, tallies: dict[str, Tally], images: int, cost: tuple[float, float], top: float) -> None:
    """Print one comparison."""
    heads = ("seconds", "CPU s", "images/s", "times", "grad/img", "query/img", "peak")
    print(f"\n{title}\n{'':26}" + "".join(f"{head:>10}" for head in heads))
    rival = next((tallies[name] for name in ("torchattacks MultiAttack", "torchattacks") if name in tallies), None)
    for name, tally in tallies.items():
        work = tally.queries * cost[0] + tally.gradients * cost[1]
        numbers = (
            f"{tally.seconds:.1f}", f"{tally.busy:.1f}", f"{images / tally.seconds:.2f}",
            f"{rival.busy / tally.busy:.2f}" if rival else "", f"{tally.gradients / images:.1f}",
            f"{tally.queries / images:.1f}", f"{work / tally.busy / top:.0%}",
        )  # fmt: skip
        print(f"{name:26}" + "".join(f"{number:>10}" for number in numbers))
    for name, tally in tallies.items():
        counts = np.concatenate(tally.robust, axis=1).sum(1)
        print(f"{name:26}withstand of {images}: {' '.join(map(str, counts))}")


def read_images(prepared: Path, split: Path, count: int) -> Subset:
    """The first test images, then validation images, up to `count`."""
    store, table = ImageStore.open(prepared), read_table(split, keep_default_na=False)
    subsets = [store.subset(table, name) for name in ("test", "val")]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(subset, name) for subset in subsets])[:count]

    return Subset(
        store.images,
        joined("rows"),
        joined("labels"),
        joined("ids"),
        joined("patients"),
        subsets[0].classes,
    )


def main() -> None:
    """Read models and images, let the programs compete, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", type=Path, default=[Path("models/resnet34", r) for r in ("clean", "adv")]
    )
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--split", type=Path, default=Path("data/split.csv"))
    parser.add_argument("--images", type=int, default=256, help="at most so many")
    parser.add_argument("--parts", type=int, default=2, help="into which the images are cut")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--largest", type=float, help="radius of the curve; default 2 adv.eps; `worst` takes the half"
    )
    parser.add_argument("--tasks", nargs="+", default=["curve", "worst"], choices=["curve", "worst"])
    parser.add_argument("--without", nargs="*", default=[], help="programs to leave out")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    largest = args.largest or 2 * load_params().adv.eps
    subset, results = read_images(args.prepared, args.split, args.images), {}
    cuts = np.array_split(np.arange(len(subset)), args.parts)
    parts = [
        Subset(
            subset.store_images,
            subset.rows[c],
            subset.labels[c],
            subset.ids[c],
            subset.patients[c],
            subset.classes,
        )
        for c in cuts
    ]
    top = peak()
    print(f"{len(subset)} images in {args.parts} parts, {args.threads} threads")
    print(f"float32 matrix product: {top / 1e9:.0f} GFLOP a processor second")
    for path in args.models:
        model = load(path).requires_grad_(False)
        cost = flops(model, subset.batch(range(2)))
        for task in args.tasks:
            radii = [largest * k / 8 for k in range(1, 9)] if task == "curve" else [largest / 2]
            who = {name: program for name, program in programs(task).items() if name not in args.without}
            tallies = compete(model, parts, radii, who)
            show(f"{path}: {task}", tallies, len(subset), cost, top)
            results[f"{path}/{task}"] = {
                name: {"seconds": tally.seconds, "cpu_seconds": tally.busy, "gradients": tally.gradients,
                       "queries": tally.queries, "robust": np.concatenate(tally.robust, axis=1).sum(1).tolist()}
                for name, tally in tallies.items()
            }  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
