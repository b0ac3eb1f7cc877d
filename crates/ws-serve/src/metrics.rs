//! Metrics for the [`metrics`] facade, and so for Prometheus and others.
//!
//! The server counts by itself; here its numbers are handed over, when somebody asks for them. Not its
//! business: the counting (`stats.rs`), and who receives the metrics, which the application installs.

use std::{sync::Once, time::Duration};

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::Monitor;

/// Metrics.
impl Monitor {
    /// Hands the server's numbers to the recorder of the `metrics` facade. Call it when they are wanted,
    /// such as for each scrape, or once in some seconds.
    ///
    /// | metric | kind | |
    /// |---|---|---|
    /// | `ws_connections` | gauge | connections, with those whose handshake is under way |
    /// | `ws_open` | gauge | open WebSockets |
    /// | `ws_opened_total` | counter | WebSockets opened |
    /// | `ws_refused_total` | counter | connections refused for a limit |
    /// | `ws_not_opened_total` | counter | requests that became no WebSocket |
    /// | `ws_handshake_seconds` | histogram | from accepting a connection to the 101, recorded as they come |
    /// | `ws_closed_total{code}` | counter | WebSockets that ended, by close code; 1006 without one |
    /// | `ws_handlers_failed_total` | counter | handlers that failed or panicked |
    /// | `ws_messages_received_total`, `ws_messages_sent_total` | counter | messages from clients, and from handlers and senders |
    /// | `ws_bytes_received_total`, `ws_bytes_sent_total` | counter | bytes, with all that is published, without handshakes |
    /// | `ws_published_total` | counter | messages that were due to members of topics |
    /// | `ws_published_delivered_total` | counter | of these, delivered |
    /// | `ws_published_dropped_total{reason}` | counter | of these, dropped: `full`, `conflated`, `closed` |
    /// | `ws_published_waiting` | gauge | of these, waiting |
    /// | `ws_queued_bytes` | gauge | bytes that wait, over all connections |
    /// | `ws_lagging` | gauge | connections that lag |
    pub fn record_metrics(&self) {
        static DESCRIBED: Once = Once::new();
        DESCRIBED.call_once(describe);
        let stats = self.stats();
        gauge!("ws_connections").set(stats.connections as f64);
        gauge!("ws_open").set(stats.open as f64);
        counter!("ws_opened_total").absolute(stats.opened);
        counter!("ws_refused_total").absolute(stats.refused);
        counter!("ws_not_opened_total").absolute(stats.not_opened);
        counter!("ws_handlers_failed_total").absolute(stats.handlers_failed);
        counter!("ws_messages_received_total").absolute(stats.messages_received);
        counter!("ws_messages_sent_total").absolute(stats.messages_sent);
        counter!("ws_bytes_received_total").absolute(stats.bytes_received);
        counter!("ws_bytes_sent_total").absolute(stats.bytes_sent);
        counter!("ws_published_total").absolute(stats.published.sent);
        counter!("ws_published_delivered_total").absolute(stats.published.delivered());
        for (reason, count) in [
            ("full", stats.published.dropped_full),
            ("conflated", stats.published.dropped_conflated),
            ("closed", stats.published.dropped_closed),
        ] {
            counter!("ws_published_dropped_total", "reason" => reason).absolute(count);
        }
        gauge!("ws_published_waiting").set(stats.published.waiting as f64);
        gauge!("ws_queued_bytes").set(stats.queued_bytes as f64);
        gauge!("ws_lagging").set(stats.lagging as f64);
        for (code, count) in self.close_codes() {
            counter!("ws_closed_total", "code" => code.to_string()).absolute(count);
        }
    }
}

/// Takes note of how long a handshake took.
pub(crate) fn record_handshake(time: Duration) {
    histogram!("ws_handshake_seconds").record(time.as_secs_f64());
}

fn describe() {
    describe_gauge!("ws_connections", "connections, handshakes under way included");
    describe_gauge!("ws_open", "open WebSockets");
    describe_counter!("ws_opened_total", "WebSockets opened");
    describe_counter!("ws_refused_total", "connections refused for a limit");
    describe_counter!("ws_not_opened_total", "requests that became no WebSocket");
    describe_histogram!("ws_handshake_seconds", Unit::Seconds, "from accepting to the 101");
    describe_counter!("ws_closed_total", "WebSockets that ended, by close code");
    describe_counter!("ws_handlers_failed_total", "handlers that failed or panicked");
    describe_counter!("ws_messages_received_total", "messages from clients");
    describe_counter!("ws_messages_sent_total", "messages from handlers and senders");
    describe_counter!("ws_bytes_received_total", Unit::Bytes, "bytes from clients");
    describe_counter!("ws_bytes_sent_total", Unit::Bytes, "bytes to clients");
    describe_counter!("ws_published_total", "messages due to members of topics");
    describe_counter!("ws_published_delivered_total", "published messages delivered");
    describe_counter!("ws_published_dropped_total", "published messages dropped, by reason");
    describe_gauge!("ws_published_waiting", "published messages that wait");
    describe_gauge!("ws_queued_bytes", Unit::Bytes, "bytes that wait, over all connections");
    describe_gauge!("ws_lagging", "connections that lag behind what is published");
}
