"""Contact sheet of the most suspicious image pairs of an audit, for visual inspection."""

from pathlib import Path

import numpy as np
import pandas as pd

from medrobust.core.records import write_table
from medrobust.data.store import ImageStore

#: Maximum number of pairs, minimum number of nearest pairs among them, and pairs per row of the sheet.
MAX_PAIRS, MIN_NEAREST, COLUMNS = 12, 4, 4
#: Side length of an image, margin and height of the caption in pixels.
SIDE, MARGIN, CAPTION = 128, 8, 44


def contact_sheet(store: ImageStore, pairs: pd.DataFrame, nearest: pd.DataFrame, folder: Path) -> None:
    """Write `pairs.png`, the worst `pairs` of an audit, followed by its `nearest` pairs, with captions.

    The report shows the sheet, so its captions have numbers instead of ids, for pairs and for patients.
    `shown.csv` beside it lists the ids of each pair.
    """
    from PIL import Image, ImageDraw

    worst = pairs.head(MAX_PAIRS - MIN_NEAREST)
    shown = pd.concat([worst, nearest[~nearest["row"].isin(worst["row"])]]).head(MAX_PAIRS)
    shown.insert(0, "pair", range(1, len(shown) + 1))
    write_table(folder / "shown.csv", shown.drop(columns=["row", "other_row"]))
    owners = shown[["owner", "other_owner"]].to_numpy().ravel()
    patients = {owner: number for number, owner in enumerate(dict.fromkeys(owners[owners != ""]), 1)}
    width, height = 2 * SIDE + 3 * MARGIN, SIDE + CAPTION + MARGIN
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (min(len(shown), COLUMNS) * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for position, (_, pair) in enumerate(shown.iterrows()):
        left, top = (position % COLUMNS) * width + MARGIN, (position // COLUMNS) * height + MARGIN
        for number, prefix in enumerate(("", "other_")):
            image = Image.fromarray(np.asarray(store.images[pair[f"{prefix}row"]])).convert("RGB")
            sheet.paste(image.resize((SIDE, SIDE)), (left + number * (SIDE + MARGIN), top))
            known = patients.get(pair[f"{prefix}owner"])
            owner = "no patient id" if known is None else f"patient {known}"
            caption = f"{pair[f'{prefix}split']}, {owner}\n{pair[f'{prefix}label']}"
            draw.text((left + number * (SIDE + MARGIN), top + SIDE + 14), caption[:60], fill="black")
        same = pair["owner"] == pair["other_owner"] != ""
        kind = "same patient" if pair["kind"] == "nearest" and same else pair["kind"]
        draw.text(
            (left, top + SIDE + 1),
            f"{pair['pair']}: {kind}, correlation {pair['similarity']:.4f}",
            fill="firebrick",
        )
    sheet.save(folder / "pairs.png")
