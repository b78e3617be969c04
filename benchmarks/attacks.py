"""Time the attack engine against torchattacks, foolbox and ART: same model, images and threads, in turn.

    python benchmarks/attacks.py                               # 256 images, two threads
    python benchmarks/attacks.py --images 48 --threads 1 --parts 1 --without foolbox ART torchattacks

Two questions, each for every model ("fast" sets the suite's give_up: true):
  curve  robust accuracy at eight radii under PGD-20;
  worst  the worst case at one radius of FGSM, BIM-20, PGD-20, PGD-20 on the margin loss, and Square-200.
The images are divided into parts. Every program attacks a part before the next part begins, so that other load on
the machine affects all programs alike. The rival is MultiAttack of torchattacks where it runs, else torchattacks.
The other libraries attack only `--others` images of the first part: their speed does not depend on the number.

Printed as Markdown: wall-clock and processor seconds, images per second, the rival's processor time per image as a
multiple of the program's, gradient evaluations and queries per image, the arithmetic as a share of this machine's
peak in float32 matrix products, how many images withstand at each radius, and the largest excess over the rival's
number on the same images. A second table shows where the engine's time goes: evaluations at their cost in
full batches, of these the gradients of attempts that failed (which no order of work saves), and the rest.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from attack_programs import (  # type: ignore[import-not-found]  # beside this script
    BATCH,
    RIVALS,
    Counted,
    Program,
    programs,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medrobust.attacks.state import loss_gradient
from medrobust.core.params.schema import load_params
from medrobust.core.records import read_table
from medrobust.data.store import ImageStore, Subset
from medrobust.models.checkpoint import load


@dataclass
class Tally:
    """What a program did over all its images."""

    images: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    gradients: int = 0
    queries: int = 0
    robust: list[np.ndarray] = field(default_factory=list)
    attempts: list[pd.DataFrame] = field(default_factory=list)


@dataclass
class Unit:
    """What one evaluation of an image costs in a full batch.

    Attributes:
        seconds: of the processor; of a query and of a gradient.
        flops: floating-point operations of a query and of a gradient.
    """

    seconds: tuple[float, float]
    flops: tuple[float, float]


def spread(total: int, count: int) -> np.ndarray:
    """At most `count` of the positions 0 to `total` - 1, evenly spaced: neighbours in a subset have one class."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)


def part_of(subset: Subset, rows: np.ndarray) -> Subset:
    """The images of a subset at some positions."""
    return Subset(
        subset.store_images, subset.rows[rows], subset.labels[rows], subset.ids[rows], subset.patients[rows],
        subset.classes,
    )  # fmt: skip


def compete(
    model: nn.Module, parts: list[Subset], radii: list[float], who: dict[str, Program], others: int
) -> dict[str, Tally]:
    """Every program on every part, in turn; the order changes from part to part."""
    tallies = {name: Tally() for name in who}
    rival = next((name for name in RIVALS if name in who), None)
    for number, part in enumerate(parts):
        for name in list(who) if number % 2 == 0 else list(who)[::-1]:
            images = part
            if name != rival and not name.startswith("medrobust"):
                if number > 0:
                    continue
                images = part_of(part, spread(len(part), others))
            counted, tally = Counted(model).eval(), tallies[name]
            torch.manual_seed(number)
            begin, busy = time.perf_counter(), time.process_time()
            tally.robust.append(who[name](counted, images, radii))
            tally.seconds += time.perf_counter() - begin
            tally.busy += time.process_time() - busy
            tally.images += len(images)
            tally.gradients += counted.gradients
            tally.queries += counted.queries
            if counted.attempts is not None:
                tally.attempts.append(counted.attempts)
    return tallies


def busy(work: Callable[[], Any], repeats: int = 3) -> float:
    """Processor seconds of a piece of work: the minimum over some repeats."""
    best = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def unit_of(model: nn.Module, images: Tensor) -> Unit:
    """The cost of an evaluation, measured on a batch."""
    labels = torch.zeros(len(images), dtype=torch.int64)

    def query() -> None:
        with torch.no_grad():
            model(images)

    query()
    asked = busy(query) / len(images)
    moved = busy(lambda: loss_gradient(model, images, labels, "ce")) / len(images)
    few = images[:2]
    with FlopCounterMode(display=False) as forward:
        query_few = model(few)
    assert query_few.shape[0] == len(few)
    with FlopCounterMode(display=False) as both:
        model(few.clone().requires_grad_(True)).sum().backward()  # the parameters need no gradient
    return Unit((asked, moved), (forward.get_total_flops() / len(few), both.get_total_flops() / len(few)))


def peak(side: int = 2048) -> float:
    """Floating-point operations per processor second of a float32 matrix product: the best of some repeats."""
    matrix = torch.randn(side, side)
    return 2 * side**3 / busy(lambda: matrix @ matrix, 8)


def rows_of(cell: str, tallies: dict[str, Tally], unit: Unit, top: float) -> list[dict[str, Any]]:
    """One row per program."""
    rival = next((tallies[name] for name in RIVALS if name in tallies), None)
    rows = []
    for name, tally in tallies.items():
        work = tally.queries * unit.flops[0] + tally.gradients * unit.flops[1]
        withstand = np.concatenate(tally.robust, axis=1)
        row = {
            "cell": cell, "program": name, "images": tally.images, "seconds": f"{tally.seconds:.1f}",
            "CPU s": f"{tally.busy:.1f}", "images/s": f"{tally.images / tally.seconds:.2f}",
            "times": "", "above": "", "grad/img": f"{tally.gradients / tally.images:.1f}",
            "query/img": f"{tally.queries / tally.images:.1f}", "of fp32 peak": f"{work / tally.busy / top:.0%}",
        }  # fmt: skip
        if rival:
            theirs = np.concatenate(rival.robust, axis=1)
            if tally.images < rival.images:  # the images of the first part that `compete` gave to the others
                theirs = rival.robust[0][:, spread(rival.robust[0].shape[1], tally.images)]
            row["times"] = f"{rival.busy / rival.images / (tally.busy / tally.images):.1f}"
            row["above"] = f"{int((withstand.sum(1) - theirs.sum(1)).max()):+d}"
        rows.append(row | {"withstand": " ".join(map(str, withstand.sum(1)))})
    return rows


def breakdown(cell: str, tallies: dict[str, Tally], unit: Unit) -> list[dict[str, Any]]:
    """Where the engine's processor time per image goes, and the highest speed that any order could reach."""
    rival = next((tallies[name] for name in RIVALS if name in tallies), None)
    rows = []
    for name, tally in tallies.items():
        if not tally.attempts:
            continue
        attempts = pd.concat(tally.attempts)
        blind = (attempts["gradients"] == 0) & (attempts["steps"] > 0)
        moved = attempts["gradients"] * unit.seconds[1]
        asked = attempts["queries"] * unit.seconds[0]
        lost = ((moved + asked * blind)[~attempts["fooled"]]).sum() / tally.images
        each, work = tally.busy / tally.images, (moved + asked).sum() / tally.images
        row = {
            "cell": cell, "program": name, "ms an image": f"{1e3 * each:.0f}",
            "gradients": f"{1e3 * moved.sum() / tally.images:.0f}",
            "queries": f"{1e3 * asked.sum() / tally.images:.0f}", "rest": f"{1e3 * (each - work):.0f}",
            "of it in failed attempts": f"{1e3 * lost:.0f}", "ceiling (times)": "",
        }  # fmt: skip
        if rival:
            row["ceiling (times)"] = f"{rival.busy / rival.images / lost:.1f}" if lost else ""
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table; the first row has all columns."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([str(row[head]) for head in heads] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def read_images(prepared: Path, split: Path, count: int) -> Subset:
    """The test images, then validation and training images, up to `count`, evenly spaced over the last subset."""
    store, table = ImageStore.open(prepared), read_table(split, keep_default_na=False)
    parts: list[Subset] = []
    for name in ("test", "val", "train"):
        subset, left = store.subset(table, name), count - sum(map(len, parts))
        parts.append(part_of(subset, spread(len(subset), left)))

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return Subset(
        store.images, joined("rows"), joined("labels"), joined("ids"), joined("patients"), parts[0].classes
    )  # fmt: skip


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", type=Path, default=[Path("models/resnet34", r) for r in ("clean", "adv")]
    )
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--split", type=Path, default=Path("data/split.csv"))
    parser.add_argument("--images", type=int, default=256, help="at most so many")
    parser.add_argument("--parts", type=int, default=2, help="into which the images are cut")
    parser.add_argument("--others", type=int, default=32, help="images for those that are not the rival")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--largest", type=float, help="radius of the curve; default 2 adv.eps; `worst` takes the half"
    )
    parser.add_argument("--tasks", nargs="+", default=["curve", "worst"], choices=["curve", "worst"])
    parser.add_argument("--without", nargs="*", default=[], help="programs to leave out")
    parser.add_argument("--json", type=Path, help="where to write the tables as JSON too")
    return parser.parse_args()


def main() -> None:
    """Read models and images, run all programs on them, and print the tables."""
    args = parsed()
    torch.set_num_threads(args.threads)
    largest = args.largest or 2 * load_params().adv.eps
    subset, top, begin = read_images(args.prepared, args.split, args.images), peak(), time.perf_counter()
    parts = [part_of(subset, np.arange(first, len(subset), args.parts)) for first in range(args.parts)]
    rows: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    for path in args.models:
        model = load(path).requires_grad_(False)
        unit = unit_of(model, subset.batch(spread(len(subset), BATCH)))
        for task in args.tasks:
            radii = [largest * k / 8 for k in range(1, 9)] if task == "curve" else [largest / 2]
            who = {name: program for name, program in programs(task).items() if name not in args.without}
            tallies = compete(model, parts, radii, who, args.others)
            rows += rows_of(f"{path.name} {task}", tallies, unit, top)
            costs += breakdown(f"{path.name} {task}", tallies, unit)
    print(f"\n{len(subset)} images in {args.parts} parts, {args.threads} threads; float32 matrix product:")
    print(f"{top / 1e9:.0f} GFLOP a processor second; all in {time.perf_counter() - begin:.0f} s\n")
    print(markdown(rows) + "\n\n" + markdown(costs))
    if args.json:
        args.json.write_text(json.dumps({"programs": rows, "engine": costs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
