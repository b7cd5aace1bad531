//! A frame that comes back with another content than it was evicted with, where the trace holds digests of contents: the pager mixes frames
//! up, or brings an older content back.

use super::finding::{Finding, Found};
use super::rule::{End, Moment, Rule};
use crate::trace::contents::Contents;
use crate::trace::story::consumer;
use mem_event::Ring;

#[derive(Debug)]
struct ChangedContents {
    found: Found,
    contents: Contents,
}

pub(super) fn rule() -> Box<dyn Rule> {
    let remedy = "bring each frame back as it was when it was evicted; a pager that changes contents on purpose runs with contents=own";
    Box::new(ChangedContents { found: Found::new("changed-contents", remedy), contents: Contents::default() })
}

impl Rule for ChangedContents {
    fn step(&mut self, moment: &Moment<'_>) {
        moment.remarks.iter().for_each(|remarked| self.contents.remark(&remarked.remark));
        self.contents.step(moment.number, moment.step);
    }

    fn end(&mut self, end: &End<'_>) -> Vec<Finding> {
        end.remarks.iter().for_each(|remarked| self.contents.remark(&remarked.remark));
        for changed in self.contents.changed(end.symbols) {
            let what = || (changed.to_string(), vec![changed.evicted.0, changed.loaded.0]);
            self.found.add(consumer(Ring::Paging).to_owned(), Some(changed.connection), end.story, what);
        }
        self.found.take()
    }
}
