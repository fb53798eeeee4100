"""Examples for the reference, by the key that they stand beside; tests/test_reference.py loads each."""

EXAMPLES = {
    "data": r"""
data:
  source: imagefolder
  train: [data/train, data/val]
  test: data/test
  groups: '^(p\d+)_' # p12_left.jpg and p12_right.jpg stay in one fold
  test_labels: test_labels.csv""",
    "recipe": r"""
recipe: kfold_mix
ablation: [kfold_mix, resnext50_sgd]""",
    "num_folds": r"""
num_folds: 10
seed: 1
keep_together: near_duplicates
repeats: 2""",
    "full_fit": r"""
full_fit: true
members: both
ensemble: softmax
metric: f1_macro""",
    "submission": r"""
submission:
  kind: probabilities
  id_column: id
  names: file
  calibrate: true""",
    "device": r"""
device: cuda
precision: bf16
prediction_batch_size: 256
checkpoint_minutes: 10""",
    "image": r"""
image: {kind: center_crop, size: 224, resize: 256, short_side: 256, normalize: true}""",
    "augmentation": r"""
augmentation:
  - {kind: random_resized_crop, scale: [0.7, 1.0]}
  - {kind: horizontal_flip}
  - {kind: rand_augment, magnitude: 7}
  - {kind: random_erasing, probability: 0.25, fill: mean}""",
    "mixing": r"""
mixing: {kind: mixup, alpha: 0.2, probability: 0.5}""",
    "backbone": r"""
backbone:
  kind: torchvision
  name: resnext50_32x4d
  weights: IMAGENET1K_V2
  frozen: [conv1, bn1, layer1]
  inserted:
    - {kind: cbam, after: layer4}""",
    "head": r"""
head: {kind: mlp, hidden: [1024, 512], dropout: [0.3, 0.2]}""",
    "loss": r"""
loss: {kind: cross_entropy, label_smoothing: 0.1, weights: {power: 0.5}}""",
    "optimizer": r"""
optimizer:
  kind: adamw
  lr: 1.0e-3
  stage_lr: {layer3: 3.0e-4, layer4: 5.0e-4}
  weight_decay: 0.01""",
    "schedule": r"""
schedule: {kind: one_cycle, pct_start: 0.2}""",
    "ema": r"""
ema: {kind: ema, decay: 0.999, start_epoch: 5}""",
    "sampler": r"""
sampler: {kind: balanced}""",
    "early_stopping": r"""
early_stopping: {kind: patience, monitor: f1_macro, patience: 10}""",
    "tta": r"""
tta:
  kind: views
  average: softmax
  views:
    - {name: centre, steps: []}
    - {name: flipped, steps: [{kind: horizontal_flip, probability: 1}]}""",
    "source: csv": r"""
data:
  source: csv
  train: train.csv
  test: test.csv
  images: images
  id_column: file
  label_column: species
  group_column: site""",
    "source: torchvision": r"""
data: {source: torchvision, name: FashionMNIST, root: data, download: false}""",
    "kind: timm": r"""
backbone: {kind: timm, name: resnest101e, weights: pretrained}""",
    "kind: sum": r"""
loss:
  kind: sum
  terms:
    - {weight: 0.8, loss: {kind: focal, gamma: 2}}
    - {weight: 0.2, loss: {kind: cross_entropy, label_smoothing: 0.1}}""",
    "kind: switched": r"""
loss:
  kind: switched
  before: {kind: cross_entropy, label_smoothing: 0.05}
  after: {kind: focal, gamma: 1.5}
  blend_from: 14
  switch_at: 17""",
}
