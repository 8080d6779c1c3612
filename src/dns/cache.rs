//! Answers of other name servers, for a short while. Pure: the time is given in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

const ENTRIES_MAX: usize = 4096;
/// Longer than this nobody is believed.
const TTL_SECONDS_MAX: u32 = 30;

/// What an answer depends on. Names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub name: Name,
    pub record_type: RecordType,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: HashMap<Question, Entry>,
}

#[derive(Debug)]
struct Entry {
    answer: Arc<Message>,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// The answer, and how long ago it came.
    pub fn get(&self, question: &Question, now: Instant) -> Option<(Arc<Message>, Duration)> {
        let entry = self.entries.get(question)?;
        (entry.until > now).then(|| (entry.answer.clone(), now.duration_since(entry.since)))
    }

    /// Keeps an answer for as long as it says, which may be not at all.
    pub fn put(&mut self, question: Question, answer: Arc<Message>, now: Instant) {
        let Some(seconds) = ttl_seconds(&answer).filter(|seconds| *seconds > 0) else { return };
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.retain(|_, entry| entry.until > now);
        }
        if self.entries.len() >= ENTRIES_MAX {
            // Everything is fresh: half of it makes room, whichever it is.
            let mut keep = false;
            self.entries.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        let until = now + Duration::from_secs(u64::from(seconds));
        self.entries.insert(question, Entry { answer, since: now, until });
    }
}

/// How long an answer may be kept; `None` for one that says nothing about it.
fn ttl_seconds(answer: &Message) -> Option<u32> {
    if answer.metadata.truncation {
        return None;
    }
    let records = answer.answers.iter().chain(&answer.authorities).chain(&answer.additionals).map(|record| record.ttl);
    let shortest = records.min();
    let negative = answer.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.minimum),
        _ => None,
    });
    let seconds = match answer.metadata.response_code {
        ResponseCode::NoError if !answer.answers.is_empty() => shortest?,
        ResponseCode::NoError | ResponseCode::NXDomain => shortest?.min(negative?),
        _ => return None,
    };
    Some(seconds.min(TTL_SECONDS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::A;

    fn question(n: usize) -> Question {
        Question {
            name: Name::from_ascii(format!("{n}.example.com.")).unwrap(),
            record_type: RecordType::A,
            dnssec_ok: false,
            checking_disabled: false,
        }
    }

    fn answer(ttl: u32) -> Arc<Message> {
        let mut message = Message::response(1, OpCode::Query);
        message.answers.push(Record::from_rdata(question(1).name, ttl, RData::A(A::new(192, 0, 2, 1))));
        Arc::new(message)
    }

    #[test]
    fn answers_are_kept_as_long_as_they_say_and_no_longer_than_we_believe() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.put(question(1), answer(10), now);
        cache.put(question(2), answer(3600), now);
        cache.put(question(3), answer(0), now);
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(cache.get(&question(1), after(9)).is_some());
        assert!(cache.get(&question(1), after(10)).is_none());
        assert!(cache.get(&question(2), after(29)).is_some());
        assert!(cache.get(&question(2), after(30)).is_none());
        assert!(cache.get(&question(3), now).is_none());
        let mut failure = Message::response(1, OpCode::Query);
        failure.metadata.response_code = ResponseCode::ServFail;
        cache.put(question(4), Arc::new(failure), now);
        assert!(cache.get(&question(4), now).is_none());
    }

    #[test]
    fn it_never_grows_beyond_its_bound() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for n in 0..3 * ENTRIES_MAX {
            cache.put(question(n), answer(30), now);
            assert!(cache.entries.len() <= ENTRIES_MAX);
        }
        assert!(cache.get(&question(3 * ENTRIES_MAX - 1), now).is_some());
    }
}
