"""What the page's events ask: the answer for an uploaded image as HTML, or a message."""

from collections.abc import Mapping

from medrobust.app.attack_choices import attack_choices
from medrobust.app.compare import compare
from medrobust.app.render import answer_html, message_html
from medrobust.app.uploads import Upload
from medrobust.core.errors import UserError
from medrobust.inference.loaded import LoadedModel

EMPTY = "Drop an image first."


def answer_page(
    models: Mapping[str, LoadedModel], upload: Upload | None, number: int, name: str, attack: str, eps: float
) -> str:
    """The HTML for the image of that number (from 1) of an upload under a model, or why there is no answer."""
    if upload is None:
        return message_html([EMPTY])
    model, choice, read = models[name], attack_choices()[attack], upload.files[name]
    faults = [f"{fault.file}: {fault.reason}" for fault in read.faults]
    if not read.images:
        return message_html(faults)
    image = read.images[min(number, len(read.images)) - 1]
    try:
        shown = compare(model, image, choice, eps)
        patients = upload.answers_for_patients(name, model)
    except UserError as error:  # an image that the attack or the model refuses
        return message_html([str(error), *faults])
    return answer_html(image, shown, choice, eps, patients) + (message_html(faults) if faults else "")
