"""The proxy's frames: each is found, and whole, however the bytes arrive."""

import pytest

from tests.support.proxy import Framer, Protocol, resp_arguments


@pytest.mark.parametrize(
    ("protocol", "frames"),
    [
        (
            Protocol.RESP,
            [
                b"*2\r\n$4\r\nEC\r\n\r\n$0\r\n\r\n",
                b"PING\r\n",
                b"+OK\r\n",
                b":1\r\n",
                b"$-1\r\n",
                b"*-1\r\n",
                b"*0\r\n",
                b"*2\r\n*1\r\n:1\r\n*2\r\n$1\r\na\r\n$-1\r\n",
                b"%1\r\n+k\r\n~1\r\n_\r\n",
                b"|1\r\n+k\r\n+v\r\n$1\r\nx\r\n",
                b">2\r\n+message\r\n=5\r\ntxt:a\r\n",
            ],
        ),
        (
            Protocol.NATS,
            [
                b"INFO {}\r\n",
                b"CONNECT {}\r\n",
                b"PING\r\n",
                b"+OK\r\n",
                b"PUB a.b 5\r\n12\r\n3\r\n",
                b"hpub a reply 12 14\r\nNATS/1.0\r\n\r\nab\r\n",
                b"MSG a 1 0\r\n\r\n",
                b"-ERR 'PUB 5'\r\n",
            ],
        ),
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_frames_are_found_however_the_bytes_arrive(protocol: Protocol, frames: list[bytes], chunk: int) -> None:
    stream = b"".join(frames)
    framer = Framer(protocol)
    found = [frame for at in range(0, len(stream), chunk) for frame in framer.feed(stream[at : at + chunk])]
    assert found == frames


def test_a_command_typed_by_a_human_has_arguments_too() -> None:
    assert resp_arguments(b"ping  hello\r\n") == [b"PING", b"hello"]
    assert resp_arguments(b"\r\n") == [b""]
