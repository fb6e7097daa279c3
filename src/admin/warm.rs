//! `POST /-/warm`: what these routes keep warm is fetched now.

use super::{answer_json, bad, object};
use crate::failure::Failure;
use crate::http::Response;
use crate::jobs::{MAX_ORIGIN_REQUESTS, Run};
use crate::json::json;
use crate::ports::Ports;
use crate::visit::Visit;
use crate::warm::{self, Which};

/// Somebody waits for the answer: what is not begun by then is left.
const MAX_WORK_MS: u64 = 30_000;

/// All routes with `warm` when none are named.
pub async fn warm<P: Ports>(
    visit: &Visit<'_, P>,
    body: &[u8],
) -> Result<Response<P::Body>, Failure> {
    let routes = named(visit, body)?;
    let run = Run::until(visit.gateway, visit.ports, MAX_ORIGIN_REQUESTS, MAX_WORK_MS);
    let warmed = warm::pass(&run, &routes, Which::All).await;
    let warmed = warmed.ok_or(Failure::RedisUnavailable)?;
    let (failed, left) = (warmed.failed, warmed.left);
    Ok(answer_json(&json!({
        "warmed": warmed.warmed, "failed": failed, "left": left
    })))
}

fn named<P: Ports>(visit: &Visit<'_, P>, body: &[u8]) -> Result<Vec<usize>, Failure> {
    const SHAPE: &str = "`routes` must be a list of names of routes with `warm`";
    let policy = &visit.gateway.policy;
    let all = warm::routes(policy);
    if body.is_empty() {
        return Ok(all);
    }
    let mut routes = None;
    for (name, value) in object(body)?.iter() {
        let ("routes", Some(names)) = (name, value.as_array()) else {
            return Err(bad(SHAPE));
        };
        let mut places = Vec::new();
        for name in names {
            let name = name.as_str().ok_or_else(|| bad(SHAPE))?;
            let place = all.iter().find(|at| {
                let route = policy.routes.get(**at);
                route.is_some_and(|route| route.name == name)
            });
            let place = place.ok_or_else(|| bad(SHAPE))?;
            if !places.contains(place) {
                places.push(*place);
            }
        }
        routes = Some(places);
    }
    Ok(routes.unwrap_or(all))
}
