//! The system's allocator, with large neighbours between which copies are fast.
//!
//! Buffers are mostly a whole number of pages long, and glibc puts 16 bytes between two of them. Neighbours so begin 16
//! bytes apart within their pages, and what stands behind the 5 bytes of a TLS record's header in one is copied to the
//! next 11 bytes further on. Where that is less than 16, `rep movsb` is slow on AMD Zen 3 and 4: 2 GB/s instead of 55, for
//! what is in the processor's own cache. glibc 2.36 and others copy 2 KiB and more that way there (its bug 30994). TLS
//! copies each record that comes from its buffer to a block of 16 KiB, which is where the buffer ends as often as not:
//! then a third of what the receiving program does is that copy.
//!
//! This is the one crate with `unsafe` code, without which there is no allocator. All that it does is to pass on to
//! [`System`].

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, which is asked for up to 63 bytes more for a block of 2 KiB and more: neighbours then begin
/// whole cache lines apart within their pages.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: tunnel_alloc::Apart = tunnel_alloc::Apart;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs)] // a static is made of it
pub struct Apart;

/// From this length on copies are made by `rep movsb`.
const LARGE: usize = 2 * 1024;
/// What glibc adds to a block.
const HEADER: usize = 8;
/// A cache line: far enough, and the copies are of whole lines.
const LINE: usize = 64;

/// What to ask the system for: with what glibc adds, a large block is whole lines, and one of whole pages a line more.
fn apart(layout: Layout) -> Layout {
    if layout.size() < LARGE {
        return layout;
    }
    let whole = layout
        .size()
        .checked_add(HEADER)
        .and_then(|size| size.checked_next_multiple_of(LINE));
    let apart = whole.and_then(|whole| Layout::from_size_align(whole - HEADER, layout.align()).ok());
    // There is no memory for one that has no room for a line more.
    apart.unwrap_or(layout)
}

// SAFETY: `System` keeps the contract. It is asked for the same alignment, at least the size, and the same of both for the
// same layout.
unsafe impl GlobalAlloc for Apart {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is not zero, for the caller's is not.
        unsafe { System.alloc(apart(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(apart(layout)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the system gave the block for what `apart` makes of this layout.
        unsafe { System.dealloc(block, apart(layout)) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let wanted = Layout::from_size_align(size, layout.align());
        let size = wanted.map_or(size, |wanted| apart(wanted).size());
        // SAFETY: as above; the size is not zero, and no larger than a layout's may be unless the caller's is.
        unsafe { System.realloc(block, apart(layout), size) }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // of what is written
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 1).unwrap()
    }

    proptest! {
        #[test]
        fn a_block_has_room_and_hardly_more(size in 0usize..1 << 30, align in 0u32..13) {
            let layout = Layout::from_size_align(size, 1 << align).unwrap();
            let apart = apart(layout);
            prop_assert_eq!(apart.align(), layout.align());
            prop_assert!(apart.size() >= size && apart.size() < size + LINE);
            prop_assert!(size >= LARGE || apart == layout);
        }
    }

    #[test]
    fn the_largest_layout_is_left_alone() {
        let largest = layout(isize::MAX as usize);
        assert_eq!(apart(largest), largest);
    }

    #[test]
    fn what_a_block_holds_survives_each_of_its_sizes() {
        let sizes = [1, 100, LARGE - 1, LARGE, 16 * 1024, 300_000, LARGE, 7];
        for align in [1, 64, 4096] {
            let layout = |size| Layout::from_size_align(size, align).unwrap();
            // SAFETY: each block is used for no more than its size, and given back with its layout.
            unsafe {
                let mut block = Apart.alloc(layout(sizes[0]));
                for [from, to] in sizes.array_windows() {
                    (0..*from).for_each(|at| block.add(at).write(at as u8));
                    block = Apart.realloc(block, layout(*from), *to);
                    assert!(
                        (0..*from.min(to)).all(|at| block.add(at).read() == at as u8),
                        "{from} {to}"
                    );
                    assert!(block.addr().is_multiple_of(align));
                }
                Apart.dealloc(block, layout(sizes[sizes.len() - 1]));
                let zeroed = Apart.alloc_zeroed(layout(LARGE));
                assert!((0..LARGE).all(|at| zeroed.add(at).read() == 0));
                Apart.dealloc(zeroed, layout(LARGE));
            }
        }
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn no_neighbour_begins_just_behind_within_its_page() {
        const PAGE: usize = 4096;
        let sizes = || [4 * PAGE, 8 * PAGE].into_iter().cycle().take(64);
        // SAFETY: each block is given back with its layout.
        let mut places: Vec<_> = unsafe {
            let blocks: Vec<_> = sizes().map(|size| (Apart.alloc(layout(size)), size)).collect();
            blocks
                .iter()
                .for_each(|(block, size)| Apart.dealloc(*block, layout(*size)));
            blocks.iter().map(|(block, size)| (block.addr(), *size)).collect()
        };
        places.sort_unstable();
        let mut neighbours = 0;
        for [(one, size), (next, _)] in places.array_windows() {
            if next - one < size + 2 * LINE {
                neighbours += 1;
                assert!((next - one) % PAGE >= LINE, "{one:#x} and {next:#x}");
            }
        }
        assert!(neighbours > 10, "{neighbours} neighbours");
    }
}
