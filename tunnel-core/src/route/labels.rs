//! The agents with the labels that the client named.

use super::{Candidates, RouteRequest, Strategy};
use crate::{opener::Selector, registry::View};

/// Takes requests that name labels, and every agent that has all of them.
#[derive(Clone, Copy, Debug)]
pub struct ByLabels;

impl Strategy for ByLabels {
    fn name(&self) -> &'static str {
        "labels"
    }

    fn candidates<'v>(&self, request: &RouteRequest<'_>, view: &'v View) -> Option<Candidates<'v>> {
        match request.selector {
            Selector::Labels(wanted) => {
                let having = view
                    .sessions()
                    .iter()
                    .filter(|session| session.labels().contains_all(wanted));
                Some(Candidates::These(having.collect()))
            }
            _ => None,
        }
    }
}
