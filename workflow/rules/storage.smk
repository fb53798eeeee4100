# Results in a storage, with --default-storage-provider.
HAS_STORAGE = workflow.storage_settings.default_storage_provider is not None
# The folder of trained folds. With results in a storage, only the volume of state/ outlives a job.
KEPT = "state/trained" if HAS_STORAGE else "trained"
COPIED_AT_THE_END = [
    *ENSEMBLE_FILES,
    f"results/{SUBMITTED}/metrics.json",
    *(f"results/{name}" for name in ("submission.csv", "submission.zip", "ablation.csv", "report.html")),
]

if workflow.is_main_process:
    # The report is made by another Snakemake process, which reads the provider's options from the environment.
    os.environ.update(workflow.spawned_job_args_factory.get_storage_provider_envvars())


def has_stored_epochs(recipe, fold):
    """Whether the held-out logits of all epochs are an output of a fold: in a storage, only outputs outlive a job.

    They are none of a fold in the storage without them, such as an earlier version's: it must not train again.
    """
    history, epochs = files_of([fold], recipe, "history.csv"), files_of([fold], recipe, "oof_epochs.npz")
    return HAS_STORAGE and (exists(*epochs) or not exists(*history))


# By recipe. Found here, since an input function cannot ask the storage.
FOLDS_WITH_STORED_EPOCHS = {recipe: [fold for fold in FOLDS if has_stored_epochs(recipe, fold)] for recipe in RECIPES}


def stored_epochs(recipe, folds):
    """The held-out logits of all epochs of folds, as far as they are outputs."""
    return files_of([fold for fold in folds if fold in FOLDS_WITH_STORED_EPOCHS[recipe]], recipe, "oof_epochs.npz")


def storage_options():
    """The storage as options of the Snakemake process that makes the report. Empty if results are local."""
    settings = workflow.storage_settings
    provider = ["--default-storage-provider", settings.default_storage_provider]
    return [*provider, "--default-storage-prefix", settings.default_storage_prefix] if HAS_STORAGE else []


def fetch(*paths):
    """Copy results from the storage to their local paths."""
    for path in paths if HAS_STORAGE else ():
        if exists(path):
            stored = workflow.modifier.path_modifier.apply_default_storage(path).flags["storage_object"]
            stored.set_local_path(Path(path))
            workflow.async_run(stored.managed_retrieve())
            os.utime(path, (stored.mtime(), stored.mtime()))
