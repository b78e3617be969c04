"""Time torch against onnxruntime on the CPU: one image, and a batch of 64.

    python benchmarks/export.py                     # the backbones of presets/default.yaml, untrained
    python benchmarks/export.py resnet34 --size 128

It exports each backbone into a temporary folder and prints a Markdown table of milliseconds: the median of the
processor time over the repeats. With one thread that is the time on an idle machine, whatever else runs. The
models are those of the default parameters with random weights; images are grey and of `--size` pixels.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.runtime import limit_threads, say

PRESET = Path(__file__).parent.parent / "presets" / "default.yaml"
BATCHES = (1, 64)


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Median processor time of a call, after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        times.append(1000 * (time.process_time() - begin))
    return statistics.median(times)


def main() -> None:
    """Export, time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = load_params(PRESET).models
    parser.add_argument("backbones", nargs="*", default=list(models), help="names of presets/default.yaml")
    parser.add_argument("--size", type=int, default=64, help="pixels per side of the images")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    if unknown := set(args.backbones) - set(models):
        parser.error(f"no backbone {', '.join(sorted(unknown))}; known: {', '.join(models)}")
    limit_threads()
    import torch

    from medrobust.export.onnx_file import OnnxModel, write_onnx
    from medrobust.models.build import build_classifier

    torch.set_num_threads(1)
    say("| backbone | images | torch, ms | onnxruntime, ms | torch / onnxruntime |\n|---|---|---|---|---|")
    for name in args.backbones:
        model = build_classifier(models[name], ["a", "b", "c", "d"]).eval()
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            path = Path(folder, "model.onnx")
            write_onnx(model, torch.rand(2, 1, args.size, args.size), path, {})
            exported = OnnxModel(path)
            for count in BATCHES:
                images = torch.rand(count, 1, args.size, args.size)
                first = milliseconds(partial(model, images), args.repeats)
                second = milliseconds(partial(exported.probabilities, images), args.repeats)
                say(f"| {name} | {count} | {first:.1f} | {second:.1f} | {first / second:.2f} |")


if __name__ == "__main__":
    main()
