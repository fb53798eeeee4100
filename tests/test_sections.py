"""Every kind that a configuration may ask for has something that builds it, and nothing else does."""

from typing import Any, get_args

import pytest

from kfold_ens import config
from kfold_ens.data.sources import SOURCES
from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.kinds import KINDS
from kfold_ens.loading.augmentation import AUGMENTATIONS, EVALUATION_VIEWS
from kfold_ens.loading.samplers import SAMPLERS
from kfold_ens.metrics import METRICS
from kfold_ens.naming import NAMES
from kfold_ens.network.backbones import BACKBONES, INSERTS
from kfold_ens.network.heads import HEADS
from kfold_ens.network.weights import PUBLISHED
from kfold_ens.prediction.tta import AVERAGES, VIEWS
from kfold_ens.training.ema import EMAS
from kfold_ens.training.losses import LOSSES
from kfold_ens.training.mixing import MIXES
from kfold_ens.training.optimizers import OPTIMIZERS
from kfold_ens.training.schedules import SCHEDULES
from kfold_ens.training.stopping import STOPPING

BUILDERS = {
    "image": EVALUATION_VIEWS,
    "augmentation": AUGMENTATIONS,
    "mixing": MIXES,
    "backbone": BACKBONES,
    "head": HEADS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "ema": EMAS,
    "sampler": SAMPLERS,
    "early_stopping": STOPPING,
    "tta": VIEWS,
}
SECTIONS = {name: field.annotation for name, field in config.Recipe.model_fields.items()}


def kinds(annotation: Any, key: str = "kind") -> set[str]:
    """The kinds of every section model within an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, config.Section):
        return set(get_args(annotation.model_fields[key].annotation))
    return {kind for part in get_args(annotation) for kind in kinds(part, key)}


@pytest.mark.parametrize("section", BUILDERS)
def test_every_kind_has_a_builder(section):
    assert kinds(SECTIONS[section]) == set(BUILDERS[section])


def test_every_section_with_a_choice_has_builders():
    assert {section for section, annotation in SECTIONS.items() if len(kinds(annotation)) > 1} <= set(BUILDERS)


def test_every_choice_of_a_run_is_known():
    assert kinds(config.Data, "source") == set(SOURCES)
    assert list(config.METHODS) == list(get_args(config.Method)) == list(METHODS)  # the same order, too
    names = get_args(config.Submission.model_fields["names"].annotation)
    assert {name for choice in names for name in get_args(choice)} - {None} == set(NAMES)
    submitted = get_args(config.Submission.model_fields["kind"].annotation)
    assert {name for choice in submitted for name in get_args(choice)} == set(KINDS)
    without = {name for name, method in METHODS.items() if not method.gives_probabilities}
    assert without == set(config.WITHOUT_PROBABILITIES)
    assert set(config.OF_KIND.values()) <= set(KINDS)


def test_every_choice_within_a_section_is_known():
    assert kinds(config.TorchvisionBackbone.model_fields["inserted"].annotation) == set(INSERTS)
    assert set(get_args(config.Views.model_fields["average"].annotation)) == set(AVERAGES)
    assert set(PUBLISHED) == set(BACKBONES)
    assert list(METRICS) == list(config.METRIC_KINDS)
    assert [name for name, metric in METRICS.items() if metric.needs_probabilities] == list(config.OF_PROBABILITIES)
