"""Which objectives `train.objective` and `adv.objective` may name. To add one: its function, and a line here."""

from medrobust.training.settings import Entry

PACKAGE = "medrobust.training.objectives"

#: name in params.yaml -> where it is, imported when it is asked for
OBJECTIVES = {
    "cross_entropy": Entry(target=f"{PACKAGE}.clean:cross_entropy", attacks=False, inside=False),
    "gce": Entry(
        target=f"{PACKAGE}.clean:guided_complement_entropy", attacks=False, inside=False, smooths=False, classes=3
    ),
    "mixed": Entry(target=f"{PACKAGE}.pgd:mixed"),
    "pgd_at": Entry(target=f"{PACKAGE}.pgd:pgd_at"),
    "curriculum": Entry(target=f"{PACKAGE}.pgd:curriculum"),
    "fgsm_rs": Entry(target=f"{PACKAGE}.single_step:fgsm_rs", single_step=True),
    "n_fgsm": Entry(target=f"{PACKAGE}.single_step:n_fgsm", single_step=True, inside=False),
    "free": Entry(target=f"{PACKAGE}.single_step:free", single_step=True, replayed=True, inside=False),
    "trades": Entry(target=f"{PACKAGE}.trades:trades"),
    "mart": Entry(target=f"{PACKAGE}.trades:mart"),
    "ssat": Entry(target=f"{PACKAGE}.ssat:ssat"),
}
