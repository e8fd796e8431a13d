//! Types: chance that a seed decides: dice for the simulation, and every byte that anything in the process takes from the
//! system: keys of hash maps, uids, names, the order in which tasks are polled.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Cheap to clone; all clones are one sequence.
#[derive(Clone)]
pub struct Dice(Arc<Mutex<u64>>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    pub fn below(&self, n: usize) -> usize {
        let drawn = next(&mut self.0.lock().unwrap());
        usize::try_from(drawn >> 1).unwrap() % n.max(1)
    }

    /// One of `n` times in a thousand.
    pub fn chance(&self, per_mille: usize) -> bool {
        self.below(1000) < per_mille
    }

    pub fn millis(&self, least: usize, most: usize) -> Duration {
        Duration::from_millis(u64::try_from(least + self.below(most - least + 1)).unwrap())
    }

    pub fn one<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.below(of.len())) }
    }
}

/// `SplitMix64`.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

thread_local! {
    /// 0: what the kernel gives.
    static SYSTEM: Cell<u64> = const { Cell::new(0) };
}

/// From now on this thread gets the same bytes from the system as any other thread with this seed.
pub fn decide_by(seed: u64) {
    SYSTEM.set(next(&mut seed.clone()) | 1);
}

/// Stands in for the libc's function in the binary of the tests: the standard library and the crates find this one.
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "it is called as the C function, with a pointer and a length")]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    let mut state = SYSTEM.get();
    if state == 0 {
        // SAFETY: what was asked of us, asked of the kernel.
        return unsafe { nix::libc::syscall(nix::libc::SYS_getrandom, buffer, length, flags) } as isize;
    }
    if length == 0 {
        return 0;
    }
    // SAFETY: whoever calls owns so many bytes there.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next(&mut state).to_le_bytes()[..chunk.len()]);
    }
    SYSTEM.set(state);
    length.cast_signed()
}
