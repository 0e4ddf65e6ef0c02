"""The settings as their user reads them: in the reference table and in the help of the flags."""

from pydantic import SecretStr

from bridge.settings.group import variable
from bridge.settings.model import SECRETS, Settings, folded

_COMMON = {
    "_tls_ca_file": "PEM file of the authorities to trust; unset = the system's",
    "_tls_cert_file": "PEM file of the client's certificate",
    "_tls_key_file": "PEM file of that certificate's private key",
}


def description(name: str) -> str:
    """A field's meaning, in one line."""
    if (secret := folded(name)) != name:
        return f"file to read `{variable(secret)}` from, again whenever it is needed"
    common = next((text for suffix, text in _COMMON.items() if name.endswith(suffix)), "")
    return Settings.model_fields[name].description or common


def default(name: str) -> str:
    """A field's default as one would set it; `unset` where there is none."""
    value: object = Settings.model_fields[name].default
    if value is None:
        return "unset"
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)


def reference() -> str:
    """The reference table of all settings, in Markdown. A secret and its file share a row."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name in (name for name in Settings.model_fields if folded(name) == name):
        shown = "unset" if default(name) == "unset" else f"`{default(name)}`"
        also = f"; or `{variable(name)}_FILE`, a file that holds it" if name in SECRETS else ""
        rows.append(f"| `{variable(name)}` | {shown} | {description(name)}{also} |")
    return "\n".join(rows) + "\n"
