//! Every failure that the edge answers by itself, word for word.

use edgeweir::failure::{Failure, whole_seconds};
use edgeweir::http::{Body, Response};
use edgeweir::json::Value;

#[test]
fn seconds_are_whole_rounded_up_and_at_least_one() {
    let cases = [
        (0, 1),
        (1, 1),
        (999, 1),
        (1_000, 1),
        (1_001, 2),
        (59_999, 60),
        (60_000, 60),
    ];
    for (ms, seconds) in cases {
        assert_eq!(whole_seconds(ms), seconds, "{ms}");
    }
    assert_eq!(whole_seconds(u64::MAX), u64::MAX / 1_000 + 1);
}

/// One failure's answer: status, fields, and JSON as text.
fn failure(failure: Failure) -> (u16, Vec<(String, String)>, String) {
    let status = failure.status();
    let response: Response<()> = failure.into_response();
    assert_eq!(response.status, status);
    let Body::Bytes(body) = response.body else {
        panic!("no body");
    };
    let pairs = response.headers.iter().skip(2);
    let rest = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let first: Vec<(&str, &str)> = response.headers.iter().take(2).collect();
    let always = [
        ("content-type", "application/problem+json"),
        ("cache-control", "no-store"),
    ];
    assert_eq!(first, always);
    (status, rest, String::from_utf8(body.to_vec()).unwrap())
}

fn expect(given: Failure, status: u16, field: Option<(&str, &str)>, text: &str) {
    let (code, rest, body) = failure(given);
    assert_eq!(body, text);
    assert_eq!(code, status, "{text}");
    let rest: Vec<(&str, &str)> = rest
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(rest, Vec::from_iter(field), "{text}");
}

/// Every failure, word for word.
#[test]
fn failures_are_problem_details() {
    expect(
        Failure::QuotaExceeded {
            violated: vec!["burst".to_owned(), "hourly".to_owned()],
            retry_after_ms: 2_001,
        },
        429,
        Some(("retry-after", "3")),
        r#"{"detail":"This request fits again in 3 seconds.","status":429,"title":"Request cannot be satisfied as assigned quota has been exceeded","type":"https://iana.org/assignments/http-problem-types#quota-exceeded","violated-policies":["burst","hourly"]}"#,
    );
    expect(
        Failure::AbnormalUsage {
            violated: vec!["burst".to_owned()],
            retry_after_ms: 60_001,
        },
        429,
        Some(("retry-after", "61")),
        r#"{"detail":"This client's requests follow an abnormal pattern; none is served for 61 seconds.","status":429,"title":"Request not satisfied due to detection of abnormal request pattern","type":"https://iana.org/assignments/http-problem-types#abnormal-usage-detected","violated-policies":["burst"]}"#,
    );
    expect(
        Failure::ReducedCapacity,
        503,
        Some(("retry-after", "5")),
        r#"{"detail":"The limits of this route cannot be checked at the moment.","status":503,"title":"Request cannot be satisfied due to temporary server capacity constraints","type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"}"#,
    );
    expect(
        Failure::OriginUnreachable,
        502,
        None,
        r#"{"detail":"The origin could not be reached.","status":502,"title":"Bad Gateway","type":"about:blank"}"#,
    );
    expect(
        Failure::OriginTimeout,
        504,
        None,
        r#"{"detail":"The origin did not answer in time.","status":504,"title":"Gateway Timeout","type":"about:blank"}"#,
    );
    expect(
        Failure::Misconfigured {
            variable: "ORIGIN_URL".to_owned(),
            problem: "is no URL".to_owned(),
        },
        503,
        None,
        r#"{"detail":"The variable ORIGIN_URL is no URL.","status":503,"title":"Service Unavailable","type":"about:blank","variable":"ORIGIN_URL"}"#,
    );
    expect(
        Failure::BadPolicy {
            errors: vec![Value::from([
                ("pointer", "/route/0".into()),
                ("message", "no name".into()),
                ("help", "add one".into()),
            ])],
        },
        503,
        None,
        r#"{"detail":"The variable POLICY has 1 error(s); the first, at \"/route/0\": no name; add one.","errors":[{"help":"add one","message":"no name","pointer":"/route/0"}],"status":503,"title":"Service Unavailable","type":"about:blank","variable":"POLICY"}"#,
    );
    expect(
        Failure::NotFound,
        404,
        None,
        r#"{"detail":"There is nothing here.","status":404,"title":"Not Found","type":"about:blank"}"#,
    );
    expect(
        Failure::MethodNotAllowed { allow: "GET, HEAD" },
        405,
        Some(("allow", "GET, HEAD")),
        r#"{"detail":"Use GET, HEAD.","status":405,"title":"Method Not Allowed","type":"about:blank"}"#,
    );
    expect(
        Failure::Unauthorized,
        401,
        Some(("www-authenticate", "Bearer")),
        r#"{"detail":"A valid admin token is needed.","status":401,"title":"Unauthorized","type":"about:blank"}"#,
    );
    expect(
        Failure::BadRequest {
            detail: "the body \"is\" odd".to_owned(),
        },
        400,
        None,
        r#"{"detail":"the body \"is\" odd","status":400,"title":"Bad Request","type":"about:blank"}"#,
    );
    expect(
        Failure::UriTooLong,
        414,
        None,
        r#"{"detail":"The path is longer than this server takes.","status":414,"title":"URI Too Long","type":"about:blank"}"#,
    );
    expect(
        Failure::RedisUnavailable,
        503,
        Some(("retry-after", "5")),
        r#"{"detail":"Redis did not confirm in time.","status":503,"title":"Service Unavailable","type":"about:blank"}"#,
    );
}
