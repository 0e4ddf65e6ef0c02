"""The pages: what is generated is fresh, and every link leads somewhere."""

from pathlib import Path

import pytest

from tests.support.docs import GENERATED, anchors, links, pages, renewed
from tests.support.servers import ROOT

README_LINES = 200


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", GENERATED, ids=name)
def test_generated_tables_are_those_that_the_code_makes(page: Path) -> None:
    """If this fails: `make docs`."""
    assert renewed(page) == page.read_text()


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{path} does not exist"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{path}#{anchor} has no such heading"


@pytest.mark.parametrize("page", ["README.md", "deploy/examples/python/nats_py.py"])
def test_a_consumer_on_jetstream_survives_a_fetch_that_finds_nothing(page: str) -> None:
    """A fetch of nats-py that runs out of time between its two requests raises Python's TimeoutError."""
    text = (ROOT / page).read_text()
    assert "except TimeoutError:" in text
    assert "except nats.errors.TimeoutError" not in text


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES
