# The machine: how many folds train at once, and what the jobs are told.
GIVEN_GPUS = workflow.global_resources.get("gpu")
GIVEN_GPUS = getattr(GIVEN_GPUS, "value", GIVEN_GPUS)  # a bare number before Snakemake 9.16
# Snakemake knows its executor only after it has read this file; a cluster always has a number of jobs (--jobs).
ON_CLUSTER = workflow.resource_settings.nodes is not None


def plan_this_machine():
    """How many folds train at once on this machine, and the threads of each; --resources gpu=N overrides it.

    Repeats do not count: with other threads, the same fold would get other bits.
    """
    memory = max(fold_memory(sections, Path("results", recipe)) for recipe, sections in RECIPES.items())
    machine = this_machine(RUN.device, workflow.resource_settings.cores or 1)
    return plan_folds(machine, RUN.num_folds, memory, RUN.gpus_per_fold, RUN.gpu_slots, GIVEN_GPUS)


# Only the main process plans. A cluster's jobs read this file too, on other machines.
PLAN = plan_this_machine() if workflow.is_main_process and not ON_CLUSTER else None
THREADS = PLAN.threads if PLAN else THREADS_PER_GPU * RUN.gpus_per_fold
THREADS_TO_PREDICT = max(1, THREADS // RUN.gpus_per_fold)


def threads_to_train(wildcards):
    """A fold's threads. Snakemake asks only if it trains one, so this also logs the plan."""
    say_plan()
    return THREADS


def plan_in_words(wildcards):
    """What is trained, and how, if a run starts now."""
    lines = []
    models = f"{RUN.folds_in_all} folds{' and a full fit' if FULL_FIT else ''}"
    for recipe in RECIPES:
        left = [member for member in MEMBERS if not all(map(exists, outputs_of(recipe, member)))]
        folds = ", ".join(str(member.number) for member in left if member.holds_out)
        named = [f"folds {folds}"] * bool(folds) + ["the full fit"] * (Member() in left)
        done = f"to train are {' and '.join(named)}, unless {KEPT}/ holds them" if left else "all trained"
        lines.append(f"recipe {recipe}, {models}: {done}")
    return "\n".join(lines + ([PLAN.sentence] if PLAN else []))


@cache
def say_plan():
    """Log the plan once."""
    if PLAN:
        logger.info(PLAN.sentence)


def cap_gpus():
    """Limit the folds that train at once, as Snakemake has no limit by itself; tell jobs how many share the memory."""
    if RUN.gpu_slots > 1 and ON_CLUSTER:
        refuse("gpu_slots: a cluster gives every job a GPU of its own; write 1 into config.yaml")
    gpu = PLAN.gpu if PLAN else max(GIVEN_GPUS or 1, RUN.gpus_per_fold)
    workflow.register_resource("gpu", gpu)
    os.environ.update(KFOLD_PROCESSES_AT_ONCE=str(gpu if PLAN else 1))


def asked_for():
    """The training rules that the user asked to rerun (-R, --force, --forceall); not those that rerun as a result."""
    settings = workflow.dag_settings
    named = {os.path.normpath(each) for each in settings.forcerun}
    named |= {os.path.normpath(each) for each in settings.targets if settings.forcetargets}
    return [
        rule_name("train", recipe, member)
        for recipe in RECIPES
        for member in MEMBERS
        if settings.forceall or not named.isdisjoint({rule_name("train", recipe, member), *outputs_of(recipe, member)})
    ]


def tell_jobs_what_was_asked_for(wildcards):
    """An input without files: Snakemake calls it after it knows what was asked for, and before it has an executor."""
    if workflow.is_main_process and "KFOLD_ASKED_FOR" not in workflow.envvars:
        os.environ.update(KFOLD_ASKED_FOR=" ".join(asked_for()))
        workflow.register_envvars("KFOLD_ASKED_FOR")
    return {}


def refuse_absent_members():
    """End if a model was asked for that the configuration does not have: Snakemake's own error names no key.

    Snakemake knows its targets only after it has read this file, so they are looked for on the command line.
    """
    compared = "".join(f"{re.escape(recipe)}_|" for recipe in RECIPES if recipe != RECIPE)
    of_member = re.compile(f"(?:train|predict_oof|predict_test)_(?:{compared})(?P<member>[^/]+)")
    asked = [found for word in sys.argv[1:] if (found := of_member.fullmatch(word)) and not os.path.exists(word)]
    why = {each[0]: why_absent(each["member"], RUN.num_folds, RUN.repeats, RUN.full_fit) for each in asked}
    if lines := [f"{name}: there is no such rule: {'; '.join(reasons)}" for name, reasons in why.items() if reasons]:
        refuse("\n".join(lines))


def tell_jobs_the_metrics():
    """Tell jobs what recipes are scored by. No param holds it, as a change would rerun them."""
    asked = {key: scoring.model_dump() for key, scoring in metrics_of_recipes().items()}
    os.environ.update(KFOLD_METRICS_OF_RECIPES=json.dumps(asked))


def end_with_the_terminal():
    """Treat a closed terminal as SIGTERM: Snakemake then waits until its jobs have saved, and unlocks the folder."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


tell_jobs_the_metrics()
if workflow.is_main_process:
    refuse_absent_members()
    cap_gpus()
    end_with_the_terminal()
