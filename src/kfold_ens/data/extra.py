"""Check the images of ``data.extra``, which train in every fold and are never held out."""

from __future__ import annotations

import logging

import pandas as pd

from kfold_ens.config import Half, Source
from kfold_ens.data.listings import is_extra
from kfold_ens.errors import DataError
from kfold_ens.nearest import with_suggestions

log = logging.getLogger(__name__)


def refuse_foreign_classes(images: pd.DataFrame, data: Source, half: Half) -> None:
    """Refuse classes that only extra images have: no score would cover them.

    Raises:
        DataError: listing these classes.
    """
    extra = is_extra(images)
    known = sorted(set(images.loc[~extra, "label"]))
    foreign = sorted(set(images.loc[extra, "label"]).difference(known))
    if foreign:
        lines = "\n".join(f"  {line}" for line in with_suggestions(foreign, known))
        raise DataError(
            "data.extra has classes that data.train lacks; rename or remove them, or move images to data.train:\n"
            f"{lines}"
        )


def without_known_images(images: pd.DataFrame) -> pd.DataFrame:
    """Drop extra images that are byte-identical to an image of ``data.train``.

    That image already trains in every fold except the one that holds it out, where its copies must not train either.
    """
    extra = is_extra(images)
    others = images.loc[~extra & (images["split"] == "train"), "sha256"].dropna()
    known = extra & images["sha256"].isin(others)
    if known.any():
        log.warning(
            "data.extra: %d of %d images are byte-identical to images of data.train and are skipped",
            known.sum(),
            extra.sum(),
        )
    return images[~known]
