"""The report's page on the certificate: was anything that scores a fold computed from its labels?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kfold_ens.files import sha256_of
from kfold_ens.report import pages

SHOWN = 12  # characters of a hash


def write_certificate_page(certificate: Mapping[str, Any], splits: Sequence[str], path: str) -> None:
    """Write the page of ``certificate.json``; ``splits`` are the files of the splits as they are now."""
    pages.write_page(
        path,
        "Certificate" if certificate["passed"] else "Certificate: failed",
        *map(pages.note, [*_doubts(certificate, splits), *certificate["findings"]]),
        pages.paragraph(_verdict(certificate)),
        pages.definitions(_facts(certificate)),
        pages.heading("What was compared"),
        pages.table(_comparisons(certificate), "SHA-256 of each value, under the true and under other labels"),
        pages.heading("Images on both sides"),
        pages.table(_checks(certificate)),
        pages.heading("What was held fixed"),
        *map(pages.paragraph, certificate["held_fixed"]),
    )


def _verdict(certificate: Mapping[str, Any]) -> str:
    if not certificate["passed"]:
        return "Not certified. Each note above says why."
    folds = ", ".join(str(entry["fold"]) for entry in certificate["folds"])
    return (
        f"Nothing that scores these folds has seen the labels of their held-out images: {folds}. Each was rebuilt "
        "under other labels, and every value that leads to its score had the same bytes."
    )


def _doubts(certificate: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    """Say if the certificate is about another split, or about some folds only."""
    settings, rebuilt = certificate["settings"], len(certificate["folds"])
    every = settings["num_folds"] * settings["repeats"]
    doubts = [f"Only {rebuilt} of {every} folds were rebuilt."] if rebuilt < every else []
    if [sha256_of(file) for file in splits] != certificate["splits"]:
        doubts.append("The split has changed since. Run snakemake certify again.")
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
