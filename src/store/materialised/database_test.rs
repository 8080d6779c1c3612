//! The database against the oracle, and with its files damaged.

use bytes::Bytes;

use super::memory::Memory;
use super::{Checkpoint, Database, Header, Materialised, load};
use crate::command::Command;
use crate::raft::Applied;
use crate::state::{Changes, Record, State};
use crate::types::{KeyRange, Op, Txn};

fn checkpoint(state: &mut State) -> Checkpoint {
    let header = Header {
        applied: Applied::default(),
        revision: state.revision(),
        compacted: state.compacted(),
        hash: state.hash(),
        leases: state.leases(),
    };
    match state.take_changes() {
        Changes::Everything => Checkpoint { header, put: state.records(), remove: Vec::new(), whole: true },
        Changes::Some { put, remove, .. } => {
            Checkpoint { header, put: put.iter().map(|event| Record::of(event)).collect(), remove, whole: false }
        }
    }
}

fn put(state: &mut State, key: String, bytes: usize) {
    state.apply(&Command::Txn(Txn::put(key, Bytes::from(vec![bytes as u8; bytes]))));
}

fn changed_state(round: usize, state: &mut State) {
    for at in 0..60 {
        put(state, format!("{}", (at * 7 + round) % 90), (at * 331) % 20_000);
    }
    let ops = vec![Op::delete(KeyRange::prefix(format!("{round}"))), Op::put("x", "y")];
    state.apply(&Command::Txn(Txn { success: ops, ..Txn::default() }));
    if round % 2 == 1 {
        state.apply(&Command::Compact { revision: state.revision() - 20 });
    }
}

#[test]
fn the_database_holds_what_the_oracle_holds_after_every_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = Database::new(dir.path().join("sled"));
    let mut memory = Memory::default();
    let mut state = State::default();
    assert!(load(&mut database).is_none());
    for round in 0..6 {
        changed_state(round, &mut state);
        let next = checkpoint(&mut state);
        assert_eq!(next.whole, round == 0);
        memory.checkpoint(next.clone()).unwrap();
        database.checkpoint(next).unwrap();
        let (want_header, want) = memory.load().unwrap().unwrap();
        let (header, got) = database.load().unwrap().unwrap();
        assert_eq!(header, want_header);
        assert_eq!(got.records(), want.records());
        assert_eq!((got.records(), got.hash(), got.bytes()), (state.records(), state.hash(), state.bytes()));
    }
}

#[test]
fn a_damaged_database_is_noticed_or_whole_and_never_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sled");
    let mut state = State::default();
    changed_state(1, &mut state);
    Database::new(path.clone()).checkpoint(checkpoint(&mut state)).unwrap();
    let content = std::fs::read(path.join("db")).unwrap();
    let conf = std::fs::read(path.join("conf")).unwrap();
    let mut noticed = 0;
    for at in (0..content.len()).step_by(content.len() / 24) {
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        let mut damaged = content.clone();
        damaged[at] ^= 0x55;
        std::fs::write(path.join("db"), damaged).unwrap();
        std::fs::write(path.join("conf"), &conf).unwrap();
        match load(&mut Database::new(path.clone())) {
            None => noticed += 1,
            Some((_, loaded)) => assert_eq!(loaded.records(), state.records(), "damage at {at}"),
        }
    }
    assert!(noticed > 0);
}

#[test]
fn changes_are_lost_track_of_when_there_are_too_many() {
    let mut state = State::default();
    put(&mut state, "a".into(), 1);
    assert!(matches!(state.take_changes(), Changes::Everything));
    put(&mut state, "a".into(), 2);
    assert!(matches!(state.take_changes(), Changes::Some { put, .. } if put.len() == 1));
    state.forget_changes();
    assert!(matches!(state.take_changes(), Changes::Everything));
}
