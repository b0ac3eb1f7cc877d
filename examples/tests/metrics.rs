//! The `metrics` example, read as Prometheus does.
#![cfg(all(unix, feature = "metrics"))]

mod support;

use support::{Example, check_echo, within};

#[tokio::test]
async fn metrics_tell_what_happened() {
    let example = Example::start("metrics", &[]);
    let mut ada = example.connect("/").await;
    check_echo(&mut ada).await;
    let text = example.http("GET /metrics", &[]).await;
    for line in [
        "ws_open 1",
        "ws_opened_total 1",
        "ws_refused_total 0",
        "ws_handshake_seconds_count 1",
        "ws_published_dropped_total{reason=\"conflated\"} 0",
        "# TYPE ws_bytes_received_total counter",
    ] {
        assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
    }
    // Pages are asked for by connections that become no WebSocket, and are counted when they are gone.
    let counted = async {
        while example.http("GET /metrics", &[]).await.contains("\nws_not_opened_total 0\n") {}
    };
    within(counted).await;
    example.stop([ada]).await;
}
