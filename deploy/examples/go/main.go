// Revokes shares whose keys have expired: JetStream, with NATS's own client. Settings: NATS_URL, DATABASE.
//
// The ids of handled messages lie beside the data that they change, and both change in one transaction.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	_ "github.com/ncruces/go-sqlite3/driver"
)

const schema = `
CREATE TABLE IF NOT EXISTS shares (key TEXT PRIMARY KEY, ends_ms INTEGER NOT NULL, revoked_by TEXT);
CREATE TABLE IF NOT EXISTS handled (id TEXT PRIMARY KEY);`

// A CloudEvent in structured mode.
type event struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Subject string `json:"subject"`
	Data    struct {
		ClosedMs int64 `json:"closed_ms"`
	} `json:"data"`
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	database, err := sql.Open("sqlite3", "file:"+setting("DATABASE", "shares.db"))
	if err != nil {
		return err
	}
	defer database.Close()
	if _, err := database.ExecContext(ctx, schema); err != nil {
		return err
	}
	client, err := nats.Connect(setting("NATS_URL", nats.DefaultURL))
	if err != nil {
		return err
	}
	defer client.Close()
	stream, err := jetstream.New(client)
	if err != nil {
		return err
	}
	consumer, err := stream.CreateOrUpdateConsumer(ctx, "EXPIRY", jetstream.ConsumerConfig{
		Durable:        "revoke-shares",
		FilterSubjects: []string{"expired.0.share", "expired.0._gap"},
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		message, err := messages.Next()
		if err != nil {
			return err
		}
		if err := handle(ctx, database, message.Data()); err != nil {
			return err
		}
		if err := message.Ack(); err != nil { // only now: what is not acked comes again
			return err
		}
	}
}

func handle(ctx context.Context, database *sql.DB, body []byte) error {
	var event event
	if err := json.Unmarshal(body, &event); err != nil {
		return err
	}
	transaction, err := database.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer transaction.Rollback() // without effect after the commit
	result, err := transaction.ExecContext(ctx, "INSERT OR IGNORE INTO handled VALUES (?)", event.ID)
	if err != nil {
		return err
	}
	var revoked []string
	if rows, err := result.RowsAffected(); err != nil {
		return err
	} else if rows == 1 {
		if revoked, err = revoke(ctx, transaction, event); err != nil {
			return err
		}
	}
	if err := transaction.Commit(); err != nil {
		return err
	}
	for _, key := range revoked {
		fmt.Println("revoked", key, "by", event.ID)
	}
	return nil
}

func revoke(ctx context.Context, transaction *sql.Tx, event event) ([]string, error) {
	var where string
	var what any
	switch event.Type {
	case "redis.key.expired":
		where, what = "key = ?", event.Subject
	case "redis.expiry.gap": // some expirations may never be announced: look at what had to end by then
		where, what = "ends_ms <= ?", event.Data.ClosedMs
	default: // a test message of `expiry-bridge check --publish`
		return nil, nil
	}
	query := "UPDATE shares SET revoked_by = ? WHERE revoked_by IS NULL AND " + where + " RETURNING key"
	rows, err := transaction.QueryContext(ctx, query, event.ID, what)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var keys []string
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, rows.Err()
}

func setting(name, otherwise string) string {
	if value, found := os.LookupEnv(name); found {
		return value
	}
	return otherwise
}
