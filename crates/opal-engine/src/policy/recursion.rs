//! Finds rules that need themselves, and chains of rules too long to evaluate.

use std::collections::BTreeMap;

use regorus::unstable::{Module, Ref, Rule};

use super::location;
use super::names::{self, Scope, Step};
use super::rules::{RuleIndex, dotted, rule_path};
use super::walk::{self, Node};
use crate::{PolicyProblem, ProblemCode};

/// Rules that need each other in a row. Each takes a part of the evaluating thread's stack.
const MAX_CHAIN: usize = 1_000;

/// Rules in `modules` that need themselves.
pub(crate) fn check(modules: &[Ref<Module>], rules: &RuleIndex) -> Vec<PolicyProblem> {
    let graph = Graph::new(modules, rules);
    let mut search = Search {
        graph: &graph,
        state: vec![State::New; graph.paths.len()],
        height: vec![0; graph.paths.len()],
        cycles: Vec::new(),
    };
    for node in 0..graph.paths.len() {
        search.visit(node);
    }
    let mut problems: Vec<_> = search
        .cycles
        .iter()
        .flat_map(|cycle| rotations(cycle))
        .filter_map(|cycle| graph.describe(&cycle, rules))
        .collect();
    let highest = (0..graph.paths.len()).max_by_key(|&node| search.height[node]);
    if let Some(node) = highest.filter(|&node| search.height[node] > MAX_CHAIN) {
        problems.extend(too_long(graph.paths[node], rules));
    }
    problems
}

fn too_long(path: &[String], rules: &RuleIndex) -> Option<PolicyProblem> {
    let name = dotted(path);
    let message = format!("rule {name} needs a chain of more than {MAX_CHAIN} rules");
    Some(location::at(
        rules.span(path)?,
        ProblemCode::Compile,
        message,
    ))
}

/// Which rules need which.
struct Graph<'a> {
    paths: Vec<&'a Vec<String>>,
    edges: Vec<Vec<usize>>,
}

impl<'a> Graph<'a> {
    fn new(modules: &[Ref<Module>], rules: &'a RuleIndex) -> Self {
        let paths: Vec<_> = rules.paths().collect();
        let numbers: BTreeMap<_, _> = paths
            .iter()
            .enumerate()
            .map(|(n, path)| (*path, n))
            .collect();
        let mut edges = vec![Vec::new(); paths.len()];
        for module in modules {
            let scope = Scope::new(module);
            for rule in &module.policy {
                let path = rule_path(&scope, rule);
                let Some(&node) = numbers.get(&path) else {
                    continue;
                };
                let targets = needed(rule, &scope);
                let reached = targets.iter().flat_map(|target| rules.reached(target));
                edges[node].extend(reached.filter_map(|path| numbers.get(path)));
            }
        }
        for targets in &mut edges {
            targets.sort_unstable();
            targets.dedup();
        }
        Self { paths, edges }
    }

    fn describe(&self, cycle: &[usize], rules: &RuleIndex) -> Option<PolicyProblem> {
        let first = self.paths.get(*cycle.first()?)?;
        let names: Vec<_> = cycle.iter().map(|&node| dotted(self.paths[node])).collect();
        let message = format!(
            "rule {} is recursive: {}",
            dotted(first),
            names.join(" -> ")
        );
        Some(location::at(
            rules.span(first)?,
            ProblemCode::Recursion,
            message,
        ))
    }
}

/// What `rule` refers to under `data`.
fn needed(rule: &Rule, scope: &Scope) -> Vec<Vec<Step>> {
    let declared = names::declared(rule);
    let mut targets = Vec::new();
    walk::rule(rule, &mut |node| {
        // A function cannot be a local variable.
        let (reference, locals) = match node {
            Node::Reference(reference) => (reference, Some(&declared)),
            Node::Call { function, .. } => (function, None),
            Node::Declaration(_) | Node::Statement(_) => return,
        };
        if let Some((root, steps)) = names::steps(reference)
            && !locals.is_some_and(|names| names.contains(root))
        {
            targets.extend(scope.under_data(root, &steps));
        }
    });
    targets
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Done,
}

/// A depth-first search that keeps its own stack.
struct Search<'a> {
    graph: &'a Graph<'a>,
    state: Vec<State>,
    height: Vec<usize>,
    cycles: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn visit(&mut self, start: usize) {
        if self.state[start] != State::New {
            return;
        }
        self.state[start] = State::Open;
        let mut open = vec![(start, 0)];
        while let Some((node, next)) = open.last_mut() {
            let node = *node;
            let Some(&target) = self.graph.edges[node].get(*next) else {
                self.state[node] = State::Done;
                let heights = self.graph.edges[node]
                    .iter()
                    .map(|&target| self.height[target]);
                self.height[node] = 1 + heights.max().unwrap_or(0);
                open.pop();
                continue;
            };
            *next += 1;
            match self.state[target] {
                State::New => {
                    self.state[target] = State::Open;
                    open.push((target, 0));
                }
                State::Open => self.cycles.push(cycle(&open, target)),
                State::Done => {}
            }
        }
    }
}

/// The cycle seen from each of its rules.
fn rotations(cycle: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let nodes = &cycle[..cycle.len().saturating_sub(1)];
    (0..nodes.len()).map(|start| {
        let mut turned = nodes.to_vec();
        turned.rotate_left(start);
        turned.push(nodes[start]);
        turned
    })
}

/// The part of the open path from `target` back to itself.
fn cycle(open: &[(usize, usize)], target: usize) -> Vec<usize> {
    let nodes = open.iter().map(|(node, _)| *node);
    let mut cycle: Vec<_> = nodes.skip_while(|node| *node != target).collect();
    cycle.push(target);
    cycle
}
