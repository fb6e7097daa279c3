//! Plan 3.

use serde_json::json;

use super::{HOUR, MINUTE, Team, own, read, write};

const LIST: &str = "/api/events";
const LAGOS: &str = "/api/events?state=lagos&type=music&page=2";
const EVENT: &str = "/api/events/e1";
const OTHER: &str = "/api/events/e2";
const MADE: &str = "/api/events/e3";
const EVENT_TICKETS: &str = "/api/events/e1/tickets";
const OTHER_TICKETS: &str = "/api/events/e2/tickets";
const ANALYTICS: &str = "/api/events/e1/analytics";
const BOARD: &str = "/api/leaderboards/referrals";
const GROUP: &str = "/api/group-buys/g1";
const NEW_GROUP: &str = "/api/group-buys/g2";
const ANN: &str = "/api/users/ann";
const BOB: &str = "/api/users/bob";
const MINE: &str = "/api/tickets";
const USED: &str = "/api/tickets?status=used";
const TICKET: &str = "/api/tickets/t1";
const PAYMENTS: &str = "/api/payments";
const PAYMENT: &str = "/api/payments/p1";
const REFERRALS: &str = "/api/referrals";

pub fn team() -> Team {
    let ticket = json!({ "id": "t1", "event_id": "e1", "user_id": "ann" });
    Team {
        name: "tikit",
        text: include_str!("../../../policies/tikit.toml"),
        reads: vec![
            read(
                "event-list",
                LIST,
                "event:list:state:all:type:all:page:1",
                5 * MINUTE,
                &["event-lists"],
            ),
            read(
                "event-list",
                LAGOS,
                "event:list:state:lagos:type:music:page:2",
                5 * MINUTE,
                &["event-lists"],
            ),
            read(
                "event",
                EVENT,
                "event:e1",
                30 * MINUTE,
                &["events", "event:e1"],
            ),
            read(
                "event",
                OTHER,
                "event:e2",
                30 * MINUTE,
                &["events", "event:e2"],
            ),
            read(
                "event",
                MADE,
                "event:e3",
                30 * MINUTE,
                &["events", "event:e3"],
            ),
            read(
                "event-tickets",
                EVENT_TICKETS,
                "ticket:event:e1",
                5 * MINUTE,
                &["events", "event:e1"],
            ),
            read(
                "event-tickets",
                OTHER_TICKETS,
                "ticket:event:e2",
                5 * MINUTE,
                &["events", "event:e2"],
            ),
            read(
                "event-analytics",
                ANALYTICS,
                "analytics:e1",
                30 * MINUTE,
                &["events"],
            ),
            read(
                "referral-leaderboard",
                BOARD,
                "leaderboard:referral:top100",
                30 * MINUTE,
                &["leaderboards"],
            ),
            read(
                "group-buy",
                GROUP,
                "groupbuy:g1",
                5 * MINUTE,
                &["group-buys"],
            ),
            read(
                "group-buy",
                NEW_GROUP,
                "groupbuy:g2",
                5 * MINUTE,
                &["group-buys"],
            ),
            read("user", ANN, "user:ann", HOUR, &["users"]),
            read("user", BOB, "user:bob", HOUR, &["users"]),
            own(
                "my-tickets",
                MINE,
                "ticket:user:ann:status:valid",
                5 * MINUTE,
                &["tickets", "tickets:ann"],
            ),
            own(
                "my-tickets",
                USED,
                "ticket:user:ann:status:used",
                5 * MINUTE,
                &["tickets", "tickets:ann"],
            ),
            own(
                "ticket",
                TICKET,
                "ticket:t1:user:ann",
                5 * MINUTE,
                &["tickets", "ticket:t1"],
            ),
            own(
                "my-payments",
                PAYMENTS,
                "payment:user:ann",
                MINUTE,
                &["payments:ann"],
            ),
            own(
                "payment-status",
                PAYMENT,
                "payment:p1:user:ann",
                MINUTE,
                &["payment:p1", "payments:ann"],
            ),
            own(
                "my-referrals",
                REFERRALS,
                "referral:user:ann",
                5 * MINUTE,
                &["referrals:ann"],
            ),
        ],
        writes: vec![
            write(
                "event-create",
                ("POST", "/api/events"),
                (201, json!({ "id": "e3" })),
                &[LIST, LAGOS],
            )
            .fills(MADE),
            write(
                "event-write",
                ("PUT", EVENT),
                (200, json!({ "id": "e1", "title": "new" })),
                &[LIST, LAGOS, ANALYTICS],
            )
            .fills(EVENT),
            write(
                "event-write",
                ("PATCH", EVENT),
                (200, json!({ "id": "e1", "title": "newer" })),
                &[LIST, LAGOS, ANALYTICS],
            )
            .fills(EVENT),
            write(
                "event-write",
                ("DELETE", EVENT),
                (204, json!(null)),
                &[LIST, LAGOS, ANALYTICS, EVENT],
            ),
            write(
                "group-buy-create",
                ("POST", "/api/group-buys"),
                (201, json!({ "id": "g2" })),
                &[],
            )
            .fills(NEW_GROUP),
            write(
                "group-buy-write",
                ("PATCH", GROUP),
                (200, json!({ "id": "g1", "places": 3 })),
                &[],
            )
            .fills(GROUP),
            write(
                "group-buy-join",
                ("POST", "/api/group-buys/g1/join"),
                (200, json!({ "ok": true })),
                &[GROUP],
            ),
            write(
                "user-write",
                ("PUT", ANN),
                (200, json!({ "id": "ann", "name": "Ann" })),
                &[MINE, USED, PAYMENTS, PAYMENT],
            )
            .fills(ANN),
            write(
                "user-write",
                ("DELETE", ANN),
                (204, json!(null)),
                &[ANN, MINE, USED, PAYMENTS, PAYMENT],
            ),
            write(
                "ticket-buy",
                ("POST", EVENT_TICKETS),
                (201, ticket.clone()),
                &[EVENT, EVENT_TICKETS, MINE, USED],
            ),
            write(
                "ticket-use",
                ("POST", "/api/tickets/t1/use"),
                (200, ticket.clone()),
                &[EVENT, EVENT_TICKETS, TICKET, MINE, USED],
            ),
            write(
                "ticket-use",
                ("POST", "/api/tickets/t1/use"),
                (200, json!({})),
                &[
                    EVENT,
                    OTHER,
                    MADE,
                    EVENT_TICKETS,
                    OTHER_TICKETS,
                    ANALYTICS,
                    TICKET,
                    MINE,
                    USED,
                ],
            ),
            write(
                "ticket-write",
                ("DELETE", TICKET),
                (200, ticket),
                &[EVENT, EVENT_TICKETS, TICKET, MINE, USED],
            ),
            write(
                "payment-create",
                ("POST", "/api/payments"),
                (201, json!({ "id": "p1" })),
                &[PAYMENTS, PAYMENT],
            ),
            write(
                "payment-webhook",
                ("POST", "/api/payments/p1/status"),
                (200, json!({ "user_id": "ann" })),
                &[PAYMENTS, PAYMENT],
            ),
            write(
                "referral-create",
                ("POST", "/api/referrals"),
                (201, json!({ "code": "x" })),
                &[BOARD, REFERRALS],
            ),
        ],
        others: &[],
        limits: (
            "\"default\";q=100;w=60",
            &[
                ("event-list", "\"default\";q=300;w=60"),
                ("event", "\"default\";q=300;w=60"),
                ("ticket-buy", "\"buying\";q=20;w=60"),
                ("payment-create", "\"paying\";q=10;w=60"),
            ],
        ),
    }
}
