"""The split of the training images into folds: made or as given, checked, and told. Its VERSION is that of ``data``."""
