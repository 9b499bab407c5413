//! What is sent, in order: later requests build on earlier ones.

/// How closely two answers must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    /// Status and all of the body.
    Everything,
    /// The same, but the results may come in any order.
    Unordered,
    /// Of each error: code, file and row.
    Places,
    /// Status and code: the texts are of different parsers.
    Code,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: String,
    pub(crate) compare: Compare,
}

impl Call {
    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn by(mut self, compare: Compare) -> Self {
        self.compare = compare;
        self
    }
}

fn call(method: &'static str, path: &str, body: &str) -> Call {
    Call {
        method,
        path: path.to_owned(),
        headers: Vec::new(),
        body: body.to_owned(),
        compare: Compare::Everything,
    }
}

fn get(path: &str) -> Call {
    call("GET", path, "")
}

fn ask(path: &str, body: &str) -> Call {
    call("POST", path, body)
}

fn put(path: &str, body: &str) -> Call {
    call("PUT", &format!("/v1/data{path}"), body)
}

fn patch(path: &str, body: &str) -> Call {
    call("PATCH", &format!("/v1/data{path}"), body)
}

fn policy(id: &str, text: &str) -> Call {
    call("PUT", &format!("/v1/policies/{id}"), text)
}

/// A policy that is refused, with its place.
fn bad_policy(text: &str) -> Call {
    policy("bad.rego", text).by(Compare::Places)
}

fn query(text: &str) -> Call {
    let body = serde_json::json!({ "query": text, "input": {"user": "ann", "n": 3} });
    ask("/v1/query", &body.to_string()).by(Compare::Unordered)
}

/// All requests.
pub(crate) fn all() -> Vec<Call> {
    let groups = [
        empty(),
        documents(),
        patches(),
        numbers(),
        policies(),
        decisions(),
        refusals(),
        conflicts(),
        queries(),
        versions(),
        errors(),
    ];
    groups.concat()
}

fn empty() -> Vec<Call> {
    vec![
        get("/health"),
        get("/health?bundles"),
        get("/health?plugins&bundles=true"),
        get("/v1/data"),
        get("/v1/data?pretty"),
        get("/v1/policies"),
        ask("/", "{}"),
        ask("/v1/data/nothing", r#"{"input":1}"#),
        get("/v1/policies/nothing"),
        call("DELETE", "/v1/policies/nothing", ""),
        call("DELETE", "/v1/data/nothing", ""),
        get("/nothing"),
        call("DELETE", "/v1/data", ""),
        call("DELETE", "/v1/policies", ""),
        call("PUT", "/v1/policies", ""),
        call("PATCH", "/v1/query", ""),
        call("POST", "/v1/policies/x", ""),
    ]
}

fn documents() -> Vec<Call> {
    vec![
        put("/x", r#"{"y":[1,2,{"k":3}],"0":5,"é/a":7,"a b":{"c.d":8}}"#),
        get("/v1/data/x"),
        get("/v1/data/x?pretty=true"),
        get("/v1/data/x?pretty=no"),
        get("/v1/data/x/y/0"),
        get("/v1/data/x/y/2/k"),
        get("/v1/data/x/y/9"),
        get("/v1/data/x/y/-1"),
        get("/v1/data/x/y/00"),
        get("/v1/data/x/%C3%A9%2Fa"),
        get("/v1/data/x/a%20b/c.d"),
        get("/v1/data/x/nothing/deeper"),
        put("/x", "1").header("If-None-Match", "*"),
        put("/fresh", "1").header("If-None-Match", "*"),
        put("/fresh/below", "1"),
        put("/fresh/below/more", "1"),
        put("/a/b/c/d", r#"{"made":true}"#),
        get("/v1/data/a"),
        put("/x/y/0", "9"),
        get("/v1/data/x/y"),
        put("/x/y/4", "9"),
        put("/x/y/7", "9"),
        put("/x/y/-", "9"),
        put("/x/y/word", "9"),
        put("/x/y/3/k", "4"),
        get("/v1/data/x/y"),
        put("", "5"),
        put("", "[]"),
        put("/t", r#"{"x":"#).by(Compare::Code),
        put("/t", "").by(Compare::Code),
        put("/t", "nonsense").by(Compare::Code),
        put("/t", r#"{"a":1,"a":2}"#),
        get("/v1/data/t"),
        put("/t", "null"),
        get("/v1/data/t"),
        get("/v1/data/t/x"),
        put("/t/x", "1"),
        call("DELETE", "/v1/data/x/y/0", ""),
        call("DELETE", "/v1/data/x/y/99", ""),
        call("DELETE", "/v1/data/x/y/word", ""),
        call("DELETE", "/v1/data/x/0", ""),
        call("DELETE", "/v1/data/fresh/nothing", ""),
        get("/v1/data"),
        put("", r#"{"only":1}"#),
        get("/v1/data"),
        put("", "{}"),
        get("/v1/data"),
    ]
}

fn patches() -> Vec<Call> {
    let operations = [
        r#"{"op":"add","path":"/y/-","value":9}"#,
        r#"{"op":"add","path":"/y/1","value":77}"#,
        r#"{"op":"add","path":"/y/5","value":55}"#,
        r#"{"op":"add","path":"/y/99","value":77}"#,
        r#"{"op":"add","path":"/y/-/k","value":77}"#,
        r#"{"op":"add","path":"/y/word","value":77}"#,
        r#"{"op":"add","path":"/y/01","value":77}"#,
        r#"{"op":"replace","path":"/y/0","value":0}"#,
        r#"{"op":"replace","path":"/y/-","value":0}"#,
        r#"{"op":"replace","path":"/nothing","value":0}"#,
        r#"{"op":"remove","path":"/nothing"}"#,
        r#"{"op":"remove","path":"/y/0"}"#,
        r#"{"op":"remove","path":"/y/-"}"#,
        r#"{"op":"remove","path":"/y/99"}"#,
        r#"{"op":"remove","path":"/o/a/below"}"#,
        r#"{"op":"add","path":"/o/a/below","value":1}"#,
        r#"{"op":"add","path":"/a/b/c","value":1}"#,
        r#"{"op":"add","path":"/a~1b~0","value":1}"#,
        r#"{"op":"add","path":"/per%20cent","value":1}"#,
        r#"{"op":"add","path":"/v"}"#,
        r#"{"op":"add","path":"slashless","value":1}"#,
        r#"{"op":"test","path":"/y/0","value":1}"#,
        r#"{"op":"move","path":"/y/0","from":"/y/1"}"#,
        r#"{"op":"copy","path":"/y/0","from":"/y/1"}"#,
        r#"{"path":"/y/0"}"#,
        r#"{"op":"add","path":"/q","value":1},{"op":"remove","path":"/zz"}"#,
        r#"{"op":"add","path":"/q/r","value":1}"#,
        r#"{"op":"add","path":"/n","value":{}},{"op":"add","path":"/n/m","value":[1]}"#,
        "",
    ];
    let mut calls = vec![put("", r#"{"x":{"y":[1,2,{"k":3}],"o":{"a":1}}}"#)];
    for operation in operations {
        calls.push(patch("/x", &format!("[{operation}]")));
        calls.push(get("/v1/data/x"));
    }
    calls.extend([
        patch("/x", "null"),
        patch("/x", r#"{"op":"add"}"#).by(Compare::Code),
        patch("/x", "[{").by(Compare::Code),
        patch("/x", "").by(Compare::Code),
        patch("", r#"[{"op":"add","path":"/root","value":1}]"#),
        patch("", r#"[{"op":"add","path":"/","value":1}]"#),
        patch("", r#"[{"op":"remove","path":"/"}]"#),
        patch("", r#"[{"op":"remove","path":"/root"}]"#),
        patch("/new/path", r#"[{"op":"add","path":"/a","value":1}]"#),
        patch("/new", r#"[{"op":"add","path":"/","value":{}}]"#),
        patch("/x", r#"[{"op":"add","path":"","value":{"z":1}}]"#),
        get("/v1/data"),
        patch("", r#"[{"op":"replace","path":"","value":{}}]"#),
        get("/v1/data"),
    ]);
    calls
}

fn numbers() -> Vec<Call> {
    vec![
        put(
            "/num",
            r#"{"big":12345678901234567890123,"neg":-9223372036854775809,"f":0.25,"e":1e2,"z":0,"u":18446744073709551615}"#,
        ),
        get("/v1/data/num"),
        get("/v1/data/num/big"),
        policy(
            "num.rego",
            "package numbers\nbigger := data.num.big + 1\nratio := data.num.f * 4\nid := input.id",
        ),
        get("/v1/data/numbers"),
        ask(
            "/v1/data/numbers/id",
            r#"{"input":{"id":98765432109876543210}}"#,
        ),
        call("DELETE", "/v1/policies/num.rego", ""),
        call("DELETE", "/v1/data/num", ""),
    ]
}

fn policies() -> Vec<Call> {
    vec![
        policy("rbac/main.rego", RBAC).by(Compare::Places),
        policy("rbac/util.rego", UTIL),
        policy("rbac/main.rego", RBAC),
        policy("lang.rego", LANGUAGE),
        policy("with%20space/a%2Fb", "package odd\np = 1"),
        get("/v1/policies"),
        get("/v1/policies/rbac/main.rego"),
        get("/v1/policies/rbac/main.rego?pretty"),
        get("/v1/policies/with%20space/a%2Fb"),
        policy("with%20space/a%2Fb", "package odd\np = 1"),
        call("DELETE", "/v1/policies/with%20space/a%2Fb", ""),
        put("/roles", r#"{"admin":["read","write"],"reader":["read"]}"#),
        put(
            "/users",
            r#"{"ann":{"roles":["admin"],"age":41},"bob":{"roles":["reader"],"age":9}}"#,
        ),
    ]
}

const RBAC: &str = r#"package rbac
import future.keywords
import data.util
import data.util.has as owns
import input.user as who

default allow = false
allow { some role in data.users[who].roles; input.action in data.roles[role] }
allow = true { util.is_root(who) }
reasons contains reason if { not allow; reason := sprintf("%v may not %v", [who, input.action]) }
roles[role] { owns(who, role) }
granted[action] = roles { action := data.roles[_][_]; roles := {r | data.roles[r][_] == action} }
age = data.users[who].age
grade = "adult" { age >= 18 } else = "teen" { age >= 13 } else = "child"
every_user_has_a_role { every _, user in data.users { count(user.roles) > 0 } }
nested.value.here := {"deep": [1, {"x": who}]}
"#;

const UTIL: &str = "package util\nimport rego.v1\n
is_root(name) if name == \"root\"
has(user, role) if role in data.users[user].roles
default level(_) := 0
level(user) := n if n := data.users[user].age
double(x) := x * 2
";

const LANGUAGE: &str = r#"package lang
import future.keywords.every
import future.keywords.in

p[x] { x = [1, 2, 3][_]; x > 1 }
q[k] = v { v = {"a": 1, "b": 2}[k] }
squares := [y | y := [1, 2, 3][_] * 2]
set_of := {x | x = ["b", "a", "b"][_]}
object_of := {k: v | v := {"a": 1, "b": 2}[k]}
mocked = x { x := data.roles.admin with data.roles.admin as ["mock"] }
input_mocked = x { x := input.user with input.user as "nobody" }
walked = count(w) { w := [path | walk(data.roles, [path, _])] }
text := concat(",", [upper("a"), lower("B"), trim(" c ", " "), replace("xdx", "x", ""), substring("hello", 1, 3)])
match { regex.match("^a+$", "aaa") }
old { re_match("^a+$", "aaa") }
anything { any([false, true]) }
everything { all([true, true]) }
parsed := json.unmarshal("{\"a\": [1, 2]}")
encoded := base64.encode("hello")
sum_of := sum([1, 2.5, 3])
sorted := sort(["b", "a"])
time_of := time.parse_rfc3339_ns("2020-01-01T00:00:00Z")
sprint := sprintf("%d-%s-%v", [1, "a", {"k": 1}])
obj := object.get({"a": {"b": 1}}, ["a", "b"], 0)
unioned := {1, 2} | {3}
both := {1, 2} & {2}
without := {1, 2} - {2}
undefined_division = 1 / 0
bad_number = to_number("x")
negated { not data.nothing }
unified = [a, b] { [a, b] = [1, 2] }
destructured = x { {"k": x} = {"k": 5} }
chained = data.users[u].roles[i] { u := "ann"; i := 0 }
head_pattern([a, b]) = a + b
use_pattern = head_pattern([1, 2])
false_value = false
null_value = null
indexed = [1, 2, 3][1]
nested_set := {{1}, {2}}
raw := `a\b"c`
unicode := "é\u00e9"
"#;

fn decisions() -> Vec<Call> {
    let inputs = [
        r#"{"user":"ann","action":"write"}"#,
        r#"{"user":"bob","action":"write"}"#,
        r#"{"user":"root","action":"write"}"#,
        r#"{"user":"nobody"}"#,
        "{}",
        "7",
        r#"[{"user":"ann"}]"#,
    ];
    let rules = [
        "rbac",
        "rbac/allow",
        "rbac/reasons",
        "rbac/roles",
        "rbac/granted",
        "rbac/granted/read",
        "rbac/grade",
        "rbac/nested/value",
        "rbac/every_user_has_a_role",
        "lang",
        "lang/p",
        "lang/p/2",
        "lang/q/a",
        "lang/squares/1",
        "util",
        "",
    ];
    let mut calls = Vec::new();
    for rule in rules {
        let path = format!("/v1/data/{rule}");
        let path = path.trim_end_matches('/');
        calls.push(get(path));
        calls.push(ask(path, ""));
        for input in inputs {
            calls.push(ask(path, &format!(r#"{{"input":{input}}}"#)));
        }
    }
    calls.extend([
        ask("/v1/data/rbac/allow", r#"{"input":null}"#),
        ask("/v1/data/rbac/allow", "null"),
        ask("/v1/data/rbac/allow", "{}"),
        ask("/v1/data/rbac/allow", "[]").by(Compare::Code),
        ask("/v1/data/rbac/allow", r#"{"input":"#).by(Compare::Code),
        ask("/v1/data/rbac/allow", "7").by(Compare::Code),
        ask(
            "/v1/data/rbac/allow?pretty=true",
            r#"{"input":{"user":"ann"}}"#,
        ),
        get("/v1/data/rbac/allow?input=%7B%22user%22:%22root%22%7D"),
        get("/v1/data/rbac/allow?input=%7B%22user").by(Compare::Code),
        ask("/v0/data/rbac/allow", r#"{"user":"root"}"#),
        ask("/v0/data/rbac/nothing", r#"{"user":"root"}"#),
        ask("/v0/data/rbac/allow", "{").by(Compare::Code),
        policy("main.rego", "package system\nmain = {\"seen\": input}"),
        ask("/", r#"{"x":1}"#),
        ask("/", ""),
        ask("/", "{").by(Compare::Code),
        ask("/?pretty", r#"{"x":1}"#),
        call("DELETE", "/v1/policies/main.rego", ""),
        ask("/", r#"{"x":1}"#),
    ]);
    calls
}

/// Modules that must be refused, and what the engine holds afterwards.
fn refusals() -> Vec<Call> {
    let mut calls: Vec<_> = [
        "package bad\np { foo(1) }",
        "package bad\np { data.util.nothing(1) }",
        "package bad\nimport data.util\np { util.nothing(1) }",
        "package bad\np { input.f(1) }",
        "package bad\np { strings.nothing(1) }",
        "package bad\n\np = x { y := 1 }",
        "package bad\np { x > 1 }",
        "package bad\np[x] { not x }",
        "package bad\np { q }\nq { p }",
        "package bad\np { p }",
        "package bad\nf(x) = y { y := f(x) }",
        "package bad\np { data.bad }",
        "package bad\np { count(1, 2, 3) }",
        "package bad\nf(x) = x\np { f(1, 2, 3) }",
        "package bad\np = 1\np[x] { x = 1 }",
        "package bad\ndefault p = 1\np[x] { x = 1 }",
        "package bad\np(x) = 1\np = 2",
        "package bad\np(x) = 1\np(x, y) = 2",
        "package bad\nimport rego.v1\np if any([true])",
        "package bad\nimport rego.v1\np { true }",
    ]
    .into_iter()
    .map(bad_policy)
    .collect();
    for unreadable in [
        "",
        " \n",
        "p = 1",
        "package bad\np = {",
        "package bad\np { \"x }",
        "\u{0}",
        "[[[[",
    ] {
        calls.push(policy("bad.rego", unreadable).by(Compare::Code));
    }
    calls.push(get("/v1/policies"));
    calls.push(policy("rbac/util.rego", "package util\np = 1").by(Compare::Code));
    calls.push(call("DELETE", "/v1/policies/rbac/util.rego", "").by(Compare::Code));
    calls.push(ask("/v1/data/rbac/allow", r#"{"input":{"user":"root"}}"#));
    calls
}

fn conflicts() -> Vec<Call> {
    vec![
        policy("c.rego", "package c.d\np = 1\nq[x] { x = 1 }"),
        put("/c/d/p", "1"),
        put("/c/d/p/below", "1"),
        put("/c/d/q", "1"),
        put("/c/d", r#"{"p":1}"#),
        put("/c/d", r#"{"other":1}"#),
        put("/c", "5"),
        put("/c", r#"{"d":7}"#),
        patch("/c", r#"[{"op":"add","path":"/d/q","value":1}]"#),
        patch("/c", r#"[{"op":"add","path":"/d/r","value":1}]"#),
        get("/v1/data/c"),
        policy("c2.rego", "package c\nd = 1").by(Compare::Code),
        policy("c3.rego", "package c.d\nother = 1"),
        policy("c3.rego", "package c.d.other\nother = 1"),
        get("/v1/data/c"),
        call("DELETE", "/v1/data/c", ""),
        call("DELETE", "/v1/policies/c.rego", ""),
        get("/v1/data/c"),
    ]
}

fn queries() -> Vec<Call> {
    let mut calls: Vec<_> = [
        "x = 1",
        "1 == 2",
        "1 == 1",
        "data.rbac.allow",
        "x := [1, 2][_]",
        "x := [1, 2][i]",
        "input.user = y",
        "result = data.roles",
        "mapping = data.users",
        "data.roles[x] = y",
        "x = data.users[u].roles[_]",
        "x := data.nothing",
        "data.util.double(4, x)",
        "x = data.util.double(input.n)",
        "count([1, 2]) == 2; x := 3",
        "not data.nothing",
        "x = {1, 2}",
        "[a, b] = [1, input.n]",
    ]
    .into_iter()
    .map(query)
    .collect();
    for bad in [
        "foo(",
        "foo(1)",
        "y",
        "x > 1",
        "data.util.nothing(1)",
        "x := 1; x := 2",
        "]",
    ] {
        calls.push(query(bad).by(Compare::Code));
    }
    calls.extend([
        get("/v1/query"),
        get("/v1/query?q="),
        get("/v1/query?q=x%3D1"),
        get("/v1/query?q=x%3D1&pretty"),
        ask("/v1/query", "{}"),
        ask("/v1/query", "").by(Compare::Code),
        ask("/v1/query", r#"{"query":"#).by(Compare::Code),
        ask("/v1/query", r#"{"query":1}"#).by(Compare::Code),
    ]);
    calls
}

/// Modules of v0 and v1 side by side.
fn versions() -> Vec<Call> {
    vec![
        policy("v0.rego", "package v0\np[x] { x = data.v1.p[_] }\nif = 1"),
        policy(
            "v1.rego",
            "package v1\nimport rego.v1\np contains x if { some x in [1, 2] }",
        ),
        policy(
            "kw.rego",
            "package kw\nimport future.keywords.if\nimport future.keywords.contains\np contains 3 if true",
        ),
        policy("v0.rego", "package v0\np[x] { x = data.v1.p[_] }"),
        get("/v1/data/v0"),
        get("/v1/data/v1"),
        get("/v1/data/kw"),
        policy("v0.rego", "package v0\np if { true }").by(Compare::Code),
        policy("v1.rego", "package v1\nimport rego.v1\np[x] { x = 1 }").by(Compare::Code),
        get("/v1/data/v0"),
    ]
}

fn errors() -> Vec<Call> {
    vec![
        policy(
            "e.rego",
            "package e\nq = 1 { true }\nq = 2 { true }\nf(x) = 1 { x > 0 }\nf(x) = 2 { x > 1 }\nr = f(5)\nok = 1",
        ),
        get("/v1/data/e/ok"),
        get("/v1/data/e/q").by(Compare::Code),
        get("/v1/data/e/r").by(Compare::Code),
        get("/v1/data/e").by(Compare::Code),
        get("/v1/data").by(Compare::Code),
        query("x = data.e.q").by(Compare::Code),
        call("DELETE", "/v1/policies/e.rego", ""),
        get("/v1/data/a/%zz").by(Compare::Code),
    ]
}
