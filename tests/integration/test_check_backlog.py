"""`expiry-bridge check`, as to the replication backlog: what it takes to fill a gap, and how far it reaches."""

from redis import Redis

from tests.integration.doctor import SOUND, Rows, examine
from tests.support.servers import RedisServer

ROW = "Redis/replication backlog"
AT_ONCE = {"repl-diskless-sync-delay": "1"}


def rows(server: RedisServer, backlog: str, **login: str) -> Rows:
    """What `check` finds with that setting."""
    return examine(0, redis_url=server.url, sink="stdout", redis_backlog=backlog, **login)


def attach(server: RedisServer, admin: Redis) -> None:
    """Have the server keep a replication backlog."""
    with Redis(port=server.port) as reader:
        connection = reader.connection_pool.get_connection()
        connection.send_command("REPLCONF", "capa", "eof")
        connection.read_response()
        connection.send_command("PSYNC", "?", "-1")
        while not admin.info("replication")["repl_backlog_active"]:
            pass
        connection.disconnect()


def test_nothing_is_said_of_it_where_it_is_not_used() -> None:
    with RedisServer(SOUND) as server:
        assert ROW not in rows(server, "off")


def test_whether_there_is_one_is_said_and_what_makes_one() -> None:
    with RedisServer(SOUND) as server:
        row = rows(server, "read")[ROW]
        assert (row["level"], "BRIDGE_REDIS_BACKLOG=keep" in row["remedy"]) == ("warn", True)
        for word, level in (("no", "warn"), ("yes", "pass")):
            with Redis(port=server.port) as admin:
                admin.config_set("lazyfree-lazy-expire", word)
            row = rows(server, "keep")[ROW]
            assert (row["level"], {"no": "is a DEL", "yes": "is an UNLINK"}[word] in row["found"]) == (level, True)
    with RedisServer(SOUND | AT_ONCE) as server:
        row = rows(server, "keep")[ROW]
        assert (row["level"], "repl-diskless-sync-delay" in row["remedy"]) == ("warn", True)


def test_what_it_covers_is_said_and_by_which_word_expirations_are_there() -> None:
    with RedisServer(SOUND) as server, Redis(port=server.port) as admin:
        attach(server, admin)
        row = rows(server, "read")[ROW]
        assert (row["level"], "1 MiB" in row["found"], "nothing now" in row["found"]) == ("warn", True, True)
        assert row["remedy"].startswith("CONFIG SET lazyfree-lazy-expire yes")
        admin.config_set("lazyfree-lazy-expire", "yes")
        assert rows(server, "read")[ROW]["level"] == "pass"


def test_a_user_who_may_not_attach_is_shown_the_rule() -> None:
    with RedisServer(SOUND) as server, Redis(port=server.port) as admin:
        admin.execute_command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-psync")
        row = rows(server, "read", redis_username="limited", redis_password="pw")[ROW]
        assert (row["level"], "psync" in row["found"], "+psync" in row["remedy"]) == ("warn", True, True)
