"""Guess the keys of ``source: imagefolder`` from folders of class folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from kfold_ens.errors import DataError
from kfold_ens.init.findings import Answer, Finding, as_yaml, counted, doubt, guess, nothing
from kfold_ens.init.names import half_in
from kfold_ens.init.survey import Folder, outermost

MOST = 4  # answers or folders in a message


def class_roots(folder: Folder) -> list[Folder]:
    """Find the folders of class folders: of two or more folders that all hold images, and are no halves of the data."""
    if _may_hold_classes(folder):
        return [folder]
    return [root for each in folder.filled for root in class_roots(each)]


def _may_hold_classes(folder: Folder) -> bool:
    """Whether its folders are classes. One kind of half beside others may be a class: bus and train."""
    halves = {each.half for each in folder.filled if each.is_named}
    return folder.holds_leaves and len(halves) < 2 and not all(each.is_named for each in folder.filled)


def unclear_classes(root: Folder) -> list[Folder]:
    """The folders in a folder of classes that may be halves of the data instead, by their names."""
    mentioned = [each for each in root.filled if half_in(each.name)]
    is_unclear = root.half is None and len(mentioned) == len(root.filled)
    return mentioned if is_unclear else [each for each in root.filled if each.is_named]


def refuse_classes_at_the_top(top: Folder) -> None:
    """Refuse class folders directly in the project.

    Raises:
        DataError: a run writes its own folders there, which would be read as classes.
    """
    loose = [each.name for each in top.filled if each.names and not each.is_named]
    if len(loose) > 1 and not class_roots_below(top):
        raise DataError(
            f"{_some(loose)} lie directly in this folder. If they are class folders, move them into a folder of their "
            "own, such as train/: a run writes results/ and logs/ beside them, which would be read as classes. Then "
            "run kfold-init again"
        )


def class_roots_below(top: Folder) -> list[Folder]:
    """Find the folders of class folders below the project's own."""
    return [root for each in top.filled for root in class_roots(each)]


def from_class_folders(top: Folder, has_table: bool = False) -> list[Finding]:
    """Guess ``source``, ``train`` and ``test``. Empty if there are no class folders to train on.

    If a table says the labels (``has_table``), folders that may be halves of the data are no classes.
    """
    labelled = [root for root in class_roots_below(top) if root.half != "test"]
    if has_table:
        labelled = [root for root in labelled if not unclear_classes(root)]
    if not labelled:
        return []
    source = guess("data", f"{as_yaml(labelled[0].path)} holds class folders", source="imagefolder")
    return [source, *_train_and_test(top, labelled)]


def classes_of(root: Folder) -> set[str]:
    """The names of its class folders."""
    return {each.name for each in root.filled}


def _named_tests(top: Folder, labelled: Sequence[Folder]) -> list[Folder]:
    """Folders of images whose names mention a test, outside of the folders of classes and of other halves."""
    return outermost(
        top,
        lambda each: half_in(each.name) == "test" and each.half in (None, "test") and _is_apart(each, labelled),
    )


def _is_apart(folder: Folder, roots: Sequence[Folder]) -> bool:
    return not any(folder.holds(root) or root.holds(folder) for root in roots)


def test_folder(top: Folder, labelled: Sequence[Folder]) -> Finding:
    """Guess the folder of test images by its name. Others without class folders are only offered."""
    named = _named_tests(top, labelled)
    others = outermost(top, lambda each: each.half is None and _is_apart(each, labelled))
    if not (named or others):
        return nothing("data", "test", "name a folder of images to predict; no folder looks like one")
    if len(named) == 1 and named[0].is_named:
        return guess("data", f"by its name; {_images(named[0])}", test=named[0].path)
    found = named or others
    answers = [Answer({"test": each.path}, _images(each)) for each in found[:MOST]]
    return doubt("data", answers, _why_no_test(found, bool(named)))


def _why_no_test(found: Sequence[Folder], is_named: bool) -> str:
    if len(found) > MOST:
        return f"since {len(found)} folders may hold the images to predict, such as these {MOST}"
    if len(found) > 1:
        return "" if is_named else "since no name says which folder holds the images to predict"
    return (
        "since its name may mean something else" if is_named else "since only its place says that it is to be predicted"
    )


def _train_and_test(top: Folder, labelled: Sequence[Folder]) -> list[Finding]:
    test = test_folder(top, labelled)
    of_half = {half: [root for root in labelled if root.half == half] for half in ("train", "val", None)}
    train, val = of_half["train"] or of_half[None], of_half["val"]
    if not train or len(train) > 1 or len(val) > 1 or (of_half["train"] and of_half[None]):
        return [_several(top, [*of_half["train"], *of_half["val"], *of_half[None]]), test]
    (root,) = train
    if others := unclear_classes(root):
        why = (
            f"since {_some([each.path for each in others])} may be no class; if so, move it out of {as_yaml(root.path)}"
        )
        return [doubt("data", [_as_train(train)], why), test]
    if around := _outer(top, root):
        return [_inner_or_outer(root, around), test]
    if val and not _named_tests(top, labelled):
        return [_val_is_one_or_the_other(root, val[0], test)]
    return [_merged(root, val[0]) if val else _sure(train), test]


def _outer(top: Folder, root: Folder) -> Folder | None:
    """The folder around a folder of classes, if it may be the one of classes instead."""
    parent = _parent(top, root)
    beside = [each for each in parent.filled if each is not root]
    at_top = parent is top and not any(each.names for each in beside)
    return parent if beside and not at_top and not any(each.is_named for each in parent.filled) else None


def _inner_or_outer(root: Folder, around: Folder) -> Finding:
    if around.path != ".":
        return doubt("data", [_as_train([root]), _as_classes(around)])
    beside = [each.path for each in around.filled if each is not root and each.names]
    advice = f"since {_some([*beside, root.path])} may be the classes; if so, move them into a folder of their own"
    return doubt("data", [_as_train([root])], advice)


def _parent(top: Folder, root: Folder) -> Folder:
    path = str(PurePosixPath(root.path).parent)
    return next(folder for folder in top.all() if folder.path == path)


def _several(top: Folder, roots: Sequence[Folder]) -> Finding:
    """Any of several folders of classes may be the training images, or all, or the folder around them."""
    parents = {parent.path: parent for parent in (_parent(top, root) for root in roots)}
    answers = [_as_train(roots)] if len(roots) > 1 else []
    if answers and len(parents) == 1 and "." not in parents:
        answers += map(_as_classes, parents.values())
    answers += [_as_train([root]) for root in roots]
    return doubt("data", answers[:MOST], _why_several(roots, len(answers) > MOST))


def _why_several(roots: Sequence[Folder], has_more: bool) -> str:
    if len(roots) == 1:
        return "since its name says it is for validation"
    more = f"; not all {len(roots)} are shown" if has_more else ""
    return f"since several folders hold class folders{more}"


def _val_is_one_or_the_other(train: Folder, val: Folder, test: Finding) -> Finding:
    """Without a test folder, the one for validation may hold the images to predict."""
    held = Answer({"train": train.path, "test": val.path}, f"{as_yaml(val.path)} holds the images to predict")
    others = [each.values["test"] for each in test.answers] if len(test.answers) == 1 else ["FOLDER"]
    replace = "; replace FOLDER by the images to predict" if others == ["FOLDER"] else ""
    wait = Answer({**_as_train([train, val]).values, "test": others[0]}, f"folds need no validation set{replace}")
    return doubt("data", [held, wait], f"since {as_yaml(val.path)} may be the test images")


def _merged(train: Folder, val: Folder) -> Finding:
    if more := sorted(classes_of(val) - classes_of(train)):
        advice = f"since {as_yaml(val.path)} has classes that {as_yaml(train.path)} lacks: {_some(more)}"
        return doubt("data", [_as_train([train]), _as_train([train, val])], advice)
    return _sure([train, val])


def _sure(roots: Sequence[Folder]) -> Finding:
    answer = _as_train(roots)
    return guess("data", answer.reason, **answer.values)


def _as_train(roots: Sequence[Folder]) -> Answer:
    paths = [root.path for root in roots]
    has_val = len(roots) > 1 and any(root.half == "val" for root in roots)
    merged = "; merged, since folds need no validation set" if has_val else ""
    counts = f"{counted(sum(root.count for root in roots), 'image')} in {_classes(*roots)}"
    return Answer({"train": paths if len(paths) > 1 else paths[0]}, counts + merged)


def _as_classes(folder: Folder) -> Answer:
    return Answer({"train": folder.path}, f"its folders are classes: {_some(sorted(classes_of(folder)))}")


def _classes(*roots: Folder) -> str:
    names = sorted(set().union(*map(classes_of, roots)))
    return f"{counted(len(names), 'class', 'classes')}: {_some(names)}"


def _images(folder: Folder) -> str:
    return counted(folder.count, "image")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(map(as_yaml, names[:MOST])) + more
