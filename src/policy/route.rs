//! Which route a request is for. The most specific one wins, whatever the order.
//!
//! Segment by segment a literal beats `{name}` beats `{name...}`; then a listed method
//! beats GET standing for HEAD beats `*`. A path that is no route's own but may be
//! folded into one by the origin gets that route's limits and purges, and nothing else
//! of it. No spelling of a route's path escapes its limits, and one that is no other
//! route's own path leaves no old entries.

use std::cmp::{Ordering, Reverse};

use super::percent::decode;
use super::target::{foldings, normalise};
use super::template::PathValues;
use super::types::{PathTemplate, Policy, Route, Segment};

/// What the policy has for one request.
#[derive(Debug, Clone)]
pub struct Resolved<'p> {
    /// `None`: like every unmatched request.
    pub route: Option<&'p Route>,
    /// Of `route` in `Policy::routes`.
    pub index: Option<usize>,
    /// Whose limits count: `route`'s, or those of a more specific one that the origin
    /// may fold this path into. So no wildcard is a way around a strict limit.
    pub limited_as: Option<&'p Route>,
    /// Of `route`; percent-decoded, by placeholder; empty unless `exact`.
    pub values: PathValues,
    /// Of `limited_as`; empty when that is `route` by its own path.
    pub folded_values: PathValues,
    /// False: only the route's limits and purges apply, the request passes through.
    pub exact: bool,
    /// What goes to the origin: the normal form, or as sent when that is hostile.
    pub path: String,
}

impl Policy {
    /// The route of a request. Linear in the path; routes are few.
    #[inline]
    pub fn resolve(&self, method: &str, raw_path: &str) -> Resolved<'_> {
        let target = normalise(raw_path);
        let own = is_own(&target.path);
        let exact = match target.hostile || own {
            true => None,
            false => self.best(method, &target.path),
        };
        // Nothing is more specific than a path without placeholders.
        let may_fold = !own && exact.is_none_or(|index| self.has_placeholders(index));
        let paths = if may_fold {
            foldings(raw_path)
        } else {
            Vec::new()
        };
        let own_path = exact.map(|index| (index, &target.path));
        let folded = paths
            .iter()
            .filter_map(|path| Some((self.best(method, path)?, path)));
        // Of equals the first is taken, which is its own route.
        let limited_as = own_path
            .into_iter()
            .chain(folded)
            .min_by(|(a, _), (b, _)| self.specificity(*a, *b, method));
        let route = |at: Option<(usize, &String)>| self.routes.get(at?.0);
        let values = |at: Option<(usize, &String)>| {
            let (_, path) = at?;
            Some(values(&route(at)?.path, path))
        };
        let at = own_path.or(limited_as);
        // Most requests are for a route's own path: its values are read once.
        let elsewhere = limited_as.filter(|(index, _)| exact != Some(*index));
        Resolved {
            route: route(at),
            index: at.map(|(index, _)| index),
            values: values(own_path).unwrap_or_default(),
            limited_as: route(limited_as),
            folded_values: values(elsewhere).unwrap_or_default(),
            exact: exact.is_some(),
            path: target.path,
        }
    }

    /// Every route that matches a path in normal form, the most specific first.
    pub fn candidates(&self, method: &str, path: &str) -> Vec<&Route> {
        let segments = split(path);
        let mut found: Vec<usize> = Vec::new();
        for index in 0..self.routes.len() {
            if self.is_match(index, method, &segments) {
                let before = |other: &usize| self.specificity(*other, index, method).is_le();
                found.insert(found.partition_point(before), index);
            }
        }
        found
            .into_iter()
            .filter_map(|index| self.routes.get(index))
            .collect()
    }

    #[inline]
    fn best(&self, method: &str, path: &str) -> Option<usize> {
        let segments = split(path);
        (0..self.routes.len())
            .filter(|index| self.is_match(*index, method, &segments))
            .min_by(|a, b| self.specificity(*a, *b, method))
    }

    #[inline]
    fn is_match(&self, index: usize, method: &str, segments: &[&str]) -> bool {
        self.routes.get(index).is_some_and(|route| {
            takes_method(&route.methods, method).is_some() && matches(&route.path, segments)
        })
    }

    #[inline]
    fn has_placeholders(&self, index: usize) -> bool {
        self.routes
            .get(index)
            .is_some_and(|route| route.path.placeholders().next().is_some())
    }

    /// `Less`: the first is more specific.
    #[inline]
    fn specificity(&self, a: usize, b: usize, method: &str) -> Ordering {
        let (Some(a), Some(b)) = (self.routes.get(a), self.routes.get(b)) else {
            return Ordering::Equal;
        };
        let rank = |route: &Route| Reverse(takes_method(&route.methods, method));
        compare_paths(&a.path, &b.path).then_with(|| rank(a).cmp(&rank(b)))
    }
}

/// Answered without a token.
pub const HEALTH: &str = "/-/health";

/// Whether a path is Edgeweir's own.
#[inline]
pub fn is_own(path: &str) -> bool {
    path == "/-" || path.starts_with("/-/")
}

/// How well a list of methods fits one: 2 listed, 1 HEAD by GET, 0 by `*`.
#[inline]
pub fn takes_method(methods: &[String], method: &str) -> Option<u8> {
    let lists = |wanted: &str| methods.iter().any(|listed| listed == wanted);
    if lists(method) {
        Some(2)
    } else if method == "HEAD" && lists("GET") {
        Some(1)
    } else {
        methods.is_empty().then_some(0)
    }
}

/// `Less`: the first is more specific, for any path that both match. One slash more
/// at the end makes no difference, so that foldings can be compared too.
pub fn compare_paths(a: &PathTemplate, b: &PathTemplate) -> Ordering {
    ranks(a).cmp(ranks(b))
}

fn ranks(path: &PathTemplate) -> impl Iterator<Item = u8> {
    let open = path.segments.split_last().filter(|(last, _)| is_end(last));
    let segments = open.map_or(path.segments.as_slice(), |(_, before)| before);
    let ranks = segments.iter().map(|segment| match segment {
        Segment::Literal(_) => 0,
        Segment::One(_) => 1,
        Segment::Rest(_) => 2,
    });
    // The end itself, which beats a rest that is empty.
    ranks.chain([0])
}

fn is_end(segment: &Segment) -> bool {
    matches!(segment, Segment::Literal(text) if text.is_empty())
}

#[inline]
fn split(path: &str) -> Vec<&str> {
    let mut segments = Vec::with_capacity(8);
    segments.extend(path.strip_prefix('/').unwrap_or(path).split('/'));
    segments
}

#[inline]
fn matches(path: &PathTemplate, segments: &[&str]) -> bool {
    // Most routes are told apart by this alone.
    let is_open = matches!(path.segments.last(), Some(Segment::Rest(_)));
    if path.segments.len() != segments.len() && !is_open {
        return false;
    }
    let mut rest = segments.iter();
    for segment in &path.segments {
        let fits = match (segment, rest.next()) {
            (_, None) => false,
            (Segment::Rest(_), Some(_)) => return true,
            (Segment::One(_), Some(part)) => !part.is_empty(),
            (Segment::Literal(literal), Some(part)) => literal == part,
        };
        if !fits {
            return false;
        }
    }
    rest.next().is_none()
}

/// The values of a path's placeholders. A path in normal form decodes to UTF-8.
#[inline]
fn values(template: &PathTemplate, path: &str) -> PathValues {
    let mut values = PathValues::default();
    let mut rest = path.strip_prefix('/');
    for segment in &template.segments {
        let Some(here) = rest else { break };
        let (part, after) = match here.split_once('/') {
            Some((part, after)) => (part, Some(after)),
            None => (here, None),
        };
        let (name, value) = match segment {
            Segment::Literal(_) => {
                rest = after;
                continue;
            }
            Segment::One(name) => (name, part),
            Segment::Rest(name) => (name, here),
        };
        values.insert(name.clone(), decode(value, false).unwrap_or_default());
        rest = after;
    }
    values
}
