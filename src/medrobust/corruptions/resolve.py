"""The block `corruptions` as cells read it: names, and the hashes of their code. Light: no torch."""

from typing import Any

from medrobust.core.code import chosen_entries
from medrobust.core.params.corruptions import CorruptionsParams
from medrobust.corruptions.lookup import chosen_names


def resolve_corruptions(params: CorruptionsParams, code: dict[str, str]) -> dict[str, Any]:
    """What cells depend on: `modality`, `corruptions` (names), `severities`, `draws`, `code` (hashes).

    Raises:
        UserError: a corruption does not occur in the modality.
    """
    names = chosen_names(params.modality, params.names)
    return {
        "modality": params.modality,
        "corruptions": names,
        "severities": params.severities,
        "draws": params.draws,
        "code": chosen_entries(code, "corruptions", names),
    }
