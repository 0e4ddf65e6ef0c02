"""The command: settings and flags to a course, signals to its early end, its books to a report."""

import asyncio
import signal
import sys

from bridge.commands.readers import create
from bridge.commands.screen import Screen, print_json
from bridge.commands.verify.books import Books
from bridge.commands.verify.course import Course
from bridge.commands.verify.plan import PREFIX, Plan
from bridge.commands.verify.report import Report
from bridge.errors import ConfigurationError
from bridge.expiration import Identity
from bridge.redis.admin.probes import FIELD, Probes
from bridge.redis.protocol.patterns import excluded, matches
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from bridge.telemetry import logs

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def verify(settings: Settings, *, as_json: bool, fields: bool = False, **planned: int) -> int:
    """Verify as `planned` (see `Plan`), and print what was found. The exit status.

    Raises ConfigurationError before anything is set. NotConnected, Refused: nothing can be said.
    """
    logs.configure(settings.log_level, settings.log_format)
    plan = Plan(fields=fields, **planned)
    _require_matching(settings, plan)
    return asyncio.run(_verify(settings, plan, as_json=as_json))


def _require_matching(settings: Settings, plan: Plan) -> None:
    name, patterns = ("BRIDGE_FIELDS", settings.fields) if plan.fields else ("BRIDGE_KEYS", settings.keys)
    if not patterns:
        raise ConfigurationError([f"{name}: is unset; set it to {PREFIX}:* at least, here and for the bridge"])
    key = next(plan.unmatched(settings), None)
    if key is None:
        return
    excluding = [f"!{pattern}" for pattern in excluded(patterns) if matches([pattern], key)]
    remedy = f"remove {','.join(excluding)} from it" if excluding else f"add {PREFIX}:* to it"
    raise ConfigurationError(
        [f"{name}: {','.join(patterns)} leaves out the keys of a verification; {remedy}, here and for the bridge"]
    )


async def _verify(settings: Settings, plan: Plan, *, as_json: bool) -> int:
    db, screen = Endpoint.of(settings).db, Screen()
    books = Books(plan, Identity(settings.source, db))
    reader = create(settings, db, (plan.key(0), plan.key(1)))
    course = Course(books, Probes(settings, f"{PREFIX}:", FIELD if plan.fields else None), reader)
    received = _on_signal(course)
    try:
        with screen.progress("Delivered", plan.keys, shown=not as_json) as progress:
            await course.run(progress)
    except asyncio.CancelledError:
        if not received:
            raise
    finally:
        left = await course.cleaned_up()
    if not course.begun:
        sys.stderr.write("\nInterrupted before anything was set.\n")
        return 128 + received[0]
    report = Report(books, reader.place, course.interrupted, left)
    if as_json:
        print_json(report.as_json())
    else:
        report.show(screen)
    if received:
        return 128 + received[0]
    return 0 if books.ok else 1


def _on_signal(course: Course) -> list[signal.Signals]:
    """Let the first signal end the course in good order, the next one at once. What came, as it comes."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    received: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        received.append(number)
        course.interrupted = True
        for each in SIGNALS:
            loop.remove_signal_handler(each)
        if not course.begun and task is not None:
            task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, end, number)
    return received
