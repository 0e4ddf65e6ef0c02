"use strict";
// Asks for status.json every few seconds and shows it. Text only ever becomes text, never markup.

const EVERY_MS = 5000, PATIENCE_MS = 4000, DAY_MS = 86400000, LEAST_MS = 900000;
const SIGNS = { ready: "✓", attention: "!", standby: "◷", unready: "✕", silent: "?" };
const OUTCOMES = { hot: "no gap", filled: "gap filled from the backlog", cold: "with a gap" };
const SVG = "http://www.w3.org/2000/svg";
const get = (id) => document.getElementById(id);
let told = null;

function text(id, value, note = "", kind = "") {
  const to = get(id);
  to.textContent = value;
  to.className = kind;
  if (note) {
    const small = document.createElement("small");
    small.textContent = note;
    to.append(small);
  }
}

const number = (value) => Math.round(value).toLocaleString("en");
const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  for (const [unit, length] of [["days", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * length) return `${(seconds / length).toFixed(1).replace(/\.0$/, "")} ${unit}`;
  }
  return `${seconds.toFixed(1).replace(/\.0$/, "")} s`;
}

function size(bytes) {
  for (const [unit, length] of [["GiB", 1 << 30], ["MiB", 1 << 20], ["KiB", 1 << 10]]) {
    if (bytes >= length) return `${Number((bytes / length).toPrecision(3))} ${unit}`;
  }
  return counted(bytes, "byte");
}

// Those that are not 0, by their names.
const listed = (counts) => Object.entries(counts).filter(([, count]) => count).map(([kind, count]) => `${number(count)} ${kind.replaceAll("_", " ")}`).join(", ");
const sum = (counts) => Object.values(counts).reduce((all, count) => all + count, 0);

function rate(perSecond) {
  return `${perSecond >= 10 ? number(perSecond) : perSecond.toFixed(perSecond < 1 ? 2 : 1)}/s`;
}

function clock(ms) {
  const at = new Date(ms).toISOString().slice(0, 19).replace("T", " ");
  return told.now_ms - ms < DAY_MS ? at.slice(11) : at;
}

function drawn(svg, label, shapes) {
  const title = document.createElementNS(SVG, "title");
  title.textContent = label;
  svg.setAttribute("aria-label", label);
  svg.replaceChildren(title, ...shapes.map(([name, kind, attributes, hint]) => {
    const made = document.createElementNS(SVG, name);
    if (kind) made.setAttribute("class", kind);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (hint) made.append(Object.assign(document.createElementNS(SVG, "title"), { textContent: hint }));
    return made;
  }));
}

// One bar for each ten seconds, the newest at the right edge; a bridge that is young leaves the left empty.
function bars(id, most, label, values, show) {
  const top = Math.max(...values.map((value) => value ?? 0), 0);
  const left = 450 - 5 * values.length;
  drawn(get(id), `${label}: at most ${show(top)} in ten seconds`, values.flatMap((value, index) => {
    const height = top && value ? Math.max(60 * value / top, 1) : 0;
    return height ? [["rect", "", { x: left + 5 * index, y: 64 - height, width: 4, height }, show(value)]] : [];
  }));
  get(most).textContent = top ? `at most ${show(top)}` : "nothing";
}

function table(id, heads, rows) {
  // The roles are said, since on a telephone the style makes blocks of what is a table.
  const part = (name, role) => Object.assign(document.createElement(name), { role });
  const head = part("thead", "rowgroup").appendChild(part("tr", "row"));
  for (const [name, kind] of heads) {
    head.append(Object.assign(part("th", "columnheader"), { textContent: name, scope: "col", className: kind || "" }));
  }
  const body = part("tbody", "rowgroup");
  for (const row of rows) {
    const line = body.appendChild(part("tr", "row"));
    row.forEach((value, index) => {
      const kinds = `${heads[index][1] || ""} ${value === "–" ? "none" : ""}`;
      const cell = Object.assign(part("td", "cell"), { textContent: value, className: kinds.trim() });
      cell.dataset.label = heads[index][0];
      line.append(cell);
    });
  }
  get(id).role = "table";
  get(id).replaceChildren(head.parentNode, body);
}

function showWindow({ window: last }) {
  get("span").textContent = last.seconds >= 840 ? "15 minutes" : duration(last.seconds);
  text("p50", duration(last.p50));
  text("p99", duration(last.p99), "", last.p99 > 5 ? "warn" : "");
  text("rate", rate(last.per_second));
  text("published", counted(last.published, "message"));
  const steps = last.steps.slice(-90);
  bars("rate-chart", "rate-most", "Delivered per second", steps.map((step) => step.published / Math.max(step.seconds, 1)), rate);
  bars("lag-chart", "lag-most", "Lag, p99", steps.map((step) => step.p99), duration);
}

function showNow({ ledger, outbox, broker, dead_letters: dead, shards }) {
  const held = shards.filter((shard) => shard.held);
  const elsewhere = held.length ? "" : "known to the holder";
  text("ledger", held.length ? counted(ledger, "key") : "–", elsewhere);
  const age = outbox.oldest_seconds;
  const waits = outbox.expirations ? `the oldest for ${duration(age)}; ${number(outbox.in_flight)} in flight` : "";
  text("outbox", held.length ? counted(outbox.expirations, "waits", "wait") : "–", held.length ? waits : elsewhere, age > 60 ? "bad" : age > 10 ? "warn" : "");
  text("broker", broker.connected ? "Connected" : "Not connected", broker.losses ? `lost ${counted(broker.losses, "time")}` : "", broker.connected ? "" : "bad");
  const oldest = Math.max(...held.map((shard) => shard.canary_age_seconds), 0);
  const slowest = Math.max(...held.map((shard) => shard.canary_lag_seconds), 0);
  text("canary", held.length ? `${duration(oldest)} ago` : "–", held.length ? `heard ${duration(slowest)} late` : elsewhere, oldest > 10 ? "bad" : "");
  text("dead", held.length ? number(dead) : "–", held.length ? (dead ? "expiry-bridge dead list" : "") : elsewhere, held.length && dead ? "warn" : "");
}

function showValues({ values, shards }) {
  get("values-section").hidden = !values.wanted;
  const { exact, not_exact: inexact, ...missing } = values.published;
  const lost = sum(missing), held = shards.some((shard) => shard.held);
  text("values-held", held ? number(values.held) : "–", held ? `${size(values.bytes)} with the outbox, of ${size(values.limit_bytes)}` : "known to the holder", values.bytes > 0.9 * values.limit_bytes ? "warn" : "");
  text("values-exact", number(exact));
  text("values-inexact", number(inexact));
  text("values-missing", number(lost), listed(missing), missing.outbox_full || missing.not_permitted ? "warn" : "");
  get("values-doubt").hidden = !values.doubt;
  get("values-doubt").textContent = values.doubt ? `Not read, or not proven: ${values.doubt}` : "";
}

function showFields({ now_ms: now, fields, shards }) {
  get("fields-section").hidden = !fields.bridged;
  const held = shards.some((shard) => shard.held), next = fields.next_deadline_ms;
  const ahead = next === null ? "" : next >= now ? `next deadline in ${duration((next - now) / 1000)}` : `next deadline ${duration((now - next) / 1000)} ago`;
  text("fields-ledger", held ? counted(fields.hashes, "hash", "hashes") : "–", held ? ahead : "known to the holder");
  text("fields-claimed", counted(sum(fields.claimed), "field"), fields.claimed.sweep ? `${number(fields.claimed.sweep)} by sweep` : "");
  text("fields-ambiguous", number(sum(fields.ambiguous)), listed(fields.ambiguous));
  text("fields-missed", fields.missed === null ? "Not known" : number(fields.missed), fields.missed === null ? "the server's own count is too low" : "");
  text("fields-excluded", held ? counted(fields.excluded, "hash", "hashes") : "–", fields.excluded ? "expiry-bridge dead list" : "", held && fields.excluded ? "warn" : "");
}

function showStuck({ stuck }) {
  get("stuck-section").hidden = !stuck.channels.length;
  get("stuck-count").textContent = counted(stuck.messages, "message");
  table("stuck", [["Where"], ["Since", "short"], ["Why"]],
    stuck.channels.map((one) => [one.on, `${duration(one.seconds)} ago`, one.reason]));
}

function ending(gap) {
  if (gap.open) return "open: being reconciled";
  if (gap.closed_ms === null) return "left to another bridge";
  const missed = gap.missed === null ? "missed unknown" : `${number(gap.missed)} missed`;
  return `${missed}, ${number(gap.recovered)} recovered, ${number(gap.ambiguous)} ambiguous`;
}

function showPast({ now_ms: now, bridge, gaps, takeovers, shards }) {
  const several = shards.length > 1;
  const begin = Math.min(now - LEAST_MS, now - bridge.uptime_seconds * 1000, ...gaps.last.map((gap) => gap.opened_ms));
  const from = Math.max(begin, now - DAY_MS);
  const width = get("line").clientWidth || 900;
  const x = (ms) => width * Math.min(Math.max((ms - from) / (now - from), 0), 1);
  const shown = gaps.last.filter((gap) => (gap.closed_ms ?? now) > from);
  const events = [
    ...gaps.last.map((gap) => [gap.opened_ms, gap.shard, `Gap of ${duration((gap.until_ms - gap.opened_ms) / 1000)}`, gap.cause, ending(gap)]),
    ...takeovers.last.map((one) => [one.at_ms, one.shard, `Takeover, ${one.kind}`,
      one.silent_ms === null ? "the lease was free" : `a holder was silent for ${duration(one.silent_ms / 1000)}`,
      OUTCOMES[one.kind]]),
  ].sort((a, b) => b[0] - a[0]);
  const taken = takeovers.hot + takeovers.filled + takeovers.cold;
  const totals = `${counted(gaps.total, "gap")} and ${counted(taken, "takeover")} (${number(takeovers.hot)} hot) since the start`;
  text("gaps-summary", gaps.total || taken
    ? `${totals}; ${number(gaps.missed)} missed${gaps.unmeasured ? ` (unknown of ${number(gaps.unmeasured)})` : ""}, ${number(gaps.recovered)} recovered, ${number(gaps.ambiguous)} ambiguous.`
    : "None since the start.");
  get("line-from").textContent = `${duration((now - from) / 1000)} ago`;
  drawn(get("line"), `Time line of the last ${duration((now - from) / 1000)}: ${counted(shown.length, "gap")}, ${counted(takeovers.last.length, "takeover")}. The table has them all.`, [
    ...shown.map((gap) => ["rect", gap.open ? "open" : "gap",
      { x: Math.min(x(gap.opened_ms), width - 4), y: gap.open ? 0 : 4, width: Math.max(x(gap.open ? now : gap.until_ms) - x(gap.opened_ms), 4), height: gap.open ? 34 : 16 },
      `${clock(gap.opened_ms)}: ${gap.cause}`]),
    ...takeovers.last.filter((one) => one.at_ms > from).map((one) => ["path", "takeover",
      { d: `M${Math.min(Math.max(x(one.at_ms), 5), width - 5)} 22l5 10h-10z` }, `${clock(one.at_ms)}: takeover`]),
  ]);
  const heads = [["UTC"], ...(several ? [["Shard"]] : []), ["What", "short"], ["Cause"], ["Outcome"]];
  table("past", events.length ? heads : [], events.map(([at, shard, ...rest]) => [clock(at), ...(several ? [String(shard)] : []), ...rest]));
}

function showShards({ shards, bridge }) {
  table("shards", [["Shard"], ["Node"], ["Holder"], ["Standbys"], ["Notifications"], ["Ledger", "number"], ["Outbox", "number"], ["Dead", "number"]],
    shards.map((one) => {
      const figures = [one.ledger, one.outbox, one.dead_letters].map((value) => one.held ? number(value) : "–");
      const holder = one.held ? "this bridge" : one.holder || "not known here";
      const standbys = one.held ? (one.standbys === null ? "not known" : one.standbys ? number(one.standbys) : "none") : "–";
      const flow = one.held ? (one.subscribed ? "flow" : "not proven") : one.holder ? "kept while standing by" : "–";
      return [String(one.shard), one.node || "not known yet", holder, standbys, flow, ...figures];
    }));
}

function show() {
  const { bridge } = told;
  document.title = `${told.state} – expiry-bridge`;
  text("who", `${bridge.instance} · version ${bridge.version} · to ${bridge.sink} · up ${duration(bridge.uptime_seconds)}`);
  showWindow(told);
  showNow(told);
  showValues(told);
  showFields(told);
  showStuck(told);
  showPast(told);
  showShards(told);
  get("found").hidden = false;
}

function state(name, sentence) {
  get("summary").dataset.state = name;
  get("sign").textContent = SIGNS[name];
  if (get("sentence").textContent !== sentence) get("sentence").textContent = sentence;
}

async function ask() {
  if (document.hidden) return;
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    told = await answer.json();
    show();
    state(told.state, told.summary);
    get("age").textContent = `As of ${clock(told.now_ms)} UTC, renewed every ${EVERY_MS / 1000} s.`;
  } catch {
    document.title = "silent – expiry-bridge";
    state("silent", told ? `The bridge does not answer. Below is what it said at ${clock(told.now_ms)} UTC.` : "The bridge does not answer.");
  }
}

document.addEventListener("visibilitychange", ask);
setInterval(ask, EVERY_MS);
ask();
