"""Split the training images into folds, or read given folds; check and log them. VERSION is that of ``data``."""
