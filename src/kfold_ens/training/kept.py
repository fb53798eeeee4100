"""Trained folds, kept by their fingerprint, so that none is trained twice for the same data and recipe.

Imports no torch: looking a fold up takes less time than loading torch.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kfold_ens.files import link, read_json, sha256_of, sync, umask, write_json
from kfold_ens.members import Number, member_of, title
from kfold_ens.model_header import header_of
from kfold_ens.training.fold import FoldFiles, TrainingOutputs

log = logging.getLogger(__name__)

FILES, ABOUT = ("model.safetensors", "history.csv"), "entry.json"
DAMAGE = (ValueError, LookupError, TypeError, AttributeError)  # what reading a damaged entry leads to
HOUR = 3600  # seconds: a temporary folder older than that is what a killed job left


@dataclass(frozen=True)
class KeptFold:
    """A trained fold's files in a folder of their own, and what was written down of it."""

    folder: Path

    @property
    def about(self) -> dict[str, Any]:
        """``recipe, fold, trained, fingerprint`` and the files' ``sha256``."""
        return read_json(self.folder / ABOUT)

    @property
    def size(self) -> int:
        """In bytes, those that ``results/`` holds as well included."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def is_whole(self, files: Iterable[str] = FILES) -> bool:
        """Whether each of these files is there, and has the hash that it was kept with."""
        try:
            hashes = self.about["sha256"]
            return all(sha256_of(self.folder / name) == hashes[name] for name in files)
        except (OSError, *DAMAGE):
            return False


class KeptFolds:
    """A folder of trained folds. Files are hard links to those in ``results/``: on one disk they take no more space."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[KeptFold]:
        """Those that are kept, the oldest first."""
        abouts = sorted(self._folder.glob(f"[!.]*/{ABOUT}"), key=lambda path: path.stat().st_mtime)
        return [KeptFold(path.parent) for path in abouts]

    def restore(self, fingerprint: str, outputs: Mapping[str, Path]) -> bool:
        """Put a kept fold's files in place, by their names; False if it is not kept, or damaged. The log says which."""
        kept = KeptFold(self._path(fingerprint))
        if not kept.folder.is_dir():
            return False
        if not kept.is_whole(outputs):
            log.warning("%s is damaged; the fold is trained again", kept.folder)
            return False
        for name, path in outputs.items():
            link(kept.folder / name, path)
        about = kept.about
        where = f"{about['trained']} as {about['recipe']}, {title(about['fold'])}"
        log.info("trained before for the same data and recipe, on %s", where)
        return True

    def keep(self, fingerprint: str, files: Mapping[str, Path], about: Mapping[str, Any]) -> None:
        """Add a trained fold, whole or not at all; it replaces one of the same fingerprint.

        If that cannot be done, the log says so: the fold itself is trained, and its files are where they belong.
        """
        try:
            self._keep(fingerprint, files, about)
        except OSError as error:
            log.warning("the fold is trained, but cannot be kept in %s: %s", self._folder, error)

    def _keep(self, fingerprint: str, files: Mapping[str, Path], about: Mapping[str, Any]) -> None:
        temporary = self._temporary()
        for name, path in files.items():
            link(path, temporary / name)
        hashes = {name: sha256_of(path) for name, path in files.items()}
        facts = {"trained": f"{datetime.now():%Y-%m-%d %H:%M}", "fingerprint": fingerprint, "sha256": hashes}
        write_json(temporary / ABOUT, {**about, **facts})
        place, replaced = self._path(fingerprint), self._temporary()
        if place.exists():
            place.rename(replaced)
        temporary.rename(place)
        sync(self._folder)
        shutil.rmtree(replaced, ignore_errors=True)

    def remove(self, kept: KeptFold) -> None:
        """Forget a fold."""
        shutil.rmtree(kept.folder)

    def _path(self, fingerprint: str) -> Path:
        return self._folder / fingerprint[:32]

    def _temporary(self) -> Path:
        """A new folder that nobody takes for a kept fold."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._remove_what_was_left()
        folder = Path(tempfile.mkdtemp(dir=self._folder, prefix=".", suffix=".tmp"))
        folder.chmod(0o777 & ~umask())  # others may work in this project too
        return folder

    def _remove_what_was_left(self) -> None:
        """Remove the temporary folders of killed jobs; other jobs may do so at the same time."""
        for left in self._folder.glob(".*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > HOUR:
                    shutil.rmtree(left, ignore_errors=True)


def restore_fold(files: FoldFiles, outputs: TrainingOutputs, kept: KeptFolds, again: bool) -> bool:
    """Put the model and history of a fold in place if it was trained before; False if it is to be trained.

    With ``again`` it is trained in any case, and by later runs too if this one is interrupted. Meanwhile the fold that
    was trained before stays kept.
    """
    owner, asked = files.fingerprint(), outputs.state / "again"
    if again:
        write_json(asked, owner)
    if asked.is_file() and read_json(asked) == owner:
        return False
    return kept.restore(owner, outputs.by_name())


def clean(kept: KeptFolds, models: Iterable[Path], configured: Sequence[FoldFiles]) -> None:
    """Log each kept fold with its date and size, and remove those that nothing uses.

    In use are those that one of the model files came from, and those that a configured fold would be restored from. If
    that is unknown, because its pixels are gone, all kept folds of its number stay.
    """
    used, unknown = _in_use(models, configured)
    for fold in kept.all():
        try:
            about = fold.about
            is_used = about["fingerprint"] in used or member_of(about["fold"]).trained_as in unknown
            name = f"{about['trained']}  {about['recipe']}, {title(about['fold'])}"
        except DAMAGE:
            is_used, name = False, f"{fold.folder}, damaged"
        log.info("%s: %.0f MB, %s", name, fold.size / 1e6, "kept" if is_used else "removed")
        if not is_used:
            kept.remove(fold)


def _in_use(models: Iterable[Path], configured: Sequence[FoldFiles]) -> tuple[set[str], set[Number]]:
    """Fingerprints, and the numbers of folds whose fingerprints are unknown."""
    used, unknown = {header_of(model).get("fingerprint", "") for model in models}, set()
    for files in configured:
        try:
            used.add(files.fingerprint())
        except OSError:
            unknown.add(files.number)
    return used, unknown
