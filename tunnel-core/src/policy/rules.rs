//! What the rules of both ends have in common.

use serde::Deserialize;

use super::{
    pattern::{InvalidPattern, Pattern},
    target::HostRule,
};

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The stream may be opened.
    Allow,
    /// It may not.
    #[default]
    Deny,
}

/// A configured policy that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPolicy {
    /// A rule does.
    #[error("{rule}: {problem}")]
    Rule {
        /// Which one, by its name or its place.
        rule: String,
        /// What is wrong.
        problem: String,
    },
    /// Nothing says what is allowed.
    #[error("the policy has no rules: add one, or say `default = \"allow\"` or `default = \"deny\"`")]
    NoRules,
}

/// The configuration of a rule.
pub(super) trait Named {
    const KIND: &'static str;
    fn name(&self) -> &str;
}

/// Makes rules of their configuration, each called by its name or, without one, by its place.
pub(super) fn numbered<C: Named, R>(
    configs: Vec<C>,
    make: impl Fn(String, C) -> Result<R, InvalidPolicy>,
) -> Result<Vec<R>, InvalidPolicy> {
    let named = configs.into_iter().enumerate().map(|(at, config)| {
        let name = match config.name() {
            "" => format!("{} {}", C::KIND, at + 1),
            name => format!("{} {name:?}", C::KIND),
        };
        make(name, config)
    });
    named.collect()
}

/// The field `hosts`, or what is wrong with one of them.
pub(super) fn hosts(texts: &[String]) -> Result<Vec<HostRule>, String> {
    let hosts = texts.iter().map(|text| text.parse::<HostRule>());
    hosts
        .map(|host| host.map_err(|error| format!("`hosts`: {error}")))
        .collect()
}

/// Patterns of the field `field`, or what is wrong with one of them.
pub(super) fn patterns(field: &str, texts: &[String]) -> Result<Vec<Pattern>, String> {
    texts.iter().map(|text| pattern(field, text)).collect()
}

/// A pattern of the field `field`, or what is wrong with it.
pub(super) fn pattern(field: &str, text: &str) -> Result<Pattern, String> {
    text.parse()
        .map_err(|error: InvalidPattern| format!("`{field}`: {error}"))
}
