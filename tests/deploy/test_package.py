"""The package as it is published: reproducible, complete, installable on every Python, and able to test itself."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from packaging.utils import NormalizedName, canonicalize_name

import bridge
from tests.support.deployed import DEPLOY, found, judged
from tests.support.servers import ROOT, TOOLS

SETUP = "run `make setup`"
OWN = {"PATH": f"{sys.prefix}/bin{os.pathsep}{TOOLS}{os.pathsep}{os.environ['PATH']}"}
PYTHONS = ["3.11", "3.12", "3.13"]
"""That a development machine has; the workflow tests 3.14, too."""


def run(*command: str | Path, where: Path = ROOT, environment: Mapping[str, str] = MappingProxyType({})) -> str:
    """What the command prints. Raises CalledProcessError, with all that it printed, where it fails."""
    given = {**os.environ, **OWN, **environment}
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=where, env=given).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(f"{error.stdout}{error.stderr}")
        raise


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make release` builds: twice, with the same bytes, and judged by twine and check-wheel-contents."""
    found("helm", get=".ci/shipped-tools builds it, with Go")
    directory = tmp_path_factory.mktemp("dist")
    run(ROOT / ".ci" / "release", directory)
    return directory


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """The wheel in it."""
    [found] = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def unpacked(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, as its user has it."""
    [archive] = dist.glob("expiry_bridge-*.tar.gz")
    target = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target / f"expiry_bridge-{bridge.__version__}"


def interpreter(version: str) -> Path:
    """A Python of this version, else a skip; in CI, none may be missing."""
    installed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in (shutil.which(f"python{version}"), *sorted(installed.glob(f"{version}.*/bin/python"))):
        # One of pyenv's stand-ins fails where that version is not the chosen one.
        if candidate and subprocess.run([candidate, "--version"], check=False, capture_output=True).returncode == 0:
            return Path(candidate)
    missing = f"NOT CHECKED: there is no Python {version} here"
    if os.environ.get("CI") == "true":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


def metadata(wheel: Path) -> str:
    """What PyPI shows of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"expiry_bridge-{bridge.__version__}.dist-info/METADATA").decode()


def components(sbom: object) -> dict[NormalizedName, str]:
    """Package → version, of a list in the format of CycloneDX."""
    assert isinstance(sbom, dict)
    return {canonicalize_name(part["name"]): part["version"] for part in sbom["components"]}


def test_a_release_is_the_archive_the_wheel_the_chart_their_sbom_and_the_sums_of_all(dist: Path) -> None:
    version = bridge.__version__

    assert {path.name for path in dist.iterdir()} == {
        f"expiry_bridge-{version}.tar.gz",
        f"expiry_bridge-{version}-py3-none-any.whl",
        f"expiry-bridge-chart-{version}.tgz",
        f"expiry-bridge-{version}.cdx.json",
        "SHA256SUMS",
    }
    assert run("sha256sum", "--check", "--strict", "SHA256SUMS", where=dist).count(": OK") == 4


def test_what_pypi_shows_leads_somewhere(wheel: Path) -> None:
    text = metadata(wheel)

    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 10
    assert not [link for link in links if not link.startswith(("https://", "#"))]
    ours = [link for link in links if "/expiry-bridge/main/" in link or "/expiry-bridge/blob/main/" in link]
    assert ours
    for link in ours:
        assert (ROOT / link.partition("/main/")[2].partition("#")[0]).exists(), link


def test_pyroma_misses_nothing_but_an_address_which_contributors_do_not_have(dist: Path) -> None:
    [archive] = dist.glob("expiry_bridge-*.tar.gz")

    said = judged("pyroma", "--min", "8", str(archive), get=SETUP)

    assert re.findall(r"^(Your .*|.* should .*)$", said, re.MULTILINE) == [
        "Your package does not have author-email data."
    ]


def test_the_wheel_lists_what_it_is_installed_with(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if ".dist-info/sboms/" in name]
        listed = components(json.loads(archive.read(name)))

    lock = (DEPLOY / "requirements.lock").read_text()
    locked = {
        canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE)
    }
    assert listed == {name: locked[name] for name in listed}
    for name in locked.keys() - listed.keys():  # only on some platforms, or on older Pythons
        assert re.search(rf"^{name}==\S+ ; ", lock, re.MULTILINE), name


@pytest.mark.parametrize("python", PYTHONS)
def test_the_wheel_installs_and_runs(python: str, wheel: Path, tmp_path: Path) -> None:
    run("uv", "venv", "--quiet", "--python", interpreter(python), tmp_path / "venv")
    place = {"VIRTUAL_ENV": str(tmp_path / "venv")}

    run("uv", "pip", "install", "--quiet", wheel, environment=place)

    program = tmp_path / "venv" / "bin" / "expiry-bridge"
    assert "run" in run(program, "--help", where=tmp_path)
    assert "BRIDGE_REDIS_URL" in run(program, "settings", where=tmp_path)
    run("uv", "pip", "check", "--quiet", environment=place)


def test_the_source_archive_tests_itself(unpacked: Path) -> None:
    said = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/deploy", where=unpacked)

    assert re.search(r"\d+ passed", said)
    assert "failed" not in said


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_source_archive_shows_its_demo(unpacked: Path) -> None:
    said = run("make", "demo", where=unpacked, environment={"PYTHON": sys.executable})

    assert said
    assert not (unpacked / ".git").exists()


def test_the_locks_and_the_sbom_are_those_that_the_project_asks_for(tmp_path: Path) -> None:
    kept = [".ci/locks", "pyproject.toml", "deploy/requirements.lock", "deploy/build.lock", "deploy/sbom.cdx.json"]
    for name in (*kept, "README.md", "LICENSE", "bridge/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    run(tmp_path / ".ci" / "locks")

    for name in kept:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), f"{name}: run .ci/locks"
