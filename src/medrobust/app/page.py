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
#: Of every event that asks the model: one at a time over all open pages, and no interface for other programs.
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
                attack = gr.Dropdown(
                    list(attack_choices()), value=FIRST, label="Attack", info=summary(FIRST), elem_id="attack"
                )
                eps = radius_slider(FIRST)
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

        def change_attack(label: str) -> tuple[gr.Dropdown, gr.Slider]:
            return gr.Dropdown(info=summary(label)), radius_slider(label)

        file.upload(read, [file, model, attack, eps], [upload, file, number, shown], **EVENT)
        # `input` of a menu comes twice per choice, and again whenever the menu loses the focus.
        gr.on([number.input, model.change, eps.change], show, settings, shown, trigger_mode="always_last", **EVENT)
        # Not in the queue of the model: a reset of ε that waited there would undo what the user sets meanwhile.
        attack.change(change_attack, attack, [attack, eps], queue=False, api_visibility="private")
    return page


def image_slider(count: int) -> gr.Slider:
    """The number of the image that is shown, from 1, at the one in the middle; hidden where there is only one."""
    return gr.Slider(1, max(count, 2), middle(count), step=1, label="Image", visible=count > 1, elem_id="number")


def middle(count: int) -> int:
    """The number of the image in the middle, from 1."""
    return max((count + 1) // 2, 1)


def summary(label: str) -> str:
    """The description of an attack below the menu."""
    return attack_choices()[label].summary


def radius_slider(label: str) -> gr.Slider:
    """The slider of an attack's radius, at 0."""
    top, step = RANGES[attack_choices()[label].norm]
    return gr.Slider(0, top, 0, step=step, label="ε", info=RADIUS, elem_id="eps")
