"""Keep trained folds by fingerprint, so that no fold is trained twice on the same data with the same recipe.

Imports no torch, which takes longer to load than a fold takes to look up.
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

from kfold_ens.epoch_logits import name_images
from kfold_ens.files import link, read_json, sha256_of, sync, umask, write_json
from kfold_ens.members import Number, member_of, title
from kfold_ens.model_header import header_of
from kfold_ens.training.fold import FoldFiles, TrainingOutputs

log = logging.getLogger(__name__)

FILES, ABOUT = ("model.safetensors", "history.csv"), "entry.json"
DAMAGE = (ValueError, LookupError, TypeError, AttributeError)  # raised by reading a damaged entry
HOUR = 3600  # seconds; an older temporary folder is left over from a killed job


@dataclass(frozen=True)
class KeptFold:
    """Folder with the files of one trained fold and an entry that describes it."""

    folder: Path

    @property
    def about(self) -> dict[str, Any]:
        """Entry with ``recipe``, ``fold``, ``trained``, ``fingerprint`` and the files' ``sha256``."""
        return read_json(self.folder / ABOUT)

    @property
    def size(self) -> int:
        """Size in bytes, including files that are hard-linked in ``results/``."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def is_whole(self, files: Iterable[str] = FILES) -> bool:
        """Whether each of these files exists and has the hash recorded in the entry."""
        try:
            hashes = self.about["sha256"]
            return all(sha256_of(self.folder / name) == hashes[name] for name in files)
        except (OSError, *DAMAGE):
            return False


class KeptFolds:
    """Folder of trained folds. Files are hard links to ``results/``, so on the same disk they take no extra space."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[KeptFold]:
        """All kept folds, oldest first."""
        abouts = sorted(self._folder.glob(f"[!.]*/{ABOUT}"), key=lambda path: path.stat().st_mtime)
        return [KeptFold(path.parent) for path in abouts]

    def restore(self, fingerprint: str, outputs: Mapping[str, Path], epochs: Path | None = None) -> bool:
        """Link a kept fold's files to ``outputs``; False if it is missing or damaged. Logs the result.

        ``epochs`` is the file of the logits of its epochs. Without a whole one, the fold is restored without.
        """
        kept = KeptFold(self._path(fingerprint))
        if not kept.folder.is_dir():
            return False
        if not kept.is_whole(outputs):
            log.warning("%s is damaged; retraining the fold", kept.folder)
            return False
        for name, path in outputs.items():
            link(kept.folder / name, path)
        if epochs:
            _restore_epochs(kept, epochs)
        about = kept.about
        where = f"{about['recipe']}, {title(about['fold'])}, {about['trained']}"
        log.info("already trained with the same data and recipe (%s): reusing that model", where)
        return True

    def keep(self, fingerprint: str, files: Mapping[str, Path], about: Mapping[str, Any]) -> None:
        """Add a trained fold atomically; replaces one with the same fingerprint.

        An OSError is only logged, because the fold itself is trained and its files are in ``results/``.
        """
        try:
            self._keep(fingerprint, files, about)
        except OSError as error:
            log.warning("the fold is trained, but could not be stored for reuse in %s: %s", self._folder, error)

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
        """Delete a kept fold."""
        shutil.rmtree(kept.folder)

    def _path(self, fingerprint: str) -> Path:
        return self._folder / fingerprint[:32]

    def _temporary(self) -> Path:
        """Make a folder whose name does not match that of a kept fold."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        folder = Path(tempfile.mkdtemp(dir=self._folder, prefix=".", suffix=".tmp"))
        folder.chmod(0o777 & ~umask())  # as mkdir would: other users may share the project
        return folder

    def _remove_leftovers(self) -> None:
        """Remove the temporary folders of killed jobs; other jobs may be doing the same."""
        for left in self._folder.glob(".*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > HOUR:
                    shutil.rmtree(left, ignore_errors=True)


def _restore_epochs(kept: KeptFold, path: Path) -> None:
    path.unlink(missing_ok=True)
    if kept.is_whole([path.name]):
        link(kept.folder / path.name, path)
    elif member_of(kept.about["fold"]).holds_out:
        log.info("%s has no held-out logits of epochs, so it has no score cross-fitted over them", kept.folder)


def restore_fold(files: FoldFiles, outputs: TrainingOutputs, kept: KeptFolds, again: bool) -> bool:
    """Restore the model and history of a fold that is already trained; False if it must be trained.

    With ``again``, returns False in any case, also in later runs if this one is interrupted. The kept fold stays until
    the new one replaces it.
    """
    fold = files.fold()
    owner, asked = files.fingerprint(fold), outputs.state / "again"
    if again:
        write_json(asked, owner)
    if asked.is_file() and read_json(asked) == owner:
        return False
    restored = kept.restore(owner, outputs.by_name(), outputs.epochs)
    if restored and outputs.epochs.is_file():
        name_images(outputs.history, fold.validation.image_id)
    return restored


def clean(kept: KeptFolds, models: Iterable[Path], configured: Sequence[FoldFiles]) -> None:
    """Log each kept fold with its date and size, and remove those that are not used.

    A kept fold is used if one of ``models`` was restored from it, or one of ``configured`` would be. If the fingerprint
    of a configured fold is unknown, because its pixels are missing, all kept folds with its number stay.
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
    """Fingerprints in use, and the numbers of folds whose fingerprint is unknown."""
    used, unknown = {header_of(model).get("fingerprint", "") for model in models}, set()
    for files in configured:
        try:
            used.add(files.fingerprint())
        except OSError:
            unknown.add(files.number)
    return used, unknown
