"""The page: what is on it, and which function answers which event."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from medrobust.app.answers import EMPTY, answer_page
from medrobust.app.attack_choices import FIRST, RANGES, attack_choices
from medrobust.app.render import message_html
from medrobust.app.uploads import Upload, read_upload
from medrobust.core.errors import UserError
from medrobust.inference.loaded import LoadedModel

INTRODUCTION = """# medrobust
Drop an image to see the model's answer, whether its guard accepts the image, and which pixels matter (Grad-CAM).
Then move ε to see what an attack of that size does to the answer. Nothing leaves this machine. Not a medical
device.
"""
RADIUS = "0 = no attack. How far a pixel (L2: the image as a whole) may change; black is 0, white is 1."
#: Seconds after which an upload is dropped from memory.
KEPT = 3600
#: Of every event: one at a time over all open pages, and no interface for other programs.
EVENT: dict[str, Any] = {
    "concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private", "show_progress": "minimal",
}  # fmt: skip


def build_page(models: Mapping[str, LoadedModel]) -> gr.Blocks:
    """The page for these models, by the names that it shows."""
    with gr.Blocks(title="medrobust", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        upload = gr.State(None, time_to_live=KEPT)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                file = gr.File(label="Image", file_count="multiple", height=140, elem_id="file")
                number = image_slider(1)
                model = gr.Dropdown(list(models), label="Model", elem_id="model")
                attack, eps = attack_settings(FIRST)
            with gr.Column(scale=3, min_width=300):
                shown = gr.HTML(message_html([EMPTY]), elem_id="shown")
        settings = [upload, number, model, attack, eps]

        def read(paths: list[str], name: str, *chosen: Any) -> tuple[Any, ...]:
            try:
                found = read_upload([Path(path) for path in paths], models)
            except UserError as error:
                return None, None, image_slider(1), message_html([str(error)])
            answer = answer_page(models, found, middle(found.count), name, *chosen)
            return found, None, image_slider(found.count), answer

        def show(found: Upload | None, number: int, *chosen: Any) -> str:
            return answer_page(models, found, number, *chosen)

        def change_attack(found: Upload | None, number: int, name: str, attack: str) -> tuple[Any, ...]:
            return *attack_settings(attack), answer_page(models, found, number, name, attack, 0.0)

        file.upload(read, [file, model, attack, eps], [upload, file, number, shown], **EVENT)
        gr.on([number.input, model.input, eps.input], show, settings, shown, trigger_mode="always_last", **EVENT)
        attack.input(change_attack, settings[:-1], [attack, eps, shown], **EVENT)
    return page


def image_slider(count: int) -> gr.Slider:
    """The number of the image that is shown, from 1, at the one in the middle; hidden where there is only one."""
    return gr.Slider(1, max(count, 2), middle(count), step=1, label="Image", visible=count > 1, elem_id="number")


def middle(count: int) -> int:
    """The number of the image in the middle, from 1."""
    return max((count + 1) // 2, 1)


def attack_settings(label: str) -> tuple[gr.Dropdown, gr.Slider]:
    """The menu of attacks with the description of one, and the slider of its radius at 0."""
    choices = attack_choices()
    top, step = RANGES[choices[label].norm]
    menu = gr.Dropdown(list(choices), value=label, label="Attack", info=choices[label].summary, elem_id="attack")
    return menu, gr.Slider(0, top, 0, step=step, label="ε", info=RADIUS, elem_id="eps")
