"""Guess the keys of ``source: imagefolder`` from folders of class folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from kfold_ens.errors import DataError
from kfold_ens.init.findings import Answer, Finding, as_yaml, counted, doubt, guess, nothing
from kfold_ens.init.survey import Folder, outermost, role_of

MOST = 4  # answers or folders in a message


def class_roots(folder: Folder) -> list[Folder]:
    """Find the folders of class folders: of two or more folders that all hold images and are no half of the data."""
    if _is_class_root(folder):
        return [folder]
    return [root for each in folder.filled for root in class_roots(each)]


def _is_class_root(folder: Folder) -> bool:
    inner = folder.filled
    return len(inner) > 1 and all(each.names and not role_of(_name(each)) for each in inner)


def refuse_classes_at_the_top(top: Folder) -> None:
    """Refuse class folders directly in the project.

    Raises:
        DataError: a run writes its own folders there, which would be read as classes.
    """
    loose = [_name(each) for each in top.filled if each.names and not role_of(_name(each))]
    if len(loose) > 1 and not class_roots_below(top):
        raise DataError(
            f"{_some(loose)} lie directly in this folder. If they are class folders, move them into a folder of their "
            "own, such as train/: a run writes results/ and logs/ beside them, which would be read as classes. Then "
            "run kfold-init again"
        )


def class_roots_below(top: Folder) -> list[Folder]:
    """Find the folders of class folders below the project's own."""
    return [root for each in top.filled for root in class_roots(each)]


def from_class_folders(top: Folder) -> list[Finding]:
    """Guess ``source``, ``train`` and ``test``. Empty if there are no class folders to train on."""
    roots = class_roots_below(top)
    labelled = [root for root in roots if role_of(root.path) != "test"]
    if not labelled:
        return []
    source = guess("data", f"{as_yaml(labelled[0].path)} holds class folders", source="imagefolder")
    test = test_folder(top, roots)
    return [source, *_train_and_test(top, roots, test)]


def classes_of(root: Folder) -> set[str]:
    """The names of its class folders."""
    return {_name(each) for each in root.filled}


def test_folder(top: Folder, roots: Sequence[Folder]) -> Finding:
    """Guess the folder of test images: by its name, or since it is the only one without class folders."""
    named = outermost(top, lambda folder: role_of(_name(folder)) == "test")
    others = outermost(top, lambda folder: not any(folder.holds(root) or root.holds(folder) for root in roots))
    found = named or [folder for folder in others if role_of(folder.path) is None]
    why = "by its name" if named else "the only other folder of images"
    if not found:
        return nothing("data", "test", "name a folder of images to predict; no folder looks like one")
    if len(found) == 1:
        return guess("data", f"{why}; {_images(found[0])}", test=found[0].path)
    return doubt("data", [Answer({"test": each.path}, _images(each)) for each in found[:MOST]])


def _train_and_test(top: Folder, roots: Sequence[Folder], test: Finding) -> list[Finding]:
    of_role = {role: [root for root in roots if role_of(root.path) == role] for role in ("train", "val", None)}
    train, val = of_role["train"] or of_role[None], of_role["val"]
    if not train or len(train) > 1 or len(val) > 1 or (of_role["train"] and of_role[None]):
        return [_several([*of_role["train"], *of_role["val"], *of_role[None]]), test]
    if outer := _outer(top, train[0]):
        answers = [_as_train([train[0]]), Answer({"train": outer.path}, f"its folders are classes: {_classes(outer)}")]
        return [doubt("data", answers), test]
    return _with_validation(train[0], val, test) if val else [_sure([train[0]]), test]


def _outer(top: Folder, root: Folder) -> Folder | None:
    """The folder around a folder of classes, if it may be the one of classes instead."""
    path = str(PurePosixPath(root.path).parent)
    parent = next(folder for folder in top.all() if folder.path == path)
    beside = [each for each in parent.filled if each is not root]
    unclear = path != "." and beside and not any(role_of(_name(each)) for each in parent.filled)
    return parent if unclear else None


def _several(roots: Sequence[Folder]) -> Finding:
    """Any of several folders of classes may be the training images, or all, or the folder around them."""
    parents = {str(PurePosixPath(root.path).parent) for root in roots}
    answers = [_as_train(roots)] if len(roots) > 1 else []
    if len(roots) > 1 and len(parents) == 1 and parents != {"."}:
        names = _some([_name(root) for root in roots])
        answers.append(Answer({"train": parents.pop()}, f"its folders are classes: {names}"))
    return doubt("data", [*answers, *(_as_train([root]) for root in roots)][:MOST], _why_several(roots))


def _why_several(roots: Sequence[Folder]) -> str:
    return "since several folders hold class folders" if len(roots) > 1 else "since its name says it is for validation"


def _with_validation(train: Folder, val: list[Folder], test: Finding) -> list[Finding]:
    both = _as_train([train, *val])
    if not test.answers:
        held = Answer({"train": train.path, "test": val[0].path}, f"{val[0].path} holds the images to predict")
        wait = Answer(
            {**both.values, "test": "FOLDER"}, "folds need no validation set; replace FOLDER by the images to predict"
        )
        return [doubt("data", [held, wait], f"since {val[0].path} may be the test images")]
    if more := sorted(classes_of(val[0]) - classes_of(train)):
        advice = f"since {val[0].path} has classes that {train.path} lacks: {_some(more)}"
        return [doubt("data", [_as_train([train]), both], advice), test]
    return [_sure([train, *val]), test]


def _sure(roots: Sequence[Folder]) -> Finding:
    answer = _as_train(roots)
    return guess("data", answer.reason, **answer.values)


def _as_train(roots: Sequence[Folder]) -> Answer:
    paths = [root.path for root in roots]
    merged = "; merged, since folds need no validation set" if "val" in map(role_of, paths) and len(paths) > 1 else ""
    counts = f"{counted(sum(root.count for root in roots), 'image')} in {_classes(*roots)}"
    return Answer({"train": paths if len(paths) > 1 else paths[0]}, counts + merged)


def _classes(*roots: Folder) -> str:
    names = sorted(set().union(*map(classes_of, roots)))
    return f"{counted(len(names), 'class', 'classes')}: {_some(names)}"


def _images(folder: Folder) -> str:
    return counted(folder.count, "image")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(map(as_yaml, names[:MOST])) + more


def _name(folder: Folder) -> str:
    return PurePosixPath(folder.path).name
