"""Each option, set to something else than its default, is accepted, kept, and known to the schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, TINY_RECIPE
from jsonschema import Draft202012Validator

from kfold_ens.config import Config, Recipe, Section
from kfold_ens.files import canonical

# Together these set every option of config.yaml; a new one belongs into one of them.
CONFIGS = """
- data: {source: digits, limit_per_class: 5, test_labels: t.csv, folds: f.csv, class_order: [b, a],
    intensity_range: per_image}
  recipe: kfold_mix
  ablation: [digits, kfold_mix]
  ablation_race: true
  num_folds: 3
  seed: 7
  keep_together: near_duplicates
  rare_classes: train_only
  repeats: 2
  full_fit: true
  members: both
  ensemble: softmax
  metric: map_at_3
  submission: {kind: top_k, k: 3, separator: ',', id_column: id, label_column: labels, names: path, id_prefix: test/}
  bundle: true
  bundle_dtype: bf16
  device: cpu
  precision: fp32
  deterministic: true
  compile: true
  gpu_slots: 2
  prediction_batch_size: 16
  checkpoint_minutes: 0.5
  epoch_logits_mb: 20
  tensorboard: true
  certify: [0, 2]
  certify_epochs: 1
- data: {source: imagefolder, train: [b, a], test: t, groups: '^(p[0-9]+)_', extra: more, limit_per_class: 5,
    test_labels: t.csv, folds: f.csv, class_order: [b, a], intensity_range: [0, 4095]}
  gpus_per_fold: 2
  submission: {kind: probabilities, class_prefix: p_, decimals: 3, calibrate: true, sample: s.csv, zip_member: p.csv}
- data: {source: csv, train: a.csv, test: b.csv, images: i, test_images: j, id_column: file, label_column: species,
    extra: [m.csv], group_column: site, fold_column: fold, limit_per_class: 5, test_labels: t.csv, class_order: [b, a],
    intensity_range: [1, 2]}
- data: {source: digits}
  blend: [digits, kfold_mix]
  blend_weights: greedy
  blend_of: ranks
  allow_partial: true
  metric: roc_auc
  submission: {kind: probabilities}
- data: {source: csv, train: a.csv, test: b.csv, images: i, groups: '^(p[0-9]+)_', folds: f.csv}
- data: {source: torchvision, name: MNIST, root: elsewhere, download: false, limit_per_class: 5, test_labels: t.csv,
    folds: f.csv, class_order: [b, a], intensity_range: per_image}
"""
# Sections that together set every option of a recipe, each put into a tiny one.
RECIPES = """
- image: {kind: squash, size: 8, short_side: 9, normalize: true}
- image: {kind: center_crop, size: 8, resize: 9, short_side: 10, normalize: true}
- augmentation:
    - {kind: resize, size: 8}
    - {kind: random_resized_crop, size: 8, scale: [0.5, 0.9], ratio: [0.9, 1.1]}
    - {kind: horizontal_flip, probability: 0.2}
    - {kind: vertical_flip, probability: 0.2}
    - {kind: rotation, degrees: 5, interpolation: bilinear}
    - {kind: affine, degrees: 5, translate: 0.1, scale: [0.9, 1.1], interpolation: bilinear}
    - {kind: color_jitter, brightness: 0.1, contrast: 0.1, saturation: 0.1, hue: 0.1}
    - {kind: grayscale, probability: 0.2}
    - {kind: gaussian_blur, kernel_size: 3, sigma: [0.1, 1], probability: 0.2}
    - {kind: random_erasing, probability: 0.2, scale: [0.1, 0.2], ratio: [0.9, 1.1], fill: mean}
    - {kind: auto_augment}
    - {kind: rand_augment, num_ops: 1, magnitude: 5}
    - {kind: trivial_augment}
- mixing: {kind: mixup, alpha: 0.2, probability: 0.5}
- mixing: {kind: cutmix, alpha: 0.2, probability: 0.5}
- mixing: {kind: mixup_or_cutmix, alpha: 0.2, probability: 0.5}
- mixing: {kind: none}
- backbone: {kind: torchvision, name: resnet34, weights: IMAGENET1K_V1, zero_init_residual: true, frozen: [layer1],
    inserted: [{kind: dropout, after: layer2, probability: 0.1}, {kind: cbam, after: layer3, ratio: 8, kernel_size: 3}]}
- backbone: {kind: timm, name: test_resnet, weights: pretrained, frozen: [conv1]}
- head: {kind: linear, dropout: 0.1}
- head: {kind: mlp, hidden: [8], dropout: [0.1]}
- loss: {kind: cross_entropy, weights: effective_number, logit_adjustment: 1, label_smoothing: 0.1}
- loss: {kind: focal, weights: {power: 0.5}, logit_adjustment: 0.5, gamma: 1}
- loss: {kind: focal, balanced: true}
- loss: {kind: sum, terms: [{weight: 0.5, loss: {kind: focal}}]}
- loss: {kind: switched, before: {kind: focal}, after: {kind: cross_entropy}, blend_from: 1, switch_at: 2}
- optimizer: {kind: adamw, lr: 0.1, stage_lr: {layer4: 0.01}, weight_decay: 0.1, betas: [0.8, 0.9]}
- optimizer: {kind: sgd, lr: 0.1, stage_lr: {layer4: 0.01}, momentum: 0.8, weight_decay: 0.1, nesterov: true}
- schedule: {kind: constant}
- schedule: {kind: cosine, t_max: 5, eta_min: 0.01}
- schedule: {kind: cosine_warm_restarts, t_0: 5, t_mult: 2, eta_min: 0.01}
- schedule: {kind: one_cycle, pct_start: 0.2, div_factor: 10, final_div_factor: 100, cycle_momentum: false}
- schedule: {kind: plateau, monitor: metric, factor: 0.5, patience: 3, min_lr: 0.01}
- ema: {kind: ema, decay: 0.9, start_epoch: 1}
- ema: {kind: none}
- sampler: {kind: balanced}
- sampler: {kind: shuffle}
- early_stopping: {kind: patience, monitor: f1_macro, patience: 3}
- early_stopping: {kind: after, epochs: 3}
- early_stopping: {kind: none}
- tta: {kind: views, average: softmax, views: [{name: a, steps: []}, {name: b, steps: [{kind: horizontal_flip}]}]}
- tta: {kind: none}
- {epochs: 3, batch_size: 4, select: best_top_3_accuracy, class_order: [b, a]}
"""
WRITTEN = [("config", Config, values) for values in yaml.safe_load(CONFIGS)]
WRITTEN += [("recipe", Recipe, TINY_RECIPE | values) for values in yaml.safe_load(RECIPES)]


def options(name: str) -> set[str]:
    """Every option of a schema: its model and key."""
    schema = json.loads((REPOSITORY / f"schemas/{name}.schema.json").read_text(encoding="utf-8"))
    inside = {name.title(): schema} | schema["$defs"]
    return {f"{model}.{key}" for model, each in inside.items() for key in each["properties"]} - {"Recipe.base"}


def changed(value: Any) -> Iterator[str]:
    """The options inside a value that are required or not at their default, by model and key."""
    if isinstance(value, Section):
        for key, field in type(value).model_fields.items():
            if field.is_required() or getattr(value, key) != field.default:
                yield f"{type(value).__name__}.{key}"
        value = dict(value)
    if isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from changed(each)


@pytest.mark.parametrize(("name", "model", "values"), WRITTEN)
def test_an_option_is_accepted_and_kept(name, model, values):
    schema = json.loads((REPOSITORY / f"schemas/{name}.schema.json").read_text(encoding="utf-8"))
    assert [error.message for error in Draft202012Validator(schema).iter_errors(values)] == []
    loaded = model.model_validate(values)
    text = canonical(loaded.model_dump(mode="json", exclude_defaults=True))
    again = model.model_validate(json.loads(text))
    assert again == loaded
    assert canonical(again.model_dump(mode="json", exclude_defaults=True)) == text


def test_every_option_is_set_to_something_else_than_its_default():
    seen = {option for _, model, values in WRITTEN for option in changed(model.model_validate(values))}
    assert (options("config") | options("recipe")) - seen == set()
