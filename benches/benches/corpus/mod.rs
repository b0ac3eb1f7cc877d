//! Messages as a dashboard or an exchange would send them: JSON records that share their keys and
//! differ in their values. Made here, the same on every run.

/// So many different messages of about this size.
pub(crate) fn json(count: usize, size: usize) -> Vec<String> {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move |below: u64| {
        // A linear congruential generator: its upper bits are random enough for prices.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    (0..count)
        .map(|number| {
            let mut text = format!(r#"{{"seq":{number},"events":["#);
            while text.len() < size {
                let kind = ["trade", "quote", "order", "cancel"][next(4) as usize];
                let symbol = ["ACME", "GLOBEX", "INITECH", "UMBRELLA", "HOOLI"][next(5) as usize];
                let record = format!(
                    r#"{{"type":"{kind}","symbol":"{symbol}","price":{}.{:02},"size":{},"time":{},"id":"{:08x}"}},"#,
                    next(900) + 100,
                    next(100),
                    next(5000),
                    1_790_000_000_000 + next(86_400_000),
                    next(1 << 31),
                );
                text.push_str(&record);
            }
            text.truncate(size.saturating_sub(2));
            text.push_str("]}");
            text
        })
        .collect()
}
