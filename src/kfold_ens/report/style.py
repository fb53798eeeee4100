"""The style of all figures: vector graphics, and colours for colour-blind readers."""

from __future__ import annotations

import warnings

import altair
import matplotlib
from cycler import cycler

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402 (after the backend is set)

# Okabe and Ito 2008, https://jfly.uni-koeln.de/color/, darkest first; fold f has colour f.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

altair.data_transformers.disable_max_rows()  # 100 classes have 10,000 cells
warnings.filterwarnings("ignore", r"Glyph \d+ .*missing")  # the browser has more fonts than matplotlib

plt.rcParams.update(
    {
        "axes.grid": True,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": "medium",
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "svg.fonttype": "none",  # text stays text, in any script
        "svg.hashsalt": "kfold_ens",  # the same figure gives the same bytes
    }
)
