"""The JSON schemas as files, each complete by itself, made by `make docs`.

Those of all messages are made of `deploy/asyncapi.yaml`, that of `/status.json` of the types that it is made of.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.support.deployed import DEPLOY, Document, parsed
from tests.support.status_schema import status_schema

if TYPE_CHECKING:
    from jsonschema import Draft7Validator
    from referencing import Registry

DIRECTORY: Final = DEPLOY / "schemas"
DRAFT: Final = "http://json-schema.org/draft-07/schema#"
PLACE: Final = "#/components/schemas/"


def schemas() -> dict[Path, str]:
    """File → its text: of each type of message, the payload in structured mode, and the data, that of binary mode."""
    known: Document = parsed(DEPLOY / "asyncapi.yaml")["components"]["schemas"]
    made = {}
    for name in (name for name in known if name.endswith("Event")):
        properties = known[name]["properties"]
        type_ = known[_name(properties["type"])]["const"]
        made[DIRECTORY / f"{type_}.schema.json"] = _complete(known, name, f"{type_}, the CloudEvent")
        made[DIRECTORY / f"{type_}.data.schema.json"] = _complete(
            known, _name(properties["data"]), f"{type_}, its data"
        )
    return made


def validator(schema: Document, registry: "Registry[Any] | None" = None) -> "Draft7Validator":
    """What judges by the schema; references lead into the registry.

    The library is imported only now: that takes seconds, and each process that collects tests would do it.
    """
    from jsonschema import Draft7Validator  # noqa: PLC0415 - see above

    return Draft7Validator(schema) if registry is None else Draft7Validator(schema, registry=registry)


def files() -> dict[Path, str]:
    """All of them: file → its text."""
    return {**schemas(), DIRECTORY / "status.schema.json": _text(status_schema())}


def renew() -> None:
    """Write all of them anew, and remove what is no longer one."""
    DIRECTORY.mkdir(exist_ok=True)
    made = files()
    for file in {*DIRECTORY.glob("*.json")} - made.keys():
        file.unlink()
    for file, text in made.items():
        file.write_text(text)


def _complete(known: Document, root: str, title: str) -> str:
    definitions = {name: known[name] for name in sorted(_needed(known, root) - {root})}
    schema = {"$schema": DRAFT, "title": title, **known[root]}
    if definitions:
        schema["definitions"] = definitions
    return _text(schema).replace(PLACE, "#/definitions/")


def _text(schema: Document) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _needed(known: Document, root: str) -> set[str]:
    """The names of all schemas that this one refers to, itself included."""
    found, new = set[str](), {root}
    while new:
        found |= new
        new = {other for name in new for other in _references(known[name])} - found
    return found


def _references(schema: object) -> Iterator[str]:
    yield from re.findall(rf"{PLACE}(\w+)", json.dumps(schema))


def _name(reference: Document) -> str:
    return str(reference["$ref"]).removeprefix(PLACE)
