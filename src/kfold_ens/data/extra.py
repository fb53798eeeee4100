"""Images of ``data.extra``: they train in every fold and are never held out."""

from __future__ import annotations

import logging

import pandas as pd

from kfold_ens.config import Half, Source
from kfold_ens.data.listings import is_extra
from kfold_ens.errors import DataError
from kfold_ens.nearest import with_suggestions

log = logging.getLogger(__name__)


def refuse_foreign_classes(images: pd.DataFrame, data: Source, half: Half) -> None:
    """Refuse classes of extra images that no other training image has: nothing would measure them.

    Raises:
        DataError: listing these classes.
    """
    extra = is_extra(images)
    known = sorted(set(images.loc[~extra, "label"]))
    foreign = sorted(set(images.loc[extra, "label"]).difference(known))
    if foreign:
        lines = "\n".join(f"  {line}" for line in with_suggestions(foreign, known))
        raise DataError(
            f"data.extra has classes that no image of data.train has; rename or remove them, or move images to "
            f"data.train:\n{lines}"
        )


def without_known_images(images: pd.DataFrame) -> pd.DataFrame:
    """A manifest without extra images that are byte-identical to an image of ``data.train``.

    That image is trained on in every fold but the one that holds it out, where its copies may not be trained on either.
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
