//! The allocator: jemalloc, which makes and frees the small parts of objects in half of glibc's time, and gives back
//! what was freed.
//!
//! Memory that was used once is returned a second later, by a thread that sleeps otherwise. Shims have no such thread:
//! they fork.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Few arenas, so that what is freed in one is used again; unused pages are kept for a second. Threads keep few freed
/// pieces to themselves, and only small ones: with a dozen threads the allocator's own measure comes to 10 MB.
#[expect(unsafe_code, reason = "jemalloc looks for its options under this name")]
// SAFETY: the name is jemalloc's own for exactly this, a pointer to a text that ends with a zero.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static OPTIONS: &[u8; 115] = b"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0,\
    tcache_max:512,tcache_nslots_small_min:4,tcache_nslots_small_max:16\0";

/// From now on memory is given back while nothing is allocated, too.
pub fn give_back_when_idle() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::warn!(%error, "memory that is not used any more is given back late");
    }
}
