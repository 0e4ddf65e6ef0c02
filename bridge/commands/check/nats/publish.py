"""A test publish to JetStream: one message that no consumer has to do anything about (`trial`)."""

from collections.abc import Sequence

from nats.errors import Error
from nats.errors import TimeoutError as NoAnswer
from nats.js.errors import APIError, NoStreamResponseError

from bridge.cloudevents import CHECK_TYPE
from bridge.commands.check.findings import Finding, failure, passed
from bridge.commands.check.nats.client import API_SECONDS, Nats
from bridge.commands.check.nats.remedies import LOG, NatsTools
from bridge.contracts import Message
from bridge.sinks.jetstream.headers import headers_of

OTHER_STREAM, TOO_LARGE, STREAM_FULL, ACCOUNT_FULL, SERVER_FULL = 10060, 10054, 10077, 10002, frozenset({10023, 10047})


async def try_to_publish(nats: Nats, bound: Sequence[str] | None, message: Message) -> Finding:
    """Publish it as the bridge would, but only to this stream, which has these subjects (None if unknown)."""
    tools, jetstream = nats.tools, nats.jetstream
    subject, headers = tools.subjects.of_message(message), headers_of(message)
    try:
        ack = await nats.ask(subject, jetstream.publish(subject, message.body, stream=tools.stream, headers=headers))
    except NoStreamResponseError:
        return failure(f"no stream binds {subject}", _bind(tools, bound))
    except APIError as error:
        if error.err_code == OTHER_STREAM:
            find = (
                f"name it in BRIDGE_NATS_STREAM (nats stream find --subject={subject}), or change BRIDGE_NATS_SUBJECT"
            )
            return failure(f"another stream than {tools.stream} binds {subject}", find)
        return refused(error, tools)
    except Error as error:
        if nats.denials.perhaps(subject):
            return failure(f"the user may not publish to {subject}", tools.permissions())
        why = f"not acked within {API_SECONDS:g} s" if isinstance(error, NoAnswer) else f"not published: {error}"
        return failure(why, LOG)
    return passed(f"{subject} is message {ack.seq} of {ack.stream}; its type is {CHECK_TYPE}")


def _bind(tools: NatsTools, bound: Sequence[str] | None) -> str:
    if bound is None:
        return f"let stream {tools.stream} bind {', '.join(tools.subjects.published)}, too"
    return tools.bind(bound)


def refused(error: APIError, tools: NatsTools) -> Finding:
    """The stream answered with an error."""
    remedy = LOG
    if error.err_code == TOO_LARGE:
        remedy = tools.edit(max_msg_size=-1)
    elif error.err_code == STREAM_FULL:
        remedy = tools.edit(max_msgs=-1, max_bytes=-1)
    elif error.err_code == ACCOUNT_FULL:
        remedy = tools.more_storage()
    elif error.err_code in SERVER_FULL:
        remedy = "make room on the server's disk, or raise max_file_store in its jetstream { }"
    return failure(f"{tools.stream} refuses it: {error.description} (error {error.err_code})", remedy)
