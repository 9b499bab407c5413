//! The endurance run in its short form.

use std::process::Command;

#[test]
fn server_and_clients_keep_their_size_through_reconnects_and_updates() {
    let output = Command::new(env!("CARGO_BIN_EXE_opal-soak"))
        .arg("--short")
        .output()
        .unwrap();
    let (out, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{log}");
    assert_eq!(out.matches("kept").count(), 4, "{out}\n{log}");
}
