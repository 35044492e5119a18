//! The agent that the client named.

use super::{Candidates, RouteRequest, Strategy};
use crate::{opener::Selector, registry::View};

/// Takes requests that name an agent, and that agent alone.
#[derive(Clone, Copy, Debug)]
pub struct ByAgentId;

impl Strategy for ByAgentId {
    fn name(&self) -> &'static str {
        "agent-id"
    }

    fn candidates<'v>(&self, request: &RouteRequest<'_>, view: &'v View) -> Option<Candidates<'v>> {
        match request.selector {
            Selector::Agent(agent) => Some(Candidates::These(view.get(agent).into_iter().collect())),
            _ => None,
        }
    }
}
