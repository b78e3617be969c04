"""Which attacks a suite may name. To add one: its file, a line here, and a block in params.yaml."""

#: name in a suite -> module:class, imported when it is asked for
ATTACKS = {
    "fgsm": "medrobust.attacks.pgd:FGSM",
    "pgd": "medrobust.attacks.pgd:PGD",
    "bim": "medrobust.attacks.iterative:BIM",
    "targeted_bim": "medrobust.attacks.iterative:TargetedBIM",
    "mifgsm": "medrobust.attacks.iterative:MIFGSM",
    "iterative": "medrobust.attacks.iterative:Iterative",
    "pgd_l2": "medrobust.attacks.iterative:PGDL2",
    "cw_pgd": "medrobust.attacks.iterative:CWPGD",
    "tifgsm": "medrobust.attacks.iterative:TIFGSM",
    "vmifgsm": "medrobust.attacks.iterative:VMIFGSM",
    "jitter": "medrobust.attacks.iterative:Jitter",
    "apgd": "medrobust.attacks.apgd:APGD",
    "apgd_t": "medrobust.attacks.apgd:APGDT",
    "fab": "medrobust.attacks.minimal:FAB",
    "fab_t": "medrobust.attacks.minimal:FABT",
    "deepfool": "medrobust.attacks.minimal:DeepFool",
    "autoattack": "medrobust.attacks.autoattack:AutoAttack",
    "square": "medrobust.attacks.square:Square",
    "square_l2": "medrobust.attacks.square_l2:SquareL2",
    "cw": "medrobust.attacks.library:CW",
    "library_square": "medrobust.attacks.library:LibrarySquare",
}
