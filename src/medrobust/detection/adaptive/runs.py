"""Run the adaptive attacks of a cell against each detector."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from medrobust.attacks.base import Attack
from medrobust.attacks.projection import Norm
from medrobust.attacks.targets import Costs
from medrobust.core.errors import UserError
from medrobust.core.params.detection import AdaptiveParams
from medrobust.data.store import Subset
from medrobust.detection.adaptive.attacks import InDistribution, Joint, Matching, OffAnatomy, Orthogonal
from medrobust.detection.attacked_images import changed_images
from medrobust.detection.features import DeepFeatures, Features, extract_features
from medrobust.detection.guard import Guard, score_images
from medrobust.detection.measures import ScoredImages

#: Density detectors whose limit `ind` may keep to, in order of preference.
DENSITIES = ("gmm", "kde")


@dataclass
class AdaptiveRuns:
    """Attackers who know the guard of a model (in eval mode), on some test images.

    `cache` has (description of the attack, eps, norm) -> attacked images, so that suites with the same ball share
    them.
    """

    model: nn.Module
    subset: Subset
    guard: Guard
    guides: Features
    params: AdaptiveParams
    seed: int
    cache: dict[tuple[str, float, Norm], Tensor] = field(default_factory=dict)

    def attack(self, detector: str, eps: float, norm: Norm) -> dict[str, ScoredImages]:
        """The images of each adaptive attack in a ball, scored by `detector`; by attack."""
        return {
            attack: self._scored(attack, detector, eps, norm) for attack in self.params.attacks if attack != "ood"
        }

    def costly(self, detector: str, eps: float, norm: Norm, errors: np.ndarray) -> tuple[ScoredImages, ...]:
        """The images of `joint` with the costliest class as its target, scored by `detector`.

        There are none if `joint` is not among the attacks, or if all errors cost the same.
        """
        if "joint" not in self.params.attacks or len(np.unique(errors)) == 2:  # 0 and the cost of an error
            return ()
        return (self._scored("joint", detector, eps, norm, errors.tolist()),)

    def off_anatomy(self) -> tuple[Tensor, np.ndarray]:
        """Images of `ood`, and which of them reached a confident class."""
        attack = OffAnatomy(steps=self.params.steps)
        images = self._run(attack, "ood")
        features = extract_features(self.model, [DeepFeatures()], self.subset, self.seed, images)[DeepFeatures()]
        confident = features.logits.softmax(1).amax(1) >= attack.confidence
        return images, confident.numpy()

    def score(self, images: Tensor) -> dict[str, ScoredImages]:
        return score_images(self.model, self.guard, self.subset, self.seed, images)

    def _scored(self, attack: str, detector: str, eps: float, norm: Norm, costs: Costs = None) -> ScoredImages:
        """The images of an attack, scored by `detector`; made once for all detectors unless it attacks one."""
        desc = f"{attack} {detector}" if attack in {"joint", "orthogonal"} else attack
        key = (f"costly {desc}" if costs else desc, eps, norm)
        if key not in self.cache:
            self.cache[key] = self._run(self._build(attack, detector, eps, norm, costs), key[0])
        return self.score(self.cache[key])[detector]

    def _run(self, attack: Attack, desc: str) -> Tensor:
        self.guard.to(next(self.model.parameters()).device)
        images = changed_images(self.model, self.subset, attack, self.seed, desc)
        self.guard.to("cpu")
        return images

    def _build(self, name: str, detector: str, eps: float, norm: Norm, costs: Costs) -> Attack:
        fitted = self.guard.detectors[detector]
        ball: dict[str, Any] = {"eps": eps, "norm": norm, "steps": self.params.steps}
        if name == "joint":
            target = "most_costly" if costs else None
            return Joint(**ball, searches=self.params.searches, detector=fitted, target=target, costs=costs)
        if name == "orthogonal":
            return Orthogonal(**ball, detector=fitted)
        if name == "matching":
            device = next(self.model.parameters()).device
            return Matching(**ball, guides=self.guides.map(lambda part: part.to(device)))
        density = next((kind for kind in DENSITIES if kind in self.guard.detectors), None)
        if density is None:
            remedy = f"Add one of {', '.join(DENSITIES)} to detect.detectors, or leave `ind` out"
            raise UserError("params.yaml: detect.adaptive.attacks", "`ind` has no density to keep to", remedy)
        chosen = self.guard.detectors[density]
        return InDistribution(**ball, detector=chosen, limit=chosen.standardised_threshold)
