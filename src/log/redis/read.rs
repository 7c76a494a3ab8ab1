//! Reading a page: always from the exact cursor, inclusively, so that a cursor that the log does
//! not have is noticed and never moved.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::RedisLog;
use super::bounds::{Known, KnownAnswer, Meta, add_known, known};
use super::fields::entries_of;
use super::gap::{Cursor, at_or_before, judge, lost, removed, rolled_back};
use super::keys::SessionKeys;
use super::link::Lane;
use crate::log::{GapReason, Page, PageLimits, Read, Unavailable};
use crate::session::{Entry, Offset, SessionId};

impl RedisLog {
    pub(super) async fn do_read(
        &self,
        session: &SessionId,
        after: Offset,
        limits: PageLimits,
    ) -> Result<Read, Unavailable> {
        let keys = self.keys.session(session);
        for _ in 0..2 {
            let (known, entries, server) = self.look(session, &keys, after, limits).await?;
            let meta = match known {
                Known::Live(meta) => meta,
                Known::Headless => {
                    self.mend(&keys).await?;
                    continue;
                }
                Known::Evicted(last) => return Ok(gone(after, last, GapReason::Trimmed)),
                Known::Expired(last) => return Ok(gone(after, last, GapReason::Expired)),
                Known::Erased | Known::Nothing => return Ok(Read::NotFound),
            };
            self.heard(meta.last);
            self.sizes.learn(session, &meta);
            if entries.first().is_some_and(|entry| entry.offset == after) {
                return Ok(Read::Page(Page { entries: cut(entries, 1, limits), tail: meta.last }));
            }
            return Ok(match judge(&meta, after) {
                Cursor::Exact => Read::Page(Page { entries: cut(entries, 0, limits), tail: meta.last }),
                Cursor::Lost(gap) => Read::Gap(gap),
                Cursor::Unknown => Read::Gap(rolled_back(&meta, after, &server)),
            });
        }
        Err(Unavailable::new("the session's meta could not be rebuilt"))
    }

    /// What stands at and after the cursor, then meta, and which server says so.
    ///
    /// Two looks, for a transaction is refused by a server that is full. The page comes first: what
    /// it shows is a slice of the log whatever happens next, and meta's tail is not before its end.
    async fn look(
        &self,
        session: &SessionId,
        keys: &SessionKeys,
        after: Offset,
        limits: PageLimits,
    ) -> Result<(Known, Vec<Arc<Entry>>, Arc<str>), Unavailable> {
        let count = self.sizes.count(session, limits) + 1;
        let mut pipeline = redis::pipe();
        pipeline.cmd("XRANGE").arg(&keys.log).arg(after.to_string()).arg("+").arg("COUNT").arg(count);
        add_known(&mut pipeline, keys);
        let request = |mut connection, identity| {
            let pipeline = &pipeline;
            async move { Ok((pipeline.query_async::<(redis::Value, _, _, _, _)>(&mut connection).await?, identity)) }
        };
        let ((page, time, meta, tomb, length), server) =
            self.servers.call(keys.slot, Lane::Pages, Some(&keys.ack), request).await?;
        let answer: KnownAnswer = (time, meta, tomb, length);
        Ok((known(answer)?, entries_of(page)?, server))
    }

    pub(super) async fn do_entry(
        &self,
        session: &SessionId,
        offset: Offset,
    ) -> Result<Option<Arc<Entry>>, Unavailable> {
        let keys = self.keys.session(session);
        let mut pipeline = redis::pipe();
        pipeline.cmd("XRANGE").arg(&keys.log).arg(offset.to_string()).arg(offset.to_string());
        let (found,): (redis::Value,) = self.servers.settled(keys.slot, Lane::Pages, &keys.ack, &pipeline).await?;
        Ok(entries_of(found)?.into_iter().next())
    }
}

/// A session without a log: whoever has all of it has missed nothing.
fn gone(after: Offset, last: Offset, reason: GapReason) -> Read {
    if after == last {
        Read::Page(Page { entries: Vec::new(), tail: last })
    } else if !at_or_before(after, last) {
        Read::Gap(lost(after, Offset::ZERO))
    } else {
        Read::Gap(removed(after, last, reason))
    }
}

/// Without the cursor's own entry, within the limits.
fn cut(entries: Vec<Arc<Entry>>, skip: usize, limits: PageLimits) -> Vec<Arc<Entry>> {
    let mut bytes = 0;
    let mut page: Vec<Arc<Entry>> = Vec::with_capacity(entries.len());
    for entry in entries.into_iter().skip(skip) {
        bytes += entry.record.size();
        if !page.is_empty() && (bytes > limits.bytes || page.len() >= limits.entries) {
            break;
        }
        page.push(entry);
    }
    page
}

/// How large the entries of the sessions read lately are, so that a page's worth is asked for and
/// not the largest session's. Only an estimate: the page is cut to its limits in any case.
#[derive(Default)]
pub(super) struct Sizes {
    average: Mutex<HashMap<SessionId, u64>>,
}

/// Sessions whose sizes are remembered; then all are forgotten.
const REMEMBERED: usize = 4096;
/// Entries asked for where nothing is known.
const FIRST_PAGE: u64 = 64;

impl Sizes {
    fn learn(&self, session: &SessionId, meta: &Meta) {
        let average = meta.bytes / meta.entries.max(1);
        let mut averages = self.average.lock().unwrap_or_else(PoisonError::into_inner);
        if averages.len() >= REMEMBERED {
            averages.clear();
        }
        averages.insert(session.clone(), average.max(1));
    }

    fn count(&self, session: &SessionId, limits: PageLimits) -> u64 {
        let averages = self.average.lock().unwrap_or_else(PoisonError::into_inner);
        let fit = averages.get(session).map_or(FIRST_PAGE, |average| limits.bytes as u64 / average + 1);
        fit.clamp(1, limits.entries.max(1) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Kind, Record};

    fn entry(seq: u64, bytes: usize) -> Arc<Entry> {
        let data = "x".repeat(bytes).into();
        let record = Record { kind: Kind::Event, run: None, source: None, event: None, id: None, data };
        Arc::new(Entry { offset: Offset::new(1, seq), record })
    }

    #[test]
    fn a_page_keeps_its_limits_but_always_holds_one_entry() {
        let entries = vec![entry(1, 10), entry(2, 600), entry(3, 600), entry(4, 10)];
        let limits = PageLimits { entries: 10, bytes: 500 };
        assert_eq!(cut(entries.clone(), 1, limits).len(), 1);
        assert_eq!(cut(entries.clone(), 0, limits).len(), 1);
        assert_eq!(cut(entries.clone(), 0, PageLimits { entries: 3, bytes: 5000 }).len(), 3);
        assert_eq!(cut(entries, 0, PageLimits { entries: 10, bytes: 610 }).len(), 2);
    }
}
