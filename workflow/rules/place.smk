# Where this workflow lies, and what differs if the user's Snakefile uses it as a module.
import io
import tarfile
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from snakemake.settings.enums import RerunTrigger
from snakemake.sourcecache import HostingProviderFile, LocalGitFile, LocalSourceFile

# What Python reads itself; Snakemake fetches rules, scripts and captions.
READ_HERE = ("recipes", "workflow/report", "pyproject.toml")


def place():
    """This workflow's folder, and None. If it lies in git, a copy of the files that Python reads, and the commit."""
    source = workflow.current_basedir.join("../..")
    if isinstance(source, LocalSourceFile):
        return Path(os.path.normpath(source.path)), None
    if isinstance(source, (LocalGitFile, HostingProviderFile)):
        return copied_from_git(source)
    return refuse(
        f"{source}: recipes cannot be listed there; use github(), gitlab(), git+file:// or a path as the snakefile"
    )


def copied_from_git(source):
    """Copy files from git, once per commit, to the folder where Snakemake keeps scripts. Also returns the commit."""
    from git import Repo

    repository = source.hosted_repo.repo if isinstance(source, HostingProviderFile) else Repo(source.repo_path)
    commit = repository.commit(source.ref).hexsha
    folder = Path(workflow.sourcecache.cache_path, "kfold_ens", commit)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unpacked = tempfile.mkdtemp(dir=folder.parent)
        packed = io.BytesIO()
        repository.archive(packed, commit, path=[os.path.normpath(f"{source.path}/{file}") for file in READ_HERE])
        packed.seek(0)
        tarfile.open(fileobj=packed).extractall(unpacked, filter="data")
        with suppress(OSError):  # another process was first
            os.rename(unpacked, folder)
    return folder / source.path, commit


PLACE, COPIED_COMMIT = place()
IN_A_MODULE = workflow.modifier.base_snakefile is not None
as_typed = workflow.modifier.modify_rulename  # a rule's name as users type it: kfold_train_fold3


def section_param():
    """The key of the user's configuration that is this workflow's. Empty if all of it is."""
    own = [key for key, value in workflow.modifier_stack[0].globals["config"].items() if value is config]
    return {"section": literal(own[0])} if own else {}


def warn_of_another_library():
    """Warn if the installed library is not this workflow's: changes to the workflow's would have no effect."""
    used = Path(kfold_ens.__file__).parent
    of_clone, of_wheel = PLACE / "src/kfold_ens", PLACE.parent
    own = next((folder for folder in (of_clone, of_wheel) if (folder / "__init__.py").is_file()), used)
    if not own.samefile(used):
        advice = f" To use them: pip install -e {PLACE}" if own == of_clone else ""
        logger.warning(
            f"The workflow of {PLACE} runs with the library of another folder: {used}. "
            f"Changes in {own} have no effect.{advice}"
        )


def warn_of_another_version():
    """Warn if the workflow lies in git, and the installed library is of another version."""
    if not COPIED_COMMIT:
        return
    own = tomllib.loads((PLACE / "pyproject.toml").read_text())["project"]["version"]
    with suppress(PackageNotFoundError):  # not installed, but on PYTHONPATH
        if own != version("kfold_ens"):
            logger.warning(
                f"The workflow is version {own}, the library {version('kfold_ens')}. To use one version: {installation()}"
            )


def refuse_changed_paths():
    """End if the module has a prefix for paths: Python code and jobs use the same paths without it."""
    changed = workflow.modifier.path_modifier
    if changed.prefix or changed._prefix_replacements:
        refuse(
            "module: prefix and replace_prefix would move some results only. Remove them; for another folder, run "
            "snakemake --directory FOLDER"
        )


def settings_of_the_profile():
    """Rerun jobs as profiles/default does, which Snakemake does not load for a module.

    By Snakemake's defaults, a comment in a script would rerun every fold, large files would be compared by time, and an
    interrupted run would need --rerun-incomplete. The user's --rerun-triggers and larger limits stay.
    """
    settings = workflow.dag_settings
    if isinstance(settings.rerun_triggers, frozenset):  # the default; the user's are a set
        settings.rerun_triggers = frozenset({RerunTrigger.MTIME, RerunTrigger.PARAMS, RerunTrigger.INPUT})
    settings.force_incomplete = True
    workflow.dag.max_checksum_file_size = max(workflow.dag.max_checksum_file_size, 10**9)


def handlers_of_the_module():
    """Run this workflow's onstart and onsuccess after the user's: Snakemake ignores those of a module."""
    if getattr(workflow, "runs_kfold_handlers", False):  # the user's Snakefile uses some rule a second time
        return
    workflow.runs_kfold_handlers = True
    users_start, users_success = workflow._onstart, workflow._onsuccess
    workflow._onstart = lambda log: (users_start(log), onstart())
    workflow._onsuccess = lambda log: (users_success(log), onsuccess())


@cache
def prepare_module():
    """Set what only a main Snakefile can set."""
    if IN_A_MODULE and workflow.is_main_process:
        settings_of_the_profile()
        handlers_of_the_module()


def once_targets_are_known(wildcards):
    """An input without files. Snakemake calls it once all Snakefiles are read, before it decides what to rerun."""
    prepare_module()
    return {}


if workflow.is_main_process:
    warn_of_another_library()
    warn_of_another_version()
    refuse_changed_paths()
