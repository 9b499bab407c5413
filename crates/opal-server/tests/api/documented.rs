//! Pages of the documentation name tests: they are there.

use std::path::Path;

/// The text of every Rust file below `directory`.
fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *text += &std::fs::read_to_string(&path).unwrap();
        }
    }
}

#[test]
fn every_test_that_the_documentation_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |page: &str| std::fs::read_to_string(root.join(page)).unwrap();
    let page = read("docs/compatibility.md") + &read("docs/design/never-silently-stale.md");
    let mut code = String::new();
    sources(&root.join("crates"), &mut code);
    let quoted = page.split('`').skip(1).step_by(2);
    let names: Vec<&str> = quoted
        .filter_map(|text| text.split_once("::"))
        .map(|(_, name)| name)
        .collect();
    assert!(names.len() > 50, "{}", names.len());
    for name in names {
        assert!(
            code.contains(&format!("fn {name}(")),
            "there is no test `{name}`"
        );
    }
}
