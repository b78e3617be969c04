"""The exception for errors that the user can fix; any other exception is a bug in medrobust."""


class UserError(Exception):
    """Invalid input; a stage prints it without a traceback and exits with status 1.

    `where` is a file, or a dotted key in params.yaml (`params.yaml: adv.eps`). `found` includes the offending
    value.
    """

    def __init__(self, where: str, found: str, remedy: str) -> None:
        self.where, self.found, self.remedy = where, found, remedy
        super().__init__(f"{where}: {found}. {remedy}")
