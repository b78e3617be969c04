"""Recipes of adversarial training, each by changed params, compared on validation patients only.

`python -m benchmarks.recipes RECIPES.yaml` in a clone of the project whose params.yaml is committed. The file maps
the name of each recipe to its changes of params.yaml by dotted key, such as `{adv.objective: trades}`. Each recipe
trains in a clone of its own under tmp/repeats; an interrupted run continues where it was. The score of a
validation patient is the mean over the patient's images, which are attacked together, by PGD on both losses at
`--eps`. Writes one row per recipe to `--out`, and prints a Markdown table. Test patients are never read.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from medrobust.core.metrics import auroc, balanced_accuracy, confusion
from medrobust.core.params.schema import load_params
from medrobust.core.runtime import device, say
from medrobust.data.store import SplitStore, open_splits
from medrobust.models.aggregates import build_aggregate
from medrobust.models.checkpoint import load
from medrobust.models.patient import PatientModel
from medrobust.patients.attack import harmful_scores
from medrobust.patients.subsets import patient_groups
from tools.repeat import prepare_clone

Row = dict[str, Any]


def train(clone: Path, stage: str) -> float:
    """Seconds that `dvc repro` of one stage took in a clone.

    Raises:
        subprocess.CalledProcessError: the stage failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(clone / "src")}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "dvc", "repro", stage], cwd=clone, env=environment, check=True)
    return time.perf_counter() - start


def measure(checkpoint: Path, splits: SplitStore, name: str, eps: float, steps: int, seed: int) -> Row:
    """Balanced accuracy and AUROC of the patients of a split, clean and attacked; two classes."""
    network = load(checkpoint, device())
    channels = splits.store.header.channels
    model = PatientModel(network, build_aggregate("mean", 0, 0, len(network.classes)), channels).eval()
    attacks = [{"name": "pgd", "hyperparameters": {"steps": steps, "loss": loss}} for loss in ("ce", "margin")]
    groups = patient_groups(splits, name)
    labels = np.concatenate([group.labels for group in groups])
    row: Row = {}
    for text, suite in {
        "clean": {"norm": "Linf", "eps": [0.0], "attacks": []},
        "robust": {"norm": "Linf", "eps": [eps], "attacks": attacks},
    }.items():
        scores = np.concatenate([harmful_scores(model, group, suite, seed)[0] for group in groups])
        row[f"{name} {text} balanced accuracy"] = balanced_accuracy(confusion(labels, (scores > 0).astype(int), 2))
        row[f"{name} {text} auroc"] = auroc(labels, np.stack([-scores, scores], axis=1))
    return row


def main() -> None:
    """Train and measure every recipe that the table does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", type=Path, help="YAML: name -> {dotted key of params.yaml: value}")
    parser.add_argument("--backbone", default="lite0", help="name of the block under models")
    parser.add_argument("--regime", choices=("clean", "adv"), default="adv")
    parser.add_argument("--eps", type=float, default=0.0025, help="radius of the attack on patients")
    parser.add_argument("--steps", type=int, default=10, help="of each PGD")
    parser.add_argument("--splits", nargs="+", choices=("train", "val"), default=["val"])
    parser.add_argument("--out", type=Path, default=Path("tmp/recipes.csv"))
    args = parser.parse_args()
    recipes = yaml.safe_load(args.recipes.read_text(encoding="utf-8"))
    done = pd.read_csv(args.out) if args.out.exists() else pd.DataFrame({"recipe": []})
    stage = ("adv_train" if args.regime == "adv" else "train") + f"@{args.backbone}"
    for name, changes in recipes.items():
        if name in set(done["recipe"]):
            continue
        clone = prepare_clone(Path.cwd(), f"recipe-{name}", changes)
        seconds = train(clone, stage)
        splits = open_splits(clone / "data" / "prepared", clone / "data" / "split.csv")
        checkpoint = clone / "data" / "checkpoints" / args.backbone / args.regime
        row: Row = {"recipe": name, "seconds": round(seconds)}
        for split in args.splits:
            row |= measure(checkpoint, splits, split, args.eps, args.steps, load_params().seed)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        done = pd.concat([done, pd.DataFrame([row])])
        done.to_csv(args.out, index=False)
        say(str(row))
    print(done.round(3).to_markdown(index=False))


if __name__ == "__main__":
    main()
