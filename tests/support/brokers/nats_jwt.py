"""A NATS operator, as `nsc` would make one: signed JWTs for accounts and users (decentralized authentication)."""

import base64
import hashlib
import json
import os
import time
from typing import Any

import nkeys  # type: ignore[import-untyped]

PREFIXES = {"O": nkeys.PREFIX_BYTE_OPERATOR, "A": nkeys.PREFIX_BYTE_ACCOUNT, "U": nkeys.PREFIX_BYTE_USER}


def nkey(kind: str) -> tuple[str, str]:
    """Seed and public key of a new operator (`O`), account (`A`) or user (`U`)."""
    seed = nkeys.encode_seed(os.urandom(32), PREFIXES[kind])
    return seed.decode(), nkeys.from_seed(bytearray(seed)).public_key.decode()


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _jwt(issuer: tuple[str, str], subject: str, name: str, claims: dict[str, Any], expires: int | None = None) -> str:
    seed, public = issuer
    body = {"iss": public, "sub": subject, "name": name, "iat": int(time.time()), "nats": {"version": 2, **claims}}
    if expires is not None:
        body["exp"] = expires
    digest = hashlib.new("sha512_256", json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(body).encode())}"
    return f"{signed}.{_encoded(nkeys.from_seed(bytearray(seed.encode())).sign(signed.encode()))}"


class Operator:
    """An operator with a system account and one account that may use JetStream without limits."""

    def __init__(self) -> None:
        operator, system, self._account = nkey("O"), nkey("A"), nkey("A")
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        jwts = {
            system[1]: _jwt(operator, system[1], "SYS", {"type": "account", "limits": limits}),
            self._account[1]: _jwt(operator, self._account[1], "A", {"type": "account", "limits": limits | storage}),
        }
        preload = ", ".join(f"{public}: {jwt}" for public, jwt in jwts.items())
        self.config = (
            f"operator: {_jwt(operator, operator[1], 'O', {'type': 'operator'})}\n"
            f"system_account: {system[1]}\nresolver: MEMORY\nresolver_preload: {{ {preload} }}"
        )
        """For the server's configuration file."""

    def credentials(self, expires: int | None = None) -> str:
        """The credentials file of a new user of the account; `expires` is a Unix time in seconds."""
        seed, public = nkey("U")
        limits = {"subs": -1, "data": -1, "payload": -1}
        jwt = _jwt(self._account, public, "ann", {"type": "user", "pub": {}, "sub": {}, **limits}, expires)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
