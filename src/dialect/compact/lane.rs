//! The deltas of one run: those of the block that is open, and what the next one would have to look like.

use std::ops::Range;
use std::sync::Arc;

use bytestring::ByteString;

use super::compactor::Placed;
use super::shape::Shape;
use super::template::Template;
use crate::dialect::Dialect;
use crate::session::{Record, RunId};

/// See the module.
pub(super) struct Lane<T> {
    pub(super) run: RunId,
    dialect: Arc<Dialect>,
    event: Option<ByteString>,
    source: Option<ByteString>,
    shape: Shape,
    template: Template,
    /// The newest member; `None`: the run has none in the open block.
    newest: Option<T>,
    members: usize,
    /// The members' texts, joined, by their places in the event.
    joined: Vec<String>,
    /// The upstream's id after the newest member, where a member has changed it.
    id: Option<ByteString>,
}

/// How an event relates to the ones before it.
pub(super) enum Fit {
    /// It is of the same shape; its texts are where the caller wanted them.
    Same,
    /// It is a delta of another shape.
    Other(Shape),
    /// It is no delta.
    Structural,
}

impl<T: Placed> Lane<T> {
    pub(super) fn new(run: RunId, dialect: Arc<Dialect>, shape: Shape, record: &Record) -> Self {
        let template = Template::new(&shape);
        let (event, source) = (record.event.clone(), record.source.clone());
        let joined = vec![String::new(); shape.texts.len()];
        Lane { run, dialect, event, source, shape, template, newest: None, members: 0, joined, id: None }
    }

    /// Whether `record` may be one with the members; puts its texts' places into `texts`.
    pub(super) fn fit(&mut self, record: &Record, texts: &mut Vec<Range<usize>>) -> Fit {
        let alike = record.event == self.event && record.source == self.source;
        if alike && !self.shape.is_latest() && self.template.fits(&record.data, texts) {
            return Fit::Same;
        }
        let Some(shape) = Shape::of(&self.dialect, record.event.as_deref(), &record.data) else {
            return Fit::Structural;
        };
        if !alike || shape.form != self.shape.form {
            return Fit::Other(shape);
        }
        self.template.learn(&shape);
        texts.clone_from(&shape.texts);
        Fit::Same
    }

    /// Takes deltas of another shape from now on. It has no members.
    pub(super) fn turn(&mut self, shape: Shape, record: &Record) {
        let (run, dialect) = (self.run.clone(), self.dialect.clone());
        *self = Lane::new(run, dialect, shape, record);
    }

    /// The places of the texts of the event that the shape was taken from.
    pub(super) fn texts(&self) -> &[Range<usize>] {
        &self.shape.texts
    }

    /// Whether it has members in the open block.
    pub(super) fn is_open(&self) -> bool {
        self.newest.is_some()
    }

    /// How much longer the merged data would be with this event.
    pub(super) fn growth(&self, record: &Record, texts: &[Range<usize>]) -> usize {
        match (&self.newest, self.shape.is_latest()) {
            (Some(newest), true) => record.data.len().saturating_sub(newest.entry().record.data.len()),
            (Some(_), false) => texts.iter().map(Range::len).sum(),
            (None, _) => record.data.len(),
        }
    }

    /// Takes a member, which fits.
    pub(super) fn take(&mut self, item: T, texts: &[Range<usize>]) {
        let record = &item.entry().record;
        for (joined, text) in self.joined.iter_mut().zip(texts) {
            joined.push_str(&record.data[text.clone()]);
        }
        if record.id.is_some() {
            self.id.clone_from(&record.id);
        }
        self.members += 1;
        self.newest = Some(item);
    }

    /// Ends its part of the block: its newest member as it came, and all of them as one record. `None`: it
    /// had no member.
    pub(super) fn close(&mut self, texts: &mut Vec<Range<usize>>) -> Option<(T, Record)> {
        let newest = self.newest.take()?;
        let mut record = newest.entry().record.clone();
        record.id = self.id.take();
        if self.members > 1 && !self.shape.is_latest() {
            let fits = self.template.fits(&record.data, texts);
            debug_assert!(fits, "the template was learned from the newest member, or has recognised it");
            record.data = merged(&record.data, texts, &self.joined).into();
        }
        self.members = 0;
        self.joined.iter_mut().for_each(|joined| *joined = String::new());
        Some((newest, record))
    }
}

/// `data` with other texts.
fn merged(data: &str, places: &[Range<usize>], texts: &[String]) -> String {
    let mut out = String::with_capacity(data.len() + texts.iter().map(String::len).sum::<usize>());
    let mut at = 0;
    for (place, text) in places.iter().zip(texts) {
        out.push_str(&data[at..place.start]);
        out.push_str(text);
        at = place.end;
    }
    out.push_str(&data[at..]);
    out
}
