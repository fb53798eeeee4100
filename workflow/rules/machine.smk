# The machine: how many folds train at once, and what jobs must know about it.
GIVEN_GPUS = getattr(workflow.global_resources.get("gpu"), "value", None)
# Snakemake knows its executor only after it has read this file. On a cluster, --jobs is always set.
ON_CLUSTER = workflow.resource_settings.nodes is not None


def plan_this_machine():
    """Plan how many folds train at once on this machine, and their threads. --resources gpu=N overrides it.

    Repeats must not change the plan: with another number of threads, the same fold would get other bits.
    """
    memory = max(fold_memory(sections, Path("results", recipe)) for recipe, sections in RECIPES.items())
    machine = this_machine(RUN.device, workflow.resource_settings.cores or 1)
    return plan_folds(machine, RUN.num_folds, memory, RUN.gpus_per_fold, RUN.gpu_slots, GIVEN_GPUS)


# Only the main process plans. Jobs of a cluster also read this file, on other machines.
PLAN = plan_this_machine() if workflow.is_main_process and not ON_CLUSTER else None
THREADS = PLAN.threads if PLAN else THREADS_PER_GPU * RUN.gpus_per_fold
THREADS_TO_PREDICT = max(1, THREADS // RUN.gpus_per_fold)


def threads_to_train(wildcards):
    """A fold's threads. Also logs the plan: Snakemake calls this only if it trains a fold."""
    log_plan()
    return THREADS


def describe_plan(wildcards):
    """What a run would train now, and how."""
    lines = []
    models = f"{RUN.folds_in_all} folds{' and a full fit' if FULL_FIT else ''}"
    for recipe in RECIPES:
        left = [member for member in MEMBERS if not all(map(exists, outputs_of(recipe, member)))]
        folds = ", ".join(str(member.number) for member in left if member.holds_out)
        named = [f"folds {folds}"] * bool(folds) + ["the full fit"] * (Member() in left)
        done = f"would train {' and '.join(named)}, unless {KEPT}/ has them" if left else "all trained"
        lines.append(f"recipe {recipe}, {models}: {done}")
    lines += [race_sentence()] if RACES else []
    return "\n".join(lines + ([PLAN.sentence] if PLAN else []))


@cache
def log_plan():
    """Log the plan once."""
    if PLAN:
        logger.info(PLAN.sentence)


def cap_gpus():
    """Limit how many folds train at once, since Snakemake has no default limit. Tell jobs how many share the memory."""
    if RUN.gpu_slots > 1 and ON_CLUSTER:
        refuse(f"config.yaml: gpu_slots must be 1 on a cluster, where each job has its own GPU (got {RUN.gpu_slots})")
    gpu = PLAN.gpu if PLAN else max(GIVEN_GPUS or 1, RUN.gpus_per_fold)
    workflow.register_resource("gpu", gpu)
    os.environ.update(KFOLD_PROCESSES_AT_ONCE=str(gpu if PLAN else 1))


def forced_trainings():
    """The training rules that the user forces (-R, --force, --forceall), without those that rerun as a result."""
    settings = workflow.dag_settings
    named = {os.path.normpath(each) for each in settings.forcerun}
    named |= {os.path.normpath(each) for each in settings.targets if settings.forcetargets}
    return [
        name
        for recipe in RECIPES
        for member in MEMBERS
        if (name := as_typed(rule_name("train", recipe, member)))
        and (settings.forceall or not named.isdisjoint({name, *outputs_of(recipe, member)}))
    ]


def tell_jobs_forced_trainings(wildcards):
    """An input without files. Snakemake calls it once it knows its targets, before it starts an executor."""
    if workflow.is_main_process and "KFOLD_ASKED_FOR" not in workflow.envvars:
        os.environ.update(KFOLD_ASKED_FOR=" ".join(forced_trainings()))
        workflow.register_envvars("KFOLD_ASKED_FOR")
    return {}


def refuse_absent_members():
    """End if a target is a model that the configuration does not have. Snakemake's own error names no key.

    Snakemake knows its targets only after it has read this file, so this searches the command line.
    """
    if "@" not in as_typed("@"):  # a single rule under a name of the user's
        return
    compared = "".join(f"{re.escape(recipe)}_|" for recipe in RECIPES if recipe != RECIPE)
    of_member = f"(?:train|predict_oof|predict_test)_(?:{compared})(?P<member>[^/]+)"
    of_member = re.compile(re.escape(as_typed("@")).replace("@", of_member))
    asked = [found for word in sys.argv[1:] if (found := of_member.fullmatch(word)) and not os.path.exists(word)]
    why = {each[0]: why_absent(each["member"], RUN.num_folds, RUN.repeats, RUN.full_fit) for each in asked}
    if lines := [f"{name}: there is no such rule: {'; '.join(reasons)}" for name, reasons in why.items() if reasons]:
        refuse("\n".join(lines))


def tell_jobs_the_metrics():
    """Tell jobs the metrics of recipes. They are not a param: a change would rerun jobs."""
    asked = {key: scoring.model_dump() for key, scoring in metrics_of_recipes().items()}
    os.environ.update(KFOLD_METRICS_OF_RECIPES=json.dumps(asked))


def end_with_the_terminal():
    """Treat a closed terminal like SIGTERM: Snakemake waits until its jobs have saved, then unlocks the folder."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


tell_jobs_the_metrics()
if workflow.is_main_process:
    refuse_absent_members()
    cap_gpus()
    end_with_the_terminal()
