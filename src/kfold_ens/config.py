"""The models of ``config.yaml`` and of recipes, which define and check all options.

Snakemake imports this module with the Snakefile in every job, so it never imports torch or pandas.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from kfold_ens.errors import ConfigError
from kfold_ens.findings import SHORT, UNKNOWN, Advised, Written, refusal

# --- numbers ---------------------------------------------------------------------------------------------


def _number(value: Any) -> Any:
    """Convert text such as ``3e-4``, which PyYAML reads as a string, to a number. Refuse true and false."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number (got {str(value).lower()})")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"must be a number (got {value!r})") from None
    return value


def _whole(value: Any) -> Any:
    """Convert text such as 0: Snakemake reads numbers inside the lists of --config as text."""
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]+", value) else value


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"must be odd (got {value})")
    return value


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"must start with the smaller number (got [{value[0]:g}, {value[1]:g}])")
    return value


def _intensity_range(value: Any) -> Any:
    """Check a word or two 16-bit levels. The levels 0 and 65535 become ``full``."""
    if value in ("full", "per_image"):
        return value
    levels = value if isinstance(value, list | tuple) and all(type(level) is int for level in value) else ()
    if len(levels) != 2 or not 0 <= levels[0] < levels[1] <= 65535:
        raise ValueError(
            f"must be full, per_image, or two increasing levels from 0 to 65535, such as [0, 4095] (got {value!r})"
        )
    return "full" if tuple(levels) == (0, 65535) else levels


def _without_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain the character NUL")
    return value


def _expanded(path: str) -> str:
    """Expand ~ and environment variables in a path. Unknown variables stay as they are.

    workflow/rules/sources.smk refuses paths that do not exist.
    """
    path = os.path.expandvars(os.path.expanduser(path))
    if not path:
        raise ValueError("must not be empty; set its environment variable")
    return path


def _not_auto(value: Any) -> Any:
    if value == "auto":
        raise ValueError("must be true or false (auto is no longer supported)")
    return value


def _one_group(value: str) -> str:
    """Check a regular expression, whose only group says which images stay together."""
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    if groups != 1:
        raise ValueError(
            f"needs exactly one group in parentheses, whose text is the same for images that stay together "
            f"({value!r} has {groups}); write (?:...) for other parentheses"
        )
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _IsPath:
    """Marks text as a path in the JSON schema."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return handler(schema) | {"format": "path"}


# In the order of messages. The k of the last two stands for a number: top_5_accuracy, map_at_5.
METRIC_KINDS = (
    "accuracy",
    "balanced_accuracy",
    "f1_macro",
    "log_loss",
    "roc_auc",
    "average_precision",
    "quadratic_kappa",
    "top_k_accuracy",
    "map_at_k",
)


K = re.compile(r"(?<=_)k(?=_|$)")  # the k of a kind, in place of a metric's number
FIRST_LOOK = 2  # folds after which a race first stops recipes; after one, the luck of one training would decide
OF_PROBABILITIES = ("log_loss", "roc_auc", "average_precision")  # metrics that need probabilities


def metric_kind(name: str) -> str:
    """Replace the number in a metric's name by k: map_at_5 becomes map_at_k."""
    return re.sub(r"(?<=_)[1-9]\d*(?=_|$)", "k", name)


def is_metric(name: Any) -> bool:
    """Whether this is the name of a metric."""
    return isinstance(name, str) and metric_kind(name) in METRIC_KINDS and not K.search(name)


def _metric_or(*words: str, before: str = "") -> Any:
    """Return the type of a value that is one of ``words``, or ``before`` followed by the name of a metric."""
    names = [*words, *(before + K.sub("5", kind) for kind in METRIC_KINDS)]

    def check(value: Any) -> Any:
        if isinstance(value, str) and (value in words or value.startswith(before) and is_metric(value[len(before) :])):
            return value
        near = get_close_matches(str(value), names, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"must be {', '.join(names)} (5 can be any number) (got {SHORT.repr(value)}){meant}")

    return BeforeValidator(check), WithJsonSchema(_metric_schema(names))


def _metric_schema(names: list[str]) -> dict[str, Any]:
    return {
        "type": "string",
        "pattern": f"^({'|'.join(name.replace('5', '[1-9][0-9]*') for name in names)})$",
        "examples": names,
    }


Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]
Fraction = Annotated[Real, Field(ge=0, le=1)]
Count = Annotated[int, Field(strict=True, gt=0)]
Odd = Annotated[Count, AfterValidator(_odd)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(_rising)]
Share = Annotated[Real, Field(gt=0, le=1)]
Shares = Annotated[tuple[Share, Share], AfterValidator(_rising)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_without_nul)]
Place = Annotated[Name, AfterValidator(_expanded), _IsPath]  # a path given by the user
Places = Annotated[
    list[Place], BeforeValidator(_listed, json_schema_input_type=Place | list[Place]), AfterValidator(sorted)
]
Grouping = Annotated[Name, AfterValidator(_one_group)]
Metric = Annotated[str, *_metric_or()]
Monitored = Annotated[str, *_metric_or("loss", "metric")]  # the held-out loss, the metric of config.yaml, or another
Selected = Annotated[str, *_metric_or("last", "best_loss", "best_metric", before="best_")]


class Section(Advised):
    """A part of the configuration. Unknown keys are errors; values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# --- config.yaml -----------------------------------------------------------------------------------------


Half = Literal["train", "test"]
HALVES: tuple[Half, ...] = get_args(Half)


IntensityRange = Literal["full", "per_image"] | tuple[int, int]


NOT_OF_LISTS = {"test_labels", "class_order", "intensity_range", "folds"}  # keys that affect no list of images


class Source(Section):
    """What every data source has in common. A source that reads the user's own files says which, for each half."""

    limit_per_class: Count | None = None
    """Uses at most this many images per class, drawn by ``seed``. By default all images are used."""
    test_labels: Place | None = None
    """Names a table with the labels of the test images, in the form of the submission. They score the test images and
    are used for nothing else. By default only sources that know these labels (``digits``, ``torchvision``) have test
    scores."""
    folds: Place | None = None
    """Names a table with the columns ``image`` and ``fold`` and takes the split from it. By default the split is made
    by ``seed``."""
    class_order: Annotated[list[Name], Field(min_length=2)] | None = None
    """Lists all classes from the lowest to the highest, for ``quadratic_kappa``. By default classes that are numbers
    are ordered by value."""
    intensity_range: Annotated[IntensityRange, BeforeValidator(_intensity_range)] = "full"
    """Sets what becomes black and white in 16-bit greyscale images: ``full`` (0 and 65535), ``per_image`` (the darkest
    and the brightest pixel of each image), or two levels, such as [0, 4095] for a 12-bit sensor."""

    def tables(self, half: Half) -> list[str]:
        """List the files that list or hold a half's images. Changes of their bytes are detected."""
        return []

    def folders(self, half: Half) -> list[str]:
        """List the folders of a half's images."""
        return []

    def places(self, half: Half) -> dict[str, list[str]]:
        """Return the tables and folders that must exist before a half's images can be listed, by key."""
        return {f"data.{half}": [*self.tables(half), *self.folders(half)]}

    def keys_of(self, half: Half) -> set[str]:
        """Return the keys that affect only this half's list of images."""
        return set()

    def of_half(self, half: Half) -> dict[str, Any]:
        """Return all that a half's list of images depends on, without values at their defaults."""
        others = {key for other in HALVES if other != half for key in self.keys_of(other)}
        return self.model_dump(mode="json", exclude=NOT_OF_LISTS | others, exclude_defaults=True)


class Digits(Source):
    """Reads the 1,797 digits that ship with scikit-learn. A fifth of them is the labelled test set."""

    source: Literal["digits"]


class ImageFiles(Source):
    """What sources that read the user's image files have in common."""

    groups: Grouping | None = None
    """Keeps images that belong together (a patient, a site, a video) in one fold. This is a regular expression with
    exactly one group in parentheses, searched for in each image's name. Images for which the group matches the same
    text stay together. By default images are independent."""
    extra: Places = []
    """Lists further training images, which are never held out: folders like those of ``train`` for ``imagefolder``,
    tables like ``train`` for ``csv``. By default there are none."""

    def keys_of(self, half: Half) -> set[str]:
        return {"train", "limit_per_class", "groups", "extra"} if half == "train" else {"test"}


class ImageFolder(ImageFiles):
    """Reads training folders that hold one folder per class, and a folder of test images."""

    source: Literal["imagefolder"]
    train: Annotated[Places, Field(min_length=1)]
    """Names a folder that holds one folder per class, or lists several, which are merged."""
    test: Place
    """Names the folder of test images. Its subfolders are read too."""

    def folders(self, half: Half) -> list[str]:
        return [*self.train, *self.extra] if half == "train" else [self.test]

    def places(self, half: Half) -> dict[str, list[str]]:
        return {"data.train": self.train, "data.extra": self.extra} if half == "train" else super().places(half)


class Csv(ImageFiles):
    """Reads tables of image names, with labels for training."""

    source: Literal["csv"]
    train: Place
    """Names the table of training images and their labels."""
    test: Place
    """Names the table of test images."""
    images: Place
    """Names the folder of the images. The names in the tables are paths below it."""
    test_images: Place | None = None
    """Names the folder of the test images. By default it is ``images``."""
    id_column: Name = "id"
    """Names the column of image names."""
    label_column: Name = "label"
    """Names the column of labels."""
    group_column: Name | None = None
    """Names the column whose equal values keep images in one fold. By default images are independent."""
    fold_column: Name | None = None
    """Names the column with the number of the fold that holds an image out; -1 for images that only train. By default
    the split is made by ``seed``."""

    @model_validator(mode="after")
    def _said_once(self):
        for one, other in (("groups", "group_column"), ("folds", "fold_column")):
            if getattr(self, one) and getattr(self, other):
                raise ValueError(f"{one} and {other} set the same thing; remove one of them")
        return self

    def tables(self, half: Half) -> list[str]:
        return [self.train, *self.extra] if half == "train" else [self.test]

    def folders(self, half: Half) -> list[str]:
        return [self.images if half == "train" else self.test_images or self.images]

    def places(self, half: Half) -> dict[str, list[str]]:
        images = "data.test_images" if half == "test" and self.test_images else "data.images"
        first, *extra = self.tables(half)
        return {f"data.{half}": [first], "data.extra": extra, images: self.folders(half)}

    def keys_of(self, half: Half) -> set[str]:
        columns = {"label_column", "group_column", "fold_column"} if half == "train" else set()
        return super().keys_of(half) | columns

    def of_half(self, half: Half) -> dict[str, Any]:
        return super().of_half(half) | {"images": self.folders(half), "test_images": None}


class Torchvision(Source):
    """Reads any of torchvision's classification datasets, with its own training and test split
    (https://docs.pytorch.org/vision/stable/datasets.html)."""

    source: Literal["torchvision"]
    name: Name
    """Names the dataset by torchvision's class, such as ``FashionMNIST``."""
    root: Place = "data"
    """Names the folder that holds the dataset's files, or receives them."""
    download: bool = True
    """Downloads the dataset if its files are missing. With ``false``, they must be in ``root``."""

    def places(self, half: Half) -> dict[str, list[str]]:
        return {"data.root": [] if self.download else [self.root]}  # downloads create the folder


Data = Annotated[Digits | ImageFolder | Csv | Torchvision, Field(discriminator="source")]
Method = Literal["average", "softmax", "vote"]
METHODS: tuple[Method, ...] = get_args(Method)
BlendWeights = Literal["equal", "greedy", "simplex"]
BlendOf = Literal["probabilities", "ranks"]


WITHOUT_PROBABILITIES: tuple[Method, ...] = ("vote",)
# Keys of `submission` that belong to one kind.
OF_KIND = {
    "k": "top_k",
    "separator": "top_k",
    "class_prefix": "probabilities",
    "decimals": "probabilities",
    "calibrate": "probabilities",
}


class Submission(Section):
    """What the submission holds, its header, and how it names the images."""

    kind: Literal["label", "probabilities", "top_k"] | None = None
    """Chooses what a row holds: ``label``, ``probabilities`` (a column per class) or ``top_k`` (the k likeliest
    labels). By default it is the sample's kind; without a sample, ``label``."""
    id_column: Name = "image_name"
    """Names the column of image names. At its default, a sample's column replaces it."""
    label_column: Name = "pred_label"
    """Names the column of predicted labels. At its default, a sample's column replaces it."""
    names: Literal["stem", "file", "path"] | None = None
    """Chooses how an image is named: ``stem`` (no folder, no extension), ``file`` (no folder) or ``path``. By default
    it follows from the sample; without a sample, it is ``path`` for ``csv`` and ``stem`` for other sources."""
    id_prefix: str | None = None
    """Puts this text before each image's name, as in test/123.jpg. By default it is the sample's; without a sample
    there is none."""
    class_prefix: str | None = None
    """Puts this text before each class in the columns of probabilities. By default there is none."""
    k: Count | None = None
    """Writes this many labels per image; needs ``kind: top_k``. By default it is the sample's number; without a sample,
    5."""
    separator: Name | None = None
    """Separates the labels of an image; needs ``kind: top_k``. By default it is the sample's; without a sample, a
    space."""
    decimals: Annotated[int, Field(strict=True, ge=1, le=12)] = 6
    """Rounds probabilities to this many decimal places, so that each row still sums to 1; needs ``kind:
    probabilities``."""
    calibrate: bool = False
    """Scales the logits by a temperature fitted on out-of-fold logits; needs ``kind: probabilities``."""
    sample: Place | None = None
    """Names a sample submission. The submission takes its columns, ids and order. Keys of this section at their default
    are inferred from it; all others must agree with it. By default there is none."""
    zip_member: Name | None = None
    """Also writes ``results/submission.zip``, in which the submission has this name. By default no zip file is
    written."""

    @model_validator(mode="after")
    def _columns_differ(self):
        if self.id_column == self.label_column:
            raise ValueError(f"id_column and label_column are both {self.id_column!r}; give them different names")
        return self

    def stated(self, key: str) -> Any:
        """Return a key's value, or None if it is at its default, which a sample may replace."""
        value = getattr(self, key)
        return None if value == type(self).model_fields[key].default else value

    @model_validator(mode="after")
    def _keys_are_of_the_kind(self):
        kind = self.kind or (None if self.sample else "label")
        wrong = [
            f"{key} needs kind: {needed}" for key, needed in OF_KIND.items() if needed != kind and self.stated(key)
        ]
        if kind and wrong:
            raise ValueError(f"{', '.join(wrong)}; kind is {kind}")
        return self


class Scoring(Section):
    """What predictions are scored by, and the order of classes that quadratic_kappa needs."""

    metric: Metric = "accuracy"
    """Names the metric."""
    class_order: list[Name] | None = None
    """Lists all classes from the lowest to the highest. By default it follows from the classes."""


class Choosing(Section):
    """What training chooses by the held-out scores of a fold, and whether predictions have test-time views."""

    select: str = "last"
    """Names what selects the epoch."""
    watched: list[str] = []
    """Lists the sections that follow held-out scores while training, each with its kind."""
    class_order: list[Name] | None = None
    """Lists all classes from the lowest to the highest, if quadratic_kappa selects the epoch."""
    has_plain_loss: bool = True
    """Tells whether the recipe's loss is plain cross-entropy, the log loss."""
    has_views: bool = False
    """Tells whether out-of-fold predictions are averaged over test-time views."""


class Config(Section):
    """What to train on, how, and what to submit. From ``device`` on, the keys say how, never what, to compute."""

    data: Data
    """Chooses where the images and labels come from."""
    recipe: Place = "digits"
    """Names the recipe to train: a file in ``recipes/`` without its ending, or the path of a YAML file."""
    ablation: list[Place] = []
    """Lists the recipes that ``snakemake ablation`` trains and compares. By default there are none."""
    blend: list[Place] = []
    """Lists the recipes that a submission blends, instead of using ``recipe``. By default there are none."""
    blend_weights: BlendWeights = "equal"
    """Weighs the recipes of ``blend``: all ``equal``, by ``greedy`` selection on ``metric``, or on the ``simplex`` by
    log loss. The last two are fitted on out-of-fold predictions, and scored cross-fitted by fold."""
    blend_of: BlendOf = "probabilities"
    """Chooses what ``blend`` averages: ``probabilities``, or the images' ``ranks`` for ``metric: roc_auc`` with
    two classes."""
    allow_partial: bool = False
    """Blends the folds that are trained already, trains no missing one, and says which recipes of ``blend`` lack which
    folds. By default a blend trains all of them."""
    ablation_race: bool = False
    """Trains the recipes of ``ablation`` fold by fold, and stops one that is clearly worse than the leader after two or
    more folds. By default every recipe trains all folds."""
    num_folds: Annotated[int, Field(strict=True, ge=2)] = 5
    """Splits the training images into this many folds and trains one model per fold."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
    """Seeds the split and everything random in training."""
    keep_together: Literal["none", "near_duplicates"] = "none"
    """Keeps near-duplicates in one fold (``near_duplicates``). By default only byte-identical images stay together
    (``none``)."""
    rare_classes: Literal["refuse", "train_only"] = "refuse"
    """Handles classes with fewer images than folds. ``refuse`` stops before training. ``train_only`` trains on
    them in every fold and never holds them out."""
    repeats: Count = 1
    """Trains the folds of this many splits, by the seeds from ``seed`` on."""
    full_fit: bool = False
    """Also trains one model on all training images, for the median of the epochs that the folds chose. It has no
    out-of-fold score."""
    members: Literal["folds", "full", "both"] = "folds"
    """Chooses the models whose test logits are combined: those of the ``folds``, the ``full`` fit, or ``both``.
    Anything but ``folds`` needs ``full_fit: true``."""
    ensemble: Method = "average"
    """Chooses the ensembling method: ``average`` (mean of the logits), ``softmax`` (mean of the probabilities) or
    ``vote`` (majority)."""
    metric: Metric = "accuracy"
    """Scores predictions by this metric. The 5 of ``top_5_accuracy`` and ``map_at_5`` can be any number."""
    submission: Submission = Submission()
    """Sets what the submission holds and how it names images."""
    bundle: bool = False
    """Also writes all models into one file for ``kfold-predict`` whenever a submission is written. By default only
    ``snakemake ensemble`` writes it."""
    bundle_dtype: Literal["fp32", "bf16"] = "fp32"
    """Chooses how the ensemble's file stores weights. ``bf16`` halves its size, and is refused if the metric out of
    fold gets worse by more than 0.001."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Chooses the device. ``auto`` takes CUDA, then Apple's MPS, then the CPU."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Chooses the precision of training and prediction. ``auto`` takes bfloat16 (``bf16``) if the device computes in
    it, and float32 (``fp32``) otherwise."""
    deterministic: bool = False
    """Gives the same bits in every run on a GPU too, but slower. On a CPU runs are always deterministic."""
    compile: Annotated[bool, BeforeValidator(_not_auto)] = False
    """Compiles the network by ``torch.compile``."""
    gpu_slots: Annotated[int, Field(strict=True, ge=1, le=16)] = 1
    """Lets this many jobs share each GPU and its memory. By default no two jobs share a GPU."""
    gpus_per_fold: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    """Trains each fold on this many GPUs of one machine, with the same batches."""
    prediction_batch_size: Count | None = None
    """Sets the number of images per batch in prediction. It is halved if memory is short. By default it is the recipe's
    ``batch_size``."""
    checkpoint_minutes: NonNegative = 5
    """Saves the state of training at this interval, in minutes. A power cut loses at most that much."""
    epoch_logits_mb: NonNegative = 200
    """Keeps the held-out logits of all epochs of a fold if they take at most this many MB: 2 bytes per epoch, image and
    class. From them follows the out-of-fold score with the epoch cross-fitted. 0 keeps none."""
    tensorboard: bool = False
    """Also writes event files for TensorBoard below ``logs/``. Needs ``pip install 'kfold_ens[tensorboard]'``."""
    certify: list[Annotated[int, Field(strict=True, ge=0), BeforeValidator(_whole)]] = []
    """Lists the folds that ``snakemake certify`` rebuilds under other labels. By default it rebuilds all folds."""
    certify_epochs: Count = 2
    """Sets how many epochs ``snakemake certify`` trains each model, at most those of the recipe."""

    @model_validator(mode="after")
    def _a_race_can_save_a_fold(self):
        if self.ablation_race and self.folds_in_all <= FIRST_LOOK:
            raise ValueError(
                f"ablation_race stops recipes after {FIRST_LOOK} folds at the earliest, but there are only "
                f"{self.folds_in_all}; raise num_folds, or write ablation_race: false"
            )
        return self

    @model_validator(mode="after")
    def _certified_folds_exist(self):
        absent = [fold for fold in self.certify if fold >= self.num_folds]
        if absent:
            raise ValueError(
                f"certify lists fold {absent[0]}, but num_folds: {self.num_folds} makes folds 0 to {self.num_folds - 1}"
            )
        return self

    @model_validator(mode="after")
    def _every_repeat_has_a_seed(self):
        if self.seed + self.repeats > 2**32:
            raise ValueError(
                f"repeats: {self.repeats} repeats use the seeds from seed: {self.seed} on, but the last possible seed "
                "is 2**32 - 1; choose a smaller seed"
            )
        return self

    @model_validator(mode="after")
    def _members_are_trained(self):
        if self.members != "folds" and not self.full_fit:
            raise ValueError(
                f"members: {self.members} needs full_fit: true, which trains that model; otherwise write members: folds"
            )
        return self

    @model_validator(mode="after")
    def _blend_is_possible(self):
        if len(self.blend) == 1:
            raise ValueError("blend: needs at least two recipes (got 1); add one, or name this one at recipe: alone")
        if twice := [name for name, times in Counter(self.blend).items() if times > 1]:
            raise ValueError(f"blend: lists {', '.join(twice)} twice; list each recipe once")
        if self.blend and self.bundle:
            raise ValueError(
                "bundle: true writes the models of one recipe, but blend: has several; write bundle: false"
            )
        if self.blend_of == "ranks" and self.metric != "roc_auc":
            raise ValueError(
                f"blend_of: ranks needs metric: roc_auc (got {self.metric}); otherwise write blend_of: probabilities"
            )
        if self.blend_of == "ranks" and self.submission.kind != "probabilities":
            raise ValueError(
                "blend_of: ranks orders images, and says nothing about the likeliest class of an image; write "
                "submission.kind: probabilities, or blend_of: probabilities"
            )
        needing = {
            "blend_weights: simplex": self.blend_weights == "simplex",
            "submission.calibrate: true": self.submission.calibrate,
        }
        if self.blend_of == "ranks" and any(needing.values()):
            keys = " and ".join(key for key, is_asked in needing.items() if is_asked)
            raise ValueError(
                f"{keys} minimises the log loss, which needs probabilities, but blend_of: ranks averages ranks; write "
                "blend_of: probabilities, or blend_weights: equal or greedy and submission.calibrate: false"
            )
        return self

    @model_validator(mode="after")
    def _rounding_can_be_measured(self):
        if self.bundle_dtype == "bf16" and self.members == "full":
            raise ValueError(
                "bundle_dtype: bf16 needs the folds' models, since its cost is measured out of fold, but members: full "
                "excludes them; write members: folds or both, or bundle_dtype: fp32"
            )
        return self

    @model_validator(mode="after")
    def _shared_or_together(self):
        if self.gpu_slots > 1 and self.gpus_per_fold > 1:
            raise ValueError(
                f"gpus_per_fold: {self.gpus_per_fold} trains a fold on several GPUs, and gpu_slots: {self.gpu_slots} "
                "lets jobs share one; set one of them to 1"
            )
        return self

    @model_validator(mode="after")
    def _method_gives_what_is_asked_for(self):
        asked = {
            "submission.kind: probabilities": self.submission.kind == "probabilities",
            "submission.calibrate: true": self.submission.calibrate,
            f"metric: {self.metric}": self.metric in OF_PROBABILITIES,
        }
        needing = [key for key, is_asked in asked.items() if is_asked]
        if needing and self.ensemble in WITHOUT_PROBABILITIES:
            given = " or ".join(method for method in METHODS if method not in WITHOUT_PROBABILITIES)
            raise ValueError(
                f"ensemble: {self.ensemble} gives no probabilities, but {' and '.join(needing)} needs them; write "
                f"ensemble: {given}"
            )
        return self

    @property
    def scoring(self) -> Scoring:
        """The metric, and the order of classes if the metric needs it."""
        ordered = self.metric == "quadratic_kappa"
        return Scoring(metric=self.metric, class_order=self.data.class_order if ordered else None)

    @property
    def folds_in_all(self) -> int:
        """The number of folds over all repeats."""
        return self.num_folds * self.repeats

    @property
    def over_repeats(self) -> Method:
        """The method that combines an image's out-of-fold predictions over repeats; unused without repeats."""
        return self.ensemble if self.repeats > 1 else "average"

    @property
    def submission_names(self) -> str:
        """How the submission names images. By default, ids of a CSV stay whole and files in folders use their stem."""
        return self.submission.names or ("path" if self.data.source == "csv" else "stem")

    @property
    def names_follow_from_sample(self) -> bool:
        """Whether the names of images in the submission are inferred from a sample."""
        return bool(self.submission.sample) and self.submission.names is None


# --- recipe sections ----------------------------------------------------------------------------------------


class Image(Section):
    """Sizes that all kinds of image sections have in common."""

    size: Count
    """Sets the height and width of the network's input, in pixels."""
    short_side: Count
    """Sets the short side at which images are stored once, before training, in pixels."""
    normalize: bool
    """Subtracts ImageNet's mean colour and divides by its standard deviation. Otherwise the input lies in [0, 1]."""


def _stored(image: Image, wanted: int) -> Image:
    if image.short_side < wanted:
        raise ValueError(f"short_side must be at least {wanted} (got {image.short_side})")
    return image


class Squash(Image):
    """Resizes evaluation images to (size, size), whatever their shape."""

    kind: Literal["squash"]

    @model_validator(mode="after")
    def _stored_large_enough(self):
        return _stored(self, self.size)


class CenterCrop(Image):
    """Resizes evaluation images to a short side of ``resize``, then crops (size, size) from the centre."""

    kind: Literal["center_crop"]
    resize: Count
    """Sets the short side before the crop, in pixels. It is at least ``size``."""

    @model_validator(mode="after")
    def _crop_fits(self):
        if self.resize < self.size:
            raise ValueError(f"resize: {self.resize} must be at least size: {self.size}")
        return _stored(self, self.resize)


EvaluationImage = Squash | CenterCrop


Interpolation = Literal["nearest", "bilinear"]


class Resize(Section):
    """Squashes an image to (size, size)."""

    kind: Literal["resize"]
    size: Count | None = None
    """Sets the height and width of the result, in pixels. By default it is ``image.size``."""


class RandomResizedCrop(Section):
    """Cuts out a random part and resizes it to (size, size).

    A size below ``image.size`` trains faster, and may generalise better (Touvron et al. 2019,
    https://arxiv.org/abs/1906.06423).
    """

    kind: Literal["random_resized_crop"]
    size: Count | None = None
    """Sets the height and width of the result, in pixels. By default it is ``image.size``."""
    scale: Shares = (0.08, 1.0)
    """Draws the area of the part from this range, as a fraction of the image's area."""
    ratio: Range = (3 / 4, 4 / 3)
    """Draws the part's width divided by its height from this range."""


class HorizontalFlip(Section):
    """Mirrors an image left to right."""

    kind: Literal["horizontal_flip"]
    probability: Fraction = 0.5
    """Sets how often an image is flipped."""


class VerticalFlip(Section):
    """Mirrors an image top to bottom."""

    kind: Literal["vertical_flip"]
    probability: Fraction = 0.5
    """Sets how often an image is flipped."""


class Rotation(Section):
    """Rotates an image by a random angle, uniform in (-degrees, degrees)."""

    kind: Literal["rotation"]
    degrees: Positive
    """Sets the largest angle, in degrees."""
    interpolation: Interpolation = "nearest"
    """Chooses how a value between pixels is computed."""


class Affine(Section):
    """Rotates, shifts and scales an image at random."""

    kind: Literal["affine"]
    degrees: NonNegative = 0
    """Sets the largest angle of rotation, in degrees. The default does not rotate."""
    translate: Fraction = 0
    """Sets the largest shift, as a fraction of the side. The default does not shift."""
    scale: Range | None = None
    """Draws the scaling factor from this range. By default nothing is scaled."""
    interpolation: Interpolation = "nearest"
    """Chooses how a value between pixels is computed."""


class ColorJitter(Section):
    """Changes the colours of an image at random."""

    kind: Literal["color_jitter"]
    brightness: NonNegative = 0
    """Draws a factor uniform in (1 - x, 1 + x), never below 0. The default changes nothing."""
    contrast: NonNegative = 0
    """Draws a factor uniform in (1 - x, 1 + x), never below 0. The default changes nothing."""
    saturation: NonNegative = 0
    """Draws a factor uniform in (1 - x, 1 + x), never below 0. The default changes nothing."""
    hue: Annotated[Real, Field(ge=0, le=0.5)] = 0
    """Draws a shift uniform in (-x, x), in turns of the colour circle. The default changes nothing."""


class Grayscale(Section):
    """Turns an image grey and keeps three channels."""

    kind: Literal["grayscale"]
    probability: Fraction = 0.1
    """Sets how often an image is turned grey."""


class GaussianBlur(Section):
    """Blurs an image. It must follow the resize or crop."""

    kind: Literal["gaussian_blur"]
    kernel_size: Odd
    """Sets the side of the kernel, in pixels. It must be odd."""
    sigma: Range
    """Draws the standard deviation of the kernel from this range, in pixels."""
    probability: Fraction = 1
    """Sets how often an image is blurred. The default blurs every image."""


class RandomErasing(Section):
    """Erases a random rectangle (Zhong et al. 2020, https://arxiv.org/abs/1708.04896)."""

    kind: Literal["random_erasing"]
    probability: Fraction = 0.5
    """Sets how often a rectangle is erased."""
    scale: Shares = (0.02, 0.33)
    """Draws the area of the rectangle from this range, as a fraction of the image's area."""
    ratio: Range = (0.3, 3.3)
    """Draws the ratio of the rectangle's sides from this range."""
    fill: Literal["black", "mean"] = "black"
    """Chooses the colour of the rectangle: ``black``, or ImageNet's ``mean`` colour, which is zero after
    normalisation."""


class AutoAugment(Section):
    """Applies the policy that AutoAugment learned on ImageNet (Cubuk et al. 2019, https://arxiv.org/abs/1805.09501)."""

    kind: Literal["auto_augment"]


class RandAugment(Section):
    """Applies random operations of one strength (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719)."""

    kind: Literal["rand_augment"]
    num_ops: Count = 2
    """Applies this many operations per image."""
    magnitude: Annotated[int, Field(strict=True, ge=0, le=30)] = 9
    """Sets the strength of the operations, from 0 (none) to 30."""


class TrivialAugment(Section):
    """Applies one random operation of random strength: TrivialAugmentWide (Müller and Hutter 2021,
    https://arxiv.org/abs/2103.10158)."""

    kind: Literal["trivial_augment"]


Augmentation = Annotated[
    Resize
    | RandomResizedCrop
    | HorizontalFlip
    | VerticalFlip
    | Rotation
    | Affine
    | ColorJitter
    | Grayscale
    | GaussianBlur
    | RandomErasing
    | AutoAugment
    | RandAugment
    | TrivialAugment,
    Field(discriminator="kind"),
]


SIZING = ("resize", "random_resized_crop")  # the steps that give images the network's size


class NoMixing(Section):
    """Mixes nothing."""

    kind: Literal["none"]


class MixUp(Section):
    """Blends pairs of images and their labels (Zhang et al. 2018, https://arxiv.org/abs/1710.09412)."""

    kind: Literal["mixup"]
    alpha: Positive
    """Draws the share of the blended image from Beta(alpha, alpha), once per batch. 1 is uniform; lower mixes less."""
    probability: Fraction = 1
    """Sets how often a batch is mixed. The default mixes every batch."""


class CutMix(Section):
    """Pastes a rectangle of another image (Yun et al. 2019, https://arxiv.org/abs/1905.04899).

    The labels are mixed by area.
    """

    kind: Literal["cutmix"]
    alpha: Positive
    """Draws the share of the area from Beta(alpha, alpha), once per batch. 1 is uniform; lower mixes less."""
    probability: Fraction = 1
    """Sets how often a batch is mixed. The default mixes every batch."""


class MixUpOrCutMix(Section):
    """Applies MixUp or CutMix, at even odds, to each mixed batch."""

    kind: Literal["mixup_or_cutmix"]
    alpha: Positive
    """Draws the share of the other image from Beta(alpha, alpha), once per batch. 1 is uniform; lower mixes less."""
    probability: Fraction = 1
    """Sets how often a batch is mixed. The default mixes every batch."""


Mixing = Annotated[NoMixing | MixUp | CutMix | MixUpOrCutMix, Field(discriminator="kind")]


Layer = Literal["layer1", "layer2", "layer3", "layer4"]
Stage = Literal["conv1", "bn1", Layer]


class StageDropout(Section):
    """Drops single features between two stages."""

    kind: Literal["dropout"]
    after: Layer
    """Names the stage before the dropout."""
    probability: Annotated[Fraction, Field(lt=1)]
    """Sets how often a feature is dropped."""


class Cbam(Section):
    """Inserts channel and spatial attention after a stage: CBAM (Woo et al. 2018, https://arxiv.org/abs/1807.06521)."""

    kind: Literal["cbam"]
    after: Layer
    """Names the stage before the attention."""
    ratio: Count = 16
    """Divides the number of channels by this factor inside the channel attention."""
    kernel_size: Odd = 7
    """Sets the side of the spatial attention's kernel, in positions of the feature map. It must be odd."""


class TorchvisionBackbone(Section):
    """Builds a torchvision network of the ResNet family.

    These are ResNet (He et al. 2016, https://arxiv.org/abs/1512.03385), Wide ResNet (Zagoruyko and Komodakis 2016,
    https://arxiv.org/abs/1605.07146) and ResNeXt (Xie et al. 2017, https://arxiv.org/abs/1611.05431).
    """

    kind: Literal["torchvision"]
    name: Literal[
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "wide_resnet50_2",
        "wide_resnet101_2",
        "resnext50_32x4d",
        "resnext101_32x8d",
        "resnext101_64x4d",
    ]
    """Names the network."""
    weights: Place
    """Names the weights that training starts from: one of torchvision's names (``IMAGENET1K_V1``, ``IMAGENET1K_V2``), a
    .pth or .safetensors file, or ``none`` for random weights."""
    zero_init_residual: bool = False
    """Starts every residual block as the identity. It has no effect on pretrained weights."""
    frozen: list[Stage] = []
    """Lists stages that keep the weights and batch statistics they start with. By default all stages are trained."""
    inserted: list[Annotated[StageDropout | Cbam, Field(discriminator="kind")]] = []
    """Lists parts to insert between stages. By default there are none."""

    @model_validator(mode="after")
    def _inserted_once(self):
        parts = [(part.after, part.kind) for part in self.inserted]
        if len(set(parts)) < len(parts):
            raise ValueError(f"inserted lists a part twice after the same stage; remove one: {parts}")
        return self


class TimmBackbone(Section):
    """Builds any of timm's image models (https://huggingface.co/docs/timm). Needs ``pip install 'kfold_ens[timm]'``."""

    kind: Literal["timm"]
    name: Name
    """Names the network, as timm does."""
    weights: Place
    """Names the weights that training starts from: ``pretrained``, a .pth or .safetensors file, or ``none`` for random
    weights."""
    frozen: list[Name] = []
    """Lists modules of the network that keep the weights and batch statistics they start with. By default all are
    trained."""


Backbone = Annotated[TorchvisionBackbone | TimmBackbone, Field(discriminator="kind")]


class LinearHead(Section):
    """Maps features to classes by one linear layer."""

    kind: Literal["linear"]
    dropout: Annotated[Fraction, Field(lt=1)] = 0
    """Sets how often a feature is dropped before the layer. The default drops none."""


class MlpHead(Section):
    """Adds hidden layers, each with batch normalisation, ReLU and dropout, before a linear layer."""

    kind: Literal["mlp"]
    hidden: Annotated[list[Count], Field(min_length=1)]
    """Lists the widths of the hidden layers."""
    dropout: list[Annotated[Fraction, Field(lt=1)]]
    """Lists how often a feature is dropped after each hidden layer, one number per layer."""

    @model_validator(mode="after")
    def _one_dropout_a_layer(self):
        if len(self.dropout) != len(self.hidden):
            raise ValueError(
                f"dropout must have one number per hidden layer: {len(self.hidden)} (got {len(self.dropout)})"
            )
        return self


Head = Annotated[LinearHead | MlpHead, Field(discriminator="kind")]


class ClassWeights(Section):
    """Weights each class in the loss by its number n of training images. Only one of the two keys can be set."""

    power: Fraction = 0
    """Weights a class in proportion to n^-power, with a mean of 1 over the images. 0 weights all classes alike, 1 is
    ``balanced``."""
    beta: Annotated[Real, Field(gt=0, lt=1)] | None = None
    """Weights a class in proportion to (1 - beta) / (1 - beta^n), with a mean of 1 over the classes: the effective
    number of images (Cui et al. 2019, https://arxiv.org/abs/1901.05555). By default ``power`` decides."""

    @model_validator(mode="after")
    def _one_of_both(self):
        if self.power and self.beta:
            raise ValueError("power and beta both weight the classes; remove one of them")
        return self


WeightsAsWritten = Literal["none", "balanced", "effective_number"] | ClassWeights
CLASS_WEIGHTS = {"none": {}, "balanced": {"power": 1}, "effective_number": {"beta": 0.999}}


def _class_weights(value: Any) -> Any:
    if isinstance(value, dict | ClassWeights):
        return value
    if not isinstance(value, str) or value not in CLASS_WEIGHTS:
        raise ValueError(f"must be {', '.join(CLASS_WEIGHTS)}, {{power: 0.5}} or {{beta: 0.99}} (got {value!r})")
    return CLASS_WEIGHTS[value]


class ClassLoss(Section):
    """What all losses of one term have in common, for classes of different sizes."""

    weights: Annotated[ClassWeights, BeforeValidator(_class_weights, json_schema_input_type=WeightsAsWritten)] = (
        ClassWeights()
    )
    """Weights the classes: ``none``, ``balanced`` (by the inverse of their number of images), ``effective_number``
    (beta 0.999), or the keys ``power`` or ``beta``. The default weights all classes alike."""
    logit_adjustment: NonNegative = 0
    """Adds this factor times the logarithms of the classes' shares to the logits, in the loss only (Menon et al. 2021,
    https://arxiv.org/abs/2007.07314). 1 aims at balanced accuracy; the default adds nothing."""


class CrossEntropy(ClassLoss):
    """Computes the cross-entropy."""

    kind: Literal["cross_entropy"]
    label_smoothing: Annotated[Fraction, Field(lt=1)] = 0
    """Spreads this share of each label evenly over all classes (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567).
    The default smooths nothing."""


class Focal(ClassLoss):
    """Computes the focal loss of each image (Lin et al. 2017, https://arxiv.org/abs/1708.02002)."""

    kind: Literal["focal"]
    gamma: NonNegative = 2
    """Sets how strongly well-classified images are discounted. 0 is cross-entropy."""
    balanced: bool = False
    """Weights classes as ``weights: balanced`` does. This is its older form."""

    @model_validator(mode="before")
    @classmethod
    def _balanced_in_one_form(cls, values: Any) -> Any:
        """Give both forms of this loss the same value, so that changing the form retrains no fold."""
        if not isinstance(values, dict) or values.get("weights") not in ("balanced", {"power": 1}):
            return values
        return {"balanced": True} | {key: value for key, value in values.items() if key != "weights"}

    @model_validator(mode="after")
    def _weighted_once(self):
        if self.balanced and self.weights != ClassWeights():
            raise ValueError("balanced and weights both weight the classes; remove one of them")
        return self

    @property
    def class_weights(self) -> ClassWeights:
        """The weights of the classes, from either key."""
        return ClassWeights(power=1) if self.balanced else self.weights


class WeightedLoss(Section):
    """One term of a sum."""

    weight: Positive
    """Multiplies the term."""
    loss: Annotated[CrossEntropy | Focal, Field(discriminator="kind")]
    """Sets the loss of the term."""


class SumLoss(Section):
    """Adds several losses."""

    kind: Literal["sum"]
    terms: Annotated[list[WeightedLoss], Field(min_length=1)]
    """Lists the losses and their weights."""


class SwitchedLoss(Section):
    """Switches from one loss to another, with a linear blend in between."""

    kind: Literal["switched"]
    before: Annotated[CrossEntropy | Focal, Field(discriminator="kind")]
    """Sets the loss of the first epochs."""
    after: Annotated[CrossEntropy | Focal, Field(discriminator="kind")]
    """Sets the loss of the last epochs."""
    blend_from: Annotated[int, Field(strict=True, ge=0)]
    """Starts the blend at this epoch, counted from 0."""
    switch_at: Count
    """Ends the blend at this epoch, counted from 0. From then on ``after`` alone counts."""

    @model_validator(mode="after")
    def _blends_forwards(self):
        if self.blend_from > self.switch_at:
            raise ValueError(f"blend_from: {self.blend_from} must be at most switch_at: {self.switch_at}")
        return self


Loss = Annotated[CrossEntropy | Focal | SumLoss | SwitchedLoss, Field(discriminator="kind")]


class OptimizerSection(Section):
    """What all optimizers have in common."""

    lr: Positive
    """Sets the learning rate."""
    stage_lr: dict[str, Positive] = {}
    """Sets the learning rates of single stages of the backbone, by their names. All other parameters learn at ``lr``.
    By default there are none."""


class AdamW(OptimizerSection):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101)."""

    kind: Literal["adamw"]
    weight_decay: NonNegative
    """Shrinks the weights by this factor times the learning rate at each step."""
    betas: tuple[Annotated[Fraction, Field(lt=1)], Annotated[Fraction, Field(lt=1)]] = (0.9, 0.999)
    """Sets the decay of the averages of the gradient and of its square."""


class Sgd(OptimizerSection):
    """SGD with momentum (Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html)."""

    kind: Literal["sgd"]
    momentum: Annotated[Fraction, Field(lt=1)] = 0.9
    """Sets the decay of the running sum of gradients. 0 is plain gradient descent."""
    weight_decay: NonNegative = 0
    """Adds this factor times the weights to the gradient. The default adds nothing."""
    nesterov: bool = False
    """Looks ahead along the momentum, which must be above 0."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self):
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: true needs a momentum above 0")
        return self


Optimizer = Annotated[AdamW | Sgd, Field(discriminator="kind")]


class Constant(Section):
    """Keeps the learning rate of the optimizer."""

    kind: Literal["constant"]


class Cosine(Section):
    """Lowers the learning rate along half a cosine, stepped once per epoch.

    After ``t_max`` epochs the rate rises again.
    """

    kind: Literal["cosine"]
    t_max: Count
    """Reaches the lowest rate after this many epochs."""
    eta_min: NonNegative = 0
    """Sets the lowest learning rate."""


class CosineWarmRestarts(Section):
    """Lowers the learning rate along half a cosine and restarts it, in cycles of t_0, t_0 * t_mult, ...

    epochs; stepped once per epoch: SGDR (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983).
    """

    kind: Literal["cosine_warm_restarts"]
    t_0: Count
    """Sets the length of the first cycle, in epochs."""
    t_mult: Count = 1
    """Multiplies the length of each cycle to give that of the next. The default keeps it."""
    eta_min: NonNegative = 0
    """Sets the lowest learning rate."""


class OneCycle(Section):
    """Raises the learning rate to that of the optimizer and lowers it again, once over all epochs; stepped per batch
    (Smith and Topin 2019, https://arxiv.org/abs/1708.07120)."""

    kind: Literal["one_cycle"]
    pct_start: Annotated[Fraction, Field(gt=0, lt=1)] = 0.3
    """Sets the fraction of the steps in which the rate rises."""
    div_factor: Annotated[Real, Field(ge=1)] = 25
    """Starts at the peak rate divided by this."""
    final_div_factor: Annotated[Real, Field(ge=1)] = 1e4
    """Ends at the first rate divided by this."""
    cycle_momentum: bool = True
    """Moves SGD's momentum (even one of 0) or AdamW's first beta from 0.95 to 0.85 and back."""


class Plateau(Section):
    """Lowers the learning rate when the held-out images no longer improve."""

    kind: Literal["plateau"]
    monitor: Monitored = "loss"
    """Watches the held-out ``loss``, the ``metric`` of ``config.yaml``, or a metric by name (any number for 5)."""
    factor: Annotated[Fraction, Field(gt=0, lt=1)] = 0.1
    """Multiplies the learning rate by this."""
    patience: Annotated[int, Field(strict=True, ge=0)] = 10
    """Waits for this many epochs without improvement."""
    min_lr: NonNegative = 0
    """Sets the lowest learning rate."""


Schedule = Annotated[Constant | Cosine | CosineWarmRestarts | OneCycle | Plateau, Field(discriminator="kind")]


class NoEma(Section):
    """Keeps the weights of the last step."""

    kind: Literal["none"]


class EmaOfWeights(Section):
    """Evaluates and keeps an exponential moving average of weights and batch statistics, moved at every step (Polyak
    and Juditsky 1992, https://doi.org/10.1137/0330046; Tarvainen and Valpola 2017,
    https://arxiv.org/abs/1703.01780)."""

    kind: Literal["ema"]
    decay: Annotated[Fraction, Field(lt=1)]
    """Multiplies the average by this at each step; the new weights get the rest."""
    start_epoch: Annotated[int, Field(strict=True, ge=0)] = 0
    """Starts the average at this epoch, counted from 0."""


Ema = Annotated[NoEma | EmaOfWeights, Field(discriminator="kind")]


class Shuffle(Section):
    """Draws every image once per epoch, in a new order each time."""

    kind: Literal["shuffle"]


class Balanced(Section):
    """Draws as many images as there are, with replacement, so that every class has the same share."""

    kind: Literal["balanced"]


Sampler = Annotated[Shuffle | Balanced, Field(discriminator="kind")]


class NoEarlyStopping(Section):
    """Trains for all ``epochs``."""

    kind: Literal["none"]


class Patience(Section):
    """Stops training when the held-out images no longer improve."""

    kind: Literal["patience"]
    monitor: Monitored = "loss"
    """Watches the held-out ``loss``, the ``metric`` of ``config.yaml``, or a metric by name (any number for 5)."""
    patience: Count
    """Stops after this many epochs without improvement."""


class After(Section):
    """Stops training early, on a schedule that is made for all ``epochs`` of the recipe."""

    kind: Literal["after"]
    epochs: Count
    """Stops after this many epochs."""


EarlyStopping = Annotated[NoEarlyStopping | Patience | After, Field(discriminator="kind")]


class NoTta(Section):
    """Predicts from the evaluation view alone."""

    kind: Literal["none"]


class View(Section):
    """One test-time view: the evaluation view, then steps of augmentation.

    Random steps follow from the view's name and the image.
    """

    name: Name
    """Names the view. Names must be unique."""
    steps: list[Augmentation]
    """Lists steps of augmentation, as in ``augmentation``. An empty list is the evaluation view."""


class Views(Section):
    """Predicts from several views of each image and averages their predictions."""

    kind: Literal["views"]
    average: Literal["logits", "softmax"]
    """Averages the ``logits``, or the probabilities (``softmax``)."""
    views: Annotated[list[View], Field(min_length=1)]
    """Lists the views."""

    @model_validator(mode="after")
    def _names_differ(self):
        names = [view.name for view in self.views]
        if len(set(names)) < len(names):
            raise ValueError(f"views must have different names (got {names})")
        return self


Tta = Annotated[NoTta | Views, Field(discriminator="kind")]


class TrainingRecipe(Section):
    """All that the weights of a fold depend on."""

    image: Annotated[EvaluationImage, Field(discriminator="kind")]
    """Sets the size of the images and the evaluation view."""
    augmentation: list[Augmentation]
    """Lists the random steps that make a training image, in order. One of them must be ``resize`` or
    ``random_resized_crop``."""
    mixing: Mixing
    """Mixes the images of a training batch."""
    backbone: Backbone
    """Chooses the network and the weights it starts from."""
    head: Head
    """Chooses the classifier on top of the backbone."""
    loss: Loss
    """Chooses what training minimises."""
    optimizer: Optimizer
    """Chooses how the weights are updated."""
    schedule: Schedule
    """Changes the learning rate during training."""
    ema: Ema
    """Averages the weights over the steps of training."""
    sampler: Sampler
    """Chooses the images of each epoch."""
    early_stopping: EarlyStopping
    """Ends training before the last epoch."""
    epochs: Count
    """Trains for this many epochs at most."""
    batch_size: Annotated[int, Field(strict=True, ge=2)]
    """Sets the number of images per step. If memory is short, a batch is computed in parts, with the same gradient up
    to rounding."""
    select: Selected
    """Chooses the epoch whose weights are kept: ``last``, ``best_loss``, ``best_metric`` (by the ``metric`` of
    ``config.yaml``), or ``best_`` and a metric. The 5 can be any number."""
    class_order: list[Name] | None = None
    """Lists all classes from the lowest to the highest. The workflow fills it in from ``data.class_order`` if
    ``quadratic_kappa`` selects the epoch, stops or steps; recipes need not set it."""

    @property
    def last_epoch(self) -> int:
        """The number of epochs, unless held-out scores stop training earlier."""
        return min(self.epochs, getattr(self.early_stopping, "epochs", self.epochs))

    def of_all_images(self, epochs: int) -> TrainingRecipe:
        """Return the recipe of the full fit: the first ``epochs`` of the schedule, keeping the last weights."""
        changes = {"early_stopping": After(kind="after", epochs=epochs), "select": "last", "class_order": None}
        return self.model_copy(update=changes)

    def shortened(self, epochs: int) -> TrainingRecipe:
        """Return the recipe with at most this many epochs; schedules are made for them."""
        return self.model_copy(update={"epochs": min(epochs, self.epochs)})

    @property
    def monitored(self) -> list[str]:
        """The metrics that the weights depend on."""
        return list(dict.fromkeys(self.metric_of_key.values()))

    @property
    def metric_of_key(self) -> dict[str, str]:
        """The metrics that the weights depend on, by the keys that name them."""
        names = {"select": self.select.removeprefix("best_")}
        names |= {f"{name}.monitor": section.monitor for name, section in self._monitors().items()}
        return {key: name for key, name in names.items() if is_metric(name)}

    def _monitors(self) -> dict[str, Any]:
        sections = {"early_stopping": self.early_stopping, "schedule": self.schedule}
        return {name: section for name, section in sections.items() if hasattr(section, "monitor")}

    @model_validator(mode="after")
    def _augmentation_gives_one_size(self):
        if not any(step.kind in SIZING for step in self.augmentation):
            raise ValueError(
                "augmentation must give all images one size: add {kind: resize} or {kind: random_resized_crop}"
            )
        return self

    @model_validator(mode="after")
    def _kernels_fit(self):
        before = takewhile(lambda step: step.kind not in SIZING, self.augmentation)
        if any(step.kind == "gaussian_blur" for step in before):
            raise ValueError(
                "augmentation: gaussian_blur must follow the resize or crop, "
                "since the original image may be smaller than its kernel"
            )
        _refuse_large_kernels(self.augmentation, self.image.size)
        return self

    @model_validator(mode="after")
    def _stages_are_trained(self):
        stages = set(get_args(Stage)) if self.backbone.kind == "torchvision" else set(self.optimizer.stage_lr)
        unknown = sorted(set(self.optimizer.stage_lr) - stages)
        if unknown:
            raise ValueError(f"optimizer.stage_lr: the backbone has no stage {', '.join(unknown)}")
        frozen = sorted(set(self.optimizer.stage_lr) & set(self.backbone.frozen))
        if frozen:
            raise ValueError(f"optimizer.stage_lr must not list frozen stages: {', '.join(frozen)}")
        return self


def _refuse_large_kernels(steps: list[Any], size: int) -> None:
    size = min([size, *(step.size for step in steps if step.kind in SIZING and step.size)])
    kernels = [step.kernel_size for step in steps if step.kind == "gaussian_blur"]
    if any(kernel // 2 >= size for kernel in kernels):
        raise ValueError(f"gaussian_blur: kernel_size: {max(kernels)} is too large for images of {size} pixels")


class Recipe(TrainingRecipe):
    """A complete recipe for training and prediction. Every section is required, here or in the base of an overlay."""

    also: ClassVar[frozenset[str]] = frozenset({"base"})
    tta: Tta
    """Predicts from several views of each image."""

    @property
    def choosing(self) -> Choosing:
        """What is chosen by held-out scores."""
        watched = [f"{name}: {section.kind}" for name, section in self._monitors().items()]
        return Choosing(
            select=self.select,
            watched=watched,
            class_order=self.class_order,
            has_plain_loss=self.loss == CrossEntropy(kind="cross_entropy"),
            has_views=self.tta.kind != "none",
        )

    def of_run(self, scoring: Scoring, class_order: list[str] | None) -> Recipe:
        """Return the recipe with the run's metric in place of ``metric``, and with the order of classes for kappa."""
        named = {
            name: section.model_copy(update={"monitor": scoring.metric})
            for name, section in self._monitors().items()
            if section.monitor == "metric"
        }
        select = f"best_{scoring.metric}" if self.select == "best_metric" else self.select
        recipe = self.model_copy(update={**named, "select": select})
        ordered = "quadratic_kappa" in recipe.monitored
        return recipe.model_copy(update={"class_order": (class_order or self.class_order) if ordered else None})

    @model_validator(mode="after")
    def _views_can_be_made(self):
        for view in getattr(self.tta, "views", []):
            _refuse_large_kernels(view.steps, self.image.size)
        return self


Config.beside, Recipe.beside = ("a recipe", Recipe), ("config.yaml", Config)


# --- reading ---------------------------------------------------------------------------------------------


def load_config(values: dict, written: Written = UNKNOWN) -> Config:
    """Check the configuration that Snakemake merged; ``written`` holds its sources.

    Raises:
        ConfigError: listing all wrong keys.
    """
    return _validated(Config, values, "config.yaml", written)


def find_recipe(name: str, folder: Path, overlay: Path | None = None) -> Path:
    """Find the file of a recipe: ``{folder}/{name}.yaml``, or ``name`` itself if it is a path to a YAML file.

    A user's own recipe, in ``recipes/`` of the working folder, comes first. A path is relative to the working folder,
    or else to the workflow, which holds ``folder``. The base of an ``overlay`` is searched beside the overlay first.

    Raises:
        ConfigError: if there is no such file.
    """
    own = Path("recipes")
    folders = [own, folder] if own.is_dir() and own.resolve() != folder.resolve() else [folder]
    if not name.endswith((".yaml", ".yml")):
        places = [place / f"{name}.yaml" for place in folders]
    else:
        beside = [] if overlay is None else [overlay.parent / name]
        places = [*beside, Path(name), folder.parent / name]
    for place in places:
        if os.path.isfile(place):  # Path.is_file raises if a name is too long
            return place
    key = "recipe" if overlay is None else f"{overlay}: base"
    distinct = {os.path.abspath(place): str(place) for place in reversed(places)}
    missing = " and no ".join(reversed(distinct.values()))
    known = ", ".join(sorted({recipe.stem for place in folders for recipe in place.glob("*.yaml")}))
    raise ConfigError(f"{key}: there is no {missing}. Known recipes: {known}; or give the path of a YAML file.")


def load_recipe(path: Path, folder: Path, full_fit: bool = False) -> Recipe:
    """Read and check a recipe file; merge an overlay with its base.

    An overlay names another recipe or overlay as its ``base`` and holds the sections that differ, which replace those
    of the base as a whole. ``folder`` holds the recipes that can be named without a path. ``full_fit`` is that of
    config.yaml.

    Raises:
        ConfigError: listing the file and all its wrong keys, also those of its base.
    """
    recipe = _validated(Recipe, _sections(path, folder), str(path), Written((path,)))
    if full_fit and recipe.schedule.kind == "plateau":
        raise ConfigError(
            f"{path}: schedule: plateau needs held-out images, but full_fit: true trains a model without any; "
            "write another schedule here, or full_fit: false into config.yaml"
        )
    return recipe


def _sections(path: Path, folder: Path, overlays: tuple[Path, ...] = ()) -> Any:
    """Read the sections of a recipe file; for an overlay, merged with those of its base.

    A base is checked separately, so that its errors are reported with its file. ``overlays`` lead to this file.
    """
    from kfold_ens.yaml_files import read_yaml  # here: benchmarks/gpu.py runs without PyYAML

    values = read_yaml(path)
    if not isinstance(values, dict) or "base" not in values:
        return values
    own = {key: value for key, value in values.items() if key != "base"}
    try:
        base = _base(values["base"], folder, (*overlays, path))
        sections = _sections(base, folder, (*overlays, path))
        _validated(Recipe, sections, str(base), Written((base,)))
    except ConfigError as error:
        raise ConfigError("\n".join([str(error), *_wrong_alone(own, path)])) from None
    return sections | own


def _base(name: Any, folder: Path, overlays: tuple[Path, ...]) -> Path:
    """Find the file that the last of these overlays names as its base."""
    *_, overlay = overlays
    try:
        name = TypeAdapter(Place).validate_python(name)
    except ValidationError:
        wanted = "must be the name of a recipe or the path of a YAML file"
        raise ConfigError(f"{overlay}: base {wanted} (got {SHORT.repr(name)})") from None
    path = find_recipe(name, folder, overlay)
    if any(os.path.samefile(path, each) for each in overlays):
        circle = " -> ".join(map(str, [*overlays, path]))
        raise ConfigError(
            f"{overlay}: base: {circle} is circular; one of these must be a complete recipe without a base"
        )
    return path


def _wrong_alone(own: dict, path: Path) -> list[str]:
    """Return the errors in an overlay's own sections, which are reported even if its base is wrong."""
    try:
        Recipe.model_validate(own)
    except ValidationError as error:
        wrong = [item for item in error.errors() if item["type"] != "missing" or len(item["loc"]) > 1]
        return [refusal(wrong, Recipe, own, str(path), Written((path,)))] if wrong else []
    return []


def _validated(model: type[Section], values: Any, where: str, written: Written) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must hold keys and values (got {type(values).__name__})")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(refusal(error.errors(), model, values, where, written)) from None
