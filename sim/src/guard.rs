//! Panics of the broker as values. The only state that runs of one process share: the panic hook belongs to the process,
//! so one that knows of runs is put in front of it once. It looks at variables of its own thread, and nothing reads them
//! but the run that set them; so no run depends on another.

use core::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Calls `run`; if it panics, the message and where it was, without a word to the terminal.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                CAUGHT.set(Some(text(info)));
            } else {
                before(info);
            }
        }));
    });
    let outer = CATCHING.replace(true);
    // What a panic leaves behind is only asked for its time and dropped.
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(run));
    CATCHING.set(outer);
    outcome.map_err(|_| CAUGHT.take().unwrap_or_else(|| "a panic without a message".into()))
}

fn text(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("no message");
    match info.location() {
        Some(place) => format!("{message} ({}:{}:{})", place.file(), place.line(), place.column()),
        None => message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::catch;

    #[test]
    fn a_panic_becomes_its_message_and_its_place() {
        assert_eq!(catch(|| 1), Ok(1));
        let caught = catch(|| assert_eq!(1, 2, "one")).unwrap_err();
        assert!(caught.starts_with("assertion `left == right` failed: one"), "{caught}");
        assert!(caught.contains("guard.rs:"), "{caught}");
        assert_eq!(catch(|| catch(|| panic!("inner")).is_err()), Ok(true));
    }
}
