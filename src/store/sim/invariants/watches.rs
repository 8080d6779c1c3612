//! A watcher sees every change in its range, once, in order, from where it began to where it is; through whichever
//! members it looked.

use crate::sim::history::Inner;

pub(in crate::sim) fn check(history: &Inner) -> Result<(), String> {
    for watched in &history.watched {
        if watched.through < watched.from {
            continue;
        }
        let all = history.events.range(watched.from..=watched.through).flat_map(|(_, events)| events);
        let want: Vec<_> = all.filter(|event| watched.keys.contains(&event.kv.key)).collect();
        if !watched.events.iter().eq(want.iter().copied()) {
            let revisions = |events: &mut dyn Iterator<Item = u64>| events.collect::<Vec<_>>();
            let saw = revisions(&mut watched.events.iter().map(|event| event.kv.mod_revision));
            let want = revisions(&mut want.iter().map(|event| event.kv.mod_revision));
            let (from, through) = (watched.from, watched.through);
            return Err(format!("watches: from {from} through {through} a watcher saw {saw:?} instead of {want:?}"));
        }
    }
    Ok(())
}
