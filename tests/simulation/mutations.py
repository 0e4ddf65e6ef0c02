"""Each rule of `bridge/redis/PROTOCOL.md`, taken out of the source: what one would have written without it.

A mutation is a substitution of text in a copy of `bridge/`; text that is not there exactly once is an error. The
simulation has to find what goes wrong. `python -m tests.simulation.mutations [rule …]` says after how many seeds.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.servers import ROOT

MOST_SEEDS = 1000
"""Within which each has to be found."""

APPLY, TOUCH, ACQUIRE = (f"redis/ledger/lua/{name}.lua" for name in ("apply", "touch", "acquire"))
HINTS, EPOCH, GAP = "redis/protocol/hints.py", "redis/epoch/epoch.py", "redis/protocol/gap.py"
ENTRIES, SHARD, OUTBOX = "redis/ledger/entries.py", "redis/source/shard.py", "redis/ledger/outbox.py"
SCRIPTS, DELIVERY, SCHEDULE = "redis/ledger/scripts.py", "delivery/loop.py", "redis/protocol/schedule.py"

Substitution = tuple[str, str, str]
"""File, text, other text."""

SEQUENCE, FENCE = "redis/ledger/lua/include/sequence.lua", "redis/ledger/lua/include/fence.lua"
_OWN_IDS = (APPLY, "fence .. '-' .. seq, unpack(fields)", "call('HGET', lease, 'fence') .. '-*', unpack(fields)")
"""Else Redis itself would refuse the id of an entry that was there before."""

RULES: Mapping[str, Sequence[Substitution]] = {
    "read_and_write_in_one_script": (
        (
            APPLY,
            "if not score or score >= now or score == deadline then follow(key, deadline) end",
            "if not score or score >= now or score == deadline then read_now[key] = deadline end",
        ),
        (APPLY, "-- The operations.\n", "local read_now = {}\n"),
        (
            APPLY,
            "first_write(lease)\n-- The counts",
            """local kept = call('HGETALL', lease)
for n = 1, #kept, 2 do
  local key = string.match(kept[n], '^p:(.*)$')
  if key then
    call('HDEL', lease, kept[n])
    read_entries({key})
    follow(key, tonumber(kept[n + 1]))
  end
end
for key, deadline in pairs(read_now) do call('HSET', lease, 'p:' .. key, string.format('%.0f', deadline)) end
first_write(lease)
-- The counts""",
        ),
    ),
    "due_entries_stay": (
        (
            APPLY,
            "if not score or score >= now or score == deadline then follow(key, deadline) end",
            "follow(key, deadline)",
        ),
    ),
    "due_is_strictly_past": (
        (TOUCH, "'(' .. string.format('%.0f', now)", "string.format('%.0f', now)"),
        (TOUCH, "local due = tonumber(score) < now", "local due = tonumber(score) <= now"),
        (APPLY, "elseif score and score < now then", "elseif score and score <= now then"),
        (APPLY, "if due and score >= now then return end", "if due and score > now then return end"),
        (SCHEDULE, "(deadline_ms + 1 - self.redis_ms())", "(deadline_ms - self.redis_ms())"),
    ),
    "every_expired_is_claimed": (
        (
            APPLY,
            "  else\n    claim(key, false, 'n')\n    write(key, false)",
            "  elseif not score then\n    claim(key, false, 'n')\n    write(key, false)",
        ),
    ),
    "claims_pass_a_full_outbox": (
        (
            APPLY,
            "local function expired(key)\n",
            "local function expired(key)\n  if (tonumber(call('HGET', lease, 'depth')) or 0) >= 10 then return end\n",
        ),
    ),
    "stream_order": (
        (
            HINTS,
            "        count = size = looked = 0\n",
            "        ordered = sorted(stream, key=lambda hint: not hint[1].startswith(self._own_prefix))\n"
            "        stream.clear()\n        stream.extend(ordered)\n        count = size = looked = 0\n",
        ),
    ),
    "wait_for_the_mark": (
        (
            HINTS,
            "            mark, touched.state.now_us // 1000, len(pending) < limit, pending=pending, counters=touched.counters\n"
            "        )\n",
            "            mark, touched.state.now_us // 1000, len(pending) < limit, pending={}, counters=touched.counters\n"
            "        )\n        self._resolving.extend(pending.items())\n",
        ),
    ),
    "resolve_at_the_mark": (
        (
            HINTS,
            "            self._resolving.extend(self.round.pending.items())\n",
            "            self._deferred.extend(self.round.pending.items())\n",
        ),
        (
            HINTS,
            "        count = size = looked = 0\n",
            "        self._resolving.extend(self._deferred)\n"
            "        self._deferred.clear()\n        count = size = looked = 0\n",
        ),
        (
            HINTS,
            "        self._own_deletions = 0\n",
            "        self._own_deletions = 0\n        self._deferred: deque = deque()\n",
        ),
        (HINTS, "not finished.marked or self._resolving:", "not finished.marked or self._resolving or self._deferred:"),
        (
            HINTS,
            "self.moved or self._resolving or self._former)",
            "self.moved or self._resolving or self._deferred or self._former)",
        ),
    ),
    "touch_decides": (
        (
            APPLY,
            "  if seen == 'gone' then\n",
            "  if deadline then seen = deadline == -2 and 'gone' or 'alive' end\n  if seen == 'gone' then\n",
        ),
    ),
    "touch_changes_no_entry": (
        (
            TOUCH,
            "  if due or state ~= 'alive' then\n",
            """  if due and state == 'alive' then
    local deadline = call('PEXPIRETIME', key)
    if deadline > 0 then call('ZADD', deadlines, deadline, key) else call('ZREM', deadlines, key) end
  end
  if due or state ~= 'alive' then
""",
        ),
    ),
    "touch_is_a_write": (
        (
            SCRIPTS,
            '        names = self._names\n        reply = await self._call(\n            "touch",\n',
            """        names, early = self._names, []
        if touch.walk is None and touch.limit:
            now = await self.now_ms()
            async with conversation(self._endpoint):
                due = await self._client.zrange(
                    names.deadlines, "-inf", f"({now}", byscore=True, withscores=True, offset=0, num=touch.limit
                )
                for key, score in due:
                    early += [key, b"%d" % score, b"alive" if await self._client.exists(key) else b"gone", b"1"]
        reply = await self._call(
            "touch",
""",
        ),
        (
            SCRIPTS,
            '"due" if touch.walk is None else "walk", touch.limit,',
            '"due" if touch.walk is None else "walk", 0 if touch.walk is None else touch.limit,',
        ),
        (
            SCRIPTS,
            "        fields = iter(flat)\n        quadruples",
            "        fields = iter(early or flat)\n        quadruples",
        ),
    ),
    "resolve_reads_again": (
        (
            TOUCH,
            "  if due or state ~= 'alive' then\n",
            """  if due and state == 'alive' then
    call('HSET', lease, 's:' .. key, call('PEXPIRETIME', key))
  end
  if due or state ~= 'alive' then
""",
        ),
        (
            APPLY,
            "  elseif deadline and deadline ~= -2 then\n    if score < gap_start",
            "  elseif call('HEXISTS', lease, 's:' .. key) == 1 then\n"
            "    deadline = tonumber(call('HGET', lease, 's:' .. key))\n    if score < gap_start",
        ),
    ),
    "resolve_is_of_the_entry": (
        (APPLY, "if score ~= tonumber(was) or ahead[key] then return end", "if not score then return end"),
        (HINTS, "        elif key not in self._ahead:\n", "        else:\n"),
    ),
    "resolve_leaves_to_hint": (
        (
            APPLY,
            "    follow(key, deadline)\n  end -- seen alive and gone now",
            "    follow(key, deadline)\n  else\n    write(key, false)\n  end -- seen alive and gone now",
        ),
    ),
    "ahead_keeps_from_expired": (
        (
            HINTS,
            "                self._held.append(key)\n",
            "                self._claim(op.expired(key), operations)\n",
        ),
    ),
    "ahead_keeps_from_deleted": (
        (
            HINTS,
            "            if kind is Kind.EXPIRED:\n                self._held.append(key)\n",
            "            if kind is Kind.EXPIRED:\n                self._held.append(key)\n"
            "            else:\n                operations += op.gone(key)\n",
        ),
        (APPLY, "local function gone(key)\n  if ahead[key] then return end\n", "local function gone(key)\n"),
    ),
    "unchanged_is_ahead": (
        (APPLY, "    ahead[key] = true --", "    if scores[key] ~= deadline then ahead[key] = true end --"),
    ),
    "sequence_numbers": (
        (SEQUENCE, "  if (tonumber(used) or 0) >= tonumber(seq) then return 'DONE' end\n", ""),
        _OWN_IDS,
    ),
    "ids_of_their_own": (
        (
            ENTRIES,
            "identity.of_entry(key, entry_id, index)",
            'identity.of_entry(key, b"%d" % observed_ms, 0)',
        ),
    ),
    "walk": ((GAP, "cursor: bytes | None = WALK_START", "cursor: bytes | None = None"),),
    "overdue_resolved_first": ((EPOCH, "            and (lowest is None or lowest >= self.gap.start_ms)\n", ""),),
    "count_ambiguous": (
        (
            APPLY,
            "    if score < gap_start then ambiguous = ambiguous + 1 end\n    write(key, false)",
            "    write(key, false)",
        ),
        (APPLY, "  elseif score and score < gap_start then\n    ambiguous = ambiguous + 1\n", ""),
        (APPLY, "    if score < gap_start and deadline ~= score then ambiguous = ambiguous + 1 end\n", ""),
    ),
    "count_gone": (
        (
            APPLY,
            "    elseif gap_start > 0 then\n      ambiguous = ambiguous + 1 -- deleted in the gap",
            "    elseif false then\n      ambiguous = ambiguous + 1 -- deleted in the gap",
        ),
    ),
    "counts_outlive_epochs": (
        (
            ACQUIRE,
            "'fence', new_fence, 'seq', '0',",
            "'fence', new_fence, 'seq', '0', 'ambiguous', '0', 'recovered', '0',",
        ),
    ),
    "gap_starts_subscribed": (
        (
            SHARD,
            "        ears = await self._assembly.listen(",
            "        self._start_ms = await self._ledger.now_ms()\n        ears = await self._assembly.listen(",
        ),
        (SHARD, "        start_ms = await self._ledger.now_ms()\n", "        start_ms = self._start_ms\n"),
    ),
    "seen_when_closed": (
        (
            EPOCH,
            "        if not self.gap.open:\n            self.seen_ms = finished.redis_ms\n",
            "        self.seen_ms = finished.redis_ms\n        if not self.gap.open:\n",
        ),
    ),
    "fence": (
        (FENCE, "  if fields[1] ~= fence then return", "  if false then return"),
        (
            SEQUENCE,
            "  if (tonumber(used) or 0) >= tonumber(seq) then return 'DONE' end\n",
            "  local own = redis.call('HGET', lease, 'fence') == fence\n"
            "  if own and (tonumber(used) or 0) >= tonumber(seq) then return 'DONE' end\n",
        ),
        _OWN_IDS,
    ),
    "fence_per_epoch": (
        (
            ACQUIRE,
            "local new_fence, new_end",
            "if holder == instance and old_fence then fence = old_fence end\nlocal new_fence, new_end",
        ),
        _OWN_IDS,
    ),
    "subscribe_under_the_lease": (
        (
            SHARD,
            "        lease = await self._tenure.acquire(",
            "        ears = await self._assembly.listen(self._client, self._endpoint, 0)\n"
            "        lease = await self._tenure.acquire(",
        ),
        (
            SHARD,
            "        ears = await self._assembly.listen(self._client, self._endpoint, self._heard)\n",
            "        ears.hints.heard = self._heard\n",
        ),
    ),
    "outbox_until_settled": (
        (
            OUTBOX,
            "        self._cursor = START\n        self.ours = True\n",
            "        self._late = self._cursor != START\n        self.ours = True\n",
        ),
        (
            OUTBOX,
            "            self.news = True  # there may be more\n",
            "            self.news = True  # there may be more\n"
            '            if getattr(self, "_late", False):\n                self._late = False\n'
            "                self._cursor = found[-1][0]\n                continue\n",
        ),
    ),
    "settle_when_acked": (
        (
            DELIVERY,
            "        while left:\n            receipts, session",
            "        self._acked(batch, dead)\n        while left:\n            receipts, session",
        ),
        (
            DELIVERY,
            "                await self._again(len(left), backoff, reason)\n        self._acked(batch, dead)\n",
            "                await self._again(len(left), backoff, reason)\n",
        ),
    ),
}


class NotThereError(Exception):
    """The source has changed, and the mutation has not."""


def mutate(rule: str, source: Path) -> None:
    """Take the rule out of the copy of `bridge/` in `source`. Raises NotThereError."""
    for file, text, other in RULES[rule]:
        path = source / file
        found = path.read_text("utf-8")
        if found.count(text) != 1:
            raise NotThereError(f"{rule}: {file} has {found.count(text)} times {text!r}")
        path.write_text(found.replace(text, other), "utf-8")


def found_after(rule: str, seeds: int) -> tuple[int, str] | None:
    """How many seeds it takes to find that the rule is missing, and what is said then; None: more than `seeds`."""
    with tempfile.TemporaryDirectory(prefix="simulation-") as name:
        place = Path(name)
        shutil.copytree(ROOT / "bridge", place / "bridge", ignore=shutil.ignore_patterns("__pycache__"))
        (place / "tests").symlink_to(ROOT / "tests")
        mutate(rule, place / "bridge")
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seeds", str(seeds), "--stop"],
            cwd=place, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    said = re.search(r"^seed (\d+) .*?\}\): (.*)$", done.stdout, re.MULTILINE)
    if said is None:
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return None
    return int(said[1]) + 1, said[2].partition(":")[0]


def main(rules: Sequence[str]) -> int:
    """Look for all of them, or those that are named. The exit status: 1 where one is not found."""
    missing = 0
    sys.stdout.write("| rule | seeds | the sentence that is contradicted |\n|---|---|---|\n")
    for rule in rules or RULES:
        found = found_after(rule, MOST_SEEDS)
        missing += found is None
        seeds, sentence = found or (f"> {MOST_SEEDS}", "none")
        sys.stdout.write(f"| `{rule}` | {seeds} | {sentence.replace('_', ' ')} |\n")
        sys.stdout.flush()
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
