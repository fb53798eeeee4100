"""Train one network a fold, combine what the folds say, and write the submission."""
