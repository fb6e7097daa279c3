//! The parameters of an admin call.

use super::bad;
use crate::failure::Failure;
use crate::policy::percent::decode;

#[derive(Debug, Default)]
pub struct Query {
    pub id: Option<String>,
    pub limit: Option<String>,
    /// `all=true`: limits with `per = "all"` too.
    pub all: bool,
    /// `override=true`: the override, not the counts.
    pub of_override: bool,
}

impl Query {
    /// Each at most once, and no others than `known`.
    pub fn parse(raw: Option<&str>, known: &[&str]) -> Result<Self, Failure> {
        let mut query = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for pair in raw.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&name) || !known.contains(&name) {
                let mut detail = String::from("the parameters here are ");
                detail.push_str(&known.join(", "));
                detail.push_str(", each once");
                return Err(bad(&detail));
            }
            seen.push(name);
            let value = decode(value, true).filter(|value| !value.is_empty());
            match (name, value) {
                ("id", Some(id)) => query.id = Some(id),
                ("limit", Some(limit)) => query.limit = Some(limit),
                ("all", Some(value)) if value == "true" => query.all = true,
                ("override", Some(value)) if value == "true" => query.of_override = true,
                ("all" | "override", Some(value)) if value == "false" => {}
                ("all" | "override", _) => {
                    return Err(bad("`all` and `override` are true or false"));
                }
                _ => return Err(bad("a parameter is empty or wrongly encoded")),
            }
        }
        Ok(query)
    }
}
