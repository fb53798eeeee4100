"""Find outliers: images that decode without an error, but are probably unintended."""

from __future__ import annotations

import numpy as np
import pandas as pd

FAR = 5  # robust standard deviations from the median
PLAIN = 0.1  # of the median contrast; an image below this is almost one colour
# Each measure of an image: the smallest deviation that counts as a standard deviation, and words for low and high.
MEASURES = {
    "mean": (8.0, "dark", "bright"),  # grey levels
    "shape": (0.15, "narrow", "wide"),  # the logarithm of width / height
    "size": (0.3, "small", "large"),  # the logarithm of the number of pixels
}


def brightness(pixels_hwc: np.ndarray) -> tuple[float, float]:
    """The mean and standard deviation of an image's grey levels, from every fourth pixel of every fourth row."""
    some = pixels_hwc[::4, ::4]
    return float(some.mean()), float(some.std())


def outliers(images: pd.DataFrame) -> pd.Series:
    """Reasons why images are outliers, by index; all other images are omitted.

    ``images`` has a row per image: ``mean`` and ``contrast`` in grey levels, ``width`` and ``height`` in pixels. An
    outlier is far from the median, measured in median absolute deviations (Leys et al. 2013,
    https://doi.org/10.1016/j.jesp.2013.03.013).
    """
    width, height = images["width"].astype(float), images["height"].astype(float)
    measured = {"mean": images["mean"], "shape": np.log(width / height), "size": np.log(width * height)}
    reasons = pd.Series("", index=images.index)
    reasons[images["contrast"] < PLAIN * images["contrast"].median()] = "almost one colour"
    for name, values in measured.items():
        least, low, high = MEASURES[name]
        away = values - values.median()
        far = FAR * max(least, 1.4826 * away.abs().median())
        for word, is_far in ((low, away < -far), (high, away > far)):
            reasons[is_far] = reasons[is_far].str.cat([word] * is_far.sum(), sep=", ").str.removeprefix(", ")
    return reasons[reasons != ""]
