//! Text to policy.

use super::bounds::MAX_TEXT_BYTES;
use super::error::{Faults, PolicyError};
use super::grammar::{self, Overrides};
use super::json;
use super::node::Node;
use super::types::Policy;

type Read = fn(&str, &mut Faults) -> Option<Node>;

impl Policy {
    /// Reads JSON, as in `POLICY`.
    pub fn from_json(text: &str, overrides: &Overrides) -> Result<Self, Vec<PolicyError>> {
        check(text, json::read, overrides).map(|(policy, _)| policy)
    }

    /// Reads TOML, as in `policy.toml`.
    #[cfg(feature = "cli")]
    pub fn from_toml(text: &str) -> Result<Self, Vec<PolicyError>> {
        check(text, super::toml::read, &Overrides::default()).map(|(policy, _)| policy)
    }
}

/// The JSON of a policy in TOML, as `POLICY` takes it.
#[cfg(feature = "cli")]
pub fn toml_to_json(text: &str) -> Result<String, Vec<PolicyError>> {
    check(text, super::toml::read, &Overrides::default()).map(|(_, node)| super::write::json(&node))
}

/// The policy of a text and the tree that it was read from.
pub fn check(
    text: &str,
    read: Read,
    overrides: &Overrides,
) -> Result<(Policy, Node), Vec<PolicyError>> {
    let mut faults = Faults::default();
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("the policy has {} bytes", text.len());
        faults.add(
            "",
            None,
            message,
            format!("at most {MAX_TEXT_BYTES} are possible"),
        );
        return Err(faults.into_errors(""));
    }
    let node = read(text, &mut faults);
    let policy = node
        .as_ref()
        .and_then(|node| grammar::policy(node, overrides, &mut faults));
    match (policy, node) {
        (Some(policy), Some(node)) if faults.is_empty() => Ok((policy, node)),
        _ => Err(faults.into_errors(text)),
    }
}
