//! Ids as keyed hashes, and the share of ids that a rollout takes.

use std::collections::BTreeSet;

use edgeweir::identity::{hashed, is_in_rollout, limit_id};
use edgeweir::policy::By;
use proptest::prelude::*;

/// RFC 4231 test cases 1, 2, 5 (truncated to 128 bits) and 6.
#[test]
fn a_hash_is_hmac_sha256_cut_to_128_bits() {
    for (key, id, digest) in [
        (
            &[0x0b; 20][..],
            "Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b",
        ),
        (
            b"Jefe",
            "what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c7",
        ),
        (
            &[0x0c; 20],
            "Test With Truncation",
            "a3b6167473100ee06e0c796c2955552b",
        ),
        (
            &[0xaa; 131],
            "Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f",
        ),
    ] {
        assert_eq!(hashed(id, key), digest, "{id}");
    }
}

#[test]
fn with_a_key_every_id_but_global_is_a_hash() {
    let key = Some(&b"key"[..]);
    let by_header = By::Header("x".to_owned());
    for (by, user, header) in [
        (&By::Ip, None, None),
        (&By::User, Some("u"), None),
        (&By::User, None, None),
        (&by_header, None, Some("v")),
        (&by_header, None, None),
    ] {
        let plain = limit_id(by, "192.0.2.1", user, header, None);
        assert_eq!(
            limit_id(by, "192.0.2.1", user, header, key),
            hashed(&plain, b"key")
        );
    }
    assert_eq!(limit_id(&By::Global, "", None, None, key), "global");
}

#[test]
fn a_rollout_takes_its_share() {
    let ids: Vec<String> = (0..4_000u32)
        .map(|n| format!("192.0.{}.{}", n / 256, n % 256))
        .collect();
    for percent in [0u8, 1, 10, 50, 99, 100] {
        let taken = ids
            .iter()
            .filter(|id| is_in_rollout("default", id, percent))
            .count();
        let expected = ids.len() * usize::from(percent) / 100;
        // Five standard deviations of so many coins are at most 158.
        assert!(taken.abs_diff(expected) <= 158, "{percent}: {taken}");
        if matches!(percent, 0 | 100) {
            assert_eq!(taken, expected);
        }
    }
    // Each limit begins with others, and everywhere with the same.
    let first = |limit: &str| -> BTreeSet<&String> {
        ids.iter()
            .filter(|id| is_in_rollout(limit, id, 10))
            .collect()
    };
    let both = first("a").intersection(&first("b")).count();
    assert!((20..80).contains(&both), "{both}");
    // `printf 'default:192.0.2.1' | sha256sum` begins with 9df0…: 61.7 %.
    assert!(!is_in_rollout("default", "192.0.2.1", 61));
    assert!(is_in_rollout("default", "192.0.2.1", 62));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whoever_is_in_a_rollout_stays(name in "[a-z0-9_-]{1,8}", id in any::<String>()) {
        let shares: Vec<bool> = (0..=100).map(|percent| is_in_rollout(&name, &id, percent)).collect();
        prop_assert!(shares.is_sorted());
        prop_assert!(!shares[0] && shares[100]);
    }

    #[test]
    fn hashes_are_safe_in_keys_and_of_one_key(a in any::<String>(), b in any::<String>(), key in any::<Vec<u8>>(), other in any::<Vec<u8>>()) {
        let hash = hashed(&a, &key);
        prop_assert!(hash.len() == 32 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        prop_assert_eq!(hashed(&a, &key) == hashed(&b, &key), a == b);
        // HMAC pads short keys with zeros.
        let bare = |key: &[u8]| key.iter().rposition(|byte| *byte != 0).map_or(Vec::new(), |at| key[..=at].to_vec());
        if bare(&key) != bare(&other) {
            prop_assert_ne!(hashed(&a, &key), hashed(&a, &other));
        }
    }
}
