//! Where a problem is: `regorus` says it only inside the text of its errors.

use regorus::unstable::Span;

use crate::{PolicyProblem, ProblemCode};

/// A problem at `span`.
pub(crate) fn at(span: &Span, code: ProblemCode, message: impl Into<String>) -> PolicyProblem {
    PolicyProblem {
        code,
        file: span.source.get_path().clone(),
        row: span.line,
        col: span.col,
        message: message.into(),
    }
}

/// A problem of the file as a whole.
pub(crate) fn whole_file(file: &str, code: ProblemCode, message: &str) -> PolicyProblem {
    PolicyProblem {
        code,
        file: file.to_owned(),
        row: 0,
        col: 0,
        message: message.to_owned(),
    }
}

/// Reads the place and the message out of an error's text.
///
/// The text is `\n--> FILE:ROW:COL\n` with the line quoted, then `error: MESSAGE`; or
/// `FILE:ROW:COL error: MESSAGE`; or just a message, which is then of `file` as a whole.
pub(crate) fn problem(file: &str, code: ProblemCode, text: &str) -> PolicyProblem {
    located(code, text).unwrap_or_else(|| whole_file(file, code, text.trim()))
}

fn located(code: ProblemCode, text: &str) -> Option<PolicyProblem> {
    let (place, message) = match text.split_once("\n--> ") {
        Some((_, quoted)) => {
            let (place, rest) = quoted.split_once('\n')?;
            (place, rest.split_once("error: ")?.1)
        }
        None => text.split_once(" error: ")?,
    };
    let mut parts = place.rsplitn(3, ':');
    let col = parts.next()?.parse().ok()?;
    let row = parts.next()?.parse().ok()?;
    Some(PolicyProblem {
        code: refine(code, message),
        file: parts.next()?.to_owned(),
        row,
        col,
        message: reword(message.trim()),
    })
}

/// The same problem in OPA's words, where the two differ only in words.
fn reword(message: &str) -> String {
    if let Some(name) = unsafe_variable(message) {
        format!("var {name} is unsafe")
    } else if let Some(name) = used_early(message) {
        format!("var {name} referenced above")
    } else {
        message.to_owned()
    }
}

fn refine(code: ProblemCode, message: &str) -> ProblemCode {
    if unsafe_variable(message).is_some() {
        ProblemCode::UnsafeVariable
    } else if message.contains("multiple outputs") {
        ProblemCode::Conflict
    } else {
        code
    }
}

fn used_early(message: &str) -> Option<&str> {
    let (name, _) = message.strip_prefix("var `")?.split_once("` used before")?;
    Some(name)
}

fn unsafe_variable(message: &str) -> Option<&str> {
    message
        .strip_prefix("use of undefined variable `")?
        .strip_suffix("` is unsafe")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_and_the_name_are_read_out_of_a_quoted_error() {
        let text = "\n--> a:b/c.rego:12:7\n   |\n12 | p = x\n   | ^\nerror: use of undefined variable `x` is unsafe";
        let problem = problem("other", ProblemCode::Compile, text);
        assert_eq!(
            problem.to_string(),
            "a:b/c.rego:12:7: rego_unsafe_var_error: var x is unsafe"
        );
    }

    #[test]
    fn an_error_without_a_place_is_of_the_file() {
        let problem = problem("x.rego", ProblemCode::Parse, "too long");
        assert_eq!(
            problem.to_string(),
            "x.rego:0:0: rego_parse_error: too long"
        );
    }
}
