"""The pages as a site for a browser: `make docs-site`.

The Markdown files keep their places, so the links between them stay. A link to anything else of the project leads to
its repository. Mermaid, which draws the figures, comes from npm's registry once; the site itself then needs no network.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Final

from tests.support.docs import pages
from tests.support.servers import ROOT

CONFIGURATION: Final = ROOT / "deploy" / "mkdocs.yml"
MERMAID: Final = "11.9.0"
IMAGES: Final = {".svg", ".png"}
_LINK: Final = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_CODE: Final = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)


def gather(target: Path) -> None:
    """Copy all pages, and the images they show, to `target`."""
    shutil.rmtree(target, ignore_errors=True)
    for page in pages():
        copy = target / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(_of_the_site(page, target))


def render(gathered: Path, site: Path, *, mermaid: Path | None) -> None:
    """Make the site, in the directory `site`. CalledProcessError where a link, an anchor or the menu is wrong."""
    if mermaid is not None:
        shutil.copy(mermaid, gathered / "mermaid.js")
    else:
        (gathered / "mermaid.js").touch()  # the theme then loads it from the network, where there is one
    mkdocs = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean"]
    environment = {**os.environ, "SITE_PAGES": str(gathered), "NO_MKDOCS_2_WARNING": "1"}
    command = [*mkdocs, "--config-file", str(CONFIGURATION), "--site-dir", str(site)]
    subprocess.run(command, env=environment, check=True)


def fetch_mermaid(directory: Path) -> Path | None:
    """Mermaid's one file, of the version that the theme expects; None, and a warning, where npm cannot provide it."""
    file = directory / f"mermaid-{MERMAID}.js"
    if not file.exists() and not _fetched(file):
        sys.stderr.write("WARNING: no npm, or nothing from it: the figures need a network to be shown.\n")
        return None
    return file


def _fetched(file: Path) -> bool:
    npm = shutil.which("npm")
    if npm is None:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        pack = [npm, "pack", "--silent", "--cache", f"{scratch}/cache", f"mermaid@{MERMAID}"]
        if subprocess.run(pack, cwd=scratch, stdout=subprocess.DEVNULL, check=False).returncode:
            return False
        with tarfile.open(Path(scratch) / f"mermaid-{MERMAID}.tgz") as packed:
            content = packed.extractfile("package/dist/mermaid.min.js")
            if content is None:
                return False
            file.write_bytes(content.read())
    return True


def _of_the_site(page: Path, target: Path) -> str:
    parts = _CODE.split(page.read_text())
    parts[::2] = (_LINK.sub(lambda link: _link(page, target, link), prose) for prose in parts[::2])
    return "".join(parts)


def _link(page: Path, target: Path, link: re.Match[str]) -> str:
    opening, path, anchor, closing = link.groups(default="")
    if re.match(r"[a-z]+:", path):
        return link[0]
    file = (page.parent / path).resolve()
    if file.suffix == ".md":
        return link[0]
    inside = file.relative_to(ROOT)
    if file.suffix in IMAGES:
        (target / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target / inside)
        return link[0]
    return f"{opening}{_repository()}/{'tree' if file.is_dir() else 'blob'}/main/{inside}{anchor}{closing}"


def _repository() -> str:
    urls: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    return urls["Homepage"]


if __name__ == "__main__":
    cache = ROOT / ".cache" / "site"
    gather(cache / "pages")
    render(cache / "pages", cache / "html", mermaid=fetch_mermaid(cache))
    sys.stdout.write(f"The site is in {(cache / 'html').relative_to(ROOT)}: open index.html\n")
