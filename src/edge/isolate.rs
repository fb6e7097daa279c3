//! What one isolate keeps between requests, made from its variables once.

use std::cell::OnceCell;
use std::rc::Rc;

use js_sys::Reflect;
use wasm_bindgen::JsValue;

use super::glue;
use crate::config::{Config, ConfigError};
use crate::failure::Failure;
use crate::gateway::{Gateway, Settings};
use crate::policy::{BUILT_IN, Overrides, Policy, Switch};
use crate::ports::Log;
use crate::redis::{Client, Endpoint, Shards};

pub struct Isolate {
    pub gateway: Gateway,
    /// `None`: `REDIS_ENABLED` is false.
    pub redis: Option<Client>,
    /// `None`: requests go on to the zone's own origin.
    pub origin_url: Option<String>,
}

thread_local! {
    static ISOLATE: OnceCell<Result<Rc<Isolate>, Failure>> = const { OnceCell::new() };
}

impl Isolate {
    /// Variables never change within an isolate: a deployment makes new ones. A
    /// bad one is logged here, once, and answered to every request.
    pub fn of(env: &JsValue) -> Result<Rc<Self>, Failure> {
        ISOLATE.with(|isolate| {
            isolate
                .get_or_init(|| {
                    glue::begin();
                    let made = Self::new(env);
                    if let Err(failure) = &made {
                        Console.log(&failure.detail());
                    }
                    made.map(Rc::new)
                })
                .clone()
        })
    }

    fn new(env: &JsValue) -> Result<Self, Failure> {
        let config = Config::from_vars(|name| {
            Reflect::get(env, &JsValue::from_str(name))
                .ok()
                .and_then(|value| value.as_string())
        })
        .map_err(misconfigured)?;
        let text = config.policy.as_deref().unwrap_or(BUILT_IN);
        let overrides = Overrides {
            window_ms: config.rate_limit_window_ms,
            max_requests: config.rate_limit_max_requests,
            notification_ttl_s: config.notification_cache_ttl_s,
            unread_ttl_s: config.unread_count_cache_ttl_s,
        };
        let policy = Policy::from_json(text, &overrides).map_err(Failure::bad_policy)?;
        config.check(&policy).map_err(misconfigured)?;
        let mut seed = [0; 8];
        // Without randomness probes of isolates are only less spread out.
        let _ = getrandom::fill(&mut seed);
        let seed = u64::from_le_bytes(seed);
        let limits = config.redis.as_ref().map(|redis| redis.limits.as_slice());
        let shards = Shards::new(limits.unwrap_or_default().iter().map(Endpoint::url));
        let redis = config.redis.and_then(|redis| {
            let mut limits = redis.limits.into_iter();
            let first = limits.next()?;
            Some(Client::new(first, limits.collect(), redis.cache, seed))
        });
        Ok(Self {
            gateway: Gateway::new(
                policy,
                Settings {
                    admin_token: config.admin_token,
                    jwt_secret: config.jwt_secret,
                    hash_key: config.hash_key,
                    cache_keys: config.cache_keys,
                    shards,
                    limits_in_redis: !config.switched_off.contains(&Switch::RateLimitRedis)
                        && redis.is_some(),
                    switched_off: config.switched_off,
                    views: config.views,
                    without_redis: redis.is_none(),
                    separate_cache: redis.as_ref().is_some_and(|redis| !redis.shares_store()),
                },
            ),
            redis,
            origin_url: config.origin_url,
        })
    }
}

fn misconfigured(error: ConfigError) -> Failure {
    Failure::Misconfigured {
        variable: error.variable.to_owned(),
        problem: error.problem,
    }
}

/// The platform's log.
pub struct Console;

impl Log for Console {
    fn log(&self, line: &str) {
        worker::console_log!("{line}");
    }
}
