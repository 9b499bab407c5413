//! Bounds the shape of a text before it is parsed.
//!
//! The parser, the checks and the evaluation recurse over the syntax tree. Brackets and signs make
//! it deep directly; a long chain of operators makes it deep to the left.

use regorus::Source;
use regorus::unstable::{Lexer, Token, TokenKind};

use super::{length_limits, location};
use crate::{PolicyProblem, ProblemCode};

/// Deeper than the parser's own limit on expressions (32), which is what a person meets first.
const MAX_NESTING: usize = 100;
/// Operators, signs and selections in one expression.
const MAX_CHAIN: usize = 500;

/// Refuses a text whose syntax tree could exhaust the stack.
pub(crate) fn check_text(id: &str, text: &str) -> Result<(), PolicyProblem> {
    let limits = length_limits();
    let source = Source::from_contents_with_limits(
        id.to_owned(),
        text.to_owned(),
        limits.max_file_bytes,
        limits.max_lines,
    )
    .map_err(|error| location::problem(id, ProblemCode::Parse, &error.to_string()))?;
    let mut lexer = Lexer::new(&source);
    lexer.set_max_col(limits.max_col);
    let mut shape = Shape::default();
    loop {
        // What is no token is the parser's to report.
        let Ok(token) = lexer.next_token() else {
            return Ok(());
        };
        if token.0 == TokenKind::Eof {
            return Ok(());
        }
        shape
            .add(&token)
            .map_err(|message| location::at(&token.1, ProblemCode::Parse, message))?;
    }
}

#[derive(Debug, Default)]
struct Shape {
    /// The length of the chain in each open bracket, and in the outermost text.
    chains: Vec<usize>,
    outermost: usize,
    after_operand: bool,
}

impl Shape {
    fn add(&mut self, token: &Token) -> Result<(), &'static str> {
        let text = match token.0 {
            TokenKind::Symbol | TokenKind::Ident => token.1.text(),
            _ => "",
        };
        match text {
            "(" | "[" | "{" | "set(" => self.open()?,
            ")" | "]" | "}" => {
                self.chains.pop();
                self.after_operand = true;
            }
            "," | ";" | ":" | ":=" | "=" => self.begin_expression(),
            "+" | "-" | "*" | "/" | "%" | "&" | "|" | "<" | "<=" | "==" | ">=" | ">" | "!="
            | "." | "in" | "not" | "with" | "as" | "else" => self.extend()?,
            _ => self.operand(token)?,
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), &'static str> {
        // `f(…)(…)` and `a[…][…]` are chains too.
        if self.after_operand {
            self.extend()?;
        }
        self.chains.push(0);
        self.after_operand = false;
        if self.chains.len() > MAX_NESTING {
            return Err("nesting is too deep");
        }
        Ok(())
    }

    fn chain(&mut self) -> &mut usize {
        self.chains.last_mut().unwrap_or(&mut self.outermost)
    }

    fn begin_expression(&mut self) {
        *self.chain() = 0;
        self.after_operand = false;
    }

    fn extend(&mut self) -> Result<(), &'static str> {
        let chain = self.chain();
        *chain += 1;
        let is_too_long = *chain > MAX_CHAIN;
        self.after_operand = false;
        if is_too_long {
            return Err("expression is too long");
        }
        Ok(())
    }

    /// An operand right after another one begins the next expression.
    fn operand(&mut self, token: &Token) -> Result<(), &'static str> {
        let is_negative_number = token.0 == TokenKind::Number && token.1.text().starts_with('-');
        if self.after_operand && is_negative_number {
            self.extend()?;
        } else if self.after_operand {
            self.begin_expression();
        }
        self.after_operand = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> Option<String> {
        check_text("x.rego", text)
            .err()
            .map(|problem| problem.message)
    }

    #[test]
    fn what_could_exhaust_the_stack_is_refused() {
        let many = 100_000;
        for text in [
            "[".repeat(many),
            "{".repeat(many),
            "(".repeat(many),
            "f(".repeat(many),
            "a[".repeat(many),
            "-".repeat(many),
            "- ".repeat(many),
            format!("1{}", "\n+1".repeat(many)),
            format!("1{}", "-1".repeat(many)),
            format!("a{}", ".b".repeat(many)),
            format!("a{}", "[1]".repeat(many)),
            format!("f{}", "(1)".repeat(many)),
            "not ".repeat(many),
        ] {
            assert!(verdict(&text).is_some(), "{}", &text[..20]);
        }
    }

    #[test]
    fn long_modules_of_short_expressions_pass() {
        let rules = "p := 1 + 2\nq { a.b.c == 1; x := [1, 2, 3] }\n".repeat(10_000);
        assert_eq!(verdict(&rules), None);
        assert_eq!(
            verdict(&format!("p := [{}]", "1 + 1, ".repeat(10_000))),
            None
        );
    }
}
