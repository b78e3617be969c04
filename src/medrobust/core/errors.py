"""The exception for errors that the user can fix; any other exception is a bug in medrobust."""


class UserError(Exception):
    """Invalid input; a stage prints it without a traceback and exits with status 1.

    Args:
        where: the file, or the dotted key in params.yaml (`params.yaml: adv.eps`).
        found: what is wrong, with the offending value.
        remedy: how the user can fix it.
    """

    def __init__(self, where: str, found: str, remedy: str) -> None:
        self.where, self.found, self.remedy = where, found, remedy
        super().__init__(f"{where}: {found}. {remedy}")
