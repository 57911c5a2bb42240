//! The buffer that bytes are copied through: one per thread, borrowed within a poll, so that no session owns one.

use std::cell::Cell;

/// A read that fills this is bulk. 64 KiB: what it takes for the cost of a system call to vanish beside the copying.
pub(crate) const SCRATCH_LEN: usize = 64 * 1024;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Calls `work` with this thread's buffer. A call within a call (a leg that itself splices) gets a buffer of its own.
pub(crate) fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    // The slot is gone while the thread ends: then, too, a buffer is made.
    let kept = SCRATCH.try_with(Cell::take).ok().flatten();
    let mut scratch = kept.unwrap_or_else(|| vec![0; SCRATCH_LEN].into_boxed_slice());
    let result = work(&mut scratch);
    let _given_back = SCRATCH.try_with(|slot| slot.set(Some(scratch)));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_is_given_back_and_a_nested_borrow_gets_its_own() {
        let outer = with_scratch(|outer| {
            outer[0] = 1;
            let inner = with_scratch(|inner| {
                inner[0] = 2;
                inner.as_ptr()
            });
            assert_ne!(outer.as_ptr(), inner);
            assert_eq!((outer[0], outer.len()), (1, SCRATCH_LEN));
            outer.as_ptr()
        });
        assert_eq!(with_scratch(|again| again.as_ptr()), outer);
    }
}
