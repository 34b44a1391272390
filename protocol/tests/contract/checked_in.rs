//! Files in `docs/` that are made from the code. They are checked in, so that nobody has to build the project
//! to read them, and kept equal to the code by the tests.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

const HOW: &str = "UPDATE=1 cargo test -p tidings-protocol --test contract";

pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_default()
}

/// Fails if `docs/<name>` does not hold `wanted`; with `UPDATE=1` writes it instead.
pub(crate) fn file(name: &str, wanted: &str) {
    if read(name) == wanted {
        return;
    }
    assert!(
        std::env::var_os("UPDATE").is_some(),
        "docs/{name} says something else than the code; rewrite it with\n    {HOW}\nand look at the difference"
    );
    fs::create_dir_all(path(name).parent().expect("it lies in docs")).expect("docs can be written");
    fs::write(path(name), wanted).expect("docs can be written");
}

/// The same for what stands between `<!-- generated: <section> -->` and `<!-- /generated -->`.
pub(crate) fn section(name: &str, section: &str, wanted: &str) {
    // Tests run side by side, and several sections stand in one file.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let text = read(name);
    let begin = format!("<!-- generated: {section} -->\n");
    let (before, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("docs/{name} has no line {begin}"));
    let (_, after) = rest
        .split_once("<!-- /generated -->")
        .unwrap_or_else(|| panic!("docs/{name}: the section {section} has no end"));
    file(
        name,
        &format!("{before}{begin}\n{wanted}\n<!-- /generated -->{after}"),
    );
}
