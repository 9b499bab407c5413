//! The benches in their short form: they run, and what they measure arrives. The figures of one
//! pair of debug builds mean nothing and are not judged.

use std::process::Command;

#[test]
fn the_benches_run() {
    // A thousand subscribers are more files than many systems allow without being asked.
    let with_files = r#"ulimit -n "$(ulimit -Hn)"; exec "$0" "$@""#;
    let output = Command::new("sh")
        .args(["-c", with_files, env!("CARGO_BIN_EXE_opal-bench")])
        .args(["start", "delivery", "policy-small", "update", "wait"])
        .args(["--pairs", "1", "--without", "python", "--unjudged"])
        .output()
        .unwrap();
    let (out, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{log}");
    for row in [
        "CPU a delivery",
        "just started",
        "from publish to answer",
        "have applied",
    ] {
        assert!(out.contains(row), "{row} in\n{out}\n{log}");
    }
}
