# What runs before the configuration is read: imports, and checks of the environment and of config.yaml.
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import cache
from pathlib import Path

from snakemake.io import contains_wildcard
from snakemake.logging import logger


def refuse(message):
    """End with an error message. An exception would make Snakemake print lines of this file too."""
    sys.exit(f"ERROR: {message}")


def installation():
    """The command that installs this workflow's library, from its folder or from git."""
    source = workflow.current_basedir.join("../..")
    if hasattr(source, "repo"):
        return f"pip install git+https://{source.host}/{source.repo}@{source.ref}"
    if hasattr(source, "repo_path"):
        return f"pip install git+file://{source.repo_path}@{source.ref}"
    return f"pip install -e {os.path.normpath(str(source))}"


try:
    import kfold_ens
    from kfold_ens import bundle, certificate, data, ensemble, network, prediction, training
    from kfold_ens import report as report_stage
    from kfold_ens.config import FIRST_LOOK, HALVES, METHODS, Choosing, Scoring, find_recipe, load_config, load_recipe
    from kfold_ens.data.folders import file_fault, images_fingerprint, is_source_of, missing
    from kfold_ens.errors import ConfigError, KfoldError
    from kfold_ens.files import canonical, fingerprint, read_json
    from kfold_ens.findings import Written
    from kfold_ens.machine import THREADS_PER_GPU, fold_memory, plan_folds, this_machine
    from kfold_ens.members import Member, folds_of, member_in, why_absent
    from kfold_ens.report.contents import PAGES, menu_entry, page_file, page_files
    from kfold_ens.run_log import show_run
    from kfold_ens.yaml_files import read_yaml
except ModuleNotFoundError as error:
    refuse(f"{error}. Install the project first: {installation()}")


def check_environment():
    """End if Python decodes file names wrongly, or the folder for temporary files is not writable."""
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        refuse(f"Python decodes file names as {encoding}, so some would be wrong; set PYTHONUTF8=1")
    folder = os.environ.get("TMPDIR", "")
    try:
        tempfile.TemporaryFile(dir=folder if os.path.isdir(folder) else None).close()
    except OSError as error:
        refuse(f"TMPDIR: cannot write to {folder or 'any folder for temporary files'} ({error}); set a writable folder")


def checked(read, items, *arguments):
    """Read each item of the configuration. If some are invalid, end with a message that lists all findings."""
    results, wrong = [], []
    for item in items:
        try:
            results.append(read(item, *arguments))
        except ConfigError as error:
            wrong.append(str(error))
    return results if not wrong else refuse("\n".join(dict.fromkeys(wrong)))


def refuse_bad_yaml(files):
    """End if a file is not valid YAML, has a repeated key, or a number such as 010. Snakemake accepts the last two."""
    checked(read_yaml, [file for file in files if file.suffix != ".json"])


CONFIG_FILE = Path("config.yaml")

if workflow.is_main_process:  # jobs need no second check
    show_run(logger, workflow.output_settings)
    check_environment()
    is_replaced = workflow.config_settings.replace_workflow_config or workflow.modifier.skip_configfile
    is_read = CONFIG_FILE.is_file() and not is_replaced
    refuse_bad_yaml([CONFIG_FILE] if is_read else [])
