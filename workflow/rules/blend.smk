# The blend of the recipes listed at `blend:`. Its folder is like a recipe's, so later rules read it like one.
if BLENDED:

    # Weigh the recipes of the blend on out-of-fold logits, and blend the logits of each member.
    rule blend:
        input:
            unpack(files_to_blend),
            manifest=TRAIN,
        output:
            blend=WEIGHTS_OF_BLEND,
            oof=files_of(FOLDS, "blend", "oof_logits.npz"),
            test=files_of(OF_A_BLEND, "blend", "test_logits.npz"),
        log:
            "logs/blend/blend.log",
        localrule: True
        conda:
            ENVIRONMENT
        params:
            **scoring_param(),
            **repeats_param(),
            weighing=RUN.blend_weights,
            of=RUN.blend_of,
            choosing=choosing_of_blend,
            version=ensemble.VERSION,
        script:
            "../scripts/blend.py"
