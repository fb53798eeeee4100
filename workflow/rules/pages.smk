# The report's pages, and the members that they show.


def page(name, **fixed):
    """A page of the report as an output. ``fixed`` replaces wildcards in its path and menu entry."""
    return report(
        page_file(name, **fixed),
        caption=f"../report/{name}.rst",
        category=PAGES[name].chapter,
        labels=menu_of(name, **fixed),
    )


def menu_of(name, **fixed):
    """A page's menu entry. For a member's page, it has the member's number."""

    def entry(wildcards):
        numbers = {"fold": str(member_in(wildcards.member).number)} if "member" in wildcards.keys() else {}
        return menu_entry(name, **fixed, **numbers)

    return entry


def pages(*names):
    """Pages as outputs, by name."""
    return {name: page(name) for name in names}


def is_finished(recipe, member):
    """Whether a member's model and predictions exist."""
    return all(map(exists, [*outputs_of(recipe, member), *logits_of(recipe, member)]))


FINISHED = {recipe: [member for member in MEMBERS if is_finished(recipe, member)] for recipe in RECIPES}


def finished_folds(recipe):
    """The folds that a report shows: the finished ones, or all if none is; these are then trained first."""
    return [member for member in FINISHED[recipe] if member.holds_out] or FOLDS


def is_complete(recipe):
    """Whether all folds and all combined members are finished. True if none is: the report then trains them all."""
    finished = set(FINISHED[recipe] or MEMBERS)
    return finished >= {*FOLDS, *COMBINED}


def shown_members(recipe):
    """The folds that a report shows, and the full fit if it is finished."""
    return finished_folds(recipe) + [member for member in FULL_FIT if member in FINISHED[recipe]]


def folds_param(wildcards):
    """Numbers of the folds that a report shows."""
    return [fold.number for fold in finished_folds(wildcards.recipe)]


def first_finished_fold(wildcards):
    """The first fold that a report shows."""
    return finished_folds(wildcards.recipe)[0].trained_as


def seed_of_first_finished(wildcards):
    """The seed of the first fold that a report shows."""
    return seed_of(finished_folds(wildcards.recipe)[0].repeat)


def split_of_first_finished(wildcards):
    """The split of the first fold that a report shows."""
    return SPLITS[finished_folds(wildcards.recipe)[0].repeat]


def of_finished_folds(file):
    """This file of each fold that a report shows."""

    def files(wildcards):
        return files_of(finished_folds(wildcards.recipe), wildcards.recipe, file)

    return files


def scores_of_finished_folds(wildcards):
    """The scores if every fold is finished, else the logits from which to score the finished folds."""
    folds, recipe = finished_folds(wildcards.recipe), wildcards.recipe
    if is_complete(recipe):
        return {"metrics": f"results/{recipe}/metrics.json"}
    logits = {name: files_of(folds, recipe, f"{name}_logits.npz") for name in ("oof", "test")}
    return logits | {"epochs": stored_epochs(recipe, folds)}


def of_shown_members(file):
    """This file of each fold that a report shows, and of the full fit if it is finished."""

    def files(wildcards):
        return files_of(shown_members(wildcards.recipe), wildcards.recipe, file)

    return files


def pixels_of_recipe(half):
    """The decoded images of the page's recipe."""

    def pixels(wildcards):
        recipe = BLENDED[0] if wildcards.recipe not in RECIPES else wildcards.recipe
        return pixels_of(RECIPES[recipe], half)

    return pixels


def pixels_of_both_halves(wildcards):
    """The decoded training and test images, as lists."""
    halves = [pixels_of(RECIPES[wildcards.recipe], half) for half in HALVES]
    return {name: [pixels[name] for pixels in halves] for name in ("pixels", "index")}


def recipe_param(wildcards):
    """A recipe's sections."""
    return as_param(RECIPES[wildcards.recipe])


def recipe_path(wildcards):
    """The path of a recipe, relative to this workflow if possible."""
    file = FILES[wildcards.recipe]
    return str(file.relative_to(PLACE) if file.is_relative_to(PLACE) else file)


def git(*arguments):
    """Run git on this workflow's folder. Empty without git or without a repository."""
    try:
        command = ["git", "-C", str(PLACE), *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def commit(wildcards):
    """The checked-out commit, and whether files differ from it. None if unknown, as in an installed package."""
    if COPIED_COMMIT or not git("ls-files", "Snakefile"):
        return COPIED_COMMIT
    head, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return f"{head} and uncommitted changes" if head and changes else head or None


def certificate_of(recipe):
    """A recipe's certificate. No rule declares it, so that one that failed stays."""
    return f"results/{recipe}/certificate.json"


def certified_as(recipe):
    """All values that a certificate is about, by key. Its page names those that changed since."""
    keys = ("num_folds", "seed", "repeats", "keep_together", "rare_classes", "over_repeats")
    sections = RECIPES[recipe].model_dump(mode="json", exclude_defaults=True)
    return canonical(
        {key: getattr(RUN, key) for key in keys}
        | {"submission.calibrate": RUN.submission.calibrate}
        | {f"{key} of the recipe": section for key, section in sections.items()}
        | {"version of kfold_ens' stages": [*TRAINING_VERSION, prediction.VERSION, ensemble.VERSION]}
    )


def certificate_param(wildcards):
    """What a certificate of the page's recipe would be about now."""
    return certified_as(wildcards.recipe)


def is_certified(recipe):
    """Whether a recipe has a certificate, passed or failed."""
    file = Path(certificate_of(recipe))
    return file.is_file() and read_json(file).get("version") == certificate.VERSION


def own_certificate(wildcards):
    """The certificate as an input: it is never in the storage."""
    return local(certificate_of(wildcards.recipe))


def texts_of_captions():
    """The captions of the report, by file."""
    return {file.name: file.read_text() for file in sorted((PLACE / "workflow/report").glob("*.rst"))}


def pages_of(recipe):
    """The files of a recipe's pages."""
    shown = {"recipe", "fold"}
    if is_complete(recipe):
        shown |= {"ensemble", "submission"} if recipe == SUBMITTED else {"ensemble"}
    if is_certified(recipe):
        shown.add("certificate")
    return page_files(shown, recipe, [member.folder for member in shown_members(recipe)])


def reported_recipes():
    """The recipes of the submission, and other recipes that have a finished fold. A partial blend trains none."""
    submitted = [] if BLENDED and RUN.allow_partial else BLENDED or [RECIPE]
    return [recipe for recipe in RECIPES if recipe in submitted or FINISHED[recipe]]


def reports_blend():
    """Whether all members of a blend are finished, or those of each recipe that has any."""
    finished = [set(own) <= set(FINISHED[recipe] or MEMBERS) for recipe, own in BLENDED_MEMBERS.items()]
    return bool(BLENDED) and all(finished) and not ABSENT


def is_compared():
    """Whether recipes can be compared without training more of them: in a race, all but the stopped ones are finished."""
    if RACES:
        file = Path(f"results/race/after_{RACE_ENDS}_folds.json")
        race = read_json(file) if file.is_file() else {"racing": [], "stopped": {}}
        ended = {*race["racing"], *race["stopped"]} == set(ABLATION)
        return ended and all(is_complete(recipe) for recipe in race["racing"])
    return ABLATION and all(FINISHED[recipe] and is_complete(recipe) for recipe in ABLATION)


def reported():
    """Every page of the report, and the ablation's if its recipes are compared."""
    files = [file for recipe in reported_recipes() for file in pages_of(recipe)]
    files += page_files({"blend", "ensemble", "submission"}, "blend", [""]) if reports_blend() else []
    return [*files, page_file("ablation")] if is_compared() else files


REPORTED = reported()
SCORES = [f"results/{each}/report/score.html" for each in [*["blend"] * reports_blend(), *reported_recipes()]]
MAKES_REPORT = any(each.split("=")[0] == "--report" for each in sys.argv)  # then `submission` makes all pages
