"""The report's page that compares training and test images.

Out-of-fold scores of a random split predict the test score only if both look alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from kfold_ens.data.listings import is_extra
from kfold_ens.data.pixels import PixelStore, PixelStores
from kfold_ens.report import pages, style
from kfold_ens.report.pages import Markup
from kfold_ens.report.pictures import of_store
from kfold_ens.report.shift import CLEAR, FOLDS, SIDE, Told, can_be_compared, drawn, kinds, looks, measures, told_apart

log = logging.getLogger(__name__)

SHOWN = 24  # pictures of each half
HALVES = {"train": "training", "test": "test"}
QUANTILES = (("5%", 0.05), ("median", 0.5), ("95%", 0.95))
SEES = {
    "pixels": f"pixels (thumbnail of {SIDE} x {SIDE}, brightness, contrast)",
    "files": "files (width, height, extension)",
}
LIMITS = (
    f"The first classifier sees thumbnails of {SIDE} x {SIDE} pixels: light, colours, backgrounds and coarse shapes, "
    "but not small structures, sharpness or noise. So training and test images may differ even if it cannot tell them "
    "apart. It may also tell them apart only because the mix of classes differs."
)
REMEDY = (
    "First check whether training or test images were only saved in another way: other software, size, format or range "
    "of grey levels. If test images come from other patients, sites, videos or dates than training images, split the "
    "training images by these too, so that held-out images are as new to a model as test images: with groups or given "
    "folds, see docs/splits.md."
)


def write_halves(manifest: pd.DataFrame, alike: pd.DataFrame, store: PixelStore | PixelStores, path: str) -> None:
    """Write the page ``halves``, and log a warning if training and test images clearly differ.

    ``alike`` is the table of near-duplicates. Extra images are not compared, since they are never scored.
    """
    manifest = manifest[~is_extra(manifest)]
    images = drawn(manifest, alike)
    seen = looks(images, store)
    told = told_apart(images, seen) if can_be_compared(images) else {}
    if clear(told):
        log.warning(clear(told))
    pages.write_page(
        path,
        "Training and test images compared",
        *(_verdict(told, images, store) if told else _unknown(images)),
        pages.heading("Sizes, brightness and contrast"),
        *_measured(manifest, images, measures(images, seen)),
        pages.heading("Kinds of files"),
        pages.table(_files(manifest)),
    )


def clear(told: Mapping[str, Told]) -> str:
    """Describe clear differences in a sentence; empty if there are none."""
    found = [f"by {SEES[name]} with an AUC of {_words(each)}" for name, each in told.items() if each.is_clear]
    if not found:
        return ""
    return (
        f"Test images differ from training images: a classifier tells them apart {', '.join(found)}. The out-of-fold "
        "score may not hold for the test images."
    )


def _words(told: Told) -> str:
    return f"{told.auc:.2f} (95% interval {told.low:.2f} to {told.high:.2f})"


def _unknown(images: pd.DataFrame) -> Iterator[Markup]:
    yield pages.note(
        f"Too few images to compare training and test images: at least {FOLDS} different images of each are needed. "
        f"There are {_counts(images)}; identical images and near-duplicates count once."
    )


def _verdict(told: Mapping[str, Told], images: pd.DataFrame, store: PixelStore | PixelStores) -> Iterator[Markup]:
    if clear(told):
        yield pages.note(clear(told))
        yield pages.paragraph(REMEDY)
    elif all(each.is_alike for each in told.values()):
        yield pages.paragraph(
            "Test images look like training images to these classifiers. The out-of-fold score of a random split then "
            "predicts the test score well."
        )
    else:
        yield pages.paragraph(
            f"It is not clear whether test images differ from training images: the interval of an AUC spans {CLEAR}. "
            "Either they differ little, or there are too few of them."
        )
    yield pages.table(_told_table(told), _sample(images))
    yield pages.paragraph(
        "Two classifiers are trained to tell test images from training images. With an AUC near 0.5 they can only "
        f"guess; an interval above {CLEAR} is a clear difference; at 1 the two are perfectly separated. Each image is "
        f"classified by a model that was not trained on it ({FOLDS} folds). If the AUC of the pixels is near 0.5, the "
        "pictures below are picked by chance."
    )
    yield pages.paragraph(LIMITS)
    yield from _surest(told["pixels"], images, store)


def _sample(images: pd.DataFrame) -> str:
    return f"sample: {_counts(images)} images; identical images and near-duplicates count once"


def _counts(images: pd.DataFrame) -> str:
    return ", ".join(f"{(images['split'] == half).sum():,} {name}" for half, name in HALVES.items())


def _told_table(told: Mapping[str, Told]) -> pd.DataFrame:
    rows = [
        {"the classifier sees": SEES[name], "AUC": each.auc, "95% from": each.low, "to": each.high}
        for name, each in told.items()
    ]
    return pd.DataFrame(rows)


def _surest(told: Told, images: pd.DataFrame, store: PixelStore | PixelStores) -> Iterator[Markup]:
    """Yield the training and the test images that the classifier of pixels is most confident about."""
    of_half = {"train": 1 - told.probability, "test": told.probability}
    for half in ("test", "train"):
        own = images.assign(sure=of_half[half])[images["split"] == half]
        surest = own.sort_values(["sure", "sha256"], ascending=[False, True]).head(SHOWN)
        yield pages.heading(f"The most recognisable {HALVES[half]} images, by pixels")
        yield pages.gallery(
            of_store(store, row.image_id, f"{row.sure:.0%} {HALVES[half]}", row.image_id) for row in surest.itertuples()
        )


def _measured(manifest: pd.DataFrame, images: pd.DataFrame, measured: Mapping[str, pd.Series]) -> Iterator[Markup]:
    """Yield histograms and quantiles of the sampled images, for training and test."""
    by_half = {
        title: {name: values[images["split"] == half].to_numpy(dtype=float) for half, name in HALVES.items()}
        for title, values in measured.items()
    }
    varied = {title: halves for title, halves in by_half.items() if measured[title].nunique() > 1}
    yield pages.grid(
        *(
            pages.figure(histogram(halves, title), f"Training and test images by {title}")
            for title, halves in varied.items()
        )
    )
    rows = [
        {"": title}
        | {f"{name}: {word}": _quantile(values, at) for name, values in halves.items() for word, at in QUANTILES}
        for title, halves in by_half.items()
    ]
    yield pages.table(pd.DataFrame(rows), _sample(images))


def _quantile(values: np.ndarray, at: float) -> str:
    return f"{np.quantile(values, at):,.4g}" if len(values) else ""


def histogram(halves: Mapping[str, np.ndarray], title: str) -> Figure:
    """Plot the share of training and test images by a measure, on a logarithmic axis if it spans more than 1 to 10."""
    every = np.concatenate(list(halves.values()))
    low, high = every.min(), every.max()
    is_wide = low > 0 and high > 10 * low
    edges = np.geomspace(low, high, 31) if is_wide else np.linspace(low, high, 31)
    figure, axis = plt.subplots(figsize=(4, 2.4))
    for place, (name, values) in enumerate(halves.items()):
        shares = np.histogram(values, edges)[0] / max(1, len(values))
        axis.stairs(shares, edges, color=style.COLOURS[place], fill=True, alpha=0.4, label=name)
    axis.set_xscale("log" if is_wide else "linear")
    axis.set_xlabel(title)
    axis.set_ylabel("share of images")
    axis.legend(fontsize=8)
    return figure


def _files(manifest: pd.DataFrame) -> pd.DataFrame:
    """Count all training and test images by extension."""
    counts = pd.crosstab(kinds(manifest["path"]).replace("", "none"), manifest["split"])
    counts = counts.reindex(columns=list(HALVES), fill_value=0)
    table = {"extension": counts.index}
    for half, name in HALVES.items():
        table |= {
            f"{name} images": counts[half].to_numpy(),
            f"share of {name} images": counts[half].to_numpy() / max(1, counts[half].sum()),
        }
    return pd.DataFrame(table)
