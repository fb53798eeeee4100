"""From decoded images to batches: augmentation, datasets, samplers and DataLoaders, for training and prediction.

Raise VERSION of training and of prediction with any change that alters the batches.
"""
