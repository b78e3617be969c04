"""Block `study`."""

from typing import Annotated

from pydantic import AfterValidator

from medrobust.core.params.base import Block, printable

#: Text of the author, as one line (`>-` in YAML joins several).
Text = Annotated[str, AfterValidator(printable)]


class StudyParams(Block):
    """What only the author can say of the study; the evidence page quotes it. Empty: the items are missing.

    Attributes:
        items: text for any other item, by its name on the evidence page.
    """

    intended_use: Text | None
    population: Text | None
    reference_standard: Text | None
    deidentification: Text | None
    funding: Text | None
    items: dict[str, Text]
