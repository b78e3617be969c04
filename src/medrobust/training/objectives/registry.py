"""The objectives that `train.objective` and `adv.objective` can name: add the function's entry here."""

from medrobust.training.settings import ObjectiveEntry

PACKAGE = "medrobust.training.objectives"

#: Name in params.yaml -> entry; its module is imported when a training uses it.
OBJECTIVES = {
    "cross_entropy": ObjectiveEntry(
        target=f"{PACKAGE}.clean:cross_entropy", attacks=False, must_reach_eps=False
    ),
    "gce": ObjectiveEntry(
        target=f"{PACKAGE}.clean:guided_complement_entropy", attacks=False, must_reach_eps=False,
        uses_label_smoothing=False, min_classes=3,
    ),
    "mixed": ObjectiveEntry(target=f"{PACKAGE}.pgd:mixed", draws_attack=True),
    "pgd_at": ObjectiveEntry(target=f"{PACKAGE}.pgd:pgd_at", draws_attack=True),
    "curriculum": ObjectiveEntry(target=f"{PACKAGE}.pgd:curriculum", draws_attack=True),
    "fgsm_rs": ObjectiveEntry(target=f"{PACKAGE}.single_step:fgsm_rs", single_step=True),
    "n_fgsm": ObjectiveEntry(target=f"{PACKAGE}.single_step:n_fgsm", single_step=True, must_reach_eps=False),
    "free": ObjectiveEntry(
        target=f"{PACKAGE}.single_step:free", single_step=True, replays=True, must_reach_eps=False
    ),
    "trades": ObjectiveEntry(target=f"{PACKAGE}.trades:trades"),
    "mart": ObjectiveEntry(target=f"{PACKAGE}.trades:mart", draws_attack=True),
    "ssat": ObjectiveEntry(target=f"{PACKAGE}.ssat:ssat", draws_attack=True),
}  # fmt: skip
