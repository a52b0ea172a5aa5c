//! All services over a real connection and a real store: what only shows when the parts meet. Whole stories, with an
//! engine and hosts, are in the `tests` crate.

mod agent;
mod clusters;
mod crowd;
mod devices;
mod labels;
mod memory;
mod plane;
mod public;

use std::path::Path;

use croft_core::Reason;

#[test]
fn every_reason_has_a_page_that_says_what_to_do() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    for reason in Reason::ALL {
        let page = std::fs::read_to_string(pages.join(format!("{reason}.md"))).unwrap_or_default();
        assert!(page.starts_with(&format!("# {reason}\n")), "docs/errors/{reason}.md is missing, or has another title");
        for part in ["**What it means.**", "**What to do.**\n- "] {
            assert!(page.contains(part), "docs/errors/{reason}.md lacks {part}");
        }
    }
}
