"""The one kind of error that a user can cause and mend.

A stage prints it without a traceback and exits with 1. Everything else that is raised is a defect of
medrobust and keeps its traceback.
"""


class UserError(Exception):
    """Bad input: names the file or key, what was found there, and what to do.

    Args:
        where: the file, or the dotted key of params.yaml (`params.yaml: adv.eps`).
        found: what stands there, with the offending value.
        remedy: what the user can do about it.
    """

    def __init__(self, where: str, found: str, remedy: str) -> None:
        self.where, self.found, self.remedy = where, found, remedy
        super().__init__(f"{where}: {found}. {remedy}")
