"""The values of the Helm chart as a table, made of `values.yaml` and its schema."""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.deployed import CHART, Document, parsed


def chart_values() -> str:
    """Each value that there is, its default and its meaning, in Markdown."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    rows = _rows(schema, parsed(CHART / "values.yaml"))
    head = "| value | default | meaning |\n|---|---|---|\n"
    return head + "".join(f"| `{name}` | `{default}` | {meaning} |\n" for name, default, meaning in rows)


def _rows(schema: Document, values: Document, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each value that there is."""
    for name, about in schema["properties"].items():
        if name not in values:
            continue  # `global` is Helm's own
        if "properties" in about:
            yield from _rows(about, values[name], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _shown(values[name]), about["description"].replace("|", "\\|")


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever YAML has
    return json.dumps(value, ensure_ascii=False)
