//! Variables override the default limits, within the same bounds.

use edgeweir::policy::{Algorithm, Limit, Overrides, Policy, PolicyError};

use super::shown;

fn with_overrides(
    text: &str,
    window_ms: Option<u64>,
    max_requests: Option<u32>,
) -> Result<Policy, Vec<PolicyError>> {
    let overrides = Overrides {
        window_ms,
        max_requests,
        ..Overrides::default()
    };
    Policy::from_json(text, &overrides)
}

#[test]
fn variables_override_every_default_limit_and_those_who_inherit_it() {
    let text = r#"{"defaults":{"limit":[{"name":"a","requests":9,"window":"60s"},{"name":"b","requests":9,"window":"1h","cost":3}]},
        "route":[{"name":"own","match":"GET /own","limit":[{"name":"x","requests":9,"window":"60s"}]},{"name":"inherits","match":"GET /in"}]}"#;
    let policy = with_overrides(text, Some(5_000), Some(7)).unwrap();
    for limits in [&policy.defaults.limits, &policy.routes[1].limits] {
        assert!(
            limits
                .iter()
                .all(|limit| (limit.window_ms, limit.requests) == (5_000, 7)),
            "{limits:?}"
        );
        assert_eq!(limits.len(), 2);
    }
    assert_eq!(
        (
            policy.routes[0].limits[0].window_ms,
            policy.routes[0].limits[0].requests
        ),
        (60_000, 9)
    );

    let errors = with_overrides(text, Some(2_000), Some(2)).unwrap_err();
    let errors: Vec<String> = errors
        .iter()
        .map(|error| {
            assert!(error.line.is_none());
            error.to_string()
        })
        .collect();
    const SHORT: &str =
        "a window of 2s is shorter than 10 buckets of 250ms; set it to at least 2500, or unset it";
    assert_eq!(
        errors,
        [
            format!("RATE_LIMIT_WINDOW_MS: `a`: {SHORT}"),
            format!("RATE_LIMIT_WINDOW_MS: `b`: {SHORT}"),
            "RATE_LIMIT_MAX_REQUESTS: `b`: the cost is 3 and the limit 2: no request would ever fit; set it to at least 3, or unset it".to_owned(),
        ]
    );
    assert!(with_overrides("{}", Some(0), None).is_err());
    assert!(with_overrides("{}", Some(u64::MAX), None).is_err());
    assert!(with_overrides("{}", None, Some(0)).is_err());
    assert!(with_overrides("{}", None, Some(u32::MAX)).is_err());
    // Without limits there is nothing to be too short.
    assert!(with_overrides(r#"{"defaults":{"limit":[]}}"#, Some(2_000), None).is_ok());
}

fn overridden(
    limits: &str,
    window_ms: Option<u64>,
    max_requests: Option<u32>,
) -> Result<Vec<Limit>, String> {
    let text = format!("{{\"defaults\":{{\"limit\":[{limits}]}}}}");
    with_overrides(&text, window_ms, max_requests)
        .map(|policy| policy.defaults.limits)
        .map_err(|errors| shown(&errors))
}

#[test]
fn variables_are_bound_by_what_they_override() {
    let of = |more: &str| {
        format!("{{\"name\":\"a\",\"requests\":50,\"window\":\"60s\",\"by\":\"user\"{more}}}")
    };
    let log = of(",\"algorithm\":\"sliding-log\"");
    let bucket = of(",\"algorithm\":\"token-bucket\"");
    let burst = of(",\"algorithm\":\"token-bucket\",\"burst\":2232000");
    let leased = of(",\"lease\":true");
    let plain = of("");
    let rate = of(",\"algorithm\":\"token-bucket\",\"cost\":0").replace("50,", "600000,");
    let refused: [(&str, Option<u64>, Option<u32>, &str); 11] = [
        (
            &log,
            Some(999),
            None,
            "RATE_LIMIT_WINDOW_MS: `a`: a window of 999ms is shorter than 1s; set it to at least 1000, or unset it",
        ),
        (
            &plain,
            Some(2_499),
            None,
            "RATE_LIMIT_WINDOW_MS: `a`: a window of 2499ms is shorter than 10 buckets of 250ms; set it to at least 2500, or unset it",
        ),
        (
            &plain,
            Some(2_499),
            Some(5),
            "RATE_LIMIT_WINDOW_MS: `a`: a window of 2499ms is shorter",
        ),
        (
            &log,
            None,
            Some(10_001),
            "RATE_LIMIT_MAX_REQUESTS: `a`: a limit of 10001 is too large for a sliding log, which keeps each of them; set it to at most 10000, or unset it",
        ),
        (
            &leased,
            None,
            Some(19),
            "RATE_LIMIT_MAX_REQUESTS: `a`: a limit of 19 is too small to lease; set it to at least 20, or unset it",
        ),
        (
            &burst,
            Some(60_001),
            None,
            "RATE_LIMIT_WINDOW_MS: `a`: a `burst` of 2232000 takes longer than 31 days to come back; set it to less, or unset it",
        ),
        (
            &burst,
            None,
            Some(49),
            "RATE_LIMIT_MAX_REQUESTS: `a`: a `burst` of 2232000 takes longer than 31 days to come back; set it to more, or unset it",
        ),
        (
            &rate,
            Some(59_999),
            None,
            "RATE_LIMIT_WINDOW_MS: `a`: a limit of 600000 is too large for a token bucket with this window; set it to more, or unset it",
        ),
        (
            &rate,
            None,
            Some(600_001),
            "RATE_LIMIT_MAX_REQUESTS: `a`: a limit of 600001 is too large for a token bucket with this window; set it to at most 600000, or unset it",
        ),
        (
            &plain,
            Some(0),
            None,
            "RATE_LIMIT_WINDOW_MS: a window of 0 ms is not possible",
        ),
        (
            &plain,
            None,
            Some(0),
            "RATE_LIMIT_MAX_REQUESTS: a limit of 0 is not possible",
        ),
    ];
    for (limit, window_ms, requests, message) in refused {
        let errors = overridden(limit, window_ms, requests).unwrap_err();
        assert!(
            errors.starts_with(message) && errors.lines().count() == 1,
            "not `{message}`: {errors}"
        );
    }
    assert!(overridden(&log, Some(1_000), Some(10_000)).is_ok());
    assert!(overridden(&leased, Some(2_500), Some(20)).is_ok());
    // A bucket that is as large as its limit stays so.
    let limits = overridden(&bucket, None, Some(7)).unwrap();
    assert_eq!(limits[0].algorithm, Algorithm::TokenBucket { burst: 7 });
    let limits = overridden(&burst, None, Some(70)).unwrap();
    assert_eq!(
        (limits[0].requests, limits[0].algorithm),
        (70, Algorithm::TokenBucket { burst: 2_232_000 })
    );
}
