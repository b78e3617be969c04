"""Processor time of the corruptions of a modality, and of a network on their images.

    python benchmarks/corruptions.py --modality mri --images 1600 --size 128

measures a part of the images and scales the times up. The time of a corruption has no forward pass of the model.
Other work on the machine does not count. With two threads the wall time is at least half of it.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from medrobust.core.params.corruptions import CHANNELS
from medrobust.core.runtime import say
from medrobust.core.seeds import image_seeds
from medrobust.corruptions.base import SEVERITIES
from medrobust.corruptions.evaluate import BATCH
from medrobust.corruptions.lookup import load_corruption
from medrobust.corruptions.registry import MODALITIES


def seconds(run: Callable[[], object]) -> float:
    """Seconds of processor time that a call needs, over all threads."""
    start = time.process_time()
    run()
    return time.process_time() - start


def corruption_seconds(name: str, images: Tensor, seeds: Tensor) -> float:
    """Seconds for all severities of a corruption on a batch."""
    corruption = load_corruption(name)
    corruption(images, 1, seeds)
    return sum(seconds(partial(corruption, images, severity, seeds)) for severity in SEVERITIES)


def main() -> None:
    """Print one line per corruption, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modality", choices=MODALITIES, default="mri")
    parser.add_argument("--images", type=int, default=1600)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--timm", default="efficientnet_b0", help="network of the comparison")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    channels, names = CHANNELS[args.modality], MODALITIES[args.modality]
    images = torch.rand(BATCH, channels, args.size, args.size, generator=torch.Generator().manual_seed(0))
    seeds, factor, total = image_seeds(map(str, range(BATCH)), 1), args.images / BATCH, 0.0
    for name in names:
        needed = corruption_seconds(name, images, seeds) * factor
        total += needed
        say(f"{name:14} {needed:7.1f} s")
    import timm

    model, batch = timm.create_model(args.timm).eval(), images[:, :1].expand(-1, 3, -1, -1)
    with torch.inference_mode():
        model(batch)
        inference = seconds(lambda: model(batch)) * factor * len(names) * len(SEVERITIES)
    say(f"{'corruptions':14} {total:7.1f} s: {args.images} images × {len(names)} corruptions × {len(SEVERITIES)}")
    say(f"{args.timm} {inference:.1f} s on the same images")


if __name__ == "__main__":
    main()
