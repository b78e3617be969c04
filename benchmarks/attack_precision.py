"""What `adv.attack_precision: train` costs in strength: training attacks in bfloat16 beside those in float32.

    python benchmarks/attack_precision.py resnet34          # data, settings and clean model of the last run
    python benchmarks/attack_precision.py resnet34 --steps 7 --seeds 3

Two questions, with all else equal (training in bfloat16, the same clean model, batches, seeds and starts):
  gain       the mean cross-entropy of the validation images under the training attack with gradients in either
             format, judged in float32; on the clean model, and on the one trained against float32 attacks
  robustness balanced accuracy of the test images, clean and under PGD-10 in float32, of the models that either
             way trains, for each seed
"""

import argparse
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from medrobust.core.params.schema import load_params, override
from medrobust.core.params.training import AdvParams, TrainParams
from medrobust.core.runtime import device
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from medrobust.models import checkpoint
from medrobust.models.build import set_trainable
from medrobust.models.classifier import Classifier
from medrobust.models.predict import BATCH, batches
from medrobust.training.loop import Job, fit, validate
from medrobust.training.objectives.base import Step
from medrobust.training.objectives.inner import attack_with_pgd, validation_attack
from medrobust.training.optim import autocast
from medrobust.training.run import Images
from medrobust.training.settings import Settings, read_settings, tuned

Way = Literal["fp32", "train"]
WAYS: tuple[Way, ...] = ("fp32", "train")
JUDGING_STEPS = 10


def by(adv: AdvParams, way: Way) -> AdvParams:
    """The attack with its gradients in that format."""
    return adv.model_copy(update={"attack_precision": way})


def losses(model: Classifier, subset: Subset, train: TrainParams, adv: AdvParams | None, seed: int) -> np.ndarray:
    """Cross-entropy of each image, n, in float32, under the training attack if one is given."""
    model.eval()
    found = []
    for rows in batches(len(subset), BATCH):
        images, labels = subset.batch(rows).to(device()), subset.targets(rows).to(device())
        if adv is not None:
            step = Step(model, images, labels, image_seeds(subset.ids[rows], seed).to(device()), train, adv)
            with autocast(train, device()):
                images = attack_with_pgd(step)
        with torch.no_grad():
            found.append(F.cross_entropy(model(images), labels, reduction="none").cpu().numpy())
    return np.concatenate(found)


def print_gain(where: str, model: Classifier, subset: Subset, train: TrainParams, adv: AdvParams) -> None:
    """The mean loss without an attack and under each way of it."""
    clean, single, half = (
        losses(model, subset, train, chosen, 0) for chosen in (None, *(by(adv, w) for w in WAYS))
    )
    gained = (half.mean() - clean.mean()) / (single.mean() - clean.mean())
    print(
        f"gain on the {where} model: loss {clean.mean():.4f}, {single.mean():.4f} under float32 gradients and "
        f"{half.mean():.4f} under bfloat16 ones: {gained:.2%} of the gain",
        flush=True,
    )


def trained(settings: Settings, images: Images, train: TrainParams, adv: AdvParams, seed: int) -> Classifier:
    """The clean model of the last run after adversarial training; its best epoch."""
    model = checkpoint.load(Path("models") / settings.backbone / "clean", device())
    set_trainable(model, settings.model.trainable)
    entry = settings.adv_objective or settings.objective
    parts = images.subsets
    fit(Job(model, parts["train"], parts["val"], train, load_params().augment, entry, seed, adv=adv))
    return model


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone")
    parser.add_argument("--steps", type=int, default=7, help="of the training attack")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    settings = read_settings(Path("data/settings") / args.backbone / "adv_train.json")
    assert settings.adv is not None, "the stage `settings` writes it"
    adv = override(settings.adv, {"steps": args.steps}, "adv")
    best = tuned(settings.train, Path("data/tune") / args.backbone / "best.json")
    changes = {"precision": "bf16", "epochs": args.epochs, "lr": best.lr * adv.lr_scale}
    train = override(best, changes, "train")
    images = Images.open(Path("data/prepared"), Path("data/split.csv"))
    start = checkpoint.load(Path("models") / args.backbone / "clean", device())
    print_gain("clean", start, images.subsets["val"], train, adv)
    judge = validation_attack(adv.model_copy(update={"val_steps": JUDGING_STEPS}), single_step=False)
    for seed in range(args.seeds):
        for way in WAYS:
            model = trained(settings, images, train, by(adv, way), seed)
            if way == "fp32" and seed == 0:
                print_gain("trained", model, images.subsets["val"], train, adv)
            clean, robust = (validate(model, images.subsets["test"], attack, 0) for attack in (None, judge))
            print(
                f"seed {seed}, attack_precision {way}: test {clean:.3f}, under PGD-{JUDGING_STEPS} {robust:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
