"""The description of the messages, as AsyncAPI's own parser reads it."""

import subprocess
from pathlib import Path

import pytest

from tests.support.deployed import DEPLOY
from tests.support.node import node

PARSE = """
import { Parser, fromFile } from '@asyncapi/parser';
const { diagnostics } = await fromFile(new Parser(), process.argv[1]).parse();
for (const found of diagnostics) console.log(found.severity, found.code, found.path.join('.'), found.message);
"""


def test_the_parser_of_asyncapi_finds_no_fault_in_the_document() -> None:
    assert node(PARSE, str(DEPLOY / "asyncapi.yaml")) == ""


def test_the_parser_of_asyncapi_finds_a_fault_where_there_is_one(tmp_path: Path) -> None:
    damaged = tmp_path / "asyncapi.yaml"
    damaged.write_text((DEPLOY / "asyncapi.yaml").read_text().replace("action: send", "action: publish", 1))

    assert "action" in node(PARSE, str(damaged))


def test_a_script_that_fails_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        node("throw new Error('x')")
