"""The report's page on the certificate: was anything that scores a fold computed from its labels?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kfold_ens.files import hashes_of_tables
from kfold_ens.report import pages

SHOWN = 12  # characters of a hash


@dataclass(frozen=True)
class Now:
    """What a certificate would be about if it were made now: its files, its configuration by key, and the commit."""

    files: Sequence[str]
    configuration: Mapping[str, Any]
    commit: str | None


def write_certificate_page(certificate: Mapping[str, Any], now: Now, path: str) -> None:
    """Write the page of ``certificate.json``, and name what has changed since."""
    changed = _changed(certificate, now)
    pages.write_page(
        path,
        _title(certificate, changed),
        *map(pages.note, [*changed, *_doubts(certificate, now), *certificate["findings"]]),
        pages.paragraph("No longer valid." if changed else _verdict(certificate)),
        pages.definitions(_facts(certificate)),
        pages.heading("What was compared"),
        pages.table(_comparisons(certificate), "SHA-256 of each value, under the true and under other labels"),
        pages.heading("Images on both sides"),
        pages.table(_checks(certificate)),
        pages.heading("What was held fixed"),
        *map(pages.paragraph, certificate["held_fixed"]),
    )


def _changed(certificate: Mapping[str, Any], now: Now) -> list[str]:
    """Say what has changed since. The certificate is then about something else."""
    before = certificate["configuration"] | certificate["files"]
    after = {**now.configuration, **hashes_of_tables(now.files)}
    differing = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    return [f"Changed since: {name}. Run snakemake certify again." for name in differing]


def _title(certificate: Mapping[str, Any], changed: Sequence[str]) -> str:
    if changed:
        return "Certificate: no longer valid"
    return "Certificate" if certificate["passed"] else "Certificate: failed"


def _verdict(certificate: Mapping[str, Any]) -> str:
    if not certificate["passed"]:
        return "Not certified. Each note above says why."
    folds = ", ".join(str(entry["fold"]) for entry in certificate["folds"])
    return (
        f"Nothing that scores these folds has seen the labels of their held-out images: {folds}. Each was rebuilt "
        "under other labels, and every value that leads to its score had the same bytes."
    )


def _doubts(certificate: Mapping[str, Any], now: Now) -> list[str]:
    """Say if the certificate is about some folds only, or made by another commit."""
    settings, rebuilt = certificate["settings"], len(certificate["folds"])
    every = settings["num_folds"] * settings["repeats"]
    doubts = [f"Only {rebuilt} of {every} folds were rebuilt."] if rebuilt < every else []
    if certificate["commit"] != now.commit:
        commits = (each or "an unknown one" for each in (certificate["commit"], now.commit))
        doubts.append("Made by another commit: {}, now {}. What the workflow does may have changed.".format(*commits))
    return doubts


def _facts(certificate: Mapping[str, Any]) -> dict[str, Any]:
    settings = certificate["settings"]
    return {
        "date": certificate["date"],
        "commit": certificate["commit"] or "unknown",
        "recipe": certificate["recipe"],
        "epochs of each rebuilt model": f"{settings['epochs']} (the recipe has {settings['recipe_epochs']})",
        "select": settings["select"],
        "device": f"{settings['device']}, {settings['dtype']}",
    }


def _comparisons(certificate: Mapping[str, Any]) -> pd.DataFrame:
    rows = [
        {
            "fold": str(entry["fold"]),
            "what": each["name"],
            "must": must,
            "result": "is the same" if each["is_same"] else "differs",
            "true labels": each["true"][:SHOWN],
            "other labels": each["other"][:SHOWN],
        }
        for entry in certificate["folds"]
        for must, kind in (("be the same", "artefacts"), ("differ", "controls"))
        for each in entry[kind]
    ]
    return pd.DataFrame(rows)


def _checks(certificate: Mapping[str, Any]) -> pd.DataFrame:
    rows = [
        {
            "check": each["name"],
            "found": each["found"],
            "what": "; ".join(filter(None, [each["words"], *each["examples"]])),
        }
        for each in certificate["images"]
    ]
    return pd.DataFrame(rows)
