"""Compare the speed of adversarial training with a plain torchattacks loop, interleaved on the same machine.

    python benchmarks/training.py                          # the three backbones, about six minutes on two cores
    python benchmarks/training.py --models resnet34 64     # one timm name and image size
    python benchmarks/training.py --advise resnet34 64     # only print settings for models.<name>

The plain loop calls torchattacks' PGD-7 in float32 and torch's default memory format; half of each batch is
adversarial. Ours is the objective `mixed`, which computes the same, in the number and memory format that a short
measurement finds fastest. `precision: auto` does not measure: a number format chosen by speed would make
`dvc repro` give other results on another machine, or on the same one when it is busy. Instead the choice is
written down in params.yaml, and this command measures what to write. On a GPU the plain loop does what torch does
by default: its float32 convolutions round to TF32.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchattacks
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from medrobust.core.params.schema import load_params, override
from medrobust.core.params.training import ModelParams, TrainParams
from medrobust.core.runtime import device
from medrobust.data.store import Subset
from medrobust.models.build import build_classifier
from medrobust.models.classifier import Classifier
from medrobust.training.loop import Job, Trainer
from medrobust.training.objectives.registry import OBJECTIVES
from medrobust.training.state import TrainingState

#: timm name, image size, and target speed-up over the plain loop on two CPU cores.
BACKBONES = [("resnet34", 64, 1.6), ("vit_small_patch14_dinov2", 56, 1.2), ("efficientnet_b0", 64, 1.0)]
#: Target speed-up on a GPU.
TARGET_ON_GPU = 3.0
#: Clean images per step and rounds, by device; a GPU would idle with fewer images.
HALF, ROUNDS = {"cpu": 32, "cuda": 256}, {"cpu": 6, "cuda": 20}
#: Rows of the matrices whose product measures the peak, and products per measurement, by device.
PRODUCT = {"cpu": (3072, 1), "cuda": (8192, 8)}
CLASSES = ["a", "b", "c", "d"]
EPS, STEPS = 8 / 255, 7
DEFAULT = load_params(Path(__file__).parent.parent / "presets" / "default.yaml")


@dataclass(frozen=True)
class Format:
    """Settings of `train` that only affect how a step is computed."""

    precision: str = "fp32"
    channels_last: bool = False

    def __str__(self) -> str:
        """The keys and values for params.yaml."""
        return f"precision: {self.precision}, channels_last: {str(self.channels_last).lower()}"


def train_params(form: Format, batch: int) -> TrainParams:
    """A `train` block with this format."""
    changes = {"epochs": 1, "lr": 1e-4, "batch_size": batch, "class_weights": "none", **asdict(form)}
    return override(DEFAULT.train, changes, "train")


def classifier(name: str, size: int) -> Classifier:
    """A new classifier of the architecture, on the device."""
    torch.manual_seed(0)
    return build_classifier(ModelParams(timm=name, weights="none", image_size=size), CLASSES).to(device())


def subset(size: int, count: int) -> Subset:
    """Random grey images, on the GPU if there is one; speed does not depend on their content."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)
    ids = np.array([f"i{number}" for number in range(count)])
    return Subset(pixels, np.arange(count), np.arange(count) % 4, ids, ids, CLASSES).resident(device())


class OurLoop:
    """Steps of the project's training loop."""

    def __init__(self, name: str, size: int, objective: str, batch: int, form: Format) -> None:
        attack = "fp32" if form.precision == "fp32" else "train"
        changes = {"eps": EPS, "steps": STEPS, "epochs": 1, "lr_scale": 1, "attack_precision": attack}
        adv = override(DEFAULT.adv, changes, "adv")
        settings = train_params(form, batch)
        model, data = classifier(name, size), subset(size, max(512, batch))
        if not form.channels_last:
            model.to(memory_format=torch.contiguous_format)
        job = Job(model, data, data, settings, DEFAULT.augment, OBJECTIVES[objective], 0, adv=adv)
        self.trainer, self.batch_size = Trainer(job, TrainingState.initial(model, settings)), batch
        self.rows = np.arange(batch)
        model.train()

    def load(self) -> Any:
        """Load and augment a batch; a GPU may not have finished yet."""
        return self.trainer.make_step(0, self.rows, None)

    def loading(self) -> None:
        """Load and augment a batch, and wait for the device."""
        self.load()
        _wait()

    def step(self) -> None:
        """Load, augment, attack, update the weights."""
        self.trainer.update(self.load(), 0, 0)
        _wait()


class PlainLoop:
    """Steps of a plain loop with torchattacks."""

    def __init__(self, name: str, size: int, batch: int) -> None:
        self.model = classifier(name, size)
        self.model.to(memory_format=torch.contiguous_format)
        self.loader = OurLoop(name, size, "mixed", batch, Format())
        self.attack = torchattacks.PGD(
            self.model, eps=EPS, alpha=2.5 * EPS / STEPS, steps=STEPS, random_start=True
        )
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-4)

    def step(self) -> None:
        """The same computation: attack the batch, and pass clean and attacked images as one batch."""
        loaded = self.loader.load()
        images, labels = loaded.images, loaded.labels
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
            attacked = self.attack(images, labels)
            self.model.train()
            self.optimiser.zero_grad()
            clean, adv = self.model(torch.cat([images, attacked])).chunk(2)
            (0.5 * F.cross_entropy(clean, labels) + 0.5 * F.cross_entropy(adv, labels)).backward()
            self.optimiser.step()
        _wait()


class MatrixProduct:
    """Products of large matrices, which measure the hardware's peak in a number format."""

    def __init__(self, precision: str) -> None:
        side, self.count = PRODUCT[kind()]
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.left, self.right = (torch.rand(side, side, device=device()).to(dtype) for _ in range(2))
        self.out = torch.empty_like(self.left)
        self.flops = 2 * side**3 * self.count

    def step(self) -> None:
        """Compute the products, and wait for the device."""
        for _ in range(self.count):
            torch.mm(self.left, self.right, out=self.out)
        _wait()


def kind() -> str:
    """`cuda`, or `cpu` for every other device; none of these was measured."""
    return "cuda" if device().type == "cuda" else "cpu"


def _wait() -> None:
    if kind() == "cuda":
        torch.cuda.synchronize(device())


def interleaved(tasks: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds per task and round; every round runs all tasks, and a first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            begin = time.perf_counter()
            task()
            if turn:
                times[name].append(time.perf_counter() - begin)
    return times


def formats(name: str, size: int, batch: int, rounds: int) -> dict[Format, float]:
    """Seconds of a step in each format."""
    candidates = [Format(p, c) for p in ("fp32", "bf16") for c in (True, False)]
    tasks = {str(form): OurLoop(name, size, "mixed", batch, form) for form in candidates}
    times = interleaved({name: task.step for name, task in tasks.items()}, rounds)
    return {form: statistics.median(times[str(form)]) for form in candidates}


def step_flops(name: str, size: int, images: int) -> float:
    """FLOP of one step of `mixed`: PGD on `images`, then both halves forward and backward.

    Only the forward pass is counted, because counters get the weight gradients of depthwise convolutions wrong.
    Each of the gradients by pixels and by weights costs as much as a forward pass.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        classifier(name, size).eval()(torch.rand(1, 1, size, size, device=device()))
    forward = counter.get_total_flops()
    return float(forward * (images * STEPS * 2 + 2 * images * 3))


def advise(name: str, size: int, half: int, rounds: int) -> Format:
    """Measure the formats, print the results, and return the fastest format."""
    times = formats(name, size, half, rounds)
    best = min(times, key=lambda key: times[key])
    for form, seconds in sorted(times.items(), key=lambda pair: pair[1]):
        print(f"  {form}: {2 * half / seconds:.1f} images/s")
    adv = ", adv: {attack_precision: train}" if best.precision != "fp32" else ""
    print(f"  models.<name>: train: {{{best}}}{adv}", flush=True)
    return best


def compare(name: str, size: int, target: float | None, half: int, rounds: int) -> None:
    """Measure one backbone and print the results."""
    print(f"{name} at {size} pixels, {half} clean and {half} attacked images per step, PGD-{STEPS}")
    form = advise(name, size, half, max(rounds // 2, 2))
    ours, plain = {"ours": OurLoop(name, size, "mixed", half, form)}, PlainLoop(name, size, half)
    for objective in ("pgd_at", "fgsm_rs", "cross_entropy"):
        ours[objective] = OurLoop(name, size, objective, 2 * half, form)
    tasks = {"plain": plain.step, **{task: mine.step for task, mine in ours.items()}}
    tasks["loading"] = ours["pgd_at"].loading
    product = MatrixProduct(form.precision)
    tasks["product"] = product.step
    times = interleaved(tasks, rounds)
    seconds = {task: statistics.median(of_rounds) for task, of_rounds in times.items()}
    target_note = "" if target is None else f" (target: {target})"
    # The peak is the best of the rounds, which are interleaved with the steps.
    share = step_flops(name, size, half) / seconds["ours"] / (product.flops / min(times["product"]))
    speed_up = seconds["plain"] / seconds["ours"]
    print(f"  speed-up over the plain loop: {speed_up:.2f}x{target_note}, {share:.0%} of the peak")
    print(f"  FGSM-RS against PGD-{STEPS} training: {seconds['pgd_at'] / seconds['fgsm_rs']:.2f}x (target: 2.5)")
    for step in ("cross_entropy", "pgd_at"):
        print(f"  loading and augmentation: {seconds['loading'] / seconds[step]:.1%} of a step of {step}")
    print(f"  loading and augmentation of {2 * half} images: {1000 * seconds['loading']:.1f} ms", flush=True)


def main() -> None:
    """Run the measurements that the command line selects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs=2, metavar=("TIMM", "SIZE"))
    parser.add_argument("--advise", nargs=2, metavar=("TIMM", "SIZE"))
    half_help = "clean images per step; as many are attacked"
    parser.add_argument("--half", type=int, default=HALF[kind()], help=half_help)
    parser.add_argument("--rounds", type=int, default=ROUNDS[kind()])
    args = parser.parse_args()
    if args.advise:
        advise(args.advise[0], int(args.advise[1]), args.half, args.rounds)
    elif args.models:
        compare(args.models[0], int(args.models[1]), None, args.half, args.rounds)
    else:
        for name, size, target in BACKBONES:
            own_target = TARGET_ON_GPU if kind() == "cuda" else target
            compare(name, size, own_target, args.half, args.rounds)


if __name__ == "__main__":
    main()
