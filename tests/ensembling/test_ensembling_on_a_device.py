"""Predictions, ensembles and the transfer matrix on another device equal those on the CPU."""

import copy

import numpy as np
import pandas as pd
import pytest
from torch import nn

from medrobust.core.params.training import AdvParams
from medrobust.core.params.transfer import TransferParams
from medrobust.ensembling.fit import predict_validation, tuned_method
from medrobust.ensembling.registry import METHODS
from medrobust.ensembling.transfer import transfer
from medrobust.models.ensemble import EnsembleClassifier
from tests.ensembling.drawn_predictions import settings
from tests.ensembling.test_transfer import EPS, REPORT, member, pictures, suite
from tests.other_device import other_device
from tests.params import default_block

ADV = default_block(AdvParams, "adv", eps=0.05, steps=2, epochs=1, lr_scale=1)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_predicts_the_same_on_another_device(method: str) -> None:
    images, members = pictures(40), [member(0), member(1)]
    sample = predict_validation(members, images, ADV, seed=3)
    combination = tuned_method(method, sample, settings())(sample)
    batch = images.batch(range(8))
    expected = EnsembleClassifier(members, combination).eval()(batch).detach()
    with other_device() as device:
        moved = [copy.deepcopy(one).to(device) for one in members]
        found = predict_validation(moved, images.resident(device), ADV, seed=3)
        assert np.array_equal(found.clean, sample.clean)
        assert np.array_equal(found.robust, sample.robust)
        logits = EnsembleClassifier(moved, combination).to(device).eval()(batch.to(device)).detach().cpu()
    assert bool((logits == expected).all())


def test_the_transfer_matrix_is_the_same_on_another_device() -> None:
    params = TransferParams(suite="s", eps=EPS, member_eps=[], images=8)

    def matrix(models: dict[str, nn.Module], ensemble: EnsembleClassifier) -> pd.DataFrame:
        return transfer(
            models, ("ensemble", ensemble), list(models), pictures(), suite(), params=params, report=REPORT, seed=4
        )[0]

    models = {"x-clean": member(0), "x-adv": member(1)}
    expected = matrix(models, EnsembleClassifier(list(models.values()), [0.5, 0.5]).eval())
    with other_device() as device:
        moved = {name: copy.deepcopy(model).to(device) for name, model in models.items()}
        found = matrix(moved, EnsembleClassifier(list(moved.values()), [0.5, 0.5]).to(device).eval())
    pd.testing.assert_frame_equal(found, expected)
