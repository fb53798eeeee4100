"""From decoded images to batches: augmentation, datasets, samplers, DataLoaders. Training and prediction share it."""
