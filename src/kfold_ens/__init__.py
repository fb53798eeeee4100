"""Train one network per fold, ensemble their predictions, and write the submission."""
