"""A Kafka with rights, and all ways to log in to it: passwords, certificates, both."""

from pathlib import Path
from typing import Any

from tests.support.brokers.kafka import KafkaServer

SECRET = "hunter2"
ANN: dict[str, Any] = {"kafka_sasl_username": "ann", "kafka_sasl_password": SECRET}
MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


def secure_server(certificates: Path) -> KafkaServer:
    """One that asks users who they are. `ann` may log in with SECRET; who has no name may do everything."""
    keys = certificates / "keystore.pem"
    keys.write_text((certificates / "server.key").read_text() + (certificates / "server.pem").read_text())
    login, logins = "org.apache.kafka.common.security", {}
    for listener in ("login", "tlslogin"):
        own = f"listener.name.{listener}"
        logins[f"{own}.plain.sasl.jaas.config"] = f'{login}.plain.PlainLoginModule required user_ann="{SECRET}";'
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            logins[f"{own}.{mechanism}.sasl.jaas.config"] = f"{login}.scram.ScramLoginModule required;"
    own = "listener.name.token"
    logins |= {
        f"{own}.sasl.enabled.mechanisms": "OAUTHBEARER",
        # Takes unsigned tokens.
        f"{own}.oauthbearer.sasl.jaas.config": f"{login}.oauthbearer.OAuthBearerLoginModule required;",
        # Ends a connection with its token.
        f"{own}.oauthbearer.connections.max.reauth.ms": "3600000",
    }
    config = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:CN=client",
        "sasl.enabled.mechanisms": ",".join(MECHANISMS),
        "listener.name.tlslogin.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keys),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates / "ca.pem"),
        "listener.name.mtls.ssl.client.auth": "required",
        **logins,
    }
    users = [f"{mechanism}=[name=ann,password={SECRET}]" for mechanism in MECHANISMS[1:]]
    listeners = {"MTLS": "SSL", "LOGIN": "SASL_PLAINTEXT", "TLSLOGIN": "SASL_SSL", "TOKEN": "SASL_PLAINTEXT"}
    return KafkaServer(config, listeners=listeners, users=users)


def at(server: KafkaServer, listener: str) -> dict[str, Any]:
    """The settings of a sink that uses the listener, but for how to log in."""
    protocol = {"MTLS": "SSL", "TLSLOGIN": "SASL_SSL"}.get(listener, "SASL_PLAINTEXT")
    address = f"127.0.0.1:{server.ports[listener]}"
    return {"kafka_bootstrap_servers": [address], "kafka_security_protocol": protocol}


def as_ann(server: KafkaServer, mechanism: str = "SCRAM-SHA-512", **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - of any field's type
    """The settings with which `ann` logs in by her password."""
    return at(server, "LOGIN") | ANN | {"kafka_sasl_mechanism": mechanism} | settings


def with_certificate(
    server: KafkaServer, certificates: Path, key: str = "client.key", password: str = ""
) -> dict[str, Any]:
    """The settings with which the client logs in by its certificate."""
    settings = at(server, "MTLS") | {
        "kafka_tls_ca_file": certificates / "ca.pem",
        "kafka_tls_cert_file": certificates / "client.pem",
        "kafka_tls_key_file": certificates / key,
    }
    return settings | ({"kafka_tls_key_password": password} if password else {})
