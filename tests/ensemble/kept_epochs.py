"""Folds with kept logits of their epochs, for tests of what the choice of an epoch flatters."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kfold_ens.epoch_logits import FILE, EpochLogits, compact, write_epochs
from kfold_ens.metrics import value

CLASSES = ("cat", "dog", "owl")


def write_folds(folder, folds=3, images=40, epochs=6, repeats=1, seed=0, model=0, skill=0.5):
    """Folds with logits that have little to do with the labels; return their histories and the labels.

    Another ``model`` has other logits for the same folds and labels.
    """
    random = np.random.default_rng(seed)
    label_of = {f"img{place}": CLASSES[random.integers(3)] for place in range(folds * images)}
    histories = {}
    for repeat in range(repeats):
        ids = random.permutation(sorted(label_of)).astype(object)
        for fold in range(folds):
            own = ids[fold * images : (fold + 1) * images]
            target = np.array([CLASSES.index(label_of[each]) for each in own])
            noise = np.random.default_rng([seed, model, fold]) if model else random
            values = noise.normal(size=(epochs, images, 3)) + skill * np.eye(3)[target]
            values = np.stack([compact(each) for each in values])
            rows = [
                {"epoch": epoch + 1, "val_accuracy": value("accuracy", values[epoch], target)}
                for epoch in range(epochs)
            ]
            place = folder / f"repeat{repeat}/fold{fold}"
            place.mkdir(parents=True)
            pd.DataFrame(rows).to_csv(place / "history.csv", index=False)
            write_epochs(place / FILE, EpochLogits(own, values, CLASSES), place / "history.csv")
            histories[f"{fold} of repeat {repeat}" if repeat else fold] = str(place / "history.csv")
    return histories, label_of
