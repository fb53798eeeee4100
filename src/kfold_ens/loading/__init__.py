"""From decoded images to batches: augmentation, datasets, samplers, DataLoaders. Training and prediction share it.

A change that gives other batches raises the VERSION of training and of prediction.
"""
