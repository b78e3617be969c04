"""The worst pairs of an audit as one picture, for a human to judge."""

from pathlib import Path

import numpy as np
import pandas as pd

from medrobust.data.store import ImageStore

#: Pairs on the sheet, how many of them are nearest pairs at least, and how many stand in a row.
MOST, NEAREST, COLUMNS = 12, 4, 4
#: Side of a picture, margin and height of the words in pixels.
SIDE, MARGIN, WORDS = 128, 8, 44


def contact_sheet(store: ImageStore, pairs: pd.DataFrame, nearest: pd.DataFrame, path: Path) -> None:
    """Write the worst pairs, each with a line on what it is, and then the nearest pairs of test images.

    Args:
        store: the prepared images.
        pairs, nearest: of an `Audit`.
        path: the PNG to write.
    """
    from PIL import Image, ImageDraw

    worst = pairs.head(MOST - NEAREST)
    shown = pd.concat([worst, nearest[~nearest["row"].isin(worst["row"])]]).head(MOST)
    width, height = 2 * SIDE + 3 * MARGIN, SIDE + WORDS + MARGIN
    lines = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (min(len(shown), COLUMNS) * width, lines * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (_, pair) in enumerate(shown.iterrows()):
        left, top = (place % COLUMNS) * width + MARGIN, (place // COLUMNS) * height + MARGIN
        for step, side in enumerate(("", "other_")):
            picture = Image.fromarray(np.asarray(store.images[pair[f"{side}row"]])).convert("RGB")
            sheet.paste(picture.resize((SIDE, SIDE)), (left + step * (SIDE + MARGIN), top))
            owner = pair[f"{side}owner"] or "patient unknown"
            words = f"{pair[f'{side}split']}, {owner}\n{pair[f'{side}label']}"
            draw.text((left + step * (SIDE + MARGIN), top + SIDE + 14), words[:60], fill="black")
        same = pair["owner"] == pair["other_owner"] != ""
        what = "same patient" if pair["kind"] == "nearest" and same else pair["kind"]
        draw.text((left, top + SIDE + 1), f"{what}, correlation {pair['similarity']:.4f}", fill="firebrick")
    sheet.save(path)
