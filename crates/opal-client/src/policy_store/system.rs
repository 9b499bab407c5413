//! Policies that are not a bundle's: OPA's own and the one that shows our health.

/// The policy that shows our health inside the engine; OPAL's own, never part of a bundle.
pub(super) const HEALTH_CHECK_POLICY: &str = "engine/healthcheck/opal.rego";

/// Whether the policy is in package `system` or below it, or is the health-check policy.
pub(super) fn is_system(id: &str, text: &str) -> bool {
    if id == HEALTH_CHECK_POLICY {
        return true;
    }
    let package = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("package"));
    let name = package.unwrap_or_default().trim_start();
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
    &name[..end.unwrap_or(name.len())] == "system"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_package_system_and_below_is_spared() {
        for (text, expected) in [
            ("package system", true),
            ("# x\n\n  package  system.log # y", true),
            ("package systems", false),
            ("package app\n# package system", false),
            ("", false),
        ] {
            assert_eq!(is_system("a.rego", text), expected, "{text}");
        }
    }
}
