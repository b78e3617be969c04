"""Run the adaptive attacks of a cell, and set what is left of each detector beside the number of the unaware."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from medrobust.attacks.base import Attack, Norm
from medrobust.core.errors import UserError
from medrobust.core.intervals import mean_ci
from medrobust.core.params.detection import AdaptiveParams
from medrobust.core.seeds import image_seeds
from medrobust.data.store import Subset
from medrobust.detection.adaptive.attacks import InDistribution, Joint, Matching, OffAnatomy, Orthogonal
from medrobust.detection.extract import all_features, changed_images
from medrobust.detection.features import DeepFeatures, Features
from medrobust.detection.fitting import scores_of
from medrobust.detection.guard import Guard
from medrobust.detection.measures import RATES, Answers, clean_threshold, summarise

#: Densities of clean features that `ind` may keep to, the preferred first.
DENSITIES = ("gmm", "kde")


@dataclass
class Aware:
    """Attackers who know the detectors, on some test images.

    Attributes:
        model: attacked, in eval mode.
        subset: the test images.
        guard: fitted detectors.
        guides: features of clean training images.
        params: which attacks, how long.
        seed: of the run.
        made: (attack, detector or "", eps, norm) -> images, so that suites of one ball share them.
    """

    model: nn.Module
    subset: Subset
    guard: Guard
    guides: Features
    params: AdaptiveParams
    seed: int
    made: dict[tuple[str, str, float, Norm], Tensor] = field(default_factory=dict)

    def against(self, detector: str, eps: float, norm: Norm) -> dict[str, Answers]:
        """What each adaptive attack in a ball reaches against a detector, by attack."""
        found: dict[str, Answers] = {}
        for attack in self.params.attacks:
            if attack == "ood":
                continue
            aim = detector if attack in {"joint", "orthogonal"} else ""
            key = (attack, aim, eps, norm)
            if key not in self.made:
                self.made[key] = self._run(self._attack(attack, detector, eps, norm), f"{attack} {aim}")
            found[attack] = self.answers(self.made[key])[detector]
        return found

    def off_anatomy(self) -> tuple[Tensor, np.ndarray]:
        """Images of `ood`, and which of them reached a confident class."""
        attack = OffAnatomy(steps=self.params.steps)
        images = self._run(attack, "ood")
        logits = all_features(self.model, [DeepFeatures()], images, image_seeds(self.subset.ids, self.seed))
        confident = logits[DeepFeatures()].logits.softmax(1).amax(1) >= attack.confidence
        return images, confident.numpy()

    def answers(self, images: Tensor) -> dict[str, Answers]:
        """What the model and each detector say of images in the place of the subset's."""
        return answers(self.model, self.guard, self.subset, images, self.seed)

    def _run(self, attack: Attack, desc: str) -> Tensor:
        device = next(self.model.parameters()).device
        for fitted in self.guard.detectors.values():
            fitted.detector.to(device)

        def change(model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
            return attack(model, images, labels, seeds=seeds)

        images = changed_images(self.model, self.subset, change, self.seed, desc)
        for fitted in self.guard.detectors.values():
            fitted.detector.to("cpu")
        return images

    def _attack(self, name: str, detector: str, eps: float, norm: Norm) -> Attack:
        fitted = self.guard.detectors[detector]
        ball: dict[str, Any] = {"eps": eps, "norm": norm, "steps": self.params.steps}
        if name == "joint":
            return Joint(**ball, searches=self.params.searches, suspicion=fitted.suspicion)
        if name == "orthogonal":
            return Orthogonal(**ball, suspicion=fitted.suspicion)
        if name == "matching":
            device = next(self.model.parameters()).device
            return Matching(**ball, guides=self.guides.map(lambda part: part.to(device)))
        density = next((kind for kind in DENSITIES if kind in self.guard.detectors), None)
        if density is None:
            remedy = f"Add one of {', '.join(DENSITIES)} to detect.detectors, or leave `ind` out"
            raise UserError("params.yaml: detect.adaptive.attacks", "`ind` has no density to keep to", remedy)
        chosen = self.guard.detectors[density]
        return InDistribution(**ball, suspicion=chosen.suspicion, limit=chosen.limit)


def answers(
    model: nn.Module, guard: Guard, subset: Subset, images: Tensor | Subset, seed: int
) -> dict[str, Answers]:
    """What the model and each detector say of images that stand for a subset's, by detector."""
    extractors = {fitted.detector.extractor for fitted in guard.detectors.values()} | {DeepFeatures()}
    said = all_features(model, extractors, images, image_seeds(subset.ids, seed))
    chances = (said[DeepFeatures()].logits.double() / guard.temperature).softmax(1).numpy()
    return {
        name: Answers(subset.labels, chances, subset.patients, scores)
        for name, scores in scores_of(guard, said).items()
    }


def least_suspicious(clean: Answers, candidates: list[Answers]) -> Answers:
    """Image by image the candidate that fooled the model with the lowest score; the last one where none did.

    An image that the model gets wrong without an attack counts as fooled in every candidate that it gets wrong.
    """
    scores = np.stack([candidate.scores for candidate in candidates])
    ranked = np.where([candidate.wrong for candidate in candidates], scores, np.inf)
    chosen = np.where(np.isfinite(ranked).any(0), ranked.argmin(0), len(candidates) - 1), np.arange(len(clean))
    chances = np.stack([candidate.probabilities for candidate in candidates])
    return Answers(clean.labels, chances[chosen], clean.patients, scores[chosen])


def successful(clean: Answers, attacked: Answers) -> np.ndarray:
    """Images that were right and are wrong after the attack, bool n."""
    hit: np.ndarray = ~clean.wrong & attacked.wrong
    return hit


def left_of(
    clean: Answers, attacked: Answers, val_scores: np.ndarray, *, resamples: int, confidence: float
) -> dict[str, Any]:
    """AUROC on all and on successful images, success rate, and evasion at thresholds of clean validation images.

    `evasion` is the share of the `right` images (those that are right without an attack) that are both fooled and
    accepted, by false-positive rate, with intervals in `evasion_ci`; `successful` counts the fooled ones.
    """
    settings: dict[str, Any] = {"resamples": resamples, "confidence": confidence}
    hit, asked = successful(clean, attacked), ~clean.wrong
    right = int(asked.sum())
    every, won = summarise(clean, attacked, **settings), summarise(clean, attacked.where(hit), **settings)
    evasion, intervals = {}, {}
    for rate in RATES:
        unseen = (hit & (attacked.scores <= clean_threshold(val_scores, rate)))[asked].astype(float)
        sample = (clean.labels[asked], clean.patients[asked])
        evasion[f"{rate:g}"] = float(unseen.mean()) if right else None
        intervals[f"{rate:g}"] = mean_ci(unseen, *sample, **settings) if right else None
    return {
        "n": len(clean),
        "patients": len(np.unique(clean.patients)),
        "right": right,
        "successful": int(hit.sum()),
        "auroc": every["auroc"],
        "auroc_ci": every.get("auroc_ci"),
        "successful_auroc": won["auroc"],
        "successful_auroc_ci": won.get("auroc_ci"),
        "auprc_attacked": every.get("auprc_attacked"),
        "base_rate": every["base_rate"],
        "success": float(hit.sum() / right) if right else None,
        "evasion": evasion,
        "evasion_ci": intervals,
    }
