"""Rules of how deadlines are recorded, and due ones touched and resolved."""

from collections.abc import Mapping, Sequence

from tests.simulation.mutations.files import APPLY, INTERPRETER, MARKS, SCHEDULE, SCRIPTS, TOUCH, Substitution

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
        (SCHEDULE, "(deadline_ms + 1 - self._redis_clock.now_ms())", "(deadline_ms - self._redis_clock.now_ms())"),
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
            INTERPRETER,
            "        count = size = looked = 0\n",
            (
                "        ordered = sorted(inbox._hints, key=lambda hint: not hint[1].startswith(self._own_prefix))\n"
                "        inbox._hints.clear()\n        inbox._hints.extend(ordered)\n"
                "        count = size = looked = 0\n"
            ),
        ),
    ),
    "wait_for_the_mark": (
        (
            MARKS,
            "        self.round = touched\n",
            (
                "        self.round = touched\n"
                "        touched.resolving.extend(touched.pending.items())\n        touched.pending.clear()\n"
            ),
        ),
    ),
    "resolve_at_the_mark": (
        (
            MARKS,
            "            round_.resolving.extend(round_.pending.items())\n            round_.pending.clear()\n",
            "",
        ),
        (
            INTERPRETER,
            "        count = size = looked = 0\n",
            (
                "        if marks.round is not None and marks.round.marked and not inbox:\n"
                "            marks.round.resolving.extend(marks.round.pending.items())\n"
                "            marks.round.pending.clear()\n        count = size = looked = 0\n"
            ),
        ),
        (
            MARKS,
            "return self.marked and not self.resolving",
            "return self.marked and not self.resolving and not self.pending",
        ),
        (
            INTERPRETER,
            "marks.round.resolving)\n",
            "(marks.round.resolving or (marks.round.marked and marks.round.pending)))\n",
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
            '        names = self._names\n        reply = await self._runner.run(\n            "touch",\n',
            """        names, early = self._names, []
        if touch.walk is None and touch.limit:
            now = await self.now_ms()
            async with conversation(self._endpoint):
                due = await self._client.zrange(
                    names.deadlines, "-inf", f"({now}", byscore=True, withscores=True, offset=0, num=touch.limit
                )
                for key, score in due:
                    early += [key, b"%d" % score, b"alive" if await self._client.exists(key) else b"gone", b"1"]
        reply = await self._runner.run(
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
            (
                "  elseif call('HEXISTS', lease, 's:' .. key) == 1 then\n"
                "    deadline = tonumber(call('HGET', lease, 's:' .. key))\n    if score < gap_start"
            ),
        ),
    ),
}
