//! `GET /-/metrics`: Prometheus' text format, version 0.0.4.
//!
//! What is this isolate's own says so in its HELP line.

use crate::gateway::Gateway;
use crate::http::{Body, Headers, Response};
use crate::ports::{Clock, Ports};
use crate::views::pending;
use crate::views::pending::kinds;
use crate::visit::Visit;

const CLOCK_OFFSET: &str = "edgeweir_redis_clock_offset_seconds";
const VIEWS_PENDING: &str = "edgeweir_views_pending";

pub(super) async fn show<P: Ports>(visit: &Visit<'_, P>) -> Response<P::Body> {
    let mut text = clock_offsets(visit.gateway);
    views_pending(visit, &mut text).await;
    let mut headers = Headers::new();
    headers.append("content-type", "text/plain; version=0.0.4; charset=utf-8");
    headers.append("cache-control", "no-store");
    Response {
        status: 200,
        headers,
        body: Body::Bytes(text.into_bytes().into()),
    }
}

/// One sample for each database for limits whose time is known; databases are numbered in
/// the order of `UPSTASH_REDIS_REST_URL`.
fn clock_offsets(gateway: &Gateway) -> String {
    let mut text = format!(
        "# HELP {CLOCK_OFFSET} How far Redis' clock is ahead of the clock of the isolate that answers this.\n\
         # TYPE {CLOCK_OFFSET} gauge\n"
    );
    let memory = gateway.limits.borrow();
    for database in 0..gateway.settings.shards.len() {
        if let Some(offset_ms) = memory.clock_offset_ms(database) {
            text.push_str(CLOCK_OFFSET);
            text.push_str("{database=\"");
            text.push_str(&database.to_string());
            text.push_str("\"} ");
            push_seconds(&mut text, offset_ms);
            text.push('\n');
        }
    }
    text
}

/// One sample for each kind that the policy counts; without Redis there is none.
async fn views_pending<P: Ports>(visit: &Visit<'_, P>, text: &mut String) {
    let kinds = kinds(&visit.gateway.policy);
    let Some(pending) = pending::of_kinds(visit, &kinds, visit.now_ms()).await else {
        return;
    };
    text.push_str("# HELP ");
    text.push_str(VIEWS_PENDING);
    text.push_str(" Views that the origin has not got yet, within 1 % of those of a day.\n# TYPE ");
    text.push_str(VIEWS_PENDING);
    text.push_str(" gauge\n");
    for (kind, pending) in kinds.iter().zip(pending) {
        text.push_str(VIEWS_PENDING);
        text.push_str("{kind=\"");
        text.push_str(kind);
        text.push_str("\"} ");
        text.push_str(&pending.to_string());
        text.push('\n');
    }
}

/// Milliseconds as seconds with three decimals.
fn push_seconds(text: &mut String, ms: i64) {
    if ms < 0 {
        text.push('-');
    }
    let digits = format!("{:04}", ms.unsigned_abs());
    let (seconds, millis) = digits
        .split_at_checked(digits.len() - 3)
        .unwrap_or_default();
    text.push_str(seconds);
    text.push('.');
    text.push_str(millis);
}
