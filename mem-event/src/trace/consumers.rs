//! What the world outside did to ring pages before a step, done again.

use super::engine::Engine;
use crate::control::{Control, Ring};
use crate::domain::Domain;
use crate::effect::{Effects, Outcome};
use crate::input::{Input, With};
use crate::page::RingPage;
use crate::ring::Back;
use crate::taken::{self, Taken};

/// A consumer for each ring that answers what was recorded.
#[derive(Debug, Default)]
pub struct RecordedConsumers {
    rings: [Option<Back>; 3],
    /// The one of the ring that the step at hand enables.
    next: Option<(Ring, Back)>,
}

impl RecordedConsumers {
    /// One step with what it took from ring pages when it was recorded; effects are appended.
    ///
    /// # Errors
    /// A sentence, where it takes from a ring that is not there: such a step cannot come from a run.
    pub fn step(
        &mut self,
        engine: &mut impl Engine,
        input: &Input,
        taken: &[u8],
        effects: &mut Effects,
    ) -> Result<Outcome, String> {
        let page = self.prepare(input, taken)?;
        let outcome = engine.apply(input, With { page: page.as_ref(), ..With::NOTHING }, effects);
        self.settle(matches!(outcome, Outcome::Refused(..)));
        Ok(outcome)
    }

    /// The consumers of a domain that was restored.
    pub(super) fn of(domain: &Domain) -> RecordedConsumers {
        let back = |ring| {
            let view = domain.ring(ring);
            Back::new(domain.ring_page(ring)?.clone(), ring, view.layout, view.slots).ok()
        };
        RecordedConsumers { rings: Ring::ALL.map(back), next: None }
    }

    /// Before a step: responses in the rings that are enabled, and the page of one that the step enables.
    ///
    /// # Errors
    /// A sentence, where the step takes from a ring that is not there.
    pub(super) fn prepare(&mut self, input: &Input, taken: &[u8]) -> Result<Option<RingPage>, String> {
        for record in taken::records(taken) {
            let (Taken::Slot(ring, _) | Taken::Broken(ring, _)) = record;
            let back = self.rings[ring.index()]
                .as_mut()
                .ok_or_else(|| format!("something was taken from the {ring} ring, which nobody enabled"))?;
            match record {
                Taken::Slot(_, bytes) => back.answer_raw(bytes),
                Taken::Broken(_, rsp_prod) => back.set_rsp_prod(rsp_prod),
            }
        }
        let Input::Control(Control::Enable { ring, layout, slots }) = *input else { return Ok(None) };
        let page = RingPage::heap();
        // None if the engine will refuse this number of slots.
        self.next = Back::init(page.clone(), ring, layout, slots).ok().map(|back| (ring, back));
        Ok(Some(page))
    }

    /// After the step.
    #[inline]
    pub(super) fn settle(&mut self, refused: bool) {
        if let Some((ring, back)) = self.next.take()
            && !refused
        {
            self.rings[ring.index()] = Some(back);
        }
    }
}
