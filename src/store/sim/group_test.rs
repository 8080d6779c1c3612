//! Groups that grow, shrink, lose members and get them back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{World, run};
use crate::{Error, KeyRange, MemberRole, Range, Store, Txn};

async fn put(store: &Store, key: &str, value: &str) -> Result<u64, Error> {
    store.txn(Txn::put(key.to_owned(), value.to_owned())).await.map(|outcome| outcome.revision)
}

async fn get(store: &Store, key: &str) -> Option<String> {
    store.read_index().await.unwrap();
    let found = store.range(&Range::all(KeyRange::key(key.to_owned()))).unwrap();
    found.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

fn voters(store: &Store) -> usize {
    store.members().iter().filter(|member| member.role != MemberRole::Learner).count()
}

/// A group of so many voters; the first one leads.
async fn group(seed: u64, members: usize) -> World {
    let mut world = World::new(seed);
    for at in 0..members {
        let node = world.add(&format!("n{at}"));
        if at > 0 {
            world.nodes[node].join = vec!["n0:2380".to_owned()];
        }
        world.nodes[node].start().await.unwrap();
        wait("it votes", || voters(world.nodes[0].store()) == at + 1).await;
    }
    world
}

async fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < until, "{what} takes too long");
        sleep(Duration::from_millis(5)).await;
    }
}

fn leader(world: &World) -> Option<usize> {
    world.nodes.iter().position(|node| node.store.as_ref().is_some_and(|store| store.leading().borrow().here))
}

#[test]
fn a_group_grows_to_five_and_shrinks_to_one_while_clients_write() {
    run(0, async {
        let mut world = group(1, 1).await;
        let first = world.nodes[0].store().clone();
        let stop = task::Shutdown::new();
        let (writing, stopped) = (first.clone(), stop.clone());
        let writer = task::spawn("writer", async move {
            let mut written = 0;
            while !stopped.is_cancelled() {
                put(&writing, "counter", &written.to_string()).await.unwrap();
                written += 1;
                sleep(Duration::from_millis(3)).await;
            }
            written
        });
        for at in 1..5 {
            let node = world.add(&format!("n{at}"));
            world.nodes[node].join = vec![format!("n{}:2380", at - 1)];
            world.nodes[node].start().await.unwrap();
            wait("the member votes", || voters(&first) == at + 1).await;
        }
        // Everyone takes writes and reads what was written elsewhere.
        for at in 0..5 {
            put(world.nodes[at].store(), "who", &at.to_string()).await.unwrap();
            assert_eq!(get(world.nodes[(at + 1) % 5].store(), "who").await.unwrap(), at.to_string());
        }
        for at in (1..5).rev() {
            let id = world.nodes[at].store().id();
            world.nodes[at - 1].store().remove_member(id).await.unwrap();
            world.nodes[at].stop().await;
        }
        assert_eq!(voters(&first), 1);
        assert!(matches!(first.remove_member(first.id()).await, Err(Error::Unchangeable)));
        stop.cancel();
        let written = writer.await.unwrap().unwrap();
        assert!(written > 100);
        assert_eq!(get(&first, "counter").await.unwrap(), (written - 1).to_string());
        // Alone again, it is a group of one.
        world.nodes[0].stop().await;
        let first = world.nodes[0].start().await.unwrap();
        put(&first, "alone", "1").await.unwrap();
    });
}

#[test]
fn writes_go_on_within_two_seconds_of_a_leaders_death() {
    for seed in 0..20 {
        run(seed, async {
            let mut world = group(seed, 3).await;
            put(world.nodes[1].store(), "k", "before").await.unwrap();
            sleep(Duration::from_millis(seed * 37)).await;
            world.nodes[0].crash();
            let died = Instant::now();
            put(world.nodes[1].store(), "k", "after").await.unwrap();
            assert!(died.elapsed() < Duration::from_secs(2), "seed {seed}: {:?}", died.elapsed());
            assert_eq!(get(world.nodes[2].store(), "k").await.unwrap(), "after");
            // It comes back with what it had and gets the rest.
            let back = world.nodes[0].start().await.unwrap();
            assert_eq!(get(&back, "k").await.unwrap(), "after");
        });
    }
}

#[test]
fn a_planned_stop_hands_over_within_a_tenth_of_a_second() {
    for seed in 0..20 {
        run(seed, async {
            let mut world = group(seed, 3).await;
            for at in 0..20 {
                put(world.nodes[2].store(), "k", &at.to_string()).await.unwrap();
            }
            let other = world.nodes[1].store().clone();
            let began = Instant::now();
            let stopping = world.nodes[0].stop();
            let writing = async {
                put(&other, "k", "handed over").await.unwrap();
                began.elapsed()
            };
            let ((), took) = tokio::join!(stopping, writing);
            assert!(took < Duration::from_millis(100), "seed {seed}: {took:?}");
            assert!(leader(&world).is_some_and(|at| at != 0));
        });
    }
}

#[test]
fn without_a_majority_writes_and_reads_are_refused_in_time() {
    run(0, async {
        let mut world = group(3, 3).await;
        put(world.nodes[0].store(), "k", "1").await.unwrap();
        world.nodes[1].crash();
        world.nodes[2].crash();
        let began = Instant::now();
        let first = put(world.nodes[0].store(), "k", "2").await;
        assert!(matches!(first, Err(Error::Unknown | Error::NoQuorum)), "{first:?}");
        assert!(began.elapsed() < Duration::from_secs(8));
        let began = Instant::now();
        let second = put(world.nodes[0].store(), "k", "3").await;
        assert!(matches!(second, Err(Error::NoQuorum | Error::NotLeader)), "{second:?}");
        assert!(world.nodes[0].store().read_index().await.is_err());
        assert!(began.elapsed() < Duration::from_secs(12));
        assert!(!world.nodes[0].store().leading().borrow().here);
        world.nodes[1].start().await.unwrap();
        wait("somebody leads", || leader(&world).is_some()).await;
        put(world.nodes[0].store(), "k", "4").await.unwrap();
    });
}

#[test]
fn a_member_that_was_cut_off_disturbs_nobody_when_it_comes_back() {
    run(0, async {
        let world = group(4, 3).await;
        let term = world.nodes[0].store().leading().borrow().term;
        world.network.isolate("n2", &["n0", "n1"]);
        for at in 0..100 {
            put(world.nodes[1].store(), "k", &at.to_string()).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        world.network.heal();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(world.nodes[0].store().leading().borrow().term, term);
        assert_eq!(get(world.nodes[2].store(), "k").await.unwrap(), "99");
    });
}

#[test]
fn a_member_far_behind_catches_up_by_snapshot() {
    run(0, async {
        let mut world = group(5, 1).await;
        let first = world.nodes[0].store().clone();
        for at in 0..3_000 {
            put(&first, &format!("k{at:04}"), "value").await.unwrap();
        }
        first.lease_grant(Some(7), 600).await.unwrap();
        first.inner.raft.trigger().snapshot().await.unwrap();
        let purged = first.inner.raft.wait(Some(Duration::from_secs(10)));
        purged.metrics(|metrics| metrics.purged.is_some(), "purged").await.unwrap();
        let node = world.add("n1");
        world.nodes[node].join = vec!["n0:2380".to_owned()];
        let second = world.nodes[node].start().await.unwrap();
        wait("it votes", || voters(&first) == 2).await;
        assert_eq!(get(&second, "k2999").await.unwrap(), "value");
        assert!(second.inner.snapshots.current().is_some());
        let hash = |store: &Store| store.inner.watched.with(|state, _| (state.revision(), state.hash()));
        assert_eq!(hash(&first), hash(&second));
        assert_eq!(second.leases(), first.leases());
        assert_eq!(second.lease_keep_alive(7).await.unwrap(), 600);
        assert_eq!(second.lease_time_to_live(7, true).await.unwrap().granted_seconds, 600);
    });
}

#[test]
fn a_wiped_member_comes_back_as_another_one_and_an_address_may_change() {
    run(0, async {
        let mut world = group(6, 3).await;
        let old = world.nodes[2].store().id();
        world.nodes[2].crash();
        world.nodes[2].disk = Default::default();
        world.nodes[2].join = vec!["n1:2380".to_owned()];
        let back = world.nodes[2].start().await.unwrap();
        assert_ne!(back.id(), old);
        let first = world.nodes[0].store().clone();
        wait("the new one replaces the old", || {
            let members = first.members();
            members.len() == 3 && members.iter().all(|member| member.id != old && member.role == MemberRole::Voter)
        })
        .await;

        let id = world.nodes[1].store().id();
        world.nodes[1].stop().await;
        world.nodes[1].address = "elsewhere:2380".to_owned();
        world.nodes[1].start().await.unwrap();
        wait("the address is known", || {
            first.members().iter().any(|member| member.id == id && member.address == "elsewhere:2380")
        })
        .await;
        put(world.nodes[1].store(), "k", "1").await.unwrap();
        assert_eq!(get(&first, "k").await.unwrap(), "1");
    });
}

#[test]
fn a_survivor_begins_a_group_of_its_own() {
    run(0, async {
        let mut world = group(7, 3).await;
        put(world.nodes[1].store(), "k", "1").await.unwrap();
        get(world.nodes[2].store(), "k").await;
        world.nodes[0].crash();
        world.nodes[1].crash();
        world.nodes[2].stop().await;
        world.nodes[2].reset_to_single = true;
        let alone = world.nodes[2].start().await.unwrap();
        assert_eq!(get(&alone, "k").await.unwrap(), "1");
        put(&alone, "k", "2").await.unwrap();
        assert_eq!(alone.members().len(), 1);
        world.nodes[2].stop().await;
        world.nodes[2].reset_to_single = false;
        let alone = world.nodes[2].start().await.unwrap();
        assert_eq!(get(&alone, "k").await.unwrap(), "2");
        // It grows again.
        let node = world.add("n3");
        world.nodes[node].join = vec!["n2:2380".to_owned()];
        world.nodes[node].start().await.unwrap();
        wait("it votes", || voters(&alone) == 2).await;
    });
}

#[test]
fn a_witness_makes_two_members_a_group_that_bears_a_loss() {
    run(0, async {
        let mut world = group(8, 2).await;
        let node = world.add("w");
        world.nodes[node].join = vec!["n0:2380".to_owned()];
        world.nodes[node].witness = true;
        let witness = world.nodes[node].start().await.unwrap();
        let first = world.nodes[0].store().clone();
        wait("it votes", || first.members().iter().any(|member| member.role == MemberRole::Witness)).await;
        put(&first, "k", "1").await.unwrap();
        assert!(matches!(witness.read_index().await, Err(Error::Witness)));
        assert_eq!(witness.status().keys, 0);
        sleep(Duration::from_secs(1)).await;
        world.nodes[0].crash();
        put(world.nodes[1].store(), "k", "2").await.unwrap();
        assert_eq!(leader(&world), Some(1));
        // It keeps what it is.
        world.nodes[node].stop().await;
        world.nodes[node].witness = false;
        assert!(matches!(world.nodes[node].start().await, Err(crate::OpenError::OtherKind)));
        world.nodes[node].witness = true;
        world.nodes[node].start().await.unwrap();
        put(world.nodes[1].store(), "k", "3").await.unwrap();
    });
}

#[test]
fn a_lease_outlives_its_leader() {
    run(0, async {
        let mut world = group(9, 3).await;
        let second = world.nodes[1].store().clone();
        second.lease_grant(Some(3), 5).await.unwrap();
        let put = crate::Put { key: "k".into(), lease: 3, ..crate::Put::default() };
        second.txn(Txn { success: vec![crate::Op::Put(put)], ..Txn::default() }).await.unwrap();
        sleep(Duration::from_secs(4)).await;
        world.nodes[0].crash();
        let died = Instant::now();
        wait("somebody leads", || leader(&world).is_some()).await;
        while get(&second, "k").await.is_some() {
            sleep(Duration::from_millis(50)).await;
        }
        let took = died.elapsed();
        assert!(took > Duration::from_secs(5) && took < Duration::from_secs(9), "{took:?}");
    });
}

#[test]
fn a_network_that_loses_and_repeats_messages_costs_time_only() {
    run(0, async {
        let world = group(10, 3).await;
        world.network.set_weather(0.05, 0.05, Duration::from_millis(20));
        let mut taken = 0;
        for at in 0..200 {
            taken += u32::from(put(world.nodes[at % 3].store(), "k", &at.to_string()).await.is_ok());
        }
        world.network.set_weather(0.0, 0.0, Duration::from_millis(2));
        assert!(taken > 100, "{taken} of 200 writes were taken");
        put(world.nodes[1].store(), "k", "last").await.unwrap();
        assert_eq!(get(world.nodes[2].store(), "k").await.unwrap(), "last");
    });
}
