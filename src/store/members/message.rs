//! What members say to each other, and how it is written.
//!
//! A message stands for itself: it may be lost, or come late or out of order. Those of Raft may also come twice.

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::{LogId, Vote};
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use crate::codec::{Decode, Encode, Reader, put_bytes, put_u64};
use crate::command::{Command, Reply};
use crate::raft::{Id, Member, SnapshotMeta, TypeConfig};
use crate::types::{LeaseId, LeaseStatus};

/// Commands in one message.
const COMMANDS_MAX: usize = 4_096;

/// What one member asks of another.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<Id>),
    /// Would you vote for me? Asked before an election is begun, so that who was cut off disturbs nobody.
    Canvass {
        term: u64,
        last_log_id: Option<LogId<Id>>,
    },
    Snapshot(SnapshotPart),
    /// To the leader: do these.
    Forward {
        commands: Vec<Command>,
    },
    /// To the leader: how far must be applied for a read to be linearizable?
    ReadIndex,
    KeepAlive {
        id: LeaseId,
    },
    TimeToLive {
        id: LeaseId,
        keys: bool,
    },
    /// Stand for election at once: the leader steps down and the others expect you.
    Elect,
    /// To the leader: change who is in the group. To any member, unless it was passed on already.
    Change {
        change: Change,
        passed_on: bool,
    },
}

/// A part of a snapshot file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotPart {
    pub(crate) vote: Vote<Id>,
    pub(crate) meta: SnapshotMeta,
    pub(crate) offset: u64,
    pub(crate) content: Bytes,
    /// It is the last one.
    pub(crate) last: bool,
}

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// A new member, or a known one with another name or address. It votes once it has caught up.
    Join {
        id: Id,
        member: Member,
    },
    Remove {
        id: Id,
    },
}

#[derive(Debug)]
pub(crate) enum Response {
    Append(AppendEntriesResponse<Id>),
    Vote(VoteResponse<Id>),
    Canvass {
        granted: bool,
    },
    /// The vote of who received it, and how many bytes it has.
    Snapshot {
        vote: Vote<Id>,
        received: u64,
    },
    /// The answers in the order of the commands, and an index of the log at which they are applied.
    Forwarded {
        index: u64,
        answers: Vec<Result<Reply, Fault>>,
    },
    ReadIndex {
        index: u64,
    },
    KeepAlive {
        ttl_seconds: i64,
    },
    TimeToLive(LeaseStatus),
    Done,
    Failed(Fault),
}

macro_rules! kinds {
    ($($name:ident = $value:literal),* $(,)?) => { $(const $name: u8 = $value;)* };
}

kinds! {
    APPEND = 1, VOTE = 2, CANVASS = 3, SNAPSHOT = 4, FORWARD = 5, READ_INDEX = 6, KEEP_ALIVE = 7, TIME_TO_LIVE = 8,
    ELECT = 9, CHANGE = 10, DONE = 11, FAILED = 12,
}
kinds! { SUCCESS = 0, PARTIAL = 1, CONFLICT = 2, HIGHER_VOTE = 3 }

/// Small things with a JSON form, of which none is sent often.
fn put_json(out: &mut Vec<u8>, value: &impl Serialize) {
    put_bytes(out, &serde_json::to_vec(value).unwrap_or_default());
}

fn json<T: for<'a> Deserialize<'a>>(from: &mut Reader<'_>) -> Option<T> {
    serde_json::from_slice(from.bytes()?).ok()
}

fn flag(from: &mut Reader<'_>) -> Option<bool> {
    match from.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

impl Encode for Request {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Request::Append(append) => {
                out.push(APPEND);
                append.vote.encode(out);
                append.prev_log_id.encode(out);
                append.leader_commit.encode(out);
                append.entries.encode(out);
            }
            Request::Vote(vote) => {
                out.push(VOTE);
                vote.vote.encode(out);
                vote.last_log_id.encode(out);
            }
            Request::Canvass { term, last_log_id } => {
                out.push(CANVASS);
                put_u64(out, *term);
                last_log_id.encode(out);
            }
            Request::Snapshot(part) => {
                out.push(SNAPSHOT);
                part.vote.encode(out);
                put_json(out, &part.meta);
                put_u64(out, part.offset);
                part.content.encode(out);
                out.push(u8::from(part.last));
            }
            Request::Forward { commands } => {
                out.push(FORWARD);
                commands.encode(out);
            }
            Request::ReadIndex => out.push(READ_INDEX),
            Request::KeepAlive { id } => {
                out.push(KEEP_ALIVE);
                id.encode(out);
            }
            Request::TimeToLive { id, keys } => {
                out.push(TIME_TO_LIVE);
                id.encode(out);
                out.push(u8::from(*keys));
            }
            Request::Elect => out.push(ELECT),
            Request::Change { change, passed_on } => {
                out.push(CHANGE);
                put_json(out, change);
                out.push(u8::from(*passed_on));
            }
        }
    }
}

impl Decode for Request {
    fn decode(from: &mut Reader<'_>) -> Option<Request> {
        Some(match from.u8()? {
            APPEND => {
                let (vote, prev_log_id) = (Vote::decode(from)?, Option::decode(from)?);
                let (leader_commit, entries) = (Option::decode(from)?, Vec::decode(from)?);
                Request::Append(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
            }
            VOTE => Request::Vote(VoteRequest { vote: Vote::decode(from)?, last_log_id: Option::decode(from)? }),
            CANVASS => Request::Canvass { term: from.u64()?, last_log_id: Option::decode(from)? },
            SNAPSHOT => Request::Snapshot(SnapshotPart {
                vote: Vote::decode(from)?,
                meta: json(from)?,
                offset: from.u64()?,
                content: Bytes::decode(from)?,
                last: flag(from)?,
            }),
            FORWARD => {
                let commands: Vec<Command> = Vec::decode(from)?;
                if commands.len() > COMMANDS_MAX {
                    return None;
                }
                Request::Forward { commands }
            }
            READ_INDEX => Request::ReadIndex,
            KEEP_ALIVE => Request::KeepAlive { id: i64::decode(from)? },
            TIME_TO_LIVE => Request::TimeToLive { id: i64::decode(from)?, keys: flag(from)? },
            ELECT => Request::Elect,
            CHANGE => Request::Change { change: json(from)?, passed_on: flag(from)? },
            _ => return None,
        })
    }
}

impl Encode for Response {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Response::Append(append) => {
                out.push(APPEND);
                match append {
                    AppendEntriesResponse::Success => out.push(SUCCESS),
                    AppendEntriesResponse::PartialSuccess(matching) => {
                        out.push(PARTIAL);
                        matching.encode(out);
                    }
                    AppendEntriesResponse::Conflict => out.push(CONFLICT),
                    AppendEntriesResponse::HigherVote(vote) => {
                        out.push(HIGHER_VOTE);
                        vote.encode(out);
                    }
                }
            }
            Response::Vote(vote) => {
                out.push(VOTE);
                vote.vote.encode(out);
                out.push(u8::from(vote.vote_granted));
                vote.last_log_id.encode(out);
            }
            Response::Canvass { granted } => {
                out.push(CANVASS);
                out.push(u8::from(*granted));
            }
            Response::Snapshot { vote, received } => {
                out.push(SNAPSHOT);
                vote.encode(out);
                put_u64(out, *received);
            }
            Response::Forwarded { index, answers } => {
                out.push(FORWARD);
                put_u64(out, *index);
                answers.encode(out);
            }
            Response::ReadIndex { index } => {
                out.push(READ_INDEX);
                put_u64(out, *index);
            }
            Response::KeepAlive { ttl_seconds } => {
                out.push(KEEP_ALIVE);
                ttl_seconds.encode(out);
            }
            Response::TimeToLive(status) => {
                out.push(TIME_TO_LIVE);
                status.id.encode(out);
                status.granted_seconds.encode(out);
                status.remaining_seconds.encode(out);
                status.keys.encode(out);
            }
            Response::Done => out.push(DONE),
            Response::Failed(fault) => {
                out.push(FAILED);
                fault.encode(out);
            }
        }
    }
}

impl Decode for Response {
    fn decode(from: &mut Reader<'_>) -> Option<Response> {
        Some(match from.u8()? {
            APPEND => Response::Append(match from.u8()? {
                SUCCESS => AppendEntriesResponse::Success,
                PARTIAL => AppendEntriesResponse::PartialSuccess(Option::decode(from)?),
                CONFLICT => AppendEntriesResponse::Conflict,
                HIGHER_VOTE => AppendEntriesResponse::HigherVote(Vote::decode(from)?),
                _ => return None,
            }),
            VOTE => Response::Vote(VoteResponse {
                vote: Vote::decode(from)?,
                vote_granted: flag(from)?,
                last_log_id: Option::decode(from)?,
            }),
            CANVASS => Response::Canvass { granted: flag(from)? },
            SNAPSHOT => Response::Snapshot { vote: Vote::decode(from)?, received: from.u64()? },
            FORWARD => Response::Forwarded { index: from.u64()?, answers: Vec::decode(from)? },
            READ_INDEX => Response::ReadIndex { index: from.u64()? },
            KEEP_ALIVE => Response::KeepAlive { ttl_seconds: i64::decode(from)? },
            TIME_TO_LIVE => Response::TimeToLive(LeaseStatus {
                id: i64::decode(from)?,
                granted_seconds: i64::decode(from)?,
                remaining_seconds: i64::decode(from)?,
                keys: Vec::decode(from)?,
            }),
            DONE => Response::Done,
            FAILED => Response::Failed(Fault::decode(from)?),
            _ => return None,
        })
    }
}

impl Encode for Result<Reply, Fault> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_ok()));
        match self {
            Ok(reply) => reply.encode(out),
            Err(fault) => fault.encode(out),
        }
    }
}

impl Decode for Result<Reply, Fault> {
    fn decode(from: &mut Reader<'_>) -> Option<Result<Reply, Fault>> {
        Some(if flag(from)? { Ok(Reply::decode(from)?) } else { Err(Fault::decode(from)?) })
    }
}
