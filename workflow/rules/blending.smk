# The members of each recipe that are in a blend, and the files that it needs.
WEIGHTS_OF_BLEND = "results/blend/blend.json"
OF_A_BLEND = list(dict.fromkeys([*FOLDS, *COMBINED]))  # the members that a blend needs


def blended_members(recipe):
    """The members of a recipe that are blended: all, or with ``allow_partial`` those that are trained, if any fold is."""
    if not RUN.allow_partial:
        return OF_A_BLEND
    trained = [member for member in OF_A_BLEND if all(map(exists, outputs_of(recipe, member)))]
    return trained if any(member.holds_out for member in trained) else []


BLENDED_MEMBERS = {recipe: blended_members(recipe) for recipe in BLENDED}
ABSENT = [member for member in OF_A_BLEND if not any(member in own for own in BLENDED_MEMBERS.values())]


def blended_files(file, members):
    """This file of each of these members that is blended, recipe by recipe."""
    return [
        each
        for recipe, own in BLENDED_MEMBERS.items()
        for each in files_of([member for member in own if member in members], recipe, file)
    ]


def files_to_blend(wildcards):
    """The logits that are blended. Ends if ``allow_partial`` leaves a member without any recipe."""
    if ABSENT:
        train = as_typed(rule_name("train", BLENDED[0], ABSENT[0]))
        refuse(
            f"allow_partial: no recipe of blend: has {', '.join(member.name for member in ABSENT)}; train it for one "
            f"of them (snakemake --cores 4 {train}), or write allow_partial: false, which trains all that is missing"
        )
    return {
        "oof": blended_files("oof_logits.npz", FOLDS),
        "test": blended_files("test_logits.npz", OF_A_BLEND),
    }


def refuse_blend():
    """End if a recipe has the blend's name, or if the blend is asked for as an ensemble file."""
    if "blend" in RECIPES:
        refuse(f"{FILES['blend']}: rename this recipe: results/blend is the folder of blend:")
    if as_typed("ensemble") in sys.argv[1:]:
        refuse("ensemble: an ensemble file holds the models of one recipe, but blend: has several; remove blend:")


def choosing_of_blend(wildcards):
    """What each recipe of the blend chooses by held-out scores."""
    return canonical({recipe: RECIPES[recipe].choosing.model_dump(mode="json") for recipe in BLENDED})


def files_of_submission():
    """The small files of every stage (see ``intermediate_files``) that the submission depends on."""
    if not BLENDED:
        return intermediate_files(RECIPE)
    of_members = [
        [outputs_of(recipe, member)[1], *logits_of(recipe, member)]
        for recipe, own in BLENDED_MEMBERS.items()
        for member in dict.fromkeys([*own, *([] if RUN.allow_partial else FULL_FIT)])
    ]
    of_blend = [logits_of("blend", member) for member in OF_A_BLEND]
    return [TRAIN, TEST, CLASSES, *SPLITS, *of_members, *of_blend, WEIGHTS_OF_BLEND, "results/blend/metrics.json"]


if BLENDED and workflow.is_main_process:
    refuse_blend()
