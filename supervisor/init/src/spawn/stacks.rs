//! Stacks of children, made side by side and used again.
//!
//! A stack is needed for a millisecond. Made one by one between what is kept of each component, the stacks of a hundred
//! components that start together would leave holes all over the heap, of which hardly a page could be given back. Made
//! in batches they leave a few large ones. While no child needs a stack, one is kept at most.

use std::cell::RefCell;
use std::mem::{self, MaybeUninit};
use std::ops::{Deref, DerefMut};

/// Bytes of a child's stack. Its frames take a few hundred (a test holds it below half), and no signal handler can run on
/// it: the child has none.
pub const STACK_BYTES: usize = 8192;

/// Stacks that are made at once when many are in use: enough that their holes are of more than a hundred kilobytes.
const BATCH: usize = 16;

/// A piece of a stack, aligned as the processors' calling conventions ask of its ends.
pub type Slot = u128;

type Memory = Box<[MaybeUninit<Slot>]>;

fn memory() -> Memory {
    Box::new_uninit_slice(STACK_BYTES / size_of::<Slot>())
}

/// Stacks that were made.
#[derive(Default)]
struct Stacks {
    spare: Vec<Memory>,
    in_use: usize,
}

thread_local! {
    static STACKS: RefCell<Stacks> = RefCell::default();
}

/// One child's stack. Dropped once nobody can be on it.
pub struct Stack(Memory);

impl Stack {
    /// One that is in nobody's use. What it holds is anything.
    pub fn take() -> Self {
        STACKS.with_borrow_mut(|stacks| {
            if stacks.spare.is_empty() {
                let more = stacks.in_use.clamp(1, BATCH);
                stacks.spare.extend((0..more).map(|_| memory()));
            }
            stacks.in_use += 1;
            Self(stacks.spare.pop().unwrap_or_else(memory))
        })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        STACKS.with_borrow_mut(|stacks| {
            stacks.spare.push(mem::take(&mut self.0));
            stacks.in_use -= 1;
            if stacks.in_use == 0 {
                stacks.spare.truncate(1);
                stacks.spare.shrink_to_fit();
            }
        });
    }
}

impl Deref for Stack {
    type Target = [MaybeUninit<Slot>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Stack {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stack_is_whole_and_one_is_kept_when_none_is_in_use() {
        let spare = || STACKS.with_borrow(|stacks| stacks.spare.len());
        let many: Vec<_> = (0..100).map(|_| Stack::take()).collect();
        assert!(many.iter().all(|stack| size_of_val(&**stack) == STACK_BYTES));
        let mut places: Vec<_> = many.iter().map(|stack| stack.as_ptr()).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 100, "two have the same memory");
        assert!(spare() < BATCH, "{} were made for nobody", spare());
        drop(many);
        assert_eq!(spare(), 1);
        let one = Stack::take();
        assert_eq!(spare(), 0);
        drop(one);
        assert_eq!(spare(), 1);
    }
}
