//! Only CF-Connecting-IP is believed, unless it is a proxy that the policy trusts: then the
//! first address from the right that is no proxy is the client, whatever he wrote himself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use edgeweir::identity::{client_address, ip_id, matches};
use edgeweir::policy::{Address, Policy, Subject};
use proptest::prelude::*;

fn settings(proxies: &str) -> Address {
    let text = format!(
        "[defaults]\naddress = {{ header = \"X-Forwarded-For\", proxies = [{proxies}] }}\n"
    );
    Policy::from_toml(&text).unwrap().defaults.address
}

fn subject(text: &str) -> Subject {
    let text = format!(
        "[defaults]\nlimit = [{{ name = \"a\", requests = 5, window = \"1m\", by = \"user\", deny = [\"{text}\"] }}]\n"
    );
    let policy = Policy::from_toml(&text).unwrap();
    policy.defaults.limits[0].deny[0].clone()
}

fn client(settings: &Address, connecting: Option<&str>, list: Option<&str>) -> Option<String> {
    let header = |name: &str| list.filter(|_| name == "x-forwarded-for");
    client_address(settings, connecting, header).map(|address| address.to_string())
}

#[test]
fn without_proxies_no_header_is_believed() {
    let settings = Address::default();
    for (connecting, expected) in [
        (Some("192.0.2.1"), Some("192.0.2.1")),
        (Some(" 192.0.2.1 "), Some("192.0.2.1")),
        (Some("::ffff:192.0.2.1"), Some("192.0.2.1")),
        (Some("2001:DB8::1"), Some("2001:db8::1")),
        (Some("192.0.2.1:80"), None),
        (Some("[::1]"), None),
        (Some("192.0.2.1, 192.0.2.2"), None),
        (Some(""), None),
        (None, None),
    ] {
        let found = client_address(&settings, connecting, |_| Some("198.51.100.9"));
        assert_eq!(
            found.map(|address| address.to_string()).as_deref(),
            expected,
            "{connecting:?}"
        );
    }
}

#[test]
fn the_first_from_the_right_that_is_no_proxy_is_the_client() {
    let settings = settings("\"10.0.0.0/8\", \"2001:db8:ff::/48\"");
    for (connecting, list, expected) in [
        // Nobody else may say whom he speaks for.
        ("192.0.2.1", Some("198.51.100.9"), "192.0.2.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", Some(""), "10.0.0.1"),
        ("10.0.0.1", Some("198.51.100.9"), "198.51.100.9"),
        ("::ffff:10.0.0.1", Some("198.51.100.9"), "198.51.100.9"),
        ("2001:db8:ff::1", Some("198.51.100.9"), "198.51.100.9"),
        // What the client wrote himself stands to the left.
        (
            "10.0.0.1",
            Some("203.0.113.7, 198.51.100.9"),
            "198.51.100.9",
        ),
        ("10.0.0.1", Some("10.9.9.9, 198.51.100.9"), "198.51.100.9"),
        ("10.0.0.1", Some("198.51.100.9, 10.0.0.2"), "198.51.100.9"),
        (
            "10.0.0.1",
            Some("x, 198.51.100.9 ,\t10.0.0.3,10.0.0.2"),
            "198.51.100.9",
        ),
        ("10.0.0.1", Some("::ffff:198.51.100.9"), "198.51.100.9"),
        ("10.0.0.1", Some("2001:db8::9"), "2001:db8::9"),
        // With ports.
        ("10.0.0.1", Some("198.51.100.9:567"), "198.51.100.9"),
        ("10.0.0.1", Some("[2001:db8::9]:80"), "2001:db8::9"),
        ("10.0.0.1", Some("[2001:db8::9]"), "2001:db8::9"),
        (
            "10.0.0.1",
            Some("198.51.100.9:1, [2001:db8:ff::7]:2, 10.0.0.2:3"),
            "198.51.100.9",
        ),
        // All are proxies: the first of them asks for itself.
        ("10.0.0.1", Some("10.0.0.3, 10.0.0.2"), "10.0.0.3"),
        // Garbage ends the walk, so nothing to its left is ever believed.
        ("10.0.0.1", Some("198.51.100.9, unknown"), "10.0.0.1"),
        (
            "10.0.0.1",
            Some("198.51.100.9, unknown, 10.0.0.2"),
            "10.0.0.2",
        ),
        ("10.0.0.1", Some("198.51.100.9,, 10.0.0.2"), "10.0.0.2"),
        ("10.0.0.1", Some("198.51.100.9,"), "10.0.0.1"),
        ("10.0.0.1", Some("198.51.100.9, for=10.0.0.2"), "10.0.0.1"),
        ("10.0.0.1", Some("198.51.100.9:"), "10.0.0.1"),
        ("10.0.0.1", Some("198.51.100.9:x"), "10.0.0.1"),
        ("10.0.0.1", Some("198.51.100.9:99999"), "10.0.0.1"),
        ("10.0.0.1", Some("198.51.100.09"), "10.0.0.1"),
        ("10.0.0.1", Some("[198.51.100.9]"), "10.0.0.1"),
        ("10.0.0.1", Some("[2001:db8::9"), "10.0.0.1"),
        ("10.0.0.1", Some("[2001:db8::9]80"), "10.0.0.1"),
        ("10.0.0.1", Some("198.51.100.9 203.0.113.7"), "10.0.0.1"),
    ] {
        assert_eq!(
            client(&settings, Some(connecting), list).as_deref(),
            Some(expected),
            "{connecting} {list:?}"
        );
    }
    assert_eq!(client(&settings, None, Some("198.51.100.9")), None);
    assert_eq!(client(&settings, Some("x"), Some("198.51.100.9")), None);
}

#[test]
fn a_list_is_read_for_16_hops() {
    let settings = settings("\"10.0.0.0/8\"");
    let list = |proxies: usize| format!("198.51.100.9{}", ", 10.0.0.2".repeat(proxies));
    let found = |proxies| client(&settings, Some("10.0.0.1"), Some(&list(proxies))).unwrap();
    assert_eq!(found(15), "198.51.100.9");
    assert_eq!(found(16), "10.0.0.2");
    assert_eq!(found(100_000), "10.0.0.2");
}

#[test]
fn a_subject_is_matched_by_what_it_names() {
    let v4 = Some(IpAddr::from([10, 1, 2, 3]));
    let mapped = Some(IpAddr::V6(Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped()));
    let v6: Option<IpAddr> = "2001:db8::1:2".parse().ok();
    let none = None;
    for (text, address, user, value, expected) in [
        ("10.0.0.0/8", v4, none, none, true),
        ("10.0.0.0/8", mapped, none, none, true),
        ("10.1.2.3", v4, none, none, true),
        ("10.1.2.4", v4, none, none, false),
        ("10.0.0.0/8", v6, none, none, false),
        (
            "10.0.0.0/8",
            None,
            Some("10.0.0.0/8"),
            Some("10.0.0.0/8"),
            false,
        ),
        ("::ffff:10.0.0.0/104", v4, none, none, true),
        ("0.0.0.0/0", v4, none, none, true),
        ("0.0.0.0/0", v6, none, none, false),
        ("::/0", v6, none, none, true),
        ("::/0", v4, none, none, false),
        // The address itself, though limits count by its /64.
        ("2001:db8::1:2", v6, none, none, true),
        ("2001:db8::1:3", v6, none, none, false),
        ("2001:db8::1:0/112", v6, none, none, true),
        ("2001:db8::2:0/112", v6, none, none, false),
        ("user:a", v4, Some("a"), none, true),
        ("user:a", v4, Some("A"), none, false),
        ("user:a", v4, none, Some("a"), false),
        ("a", v4, Some("a"), none, false),
        ("a", v4, none, Some("a"), true),
        ("a", v4, none, Some("b"), false),
    ] {
        assert_eq!(
            matches(&subject(text), address, user, value),
            expected,
            "{text} {address:?} {user:?} {value:?}"
        );
    }
}

#[test]
fn an_ipv6_id_is_by_the_policys_prefix() {
    let address: Option<IpAddr> = "2001:db8:1:2ff:3:4:5:6".parse().ok();
    for (prefix, id) in [
        (32, "2001%3Adb8%3A%3A%2F32"),
        (56, "2001%3Adb8%3A1%3A200%3A%3A%2F56"),
        (64, "2001%3Adb8%3A1%3A2ff%3A%3A%2F64"),
        (128, "2001%3Adb8%3A1%3A2ff%3A3%3A4%3A5%3A6%2F128"),
    ] {
        assert_eq!(ip_id(address, prefix), id);
        assert_eq!(
            ip_id(Some(IpAddr::from([192, 0, 2, 1])), prefix),
            "192.0.2.1"
        );
        assert_eq!(ip_id(None, prefix), "unknown");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    /// What a client puts before his own address changes nothing, whatever it is.
    #[test]
    fn no_forged_left_part_gets_through(
        forged in prop_oneof![any::<String>(), "[0-9a-f.:, \\[\\]]{0,40}", Just("10.0.0.9, 203.0.113.7".to_owned())],
        client_bits in any::<u128>(),
        is_v4 in any::<bool>(),
        proxies in prop::collection::vec(0u32..1 << 24, 0..8),
    ) {
        let settings = settings("\"10.0.0.0/8\"");
        let address = match is_v4 {
            true => IpAddr::V4(Ipv4Addr::from_bits(client_bits as u32)),
            false => IpAddr::V6(Ipv6Addr::from_bits(client_bits)).to_canonical(),
        };
        prop_assume!(!matches(&settings.proxies[0], Some(address), None, None));
        let proxies: Vec<String> = proxies
            .iter()
            .map(|host| Ipv4Addr::from_bits((10 << 24) | host).to_string())
            .collect();
        let honest: Vec<String> = std::iter::once(address.to_string()).chain(proxies).collect();
        let list = format!("{forged},{}", honest.join(", "));
        prop_assert_eq!(client(&settings, Some("10.0.0.1"), Some(&list)), Some(address.to_string()));
    }

    /// The client's own address, or a proxy's: never one that only a stranger named.
    #[test]
    fn any_list_is_no_panic(list in any::<String>(), connecting in any::<String>()) {
        let settings = settings("\"10.0.0.0/8\"");
        let _ = client(&settings, Some(&connecting), Some(&list));
        let _ = client(&settings, Some("10.0.0.1"), Some(&list));
    }

    #[test]
    fn ids_are_equal_as_far_as_the_prefix_goes(bits in any::<u128>(), prefix in 32u8..=128, at in 0u8..128) {
        let of = |bits: u128| ip_id(Some(IpAddr::V6(Ipv6Addr::from_bits(bits))), prefix);
        // Not one of those that are IPv4.
        let bits = bits | (1 << 127);
        let flipped = bits ^ (1 << (127 - u32::from(at.max(1))));
        prop_assert_eq!(of(bits) == of(flipped), at.max(1) >= prefix);
    }
}
