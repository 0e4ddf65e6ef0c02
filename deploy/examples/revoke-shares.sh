#!/usr/bin/env bash
# Revokes shares whose keys have expired: JetStream, with the nats CLI, jq and sqlite3. Settings: NATS_URL, DATABASE.
#
# The CLI cannot ack a message after it was handled. So this reads the stream by sequence, and keeps its place beside the
# data that it changes, in one transaction.
set -euo pipefail

readonly database=${DATABASE:-shares.db}
export NATS_URL=${NATS_URL:-nats://127.0.0.1:4222}

sql() { sqlite3 -cmd '.timeout 5000' "$database" "$1"; }

sql 'CREATE TABLE IF NOT EXISTS shares (key TEXT PRIMARY KEY, ends_ms INTEGER NOT NULL, revoked_by TEXT);
     CREATE TABLE IF NOT EXISTS handled (id TEXT PRIMARY KEY);
     CREATE TABLE IF NOT EXISTS place (stream TEXT PRIMARY KEY, next INTEGER NOT NULL);
     INSERT OR IGNORE INTO place VALUES ("EXPIRY", 1);'

# handle SEQUENCE EVENT: a copy, whose id is known, changes nothing but the place.
handle() {
    sql "BEGIN IMMEDIATE;
         CREATE TEMP TABLE event AS SELECT '${2//\'/\'\'}' AS body;
         CREATE TEMP TABLE new AS
             SELECT body ->> 'id' AS id, body ->> 'type' AS type, body ->> 'subject' AS key,
                 body ->> '\$.data.closed_ms' AS closed_ms
             FROM event WHERE body ->> 'id' NOT IN (SELECT id FROM handled);
         INSERT INTO handled SELECT id FROM new;
         UPDATE shares SET revoked_by = id FROM new
             WHERE revoked_by IS NULL
                 AND (type = 'redis.key.expired' AND shares.key = new.key
                      OR type = 'redis.expiry.gap' AND ends_ms <= closed_ms) -- some may never be announced: look back
             RETURNING 'revoked ' || shares.key || ' by ' || revoked_by;
         UPDATE place SET next = $1 + 1;
         COMMIT;"
}

while sleep 0.5; do
    read -r first last < <(nats stream info EXPIRY --json | jq -r '"\(.state.first_seq) \(.state.last_seq)"')
    next=$(sql 'SELECT next FROM place')
    if ((next < first)); then next=$first; fi # the stream has dropped what is older
    for ((; next <= last; next++)); do
        message=$(nats stream get EXPIRY "$next" --json) || continue # deleted meanwhile
        case $(jq -r .subject <<<"$message") in
            expired.0.share | expired.0._gap) handle "$next" "$(jq -r '.data | @base64d' <<<"$message")" ;;
            *) sql "UPDATE place SET next = $next + 1" ;;
        esac
    done
done
