"""The value of an expired key as JSON: what a message's `data` says of it, as text that begins with a comma.

Guarantees: any value gives valid JSON, and says exactly what Redis held. Where all strings of a value are UTF-8, it is
`value`; else `value_base64`, of the same shape, with each string in base64. Never is it a part of the value.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from math import isfinite

import orjson

from bridge.expiration import Value

_TEXT, _JSON = "string", "ReJSON-RL"
_NAMES = {_JSON: "json"}
"""What a type is called in messages, if not as Redis calls it."""


def value_members(value: Value) -> str:
    """The members of `data`."""
    kind = f',"value_type":{_dumps(_NAMES.get(value.kind, value.kind))}' if value.kind else ""
    if value.content is None:
        size = f',"value_bytes":{value.size}' if value.missing == "too_large" else ""
        return f'{kind},"value":null,"value_missing":"{value.missing}"{size}'
    captured = f'{kind},"captured_ms":{value.captured_ms},"value_exact":{"true" if value.exact else "false"}'
    try:
        return f'{captured},"value":{_shown(value.kind, value.content, _utf8)}'
    except ValueError:  # UnicodeDecodeError, and JSONDecodeError, are ones
        kind = _TEXT if value.kind == _JSON else value.kind
        return f'{captured},"value_base64":{_shown(kind, value.content, _base64)}'


def _shown(kind: str, content: bytes | Sequence[bytes], text: Callable[[bytes], str]) -> str:
    if isinstance(content, bytes):
        if kind == _JSON:
            document = orjson.loads(content)  # it is what it claims to be; but large numbers would come out rounded
            return content.decode() if len(content.splitlines()) == 1 else _dumps(document)
        return _dumps(text(content))
    if kind == "hash":
        fields = iter(content)
        return _dumps({text(field): text(value) for field, value in zip(fields, fields, strict=True)})
    if kind == "zset":
        members = iter(content)
        return _dumps([[text(member), _score(score)] for member, score in zip(members, members, strict=True)])
    return _dumps([text(element) for element in content])


def _score(score: bytes) -> float | str:
    number = float(score)
    return number if isfinite(number) else "inf" if number > 0 else "-inf"


def _utf8(text: bytes) -> str:
    return text.decode()


def _base64(text: bytes) -> str:
    return b64encode(text).decode()


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()
