# Results in a storage: --default-storage-provider.
HAS_STORAGE = workflow.storage_settings.default_storage_provider is not None
# Where trained folds are kept. With results in a storage, only the volume of state/ outlives a job.
KEPT = "state/trained" if HAS_STORAGE else "trained"
TAKEN_HOME = [
    *ENSEMBLE_FILES,
    f"results/{RECIPE}/metrics.json",
    *(f"results/{name}" for name in ("submission.csv", "submission.zip", "ablation.csv", "report.html")),
]

if workflow.is_main_process:
    # The Snakemake that makes the report reads the provider's options from the environment.
    os.environ.update(workflow.spawned_job_args_factory.get_storage_provider_envvars())


def storage_options():
    """The storage of the results, as options of the Snakemake that makes the report; none if results are local."""
    settings = workflow.storage_settings
    provider = ["--default-storage-provider", settings.default_storage_provider]
    return [*provider, "--default-storage-prefix", settings.default_storage_prefix] if HAS_STORAGE else []


def fetch(*paths):
    """Copy results from the storage to where they would be without one."""
    for path in paths if HAS_STORAGE else ():
        if exists(path):
            stored = workflow.modifier.path_modifier.apply_default_storage(path).flags["storage_object"]
            stored.set_local_path(Path(path))
            workflow.async_run(stored.managed_retrieve())
            os.utime(path, (stored.mtime(), stored.mtime()))
