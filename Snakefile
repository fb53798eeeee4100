# For `snakemake` in a clone. The workflow is where Snakemake's catalogue expects it.
workflow.include("workflow/Snakefile", overwrite_default_target=True)  # `include:` would drop the default target
