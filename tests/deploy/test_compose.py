"""`compose.yaml`, as Compose understands it."""

import shutil
import subprocess
from collections.abc import Sequence

from tests.support.deployed import judged
from tests.support.servers import ROOT


def compose() -> Sequence[str]:
    """The Compose that works here. A `docker` client may lack the plugin: then `docker compose` is no command."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode == 0:
        return "docker", "compose"
    return ("docker-compose",)


def test_compose_understands_its_file() -> None:
    arguments = ["--profile", "kafka", "--profile", "watch", "--file", str(ROOT / "compose.yaml"), "config", "--quiet"]
    judged(*compose(), *arguments, get="run `make setup`")
