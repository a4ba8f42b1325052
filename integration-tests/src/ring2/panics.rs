//! Panics in a run: caught, with their own text, and said as a broken law.
//!
//! Owns: the process's panic hook, which it extends once. Outside of a run the hook does what it did before.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// The first panic of the run in this thread; None outside of a run.
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Does `work`; the text and place of the first panic in it, if there is one, in whatever task it happened.
///
/// # Errors
/// The panic.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            let inside = FIRST.try_with(|first| {
                let mut first = first.try_borrow_mut().ok()?;
                let text = first.as_mut()?;
                if text.is_empty() {
                    *text = panic.to_string().replace('\n', " ");
                }
                Some(())
            });
            if inside.ok().flatten().is_none() {
                before(panic);
            }
        }));
    });
    FIRST.set(Some(String::new()));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    let text = FIRST.take().unwrap_or_default();
    outcome.map_err(|_| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_is_told_and_work_without_one_is_done() {
        assert_eq!(caught(|| 7), Ok(7));
        let told = caught(|| {
            let _second = catch_unwind(|| panic!("the cause"));
            panic!("the consequence");
        });
        let told = told.expect_err("it panicked");
        assert!(told.contains("the cause") && told.contains("panics.rs"), "{told}");
    }
}
