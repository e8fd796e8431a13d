//! Decides: answers of the machine's resolvers, kept for a short while.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::time::Instant;

/// As CoreDNS in clusters.
const TTL_LIMIT: Duration = Duration::from_secs(30);
const ENTRIES: usize = 1000;
/// Larger answers are not kept, bytes.
const ENTRY_LIMIT: usize = 4096;

/// What makes two questions the same. Flags matter because answers with and without signatures differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    name: Name,
    kind: RecordType,
    class: u16,
    dnssec_ok: bool,
    checking_disabled: bool,
}

impl Question {
    /// `None` for a message that does not ask exactly one thing.
    #[must_use]
    pub fn of(request: &Message) -> Option<Self> {
        let [query] = request.queries.as_slice() else { return None };
        Some(Self {
            name: query.name().to_lowercase(),
            kind: query.query_type(),
            class: query.query_class().into(),
            dnssec_ok: request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
            checking_disabled: request.metadata.checking_disabled,
        })
    }
}

/// Forgets the oldest answer when it is full.
#[derive(Default)]
pub struct Cache {
    answers: HashMap<Question, (Instant, Instant, Vec<u8>)>,
    order: VecDeque<Question>,
}

impl Cache {
    /// The answer to `request`, with the time that passed taken off.
    pub fn get(&mut self, question: &Question, request: &Message, now: Instant) -> Option<Message> {
        let (stored, until, bytes) = self.answers.get(question)?;
        if *until <= now {
            return None;
        }
        let age = u32::try_from(now.duration_since(*stored).as_secs()).unwrap_or(u32::MAX);
        let mut response = Message::from_vec(bytes).ok()?;
        response.metadata.id = request.metadata.id;
        response.queries.clone_from(&request.queries);
        if request.edns.is_none() {
            response.edns = None;
        }
        for record in response.answers.iter_mut().chain(&mut response.authorities).chain(&mut response.additionals) {
            record.decrement_ttl(age);
        }
        Some(response)
    }

    pub fn put(&mut self, question: Question, bytes: &[u8], now: Instant) {
        let Some(ttl) = Message::from_vec(bytes).ok().and_then(|response| lifetime(&response)) else { return };
        if bytes.len() > ENTRY_LIMIT {
            return;
        }
        if self.answers.insert(question.clone(), (now, now + ttl, bytes.to_vec())).is_none() {
            self.order.push_back(question);
        }
        while self.order.len() > ENTRIES {
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }
}

/// `None` for what must not be kept.
fn lifetime(response: &Message) -> Option<Duration> {
    let keeps = matches!(response.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
    if !keeps || response.metadata.truncation {
        return None;
    }
    // A denial lives as long as the zone says in its SOA record (RFC 2308).
    let shortest = response.answers.iter().chain(&response.authorities).map(|record| record.ttl).min()?;
    (shortest > 0).then(|| TTL_LIMIT.min(Duration::from_secs(shortest.into())))
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{RData, Record};

    use super::*;

    fn request(name: &str, id: u16) -> Message {
        let mut request = Message::new(id, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        request
    }

    fn response(name: &str, ttl: u32) -> Vec<u8> {
        let mut response = request(name, 1);
        response.metadata.message_type = MessageType::Response;
        let data = RData::A(A::new(192, 0, 2, 1));
        response.add_answer(Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, data));
        response.to_vec().unwrap()
    }

    #[test]
    fn an_answer_ages_and_ends() {
        let (mut cache, now) = (Cache::default(), crate::clock::instant());
        let ask = request("Example.org.", 7);
        let question = Question::of(&ask).unwrap();
        cache.put(Question::of(&request("example.ORG.", 1)).unwrap(), &response("example.ORG.", 20), now);
        let found = cache.get(&question, &ask, now + Duration::from_secs(5)).unwrap();
        assert_eq!((found.metadata.id, found.answers[0].ttl), (7, 15));
        assert_eq!(found.queries, ask.queries, "spelled as asked");
        assert!(cache.get(&question, &ask, now + Duration::from_secs(20)).is_none());
    }

    #[test]
    fn long_lives_are_cut_and_the_number_is_bounded() {
        let (mut cache, now) = (Cache::default(), crate::clock::instant());
        for n in 0..=ENTRIES {
            let name = format!("n{n}.example.org.");
            cache.put(Question::of(&request(&name, 1)).unwrap(), &response(&name, 86_400), now);
        }
        assert_eq!((cache.answers.len(), cache.order.len()), (ENTRIES, ENTRIES));
        let last = request(&format!("n{ENTRIES}.example.org."), 1);
        let question = Question::of(&last).unwrap();
        assert!(cache.get(&question, &last, now + Duration::from_secs(29)).is_some());
        assert!(cache.get(&question, &last, now + Duration::from_secs(30)).is_none());
    }
}
