"""``kfold-init``: a project around a folder of images, with a configuration filled in from what lies there."""
