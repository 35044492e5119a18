//! Any agent.

use super::{Candidates, RouteRequest, Strategy};
use crate::{opener::Selector, registry::View};

/// Takes requests that leave the agent to the server, and every agent there is.
#[derive(Clone, Copy, Debug)]
pub struct ByDefault;

impl Strategy for ByDefault {
    fn name(&self) -> &'static str {
        "default"
    }

    fn candidates<'v>(&self, request: &RouteRequest<'_>, view: &'v View) -> Option<Candidates<'v>> {
        matches!(request.selector, Selector::Any).then(|| Candidates::All(view.sessions()))
    }
}
