"""docs/reliability.md names tests that there are."""

from __future__ import annotations

import re

from conftest import REPOSITORY


def test_every_test_it_names_is_there():
    named = set(re.findall(r"`(test_\w+)`", (REPOSITORY / "docs/reliability.md").read_text()))
    files = (path.read_text() for path in (REPOSITORY / "tests").rglob("test_*.py"))
    assert len(named) > 40
    assert named <= {name for text in files for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
