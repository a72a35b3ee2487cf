"""The autoencoder of plain tissue: what anomalies are, and that its error tells of them."""

from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from examples.planted.pictures import plain
from examples.planted.recipes import AUTOENCODER
from examples.planted.reconstruction import told_apart

MODELS = Path(__file__).parents[3] / "models"


def test_an_anomaly_is_all_that_differs():
    bare, strange = plain(3), plain(3, 8.0)
    changed = bare.stored != strange.stored
    assert np.array_equal(changed, strange.masks["anomaly"])
    assert not bare.masks


def test_its_error_tells_of_anomalies_in_pictures_it_never_saw():
    network = AUTOENCODER.network.build()
    network.load_state_dict(load_file(MODELS / AUTOENCODER.id / "weights.safetensors"))
    assert told_apart(network.eval(), [plain(seed) for seed in range(900, 940)]) > 0.99
