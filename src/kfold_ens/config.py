"""What a run is: the models of ``config.yaml`` and of the recipes, the one source of truth.

Snakemake reads this module each time it reads the Snakefile, so it never imports torch or pandas.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from kfold_ens.errors import ConfigError
from kfold_ens.findings import SHORT, UNKNOWN, Written, refusal

# --- numbers ---------------------------------------------------------------------------------------------


def _number(value: Any) -> Any:
    """Read text such as ``3e-4``, which PyYAML leaves a string, as a number; refuse true and false."""
    if isinstance(value, bool):
        raise ValueError(f"a number is wanted, not {str(value).lower()}")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"a number is wanted, not {value!r}") from None
    return value


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"an odd number is wanted, not {value}")
    return value


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"the smaller number comes first, not {value[0]:g} before {value[1]:g}")
    return value


def _intensity_range(value: Any) -> Any:
    """A word, or two levels of 16 bits; the whole range has one form."""
    if value in ("full", "per_image"):
        return value
    levels = value if isinstance(value, list | tuple) and all(type(level) is int for level in value) else ()
    if len(levels) != 2 or not 0 <= levels[0] < levels[1] <= 65535:
        raise ValueError(f"must be full, per_image, or two rising levels from 0 to 65535: [0, 4095] (got {value!r})")
    return "full" if tuple(levels) == (0, 65535) else levels


def _without_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("the character NUL can stand in no name")
    return value


def _expanded(path: str) -> str:
    """A path with the home for ~ and with variables of the environment; what there is none of stays as it is.

    workflow/rules/sources.smk refuses it by name if there is no such file.
    """
    path = os.path.expandvars(os.path.expanduser(path))
    if not path:
        raise ValueError("the variable is empty")
    return path


def _not_auto(value: Any) -> Any:
    if value == "auto":
        raise ValueError("auto is gone; write true or false")
    return value


def _one_group(value: str) -> str:
    """A regular expression with the one group that says which images stay together."""
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None
    if groups != 1:
        raise ValueError(
            f"needs exactly one group in parentheses, which says what images that stay together share "
            f"({value!r} has {groups}); write (?:...) for other parentheses"
        )
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# The metrics, in the order of messages; the k of the last two is a number: top_5_accuracy, map_at_5.
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


K = re.compile(r"(?<=_)k(?=_|$)")  # where a kind has k, and a metric its number
OF_PROBABILITIES = ("log_loss", "roc_auc", "average_precision")  # they need more than an order of classes


def metric_kind(name: str) -> str:
    """A metric's name with k for its number: map_at_5 is map_at_k."""
    return re.sub(r"(?<=_)[1-9]\d*(?=_|$)", "k", name)


def is_metric(name: Any) -> bool:
    """Whether this is the name of a metric."""
    return isinstance(name, str) and metric_kind(name) in METRIC_KINDS and not K.search(name)


def _metric_or(*words: str, before: str = "") -> BeforeValidator:
    """Accept a metric's name after some text, or one of the words."""
    names = [*words, *(before + K.sub("5", kind) for kind in METRIC_KINDS)]

    def check(value: Any) -> Any:
        if isinstance(value, str) and (value in words or value.startswith(before) and is_metric(value[len(before) :])):
            return value
        near = get_close_matches(str(value), names, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"must be {', '.join(names)} (5: any number) (got {SHORT.repr(value)}){meant}")

    return BeforeValidator(check)


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
Place = Annotated[Name, AfterValidator(_expanded)]  # a path of the user's
Places = Annotated[list[Place], BeforeValidator(_listed), AfterValidator(sorted)]
Grouping = Annotated[Name, AfterValidator(_one_group)]
Metric = Annotated[str, _metric_or()]
Monitored = Annotated[str, _metric_or("loss", "metric")]  # the held-out loss, the metric of config.yaml, or another
Selected = Annotated[str, _metric_or("last", "best_loss", "best_metric", before="best_")]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- config.yaml -----------------------------------------------------------------------------------------


Half = Literal["train", "test"]
HALVES: tuple[Half, ...] = get_args(Half)


IntensityRange = Literal["full", "per_image"] | tuple[int, int]


NOT_OF_LISTS = {"test_labels", "class_order", "intensity_range", "folds"}  # keys that no list of images follows from


class Source(Section):
    """What every data source has in common. A source that reads the user's own files says which, for each half.

    ``intensity_range`` is what becomes black and white in 16-bit greyscale images: the whole range (0 to 65535), each
    image's own darkest and brightest pixel, or two levels, such as [0, 4095] for a sensor of 12 bits. ``class_order``
    lists all classes from the lowest to the highest, for quadratic_kappa. ``folds`` is a table of images and folds, if
    the split is given.
    """

    limit_per_class: Count | None = None
    test_labels: Place | None = None
    folds: Place | None = None
    class_order: Annotated[list[Name], Field(min_length=2)] | None = None
    intensity_range: Annotated[IntensityRange, BeforeValidator(_intensity_range)] = "full"

    def tables(self, half: Half) -> list[str]:
        """The files that list a half's images, or hold them; a change of their bytes is noticed."""
        return []

    def folders(self, half: Half) -> list[str]:
        """The folders that a half's images lie in."""
        return []

    def places(self, half: Half) -> dict[str, list[str]]:
        """The tables and folders that must be there before a half's images can be listed, by their key."""
        return {f"data.{half}": [*self.tables(half), *self.folders(half)]}

    def keys_of(self, half: Half) -> set[str]:
        """The keys that only this half's list of images follows from."""
        return set()

    def of_half(self, half: Half) -> dict[str, Any]:
        """All that a half's list of images follows from, without what is at its default."""
        others = {key for other in HALVES if other != half for key in self.keys_of(other)}
        return self.model_dump(mode="json", exclude=NOT_OF_LISTS | others, exclude_defaults=True)


class Digits(Source):
    """The 1,797 digits that ship with scikit-learn; a fifth is held out as a labelled test set."""

    source: Literal["digits"]


class ImageFiles(Source):
    """A source whose images are files of the user's.

    ``groups`` is a regular expression; its one group, looked for in each image's name, says which images stay together
    in the split. ``extra`` are further training images, which are never held out.
    """

    groups: Grouping | None = None
    extra: Places = []

    def keys_of(self, half: Half) -> set[str]:
        return {"train", "limit_per_class", "groups", "extra"} if half == "train" else {"test"}


class ImageFolder(ImageFiles):
    """Training folders that hold one folder a class, merged, and a flat or nested folder of test images."""

    source: Literal["imagefolder"]
    train: Annotated[Places, Field(min_length=1)]
    test: Place

    def folders(self, half: Half) -> list[str]:
        return [*self.train, *self.extra] if half == "train" else [self.test]

    def places(self, half: Half) -> dict[str, list[str]]:
        return {"data.train": self.train, "data.extra": self.extra} if half == "train" else super().places(half)


class Csv(ImageFiles):
    """Tables of image names, and labels for training; the names are paths below ``images``.

    ``group_column`` says which images stay together in the split, ``fold_column`` which fold holds an image out.
    """

    source: Literal["csv"]
    train: Place
    test: Place
    images: Place
    test_images: Place | None = None
    id_column: Name = "id"
    label_column: Name = "label"
    group_column: Name | None = None
    fold_column: Name | None = None

    @model_validator(mode="after")
    def _said_once(self):
        for one, other in (("groups", "group_column"), ("folds", "fold_column")):
            if getattr(self, one) and getattr(self, other):
                raise ValueError(f"{one} and {other} both say the same of an image; remove one of them")
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
    """Any of torchvision's classification datasets, with its own train and test split."""

    source: Literal["torchvision"]
    name: Name
    root: Place = "data"
    download: bool = True

    def places(self, half: Half) -> dict[str, list[str]]:
        return {"data.root": [] if self.download else [self.root]}  # what is to be downloaded need not be there


Data = Annotated[Digits | ImageFolder | Csv | Torchvision, Field(discriminator="source")]
Method = Literal["average", "softmax", "vote"]
METHODS: tuple[Method, ...] = get_args(Method)


WITHOUT_PROBABILITIES: tuple[Method, ...] = ("vote",)
# Keys of `submission` that concern one kind only.
OF_KIND = {
    "k": "top_k",
    "separator": "top_k",
    "class_prefix": "probabilities",
    "decimals": "probabilities",
    "calibrate": "probabilities",
}


class Submission(Section):
    """What the submission holds, its header, and how it names the images.

    ``sample`` is a table that the submission must equal in columns and ids, and whose order it takes. What is at its
    default is inferred from it; without a sample, None has a default of its own (ensemble/forms.py, kinds.py).
    ``zip_member`` is what the submission is called inside of ``results/submission.zip``, which is then made too.
    """

    kind: Literal["label", "probabilities", "top_k"] | None = None
    id_column: Name = "image_name"
    label_column: Name = "pred_label"
    names: Literal["stem", "file", "path"] | None = None
    id_prefix: str | None = None  # before an image's name, as in test/123.jpg
    class_prefix: str | None = None  # before a class, in the columns of probabilities
    k: Count | None = None
    separator: Name | None = None
    decimals: Annotated[int, Field(strict=True, ge=1, le=12)] = 6
    calibrate: bool = False
    sample: Place | None = None
    zip_member: Name | None = None

    @model_validator(mode="after")
    def _columns_differ(self):
        if self.id_column == self.label_column:
            raise ValueError(f"id_column and label_column are both {self.id_column!r}; name them apart")
        return self

    def stated(self, key: str) -> Any:
        """A key's value, or None if it is at its default: a sample may then say otherwise."""
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
    class_order: list[Name] | None = None


class Config(Section):
    """``config.yaml``. From ``device`` on, the keys say how, never what, to compute."""

    data: Data
    recipe: Place = "digits"
    ablation: list[Place] = []
    num_folds: Annotated[int, Field(strict=True, ge=2)] = 5
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
    keep_together: Literal["none", "near_duplicates"] = "none"
    rare_classes: Literal["refuse", "train_only"] = "refuse"
    repeats: Count = 1  # splits by the seeds from ``seed`` on, each with folds of its own
    full_fit: bool = False  # one more model, of all training images
    members: Literal["folds", "full", "both"] = "folds"  # the models whose test logits are combined
    ensemble: Method = "average"
    metric: Metric = "accuracy"
    submission: Submission = Submission()
    bundle: bool = False
    bundle_dtype: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    deterministic: bool = False
    compile: Annotated[bool, BeforeValidator(_not_auto)] = False
    gpu_slots: Annotated[int, Field(strict=True, ge=1, le=16)] = 1
    gpus_per_fold: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    prediction_batch_size: Count | None = None
    checkpoint_minutes: NonNegative = 5
    tensorboard: bool = False

    @model_validator(mode="after")
    def _every_repeat_has_a_seed(self):
        if self.seed + self.repeats > 2**32:
            raise ValueError(
                f"repeats: {self.repeats} repeats use the seeds from {self.seed} on, which end at 2**32 - 1"
            )
        return self

    @model_validator(mode="after")
    def _members_are_trained(self):
        if self.members != "folds" and not self.full_fit:
            raise ValueError(f"members: {self.members} needs full_fit: true, which trains that model; or write folds")
        return self

    @model_validator(mode="after")
    def _rounding_can_be_measured(self):
        if self.bundle_dtype == "bf16" and self.members == "full":
            raise ValueError(
                "bundle_dtype: bf16 needs the folds' models, as its cost is measured out of fold, and members: full "
                "leaves them out; write members: folds or both, or bundle_dtype: fp32"
            )
        return self

    @model_validator(mode="after")
    def _shared_or_together(self):
        if self.gpu_slots > 1 and self.gpus_per_fold > 1:
            raise ValueError("a fold is trained on several GPUs (gpus_per_fold), or shares one (gpu_slots); not both")
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
                f"ensemble: {self.ensemble} gives no probabilities, which {' and '.join(needing)} needs; write {given}"
            )
        return self

    @property
    def scoring(self) -> Scoring:
        """What predictions are scored by."""
        ordered = self.metric == "quadratic_kappa"
        return Scoring(metric=self.metric, class_order=self.data.class_order if ordered else None)

    @property
    def folds_in_all(self) -> int:
        """The folds of all repeats."""
        return self.num_folds * self.repeats

    @property
    def over_repeats(self) -> Method:
        """What combines an image's out-of-fold predictions over repeats; without repeats there is one of each image."""
        return self.ensemble if self.repeats > 1 else "average"

    @property
    def submission_names(self) -> str:
        """A CSV's ids are the user's own strings and stay whole; a folder's files go by their stem."""
        return self.submission.names or ("path" if self.data.source == "csv" else "stem")

    @property
    def names_follow_from_sample(self) -> bool:
        """Whether what the submission calls an image is inferred from a sample."""
        return bool(self.submission.sample) and self.submission.names is None


# --- recipe sections ----------------------------------------------------------------------------------------


class Image(Section):
    """Size of the network's input, in pixels. ``short_side`` is what images are stored at, once, for all epochs."""

    size: Count
    short_side: Count
    normalize: bool  # by ImageNet's mean and standard deviation


def _stored(image: Image, wanted: int) -> Image:
    if image.short_side < wanted:
        raise ValueError(f"short_side ({image.short_side}) must be at least {wanted}, or images are stored too small")
    return image


class Squash(Image):
    """Evaluation images are resized to (size, size), whatever their shape."""

    kind: Literal["squash"]

    @model_validator(mode="after")
    def _stored_large_enough(self):
        return _stored(self, self.size)


class CenterCrop(Image):
    """Evaluation images are resized to a short side of ``resize``, then cropped at the centre."""

    kind: Literal["center_crop"]
    resize: Count

    @model_validator(mode="after")
    def _crop_fits(self):
        if self.resize < self.size:
            raise ValueError(f"resize ({self.resize}) must be at least size ({self.size})")
        return _stored(self, self.resize)


Interpolation = Literal["nearest", "bilinear"]


class Resize(Section):
    """Squash to (size, size), which is ``image.size`` unless it is given."""

    kind: Literal["resize"]
    size: Count | None = None


class RandomResizedCrop(Section):
    """A random part, enlarged or shrunk to (size, size), which is ``image.size`` unless it is given: training on
    smaller images than it is evaluated on is faster, and may be better (Touvron et al. 2019,
    https://arxiv.org/abs/1906.06423)."""

    kind: Literal["random_resized_crop"]
    size: Count | None = None
    scale: Shares = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)


class HorizontalFlip(Section):
    kind: Literal["horizontal_flip"]
    probability: Fraction = 0.5


class VerticalFlip(Section):
    kind: Literal["vertical_flip"]
    probability: Fraction = 0.5


class Rotation(Section):
    """Uniform in (-degrees, degrees)."""

    kind: Literal["rotation"]
    degrees: Positive
    interpolation: Interpolation = "nearest"


class Affine(Section):
    """Rotation in degrees, translation as a fraction of the side, scale as a range of factors."""

    kind: Literal["affine"]
    degrees: NonNegative = 0
    translate: Fraction = 0
    scale: Range | None = None
    interpolation: Interpolation = "nearest"


class ColorJitter(Section):
    """Factors uniform in (1 - x, 1 + x); the hue's shift is uniform in (-x, x), in turns of the colour circle."""

    kind: Literal["color_jitter"]
    brightness: NonNegative = 0
    contrast: NonNegative = 0
    saturation: NonNegative = 0
    hue: Annotated[Real, Field(ge=0, le=0.5)] = 0


class Grayscale(Section):
    kind: Literal["grayscale"]
    probability: Fraction = 0.1


class GaussianBlur(Section):
    """Kernel and sigma in pixels."""

    kind: Literal["gaussian_blur"]
    kernel_size: Odd
    sigma: Range
    probability: Fraction = 1


class RandomErasing(Section):
    """Zhong et al. 2020, https://arxiv.org/abs/1708.04896. ``fill`` is black, or ImageNet's mean colour: what a zero
    is after normalisation."""

    kind: Literal["random_erasing"]
    probability: Fraction = 0.5
    scale: Shares = (0.02, 0.33)
    ratio: Range = (0.3, 3.3)
    fill: Literal["black", "mean"] = "black"


class AutoAugment(Section):
    """ImageNet's policy. Cubuk et al. 2019, https://arxiv.org/abs/1805.09501."""

    kind: Literal["auto_augment"]


class RandAugment(Section):
    """Cubuk et al. 2020, https://arxiv.org/abs/1909.13719."""

    kind: Literal["rand_augment"]
    num_ops: Count = 2
    magnitude: Annotated[int, Field(strict=True, ge=0, le=30)] = 9


class TrivialAugment(Section):
    """TrivialAugmentWide. Mueller and Hutter 2021, https://arxiv.org/abs/2103.10158."""

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
    kind: Literal["none"]


class MixUp(Section):
    """Zhang et al. 2018, https://arxiv.org/abs/1710.09412; ``probability`` is a batch's."""

    kind: Literal["mixup"]
    alpha: Positive
    probability: Fraction = 1


class CutMix(Section):
    """Yun et al. 2019, https://arxiv.org/abs/1905.04899."""

    kind: Literal["cutmix"]
    alpha: Positive
    probability: Fraction = 1


class MixUpOrCutMix(Section):
    """Either of the two, at even odds, for each mixed batch."""

    kind: Literal["mixup_or_cutmix"]
    alpha: Positive
    probability: Fraction = 1


Mixing = Annotated[NoMixing | MixUp | CutMix | MixUpOrCutMix, Field(discriminator="kind")]


Layer = Literal["layer1", "layer2", "layer3", "layer4"]
Stage = Literal["conv1", "bn1", Layer]


class StageDropout(Section):
    """Dropout of single features between two stages."""

    kind: Literal["dropout"]
    after: Layer
    probability: Annotated[Fraction, Field(lt=1)]


class Cbam(Section):
    """Channel and spatial attention after a stage. Woo et al. 2018, https://arxiv.org/abs/1807.06521."""

    kind: Literal["cbam"]
    after: Layer
    ratio: Count = 16
    kernel_size: Odd = 7


class TorchvisionBackbone(Section):
    """A torchvision network of the ResNet family.

    ``weights`` is one of torchvision's names (IMAGENET1K_V1), a file, or ``none`` for random weights. ``frozen``
    stages keep the weights and the batch statistics they start with.
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
    weights: Place
    zero_init_residual: bool = False
    frozen: list[Stage] = []
    inserted: list[Annotated[StageDropout | Cbam, Field(discriminator="kind")]] = []

    @model_validator(mode="after")
    def _inserted_once(self):
        parts = [(part.after, part.kind) for part in self.inserted]
        if len(set(parts)) < len(parts):
            raise ValueError(f"inserted has a part twice after the same stage: {parts}")
        return self


class TimmBackbone(Section):
    """Any of timm's image models, by its name; wants the extra: pip install 'kfold_ens[timm]'.

    ``weights`` is ``pretrained``, a file, or ``none``; ``frozen`` names modules of the network.
    """

    kind: Literal["timm"]
    name: Name
    weights: Place
    frozen: list[Name] = []


Backbone = Annotated[TorchvisionBackbone | TimmBackbone, Field(discriminator="kind")]


class LinearHead(Section):
    """``dropout`` is that of the features before the layer."""

    kind: Literal["linear"]
    dropout: Annotated[Fraction, Field(lt=1)] = 0


class MlpHead(Section):
    """Hidden layers, each with batch normalisation, ReLU and a dropout of its own, and a linear layer."""

    kind: Literal["mlp"]
    hidden: Annotated[list[Count], Field(min_length=1)]
    dropout: list[Annotated[Fraction, Field(lt=1)]]

    @model_validator(mode="after")
    def _one_dropout_a_layer(self):
        if len(self.dropout) != len(self.hidden):
            raise ValueError(f"{len(self.hidden)} hidden layers want as many dropouts, not {len(self.dropout)}")
        return self


Head = Annotated[LinearHead | MlpHead, Field(discriminator="kind")]


class ClassWeights(Section):
    """Each class's weight in the loss, by its number n of training images. Give one of the two.

    ``power``: proportional to n^-power, with a mean of 1 over the images; 0 weights all alike, 1 is scikit-learn's
    ``balanced``. ``beta``: proportional to (1 - beta) / (1 - beta^n), with a mean of 1 over the classes (effective
    number of samples, Cui et al. 2019, https://arxiv.org/abs/1901.05555).
    """

    power: Fraction = 0
    beta: Annotated[Real, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self):
        if self.power and self.beta:
            raise ValueError("power and beta are two ways to weight classes; give one")
        return self


# The words for the usual ones.
CLASS_WEIGHTS = {"none": {}, "balanced": {"power": 1}, "effective_number": {"beta": 0.999}}


def _class_weights(value: Any) -> Any:
    if isinstance(value, dict | ClassWeights):
        return value
    if not isinstance(value, str) or value not in CLASS_WEIGHTS:
        raise ValueError(f"must be {', '.join(CLASS_WEIGHTS)}, {{power: 0.5}} or {{beta: 0.99}} (got {value!r})")
    return CLASS_WEIGHTS[value]


class ClassLoss(Section):
    """What all losses of one term have in common, for classes of different sizes.

    ``logit_adjustment`` is the factor tau of the logarithms of the classes' shares. These are added to the logits, in
    the loss only (Menon et al. 2021, https://arxiv.org/abs/2007.07314); 1 aims at balanced accuracy.
    """

    weights: Annotated[ClassWeights, BeforeValidator(_class_weights)] = ClassWeights()
    logit_adjustment: NonNegative = 0


class CrossEntropy(ClassLoss):
    kind: Literal["cross_entropy"]
    label_smoothing: Annotated[Fraction, Field(lt=1)] = 0


class Focal(ClassLoss):
    """Lin et al. 2017, https://arxiv.org/abs/1708.02002, per sample.

    ``balanced: true`` is the older form of ``weights: balanced``.
    """

    kind: Literal["focal"]
    gamma: NonNegative = 2
    balanced: bool = False

    @model_validator(mode="before")
    @classmethod
    def _balanced_in_one_form(cls, values: Any) -> Any:
        """Both forms are one loss, so a fold trained with either is kept for the other."""
        if not isinstance(values, dict) or values.get("weights") not in ("balanced", {"power": 1}):
            return values
        return {"balanced": True} | {key: value for key, value in values.items() if key != "weights"}

    @model_validator(mode="after")
    def _weighted_once(self):
        if self.balanced and self.weights != ClassWeights():
            raise ValueError("balanced and weights both weight the classes; give one")
        return self

    @property
    def class_weights(self) -> ClassWeights:
        """The weights, whichever way they are written."""
        return ClassWeights(power=1) if self.balanced else self.weights


class WeightedLoss(Section):
    """One term of a sum."""

    weight: Positive
    loss: Annotated[CrossEntropy | Focal, Field(discriminator="kind")]


class SumLoss(Section):
    kind: Literal["sum"]
    terms: Annotated[list[WeightedLoss], Field(min_length=1)]


class SwitchedLoss(Section):
    """``before``, then ``after``; from epoch ``blend_from`` (counted from 0) until ``switch_at`` a blend of the two
    that moves on by equal parts an epoch."""

    kind: Literal["switched"]
    before: Annotated[CrossEntropy | Focal, Field(discriminator="kind")]
    after: Annotated[CrossEntropy | Focal, Field(discriminator="kind")]
    blend_from: Annotated[int, Field(strict=True, ge=0)]
    switch_at: Count

    @model_validator(mode="after")
    def _blends_forwards(self):
        if self.blend_from > self.switch_at:
            raise ValueError(f"blend_from ({self.blend_from}) must not be after switch_at ({self.switch_at})")
        return self


Loss = Annotated[CrossEntropy | Focal | SumLoss | SwitchedLoss, Field(discriminator="kind")]


class OptimizerSection(Section):
    """``stage_lr`` gives stages of the backbone rates of their own; all else learns at ``lr``."""

    lr: Positive
    stage_lr: dict[str, Positive] = {}


class AdamW(OptimizerSection):
    """Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101."""

    kind: Literal["adamw"]
    weight_decay: NonNegative
    betas: tuple[Annotated[Fraction, Field(lt=1)], Annotated[Fraction, Field(lt=1)]] = (0.9, 0.999)


class Sgd(OptimizerSection):
    kind: Literal["sgd"]
    momentum: Annotated[Fraction, Field(lt=1)] = 0.9
    weight_decay: NonNegative = 0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_has_momentum(self):
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov wants a momentum above 0")
        return self


Optimizer = Annotated[AdamW | Sgd, Field(discriminator="kind")]


class Constant(Section):
    """The optimizer's rate throughout."""

    kind: Literal["constant"]


class Cosine(Section):
    """Cosine annealing over ``t_max`` epochs, stepped once an epoch; past them the rate climbs back."""

    kind: Literal["cosine"]
    t_max: Count
    eta_min: NonNegative = 0


class CosineWarmRestarts(Section):
    """SGDR, stepped once an epoch; cycles of t_0, t_0 * t_mult, ... epochs. https://arxiv.org/abs/1608.03983."""

    kind: Literal["cosine_warm_restarts"]
    t_0: Count
    t_mult: Count = 1
    eta_min: NonNegative = 0


class OneCycle(Section):
    """One cycle over the run, stepped per batch; the optimizer's rate is its peak. https://arxiv.org/abs/1708.07120."""

    kind: Literal["one_cycle"]
    pct_start: Annotated[Fraction, Field(gt=0, lt=1)] = 0.3
    div_factor: Annotated[Real, Field(ge=1)] = 25
    final_div_factor: Annotated[Real, Field(ge=1)] = 1e4
    cycle_momentum: bool = True  # SGD's momentum (also one of 0) or AdamW's first beta: from 0.95 to 0.85 and back


class Plateau(Section):
    """The rate times ``factor`` after ``patience`` epochs without a better held-out loss or metric."""

    kind: Literal["plateau"]
    monitor: Monitored = "loss"
    factor: Annotated[Fraction, Field(gt=0, lt=1)] = 0.1
    patience: Annotated[int, Field(strict=True, ge=0)] = 10
    min_lr: NonNegative = 0


Schedule = Annotated[Constant | Cosine | CosineWarmRestarts | OneCycle | Plateau, Field(discriminator="kind")]


class NoEma(Section):
    kind: Literal["none"]


class EmaOfWeights(Section):
    """From epoch ``start_epoch`` (counted from 0) on, an exponential moving average of weights and batch statistics,
    moved at every step; it is what is then evaluated and kept."""

    kind: Literal["ema"]
    decay: Annotated[Fraction, Field(lt=1)]
    start_epoch: Annotated[int, Field(strict=True, ge=0)] = 0


Ema = Annotated[NoEma | EmaOfWeights, Field(discriminator="kind")]


class Shuffle(Section):
    """Every image once an epoch, in an order drawn anew."""

    kind: Literal["shuffle"]


class Balanced(Section):
    """As many draws as images, with replacement, at odds that give every class the same share."""

    kind: Literal["balanced"]


Sampler = Annotated[Shuffle | Balanced, Field(discriminator="kind")]


class NoEarlyStopping(Section):
    kind: Literal["none"]


class Patience(Section):
    """Stop after ``patience`` epochs without a better held-out loss or metric."""

    kind: Literal["patience"]
    monitor: Monitored = "loss"
    patience: Count


class After(Section):
    """Stop after so many epochs of a schedule that is made for all ``epochs`` of the recipe."""

    kind: Literal["after"]
    epochs: Count


EarlyStopping = Annotated[NoEarlyStopping | Patience | After, Field(discriminator="kind")]


class NoTta(Section):
    """One view of each image: the evaluation view."""

    kind: Literal["none"]


class View(Section):
    """The evaluation view with steps of augmentation after it; what is random in them follows from name and image."""

    name: Name
    steps: list[Augmentation]


class Views(Section):
    """Several views of each image, averaged in logits or in softmax."""

    kind: Literal["views"]
    average: Literal["logits", "softmax"]
    views: Annotated[list[View], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self):
        names = [view.name for view in self.views]
        if len(set(names)) < len(names):
            raise ValueError(f"each view wants a name of its own, not {names}")
        return self


Tta = Annotated[NoTta | Views, Field(discriminator="kind")]


class TrainingRecipe(Section):
    """All that a fold's weights follow from."""

    image: Annotated[Squash | CenterCrop, Field(discriminator="kind")]
    augmentation: list[Augmentation]
    mixing: Mixing
    backbone: Backbone
    head: Head
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    ema: Ema
    sampler: Sampler
    early_stopping: EarlyStopping
    epochs: Count
    batch_size: Annotated[int, Field(strict=True, ge=2)]
    select: Selected
    class_order: list[Name] | None = None  # of data.class_order, if quadratic_kappa decides about the weights

    @property
    def last_epoch(self) -> int:
        """The number of epochs, if no held-out image ends training earlier."""
        return min(self.epochs, getattr(self.early_stopping, "epochs", self.epochs))

    def of_all_images(self, epochs: int) -> TrainingRecipe:
        """The recipe for a model that holds out nothing: the first so many epochs of the schedule, and the last's
        weights."""
        changes = {"early_stopping": After(kind="after", epochs=epochs), "select": "last", "class_order": None}
        return self.model_copy(update=changes)

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
                "augmentation brings images of different shapes to no common size: "
                "add {kind: resize} or {kind: random_resized_crop}"
            )
        return self

    @model_validator(mode="after")
    def _kernels_fit(self):
        before = takewhile(lambda step: step.kind not in SIZING, self.augmentation)
        if any(step.kind == "gaussian_blur" for step in before):
            raise ValueError(
                "augmentation: gaussian_blur comes after the resize or crop, as its kernel may not fit before"
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
            raise ValueError(f"optimizer.stage_lr gives frozen stages a rate: {', '.join(frozen)}")
        return self


def _refuse_large_kernels(steps: list[Any], size: int) -> None:
    size = min([size, *(step.size for step in steps if step.kind in SIZING and step.size)])
    kernels = [step.kernel_size for step in steps if step.kind == "gaussian_blur"]
    if any(kernel // 2 >= size for kernel in kernels):
        raise ValueError(f"gaussian_blur: a kernel_size of {max(kernels)} is too large for images of {size} pixels")


class Recipe(TrainingRecipe):
    """One complete way to train and predict: every section is written out, here or in the base of an overlay."""

    tta: Tta

    def of_run(self, scoring: Scoring, class_order: list[str] | None) -> Recipe:
        """The recipe of a run: its metric stands where the recipe says ``metric``, and kappa has its order."""
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


# --- reading ---------------------------------------------------------------------------------------------


def load_config(values: dict, written: Written = UNKNOWN) -> Config:
    """Check ``config.yaml``, as Snakemake merged it; ``written`` says from what.

    Raises:
        ConfigError: naming every wrong key at once.
    """
    return _validated(Config, values, "config.yaml", written)


def find_recipe(name: str, folder: Path, overlay: Path | None = None) -> Path:
    """The file of a recipe: ``{folder}/{name}.yaml``, or ``name`` itself if it is a path to a YAML file.

    For the base of an ``overlay``, a path is looked up beside the overlay first.

    Raises:
        ConfigError: if there is no such file.
    """
    if not name.endswith((".yaml", ".yml")):
        places = [folder / f"{name}.yaml"]
    else:
        places = [Path(name)] if overlay is None else [overlay.parent / name, Path(name)]
    for place in places:
        if os.path.isfile(place):  # Path.is_file raises where a name is too long
            return place
    key = "recipe" if overlay is None else f"{overlay}: base"
    missing = " and no ".join(dict.fromkeys(map(str, places)))
    known = ", ".join(sorted(recipe.stem for recipe in folder.glob("*.yaml")))
    raise ConfigError(f"{key}: there is no {missing}. Known recipes: {known}; or give the path of a YAML file.")


def load_recipe(path: Path, folder: Path, full_fit: bool = False) -> Recipe:
    """Read and check one recipe file; an overlay is put on its base.

    An overlay names another recipe, complete or an overlay, as its ``base``, and holds the sections that differ. Each
    replaces that of the base whole. ``folder`` holds the recipes that can be named without a path. ``full_fit`` says
    that a model is trained without held-out images, too.

    Raises:
        ConfigError: naming the file and every wrong key at once; for a wrong base, the file of the base.
    """
    recipe = _validated(Recipe, _sections(path, folder), str(path), Written((path,)))
    if full_fit and recipe.schedule.kind == "plateau":
        raise ConfigError(
            f"{path}: schedule: plateau follows held-out images, and full_fit: true trains a model without any; "
            "write another schedule here, or full_fit: false into config.yaml"
        )
    return recipe


def _sections(path: Path, folder: Path, overlays: tuple[Path, ...] = ()) -> Any:
    """The content of a recipe file; of an overlay, its sections and the rest of its base's.

    A base is checked by itself, so that its faults are reported under its own name. ``overlays`` lead to this file.
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
    """The file that the last of these overlays names as its base."""
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
            f"{overlay}: base: {circle} is a circle; one of these must be a complete recipe without a base"
        )
    return path


def _wrong_alone(own: dict, path: Path) -> list[str]:
    """The faults of an overlay's own sections, which are found even if its base is wrong."""
    try:
        Recipe.model_validate(own)
    except ValidationError as error:
        wrong = [item for item in error.errors() if item["type"] != "missing" or len(item["loc"]) > 1]
        return [refusal(wrong, Recipe, own, str(path), Written((path,)))] if wrong else []
    return []


def _validated(model: type[Section], values: Any, where: str, written: Written) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} should hold keys and values, not {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(refusal(error.errors(), model, values, where, written)) from None
