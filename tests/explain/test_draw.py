"""What is saved is what was drawn: no colour lost, no word cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medrobust.explain.draw import ImageVersion, Panel, draw_features, draw_panel, draw_surfaces, save
from medrobust.explain.landscape import FeatureMap, Surface


@pytest.fixture
def panel() -> Panel:
    """A grey image, two maps and a change that use the whole range of their colours."""
    rng = np.random.default_rng(0)
    down, across = np.mgrid[:64, :64] / 64
    image = np.clip(1.2 - 2 * np.hypot(down - 0.5, across - 0.5) + rng.normal(0, 0.05, (64, 64)), 0, 1)
    maps = {"gradcam": np.exp(-((across - 0.6) ** 2 + (down - 0.5) ** 2) / 0.06), "saliency": rng.random((64, 64))}
    attacked = np.clip(image + 0.02 * rng.uniform(-1, 1, image.shape), 0, 1)
    clean = ImageVersion(image, maps, "Non (40%)")
    return Panel("right-1", "ModerateDemented", clean, ImageVersion(attacked, maps, "Mild (50%)"), 25, "words")


def test_few_colours_are_close_to_all(panel: Panel, tmp_path: Path) -> None:
    figure = draw_panel(panel)
    figure.set_dpi(120)
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    save(figure, tmp_path, panel.name)
    saved = Image.open(tmp_path / "right-1.png")
    assert saved.mode == "P"
    assert np.abs(np.asarray(saved.convert("RGB")).astype(int) - drawn).max() <= 24
    assert not (tmp_path / "right-1.svg").exists()


@pytest.mark.parametrize("name", ["$x^{$", "_hidden", "a\\b"])
def test_a_name_is_shown_as_it_is(name: str, panel: Panel, tmp_path: Path) -> None:
    """Neither as mathematics, which may be wrong, nor left out of the legend."""
    points = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    features = FeatureMap(points, points[:2], 0.5, None)
    figure = draw_features(features, np.arange(6) % 2, np.array([0, 1]), [name, "b"])
    save(figure, tmp_path, "features")
    [legend] = figure.legends
    assert name in [text.get_text().strip() for text in legend.get_texts()]
    save(draw_panel(replace(panel, truth=name)), tmp_path, "panel")


def test_attacked_images_of_a_joint_layout_are_crosses() -> None:
    points = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    for shown, marks, title in ((6, 1, "clean images only"), (8, 2, "clean and attacked")):
        layout = np.arange(2.0 * shown).reshape(shown, 2)
        features = FeatureMap(points, points[:2], 0.5, layout)
        right = draw_features(features, np.zeros(6, dtype=int), np.array([0, 1]), ["a", "b"]).axes[1]
        drawn = [np.asarray(group.get_offsets()) for group in right.collections if len(group.get_offsets())]
        assert len(drawn) == marks
        assert right.get_title() == f"t-SNE, {title}"
    np.testing.assert_array_equal(drawn[1], layout[6:])


def test_every_word_lies_inside_the_picture(panel: Panel) -> None:
    figure = draw_panel(panel)
    figure.canvas.draw()
    whole = figure.bbox
    words = [text for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text()]
    assert {"brighter", "darker", "most", "truth:\nModerateDemented"} <= {text.get_text() for text in words}
    for text in words:
        box = text.get_window_extent()
        assert box.x0 >= whole.x0, text.get_text()
        assert box.x1 <= whole.x1, text.get_text()


def test_the_ball_is_drawn_in_units_of_its_radius() -> None:
    diamond = np.array([[0.02, 0], [0, 0.02], [-0.02, 0], [0, -0.02], [0.02, 0]])
    surface = Surface(np.linspace(-0.04, 0.04, 5), np.arange(25.0).reshape(5, 5), diamond)
    axes = draw_surfaces({"sure and right": surface}, 0.02).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), diamond / 0.02)
    assert (axes.get_xlim(), axes.get_ylim()) == ((-2, 2), (-2, 2))
