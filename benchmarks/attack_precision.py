"""How much weaker `adv.attack_precision: train` makes training attacks: bfloat16 against float32.

    python benchmarks/attack_precision.py resnet34          # data, settings and clean model of the last run
    python benchmarks/attack_precision.py resnet34 --steps 7 --seeds 3

Two measurements, with all else equal (training in bfloat16, the same clean model, batches, seeds and starts):
  gain       mean cross-entropy, in float32, of the validation images under the training attack with gradients in
             either format; for the clean model, and for the model trained against float32 attacks
  robustness balanced accuracy on the test images, clean and under PGD-10 in float32, per seed and attack
             precision of training
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
from medrobust.training.run import PreparedImages
from medrobust.training.settings import TrainingSettings, read_settings, with_tuned_values

AttackPrecision = Literal["fp32", "train"]
PRECISIONS: tuple[AttackPrecision, ...] = ("fp32", "train")
EVALUATION_STEPS = 10


def with_precision(adv: AdvParams, precision: AttackPrecision) -> AdvParams:
    """The `adv` block with this attack precision."""
    return adv.model_copy(update={"attack_precision": precision})


def losses(model: Classifier, subset: Subset, train: TrainParams, adv: AdvParams | None, seed: int) -> np.ndarray:
    """Cross-entropy per image, n, in float32, under the training attack if one is given."""
    model.eval()
    losses_of_batches = []
    for rows in batches(len(subset), BATCH):
        images, labels = subset.batch(rows).to(device()), subset.targets(rows).to(device())
        if adv is not None:
            step = Step(model, images, labels, image_seeds(subset.ids[rows], seed).to(device()), train, adv)
            with autocast(train, device()):
                images = attack_with_pgd(step)
        with torch.no_grad():
            losses_of_batches.append(F.cross_entropy(model(images), labels, reduction="none").cpu().numpy())
    return np.concatenate(losses_of_batches)


def print_gain(where: str, model: Classifier, subset: Subset, train: TrainParams, adv: AdvParams) -> None:
    """Print the mean loss without an attack and under the attack in each precision."""
    blocks = (None, *(with_precision(adv, precision) for precision in PRECISIONS))
    clean, fp32, bf16 = (losses(model, subset, train, block, 0) for block in blocks)
    share = (bf16.mean() - clean.mean()) / (fp32.mean() - clean.mean())
    print(
        f"gain on the {where} model: loss {clean.mean():.4f}, {fp32.mean():.4f} under float32 gradients and "
        f"{bf16.mean():.4f} under bfloat16 ones: {share:.2%} of the gain",
        flush=True,
    )


def adversarially_trained(
    settings: TrainingSettings, images: PreparedImages, train: TrainParams, adv: AdvParams, seed: int
) -> Classifier:
    """The clean model of the last run after adversarial training, with the weights of the best epoch."""
    model = checkpoint.load(Path("data/checkpoints") / settings.backbone / "clean", device())
    set_trainable(model, settings.model.trainable)
    entry = settings.adv_objective or settings.objective
    parts = images.subsets
    fit(Job(model, parts["train"], parts["val"], train, load_params().augment, entry, seed, adv=adv))
    return model


def main() -> None:
    """Run both measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone")
    parser.add_argument("--steps", type=int, default=7, help="steps of the training attack")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    settings = read_settings(Path("data/resolved/settings") / args.backbone / "adv_train.json")
    assert settings.adv is not None, "the stage `settings` writes it"
    adv = override(settings.adv, {"steps": args.steps}, "adv")
    best = with_tuned_values(settings.train, Path("data/tune") / args.backbone / "best.json")
    changes = {"precision": "bf16", "epochs": args.epochs, "lr": best.lr * adv.lr_scale}
    train = override(best, changes, "train")
    images = PreparedImages.open(Path("data/prepared"), Path("data/split.csv"))
    start = checkpoint.load(Path("data/checkpoints") / args.backbone / "clean", device())
    print_gain("clean", start, images.subsets["val"], train, adv)
    evaluation = validation_attack(adv.model_copy(update={"val_steps": EVALUATION_STEPS}), single_step=False)
    for seed in range(args.seeds):
        for precision in PRECISIONS:
            model = adversarially_trained(settings, images, train, with_precision(adv, precision), seed)
            if precision == "fp32" and seed == 0:
                print_gain("trained", model, images.subsets["val"], train, adv)
            test = images.subsets["test"]
            clean, robust = (validate(model, test, attack, 0) for attack in (None, evaluation))
            print(
                f"seed {seed}, attack_precision {precision}: test {clean:.3f}, "
                f"under PGD-{EVALUATION_STEPS} {robust:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
