"""Make autoattack.npz, the recorded result with which our AutoAttack is compared (run by hand, a minute).

The package of the reference is in no package index, but torchattacks contains ports of its four attacks. They run
here with the published settings (Croce & Hein 2020, section 5 and appendix): APGD-CE, APGD-T on the DLR loss and
FAB-T with 100 steps (torchattacks' own AutoAttack runs 10), one restart and all three wrong classes of the four;
Square with 5,000 queries, p_init 0.8 and no rescaling of its schedule. Each attack runs on the images that are
still classified correctly, so the result is the per-image worst case. The model, a perceptron, and its images are
stored with the result.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.core.runtime import say

RADII = {"Linf": (0.0688,), "L2": (0.877,)}
OUT = Path(__file__).parent / "autoattack.npz"


def data() -> tuple[np.ndarray, np.ndarray]:
    """24 grey images of 15×15 in four overlapping classes."""
    rng = np.random.default_rng(7)
    labels = np.arange(24) % 4
    patterns = rng.normal(size=(4, 15, 15)) * 0.06
    images = 0.5 + patterns[labels] + rng.normal(size=(24, 15, 15)) * 0.2
    return (np.clip(images, 0, 1) * 255).round().astype(np.uint8), labels


def perceptron(first: Tensor, shift: Tensor, second: Tensor, bias: Tensor) -> nn.Sequential:
    """225 pixels -> 16 GELU units -> 4 logits."""
    hidden, last = nn.Linear(225, 16), nn.Linear(16, 4)
    hidden.weight.data, hidden.bias.data, last.weight.data, last.bias.data = first, shift, second, bias
    return nn.Sequential(nn.Flatten(), hidden, nn.GELU(), last).eval()


def trained(images: Tensor, labels: Tensor) -> list[Tensor]:
    """The weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(225, 16), nn.GELU(), nn.Linear(16, 4))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3, weight_decay=1e-3)
    for _ in range(150):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    return [parameter.detach() for parameter in model.parameters()]


def robust(model: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float) -> np.ndarray:
    """Which images no attack of the four fools, bool n."""
    import torchattacks

    known = {"norm": norm, "eps": eps, "seed": 0}
    attacks = [
        torchattacks.APGD(model, steps=100, loss="ce", **known),
        torchattacks.APGDT(model, steps=100, n_classes=4, **known),
        torchattacks.FAB(model, steps=100, n_classes=4, multi_targeted=True, **known),
        torchattacks.Square(model, n_queries=5000, p_init=0.8, resc_schedule=False, **known),
    ]
    rows = torch.nonzero(model(images).argmax(1) == labels).squeeze(1)
    for attack in attacks:
        if len(rows):
            adv = attack(images[rows], labels[rows])
            shift = (adv - images[rows]).flatten(1)
            length = shift.abs().amax(1) if norm == "Linf" else shift.norm(dim=1)
            fooled = (model(adv).argmax(1) != labels[rows]) & (length <= eps * (1 + 1e-5))
            rows = rows[~fooled]
    survives = np.zeros(len(images), dtype=bool)
    survives[rows.numpy()] = True
    return survives


def main() -> None:
    """Write the file."""
    pixels, labels = data()
    images, targets = torch.from_numpy(pixels)[:, None].float() / 255, torch.from_numpy(labels)
    weights = trained(images, targets)
    model = perceptron(*weights)
    stored = {f"weight{number}": weight.numpy() for number, weight in enumerate(weights)}
    cases = [(norm, eps) for norm, radii in RADII.items() for eps in radii]
    results = {f"{norm}-{eps}": robust(model, images, targets, norm, eps) for norm, eps in cases}
    np.savez_compressed(OUT, pixels=pixels, labels=labels, **stored, **results)  # type: ignore[arg-type]
    for name, survives in results.items():
        say(f"{name}: robust {survives.sum()} of {len(survives)}")


if __name__ == "__main__":
    main()
