import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Revokes shares whose keys have expired: Kafka, with its own client. Settings: see ../README.md.
 *
 * <p>The ids of handled messages lie beside the data that they change, and both change in one transaction.
 */
public final class RevokeShares {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        Map<String, Object> settings = Map.of(
                "bootstrap.servers", setting("KAFKA_SERVERS", "127.0.0.1:9092"),
                "group.id", setting("KAFKA_GROUP", "revoke-shares"),
                "session.timeout.ms", 10_000, // so long after a crash, another member of the group goes on
                "enable.auto.commit", false,
                "auto.offset.reset", "earliest");
        try (Connection database = DriverManager.getConnection("jdbc:sqlite:" + setting("DATABASE", "shares.db"));
                var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
            create(database);
            consumer.subscribe(List.of(setting("KAFKA_TOPIC", "redis.expired")));
            while (true) {
                for (ConsumerRecord<String, byte[]> record : consumer.poll(Duration.ofSeconds(5))) {
                    if (record.key().startsWith("share:") || record.key().equals("_gap")) {
                        handle(database, JSON.readTree(record.value()));
                    }
                }
                consumer.commitSync(); // only now: what is not committed comes again
            }
        }
    }

    private static void create(Connection database) throws SQLException {
        try (var statement = database.createStatement()) {
            statement.execute("CREATE TABLE IF NOT EXISTS shares"
                    + " (key TEXT PRIMARY KEY, ends_ms INTEGER NOT NULL, revoked_by TEXT)");
            statement.execute("CREATE TABLE IF NOT EXISTS handled (id TEXT PRIMARY KEY)");
        }
        database.setAutoCommit(false);
    }

    private static void handle(Connection database, JsonNode event) throws SQLException {
        String id = event.get("id").asText();
        List<String> revoked = List.of();
        try (var insert = database.prepareStatement("INSERT OR IGNORE INTO handled VALUES (?)")) {
            insert.setString(1, id);
            if (insert.executeUpdate() == 1) {
                revoked = revoke(database, event, id);
            }
            database.commit();
        } catch (SQLException error) {
            database.rollback();
            throw error;
        }
        revoked.forEach(key -> System.out.println("revoked " + key + " by " + id));
    }

    private static List<String> revoke(Connection database, JsonNode event, String id) throws SQLException {
        String where;
        Object what;
        switch (event.get("type").asText()) {
            case "redis.key.expired" -> {
                where = "key = ?";
                what = event.get("subject").asText();
            }
            case "redis.expiry.gap" -> { // some expirations may never be announced: look at what had to end by then
                where = "ends_ms <= ?";
                what = event.get("data").get("closed_ms").asLong();
            }
            default -> { // a test message of `expiry-bridge check --publish`
                return List.of();
            }
        }
        String update = "UPDATE shares SET revoked_by = ? WHERE revoked_by IS NULL AND " + where + " RETURNING key";
        List<String> keys = new ArrayList<>();
        try (var statement = database.prepareStatement(update)) {
            statement.setString(1, id);
            statement.setObject(2, what);
            try (ResultSet rows = statement.executeQuery()) {
                while (rows.next()) {
                    keys.add(rows.getString(1));
                }
            }
        }
        return keys;
    }

    private static String setting(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }
}
