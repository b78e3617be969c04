"""Which attacks a suite may name. To add one: its file, a line here, and a block in params.yaml."""

#: name in a suite -> module:class, imported when it is asked for
ATTACKS = {
    "fgsm": "medrobust.attacks.pgd:FGSM",
    "pgd": "medrobust.attacks.pgd:PGD",
    "square": "medrobust.attacks.square:Square",
    "cw": "medrobust.attacks.library:CW",
    "library_square": "medrobust.attacks.library:LibrarySquare",
}
