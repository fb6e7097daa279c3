//! Whom `allow`, `deny` and `proxies` name: networks, users and ids, each in one way only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use edgeweir::policy::{Address, Policy, Subject, network};
use proptest::prelude::*;

use super::marked::{errors_of, expect, in_defaults, in_limit};
use super::{property, toml};

const USERS: &str = "name = \"a\", requests = 5, window = \"1m\", by = \"user\"";
const IPS: &str = "name = \"a\", requests = 5, window = \"1m\", by = \"ip\"";

fn allowed(text: &str) -> Subject {
    let text = format!("[defaults]\nlimit = [{{ {USERS}, allow = [\"{text}\"] }}]\n");
    toml(&text).defaults.limits[0].allow[0].clone()
}

fn network_of(address: &str, prefix: u8) -> Subject {
    let bits = match address.parse::<IpAddr>().unwrap() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    Subject::Network { bits, prefix }
}

#[test]
fn addresses_networks_users_and_ids_are_told_apart() {
    for (text, subject) in [
        ("192.0.2.1", network_of("192.0.2.1", 128)),
        ("192.0.2.1/32", network_of("192.0.2.1", 128)),
        ("10.0.0.0/8", network_of("10.0.0.0", 104)),
        ("0.0.0.0/0", network_of("0.0.0.0", 96)),
        ("::ffff:10.0.0.0/104", network_of("10.0.0.0", 104)),
        ("2001:db8::1", network_of("2001:db8::1", 128)),
        ("2001:DB8::/32", network_of("2001:db8::", 32)),
        ("::/0", network_of("::", 0)),
        ("user:42", Subject::User("42".to_owned())),
        ("user:10.0.0.0/8", Subject::User("10.0.0.0/8".to_owned())),
        ("user::", Subject::User(":".to_owned())),
        ("42", Subject::Id("42".to_owned())),
        ("a@b.c", Subject::Id("a@b.c".to_owned())),
        ("1.2", Subject::Id("1.2".to_owned())),
        ("1.2.3", Subject::Id("1.2.3".to_owned())),
        ("path/8", Subject::Id("path/8".to_owned())),
        ("12:34", Subject::Id("12:34".to_owned())),
        (
            "00:1b:44:11:3a:b7",
            Subject::Id("00:1b:44:11:3a:b7".to_owned()),
        ),
        ("User:42", Subject::Id("User:42".to_owned())),
    ] {
        assert_eq!(allowed(text), subject, "{text}");
    }
}

#[test]
fn what_looks_like_a_network_and_is_none_is_no_id() {
    for (text, message) in [
        ("300.1.1.1/8", "is no address"),
        ("300.1.1.1", "is no address"),
        ("192.0.2.01", "is no address"),
        ("10.0/8", "is no address"),
        ("1.2.3.4.5/8", "is no address"),
        ("2001:db8::1::/64", "is no address"),
        ("2001:db8:/32", "is no address"),
        ("fe80::12345", "is no address"),
        ("1:2:3:4:5:6:7:88888", "is no address"),
        ("10.0.0.0/33", "has no prefix from 0 to 32"),
        ("10.0.0.0/", "has no prefix"),
        ("10.0.0.0/+8", "has no prefix"),
        ("10.0.0.0/8/8", "has no prefix"),
        ("10.0.0.0/255.0.0.0", "has no prefix"),
        ("2001:db8::/129", "has no prefix from 0 to 128"),
        ("10.1.2.3/8", "has bits behind its prefix"),
        ("192.0.2.1/0", "has bits behind its prefix"),
        ("2001:db8::1/64", "has bits behind its prefix"),
        ("", "is nobody"),
        ("user:", "is nobody"),
    ] {
        in_limit(
            &format!("{USERS}, deny = [§\"{text}\"]"),
            "/deny/0",
            message,
        );
    }
    let long = "x".repeat(257);
    in_limit(
        &format!("{USERS}, deny = [§\"user:{long}\"]"),
        "/deny/0",
        "is nobody",
    );
    let help = |text: &str| {
        let text = format!("[defaults]\nlimit = [{{ {IPS}, deny = [\"{text}\"] }}]\n");
        errors_of(&text)[0].help.clone()
    };
    assert_eq!(help("10.1.2.3/8"), "write \"10.0.0.0/8\"");
    assert_eq!(help("192.0.2.1/0"), "write \"0.0.0.0/0\"");
    assert_eq!(help("2001:db8::1/33"), "write \"2001:db8::/33\"");
    assert_eq!(help("::ffff:10.1.2.3/104"), "write \"::ffff:10.0.0.0/104\"");
}

#[test]
fn a_limit_by_address_knows_no_other_ids() {
    for by in ["ip", "global"] {
        let limit = IPS.replace("\"ip\"", &format!("\"{by}\""));
        in_limit(
            &format!("{limit}, allow = [§\"42\"]"),
            "/allow/0",
            "is no address, and this limit knows no other ids",
        );
        toml(&format!(
            "[defaults]\nlimit = [{{ {limit}, allow = [\"user:42\"], deny = [\"10.0.0.0/8\"] }}]\n"
        ));
    }
    let header = IPS.replace("\"ip\"", "\"header:x-api-key\"");
    toml(&format!(
        "[defaults]\nlimit = [{{ {header}, allow = [\"key-1\"] }}]\n"
    ));
}

#[test]
fn nobody_is_named_twice_or_both_let_through_and_refused() {
    in_limit(
        &format!("{IPS}, deny = [\"10.0.0.1\", §\"::ffff:10.0.0.1\", \"10.0.0.0/8\"]"),
        "/deny/1",
        "`deny[1]` is there twice",
    );
    in_limit(
        &format!("{IPS}, deny = [\"10.0.0.1\", §\"2001:DB8::/32\"], allow = [\"2001:db8::/32\"]"),
        "/deny/1",
        "`deny[1]` is in `allow` too",
    );
    in_limit(
        &format!("{USERS}, allow = [\"user:a\", \"a\"], deny = [\"b\", §\"a\"]"),
        "/deny/1",
        "is in `allow` too",
    );
    toml(&format!(
        "[defaults]\nlimit = [{{ {IPS}, allow = [\"10.0.0.1\"], deny = [\"10.0.0.0/8\"] }}]\n"
    ));
}

#[test]
fn lists_are_lists_of_texts_and_not_too_long() {
    in_limit(
        &format!("{IPS}, allow = §\"10.0.0.1\""),
        "/allow",
        "is text, not a list",
    );
    expect(
        &format!("[defaults]\nlimit = [{{ {IPS}, allow = [§1, §\"x\"], deny = [§true] }}]\n"),
        &[
            ("/defaults/limit/0/allow/0", "is a number, not text"),
            ("/defaults/limit/0/allow/1", "is no address"),
            ("/defaults/limit/0/deny/0", "is true or false, not text"),
        ],
    );
    let list = |entries: u32| {
        let entries: Vec<String> = (0..entries)
            .map(|bits| format!("\"{}\"", Ipv4Addr::from_bits(bits)))
            .collect();
        entries.join(",")
    };
    in_limit(
        &format!("{IPS}, deny = §[{}]", list(1001)),
        "/deny",
        "`deny` has 1001 items",
    );
    let with_routes = |count: usize| {
        let routes: String = (0..count)
            .map(|i| format!("{{name=\"r{i}\",match=\"GET /{i}\"}},"))
            .collect();
        format!(
            "route = [{routes}]\n[defaults]\nlimit = §[{{ {IPS}, deny = [{}] }}]\n",
            list(1000)
        )
    };
    toml(&with_routes(100).replace('§', ""));
    expect(
        &with_routes(101),
        &[(
            "/defaults/limit",
            "101 routes inherit 1000 entries of `allow` and `deny`",
        )],
    );
}

#[test]
fn the_policy_says_how_an_address_is_told() {
    let of = |text: &str| toml(&format!("[defaults]\n{text}\n")).defaults;
    assert_eq!(of("").address, Address::default());
    assert!(!of("").hash_ids);
    assert!(of("hash_ids = true").hash_ids);
    assert_eq!(of("address = {}").address, Address::default());
    assert_eq!(
        of("address = { ipv6_prefix = 128 }").address.ipv6_prefix,
        128
    );
    assert_eq!(
        of("address = { header = \"X-Real-IP\", proxies = [\"10.0.0.0/8\", \"::1\"], ipv6_prefix = 48 }")
            .address,
        Address {
            header: Some("x-real-ip".to_owned()),
            proxies: vec![network_of("10.0.0.0", 104), network_of("::1", 128)],
            ipv6_prefix: 48,
        }
    );
    for (body, pointer, message) in [
        ("address = §1", "/address", "is a number, not a table"),
        (
            "address = { §prefix = 64 }",
            "/address/prefix",
            "no field of `address`",
        ),
        (
            "address = { §header = \"x-real-ip\" }",
            "/address/header",
            "`header` does nothing without `proxies`",
        ),
        (
            "address = { §proxies = [\"10.0.0.0/8\"] }",
            "/address/proxies",
            "`proxies` does nothing without `header`",
        ),
        (
            "address = { header = \"x\", proxies = §[] }",
            "/address/proxies",
            "names nobody",
        ),
        (
            "address = { header = §\"x y\", proxies = [\"::1\"] }",
            "/address/header",
            "`x y` is no field's name",
        ),
        (
            "address = { header = §\"\", proxies = [\"::1\"] }",
            "/address/header",
            "is no field's name",
        ),
        (
            "address = { header = §\"Forwarded\", proxies = [\"::1\"] }",
            "/address/header",
            "does not list plain addresses",
        ),
        (
            "address = { header = \"x\", proxies = [§\"user:a\"] }",
            "/address/proxies/0",
            "`user:a` is no network",
        ),
        (
            "address = { header = \"x\", proxies = [§\"10.0.0.1/8\"] }",
            "/address/proxies/0",
            "bits behind its prefix",
        ),
        (
            "address = { ipv6_prefix = §31 }",
            "/address/ipv6_prefix",
            "`ipv6_prefix` is 31",
        ),
        (
            "address = { ipv6_prefix = §129 }",
            "/address/ipv6_prefix",
            "`ipv6_prefix` is 129",
        ),
        ("hash_ids = §1", "/hash_ids", "is a number"),
    ] {
        in_defaults(body, pointer, message);
    }
    expect(
        "[defaults]\naddress = { header = §1, proxies = [§2], ipv6_prefix = §3 }\n",
        &[
            ("/defaults/address/header", "is a number, not text"),
            ("/defaults/address/proxies/0", "is a number, not text"),
            ("/defaults/address/ipv6_prefix", "`ipv6_prefix` is 3"),
        ],
    );
}

/// Against an oracle that compares bit by bit, and by family.
#[test]
fn a_network_is_its_first_bits_in_its_own_family() {
    fn bit_texts(address: IpAddr) -> String {
        match address {
            IpAddr::V4(v4) => format!("{:032b}", v4.to_bits()),
            IpAddr::V6(v6) => format!("{:0128b}", v6.to_bits()),
        }
    }
    let address = || {
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
            (0u32..4).prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits << 30))),
            any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
            (0u128..8).prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits << 30))),
        ]
        .prop_filter("mapped ones are IPv4", |address: &IpAddr| {
            address.to_canonical() == *address
        })
    };
    property(
        4_000,
        (address(), address(), 0u8..=128),
        |(base, other, length)| {
            let width = if base.is_ipv4() { 32 } else { 128 };
            let length = length.min(width);
            let kept: String = bit_texts(base)
                .chars()
                .enumerate()
                .map(|(at, bit)| if at < usize::from(length) { bit } else { '0' })
                .collect();
            let first = match base {
                IpAddr::V4(_) => {
                    IpAddr::V4(Ipv4Addr::from_bits(u32::from_str_radix(&kept, 2).unwrap()))
                }
                IpAddr::V6(_) => {
                    IpAddr::V6(Ipv6Addr::from_bits(u128::from_str_radix(&kept, 2).unwrap()))
                }
            };
            // The first 96 zeros and ones of `::ffff:0:0` are IPv4's own.
            prop_assume!(first.to_canonical() == first);
            let (bits, prefix) = network::read(&format!("{first}/{length}"))
                .unwrap()
                .unwrap();
            for address in [base, other, first] {
                let expected = address.is_ipv4() == base.is_ipv4()
                    && bit_texts(address)[..usize::from(length)] == kept[..usize::from(length)];
                prop_assert_eq!(
                    network::contains(bits, prefix, address),
                    expected,
                    "{} in {}/{}",
                    address,
                    first,
                    length
                );
                if let IpAddr::V4(v4) = address {
                    let mapped = IpAddr::V6(v4.to_ipv6_mapped());
                    prop_assert_eq!(network::contains(bits, prefix, mapped), expected);
                }
            }
            // An address with its host's bits says which network is meant.
            let beyond = network::read(&format!("{base}/{length}"));
            match base == first {
                true => prop_assert_eq!(beyond, Ok(Some((bits, prefix)))),
                false => {
                    let (_, help) = beyond.unwrap_err();
                    prop_assert_eq!(help, format!("write \"{first}/{length}\""));
                }
            }
            Ok(())
        },
    );
}

#[test]
fn no_subject_panics() {
    property(
        2_000,
        prop_oneof!["[0-9a-f.:/]{0,24}", any::<String>()],
        |text| {
            let list = serde_json::json!({ "defaults": { "limit": [
                { "name": "a", "requests": 5, "window": "1m", "by": "user", "deny": [text] },
            ] } });
            let _ = Policy::from_json(&list.to_string(), &edgeweir::policy::Overrides::default());
            Ok(())
        },
    );
}
