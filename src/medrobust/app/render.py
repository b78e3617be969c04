"""The answers and messages of the page as HTML, with all pictures inside."""

from collections.abc import Sequence
from typing import Any

from medrobust.app import draw
from medrobust.app.attack_choices import AttackChoice
from medrobust.app.compare import Comparison, ImageVersion
from medrobust.data.inputs import InputImage
from medrobust.inference.predict import Prediction
from medrobust.report.templates import environment

#: Names of the kinds of `explain.maps`.
KINDS = {"gradcam": "Grad-CAM", "saliency": "input gradient"}


def answer_html(
    image: InputImage, shown: Comparison, choice: AttackChoice, eps: float, patients: Sequence[Prediction]
) -> str:
    """The answer for an image, clean and attacked, and those for the patients of its upload."""
    attacked = shown.attacked
    changed = []
    if attacked is not None:
        difference, scale = draw.change(shown.clean, attacked)
        times = f"{scale:,.0f}" if scale >= 10 else f"{scale:.1f}"
        changed = [*_pictures(attacked), (f"change × {times}", draw.picture(difference))]
    levels = f" ({eps * 255:.3g} of 255 grey levels)" if choice.norm == "Linf" else ""
    return _render(
        "answer.html", name=_name(image), shown=shown, headline=headline(shown),
        attack=f"{choice.label}, ε = {eps:.3g}{levels}", clean_pictures=_pictures(shown.clean),
        attacked_pictures=changed, notes=list(map(_patient, patients)),
    )  # fmt: skip


def message_html(messages: Sequence[str]) -> str:
    """What went wrong, one paragraph each."""
    return _render("message.html", messages=messages)


def headline(shown: Comparison) -> str:
    """The answer in one sentence."""
    clean, attacked = shown.clean, shown.attacked
    if attacked is None:
        return f"{clean.top}, but rejected by the guard" if clean.prediction.rejected else clean.top
    if not shown.fooled:
        return f"The attack does not change the answer: {clean.top}"
    seen = ""
    if attacked.prediction.score is not None:
        seen = ", and the guard rejects it" if attacked.prediction.rejected else ", and the guard accepts it"
    return f"The attack changes the answer from {clean.top} to {attacked.top}{seen}"


def _render(template: str, **values: Any) -> str:
    templates = environment("medrobust.app")
    templates.filters["share"] = _share
    return templates.get_template(template).render(**values)


def _share(value: float) -> str:
    """A probability in percent; one that is not 0 or 1 is not shown as such."""
    return "< 1%" if 0 < value < 0.005 else "> 99%" if 0.995 <= value < 1 else f"{value:.0%}"


def _name(image: InputImage) -> str:
    return image.file if image.slice is None else f"{image.file}, slice {image.slice}"


def _patient(answer: Prediction) -> str:
    """The answer for a patient, volume or series."""
    who = f"Patient {answer.patient}" if answer.patient else answer.file.rpartition("/")[2]
    top = max(answer.probabilities, key=lambda name: answer.probabilities[name])
    found = f"{top} ({_share(answer.probabilities[top])})"
    verdict = f"rejected ({answer.reason}); otherwise {found}" if answer.rejected else found
    return f"{who}, from {answer.images} images: {verdict}."


def _pictures(version: ImageVersion) -> list[tuple[str, str]]:
    return [
        ("image", draw.picture(version.pixels)),
        (KINDS[version.kind], draw.picture(draw.overlay(version))),
    ]
