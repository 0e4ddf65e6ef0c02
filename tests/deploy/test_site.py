"""The site of all pages: it builds, and what is wrong in a page stops it."""

import subprocess
from pathlib import Path

import pytest

from tests.support import site


@pytest.fixture
def gathered(tmp_path: Path) -> Path:
    pages = tmp_path / "pages"
    site.gather(pages)
    return pages


def test_every_page_has_its_place_in_the_site(gathered: Path, tmp_path: Path) -> None:
    """If this fails, a page is missing in `nav` in deploy/mkdocs.yml, or a link or an anchor leads nowhere."""
    site.render(gathered, tmp_path / "html", mermaid=None)
    assert "Redis key expirations" in (tmp_path / "html" / "index.html").read_text()
    assert (tmp_path / "html" / "deploy" / "docs" / "guarantees.html").exists()


def test_an_anchor_that_leads_nowhere_stops_the_build(gathered: Path, tmp_path: Path) -> None:
    with (gathered / "README.md").open("a") as readme:
        readme.write("\n[nowhere](deploy/docs/guarantees.md#no-such-heading)\n")
    with pytest.raises(subprocess.CalledProcessError):
        site.render(gathered, tmp_path / "html", mermaid=None)


def test_a_link_out_of_the_pages_leads_to_the_repository(gathered: Path) -> None:
    architecture = (gathered / "bridge" / "ARCHITECTURE.md").read_text()
    assert "/blob/main/bridge/contracts.py)" in architecture
    assert "](redis/PROTOCOL.md)" in architecture
