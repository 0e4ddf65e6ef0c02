"""What `.ci/shipped-tools` has fetched and built for the examples that are not in Python."""

import os
from pathlib import Path
from typing import Final

import pytest

from tests.support.servers import ROOT

GO: Final = "go"
JAVA: Final = "java"


def fetched(language: str) -> Path:
    """The directory with what the example needs, else a skip; in CI, it may not be missing."""
    directory = ROOT / ".cache" / "tools" / "examples" / language
    if not directory.exists():
        missing = f"NOT CHECKED: the example in {language} was not built (.ci/shipped-tools does, with {language})"
        if os.environ.get("CI") == "true":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return directory
