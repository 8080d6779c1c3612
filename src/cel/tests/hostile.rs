//! Whatever comes in: an answer, without a panic and within bounds.

use cel::{Budget, Decl, Env, EvalError, Value, Variables};
use proptest::prelude::*;
use serde_json::json;

fn run(text: &str) {
    let object = json!({"s": "text", "l": [1, "two", {"three": 3.0}], "m": {"a": {"b": null}}, "n": -1});
    let env = Env::new().variable("x", Decl::dynamic());
    let Ok(program) = env.compile(text) else { return };
    program.estimate();
    let variables = Variables::new().with("x", Value::of_plain_json(&object));
    let mut budget = Budget::with_call_limit(20_000, 20_000);
    if let Ok(value) = program.eval(&variables, &mut budget) {
        let _ = format!("{value:?}");
        let _ = value.to_json();
    }
}

fn piece() -> impl Strategy<Value = String> {
    let names = "all|exists|map|filter|size|split|replace|format|sort|sortBy|flatten|slice|indexOf|lastIndexOf|substring|\
                 charAt|join|matches|findAll|distinct|optMap|orValue|transformMap|transformList|hasValue|first|sum|max";
    let names: Vec<String> = names.split('|').map(str::to_owned).collect();
    let tokens = "x|x.s|x.l|x.m.a|x.n|1|-1|2.5|3u|'a'|\"\u{e9}\"|b'\\xff'|null|true|[|]|{|}|(|)|,|:|?|.|?.|[?|+|-|*|/|%|<|\
                  <=|==|!=|&&| || |!|in|has(|dyn(|int(|string(|type(|duration(|timestamp(|quantity(|ip(|cidr(|url(|\
                  semver(|lists.range(|sets.contains(|.";
    let tokens: Vec<String> = tokens.split('|').map(str::to_owned).collect();
    prop_oneof![
        3 => prop::sample::select(tokens),
        1 => prop::sample::select(names).prop_map(|name| format!(".{name}(")),
        1 => "[a-z]{1,3}",
        1 => "\\PC{1,4}",
    ]
}

/// Expressions that parse, of bounded size.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "x",
        "x.s",
        "x.l",
        "x.m",
        "x.n",
        "1",
        "-7",
        "2.5",
        "3u",
        "'a/b'",
        "'%s%d%f'",
        "''",
        "null",
        "true",
        "[]",
        "{}",
        "'1h'",
        "'10.0.0.1'",
        "'1.2.3'",
        "[3, 1, 2]",
        "['b', 'a']",
        "9223372036854775807",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(5, 40, 3, |inner| {
        let binary = prop::sample::select(vec!["+", "-", "*", "/", "%", "<", "==", "!=", "&&", "||", "in"]);
        let call = prop::sample::select(vec![
            "size",
            "split",
            "replace",
            "format",
            "sort",
            "flatten",
            "slice",
            "indexOf",
            "lastIndexOf",
            "substring",
            "charAt",
            "join",
            "matches",
            "find",
            "findAll",
            "distinct",
            "reverse",
            "first",
            "orValue",
            "or",
            "sum",
            "max",
            "add",
            "sub",
            "compareTo",
            "containsIP",
            "lowerAscii",
            "trim",
        ]);
        let global = prop::sample::select(vec![
            "dyn",
            "int",
            "uint",
            "double",
            "string",
            "bytes",
            "bool",
            "type",
            "duration",
            "timestamp",
            "quantity",
            "ip",
            "cidr",
            "url",
            "isURL",
            "semver",
            "optional.of",
            "lists.range",
            "strings.quote",
        ]);
        let each = prop::sample::select(vec!["all", "exists", "exists_one", "map", "filter", "sortBy", "optMap"]);
        prop_oneof![
            (inner.clone(), binary, inner.clone()).prop_map(|(a, op, b)| format!("(dyn({a}) {op} dyn({b}))")),
            (inner.clone(), call.clone()).prop_map(|(a, name)| format!("dyn({a}).{name}()")),
            (inner.clone(), call.clone(), inner.clone()).prop_map(|(a, name, b)| format!("dyn({a}).{name}(dyn({b}))")),
            (inner.clone(), call, inner.clone(), inner.clone())
                .prop_map(|(a, name, b, c)| format!("dyn({a}).{name}(dyn({b}), dyn({c}))")),
            (global, inner.clone()).prop_map(|(name, a)| format!("{name}(dyn({a}))")),
            (inner.clone(), each, inner.clone()).prop_map(|(a, name, b)| format!("dyn({a}).{name}(v, dyn({b}) == v)")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("dyn({a})[dyn({b})]")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(a, b, c)| format!("(dyn({a}) == 1 ? dyn({b}) : dyn({c}))")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_text_gets_an_answer(text in "\\PC{0,40}") {
        run(&text);
    }

    #[test]
    fn any_tokens_get_an_answer(pieces in prop::collection::vec(piece(), 0..24)) {
        run(&pieces.join(" "));
        run(&pieces.concat());
    }

    #[test]
    fn any_expression_gets_an_answer(text in expression()) {
        run(&text);
    }
}

#[test]
fn nesting_is_bounded() {
    for (open, close) in
        [("(", ")"), ("[", "]"), ("{1: ", "}"), ("!(", ")"), ("size(", ")"), ("x ? x : (", ")"), ("-(", ")")]
    {
        run(&format!("{}x{}", open.repeat(5_000), close.repeat(5_000)));
        run(&open.repeat(20_000));
    }
    for chain in [".a", "[0]", " + x", ".all(x, true)", " == x", ".map(y, y)", ".?a", ".optMap(y, y)"] {
        run(&format!("x{}", chain.repeat(6_000)));
        run(&format!("x{}", chain.repeat(100)));
        run(&format!("x{}", chain.repeat(20)));
    }
    run(&"!".repeat(50_000));
    run(&format!("x{}", " && x".repeat(15_000)));
    let doubled = (0..60).fold("x".to_owned(), |inner, _| format!("[{inner}].all(x, {{x: x}} == x)"));
    run(&doubled);
}

/// Lists of lists of lists: each level is cheap, all of them are not.
#[test]
fn work_is_bounded() {
    let env = Env::new();
    let costly = "lists.range(1000).all(a, lists.range(1000).all(b, lists.range(1000).all(c, true)))";
    let program = env.compile(costly).unwrap();
    let mut budget = Budget::new(10_000_000);
    assert_eq!(program.eval(&Variables::new(), &mut budget).unwrap_err(), EvalError::CallLimit);
    let mut small = Budget::new(1_000);
    assert_eq!(program.eval(&Variables::new(), &mut small).unwrap_err(), EvalError::Budget);
    assert_eq!(small.left(), 0);
}

/// What costs one unit each time must not grow without end.
#[test]
fn sizes_are_bounded() {
    let text = "x".repeat(1 << 14);
    let replaced = format!("'{text}'.replace('', '{text}').size()");
    let lists = format!("[lists.range(100000)].map(l, {}).size()", ["l"; 40].join(" + "));
    for expression in [replaced, lists] {
        let program = Env::new().compile(&expression).unwrap();
        let error = program.eval(&Variables::new(), &mut Budget::new(10_000_000)).unwrap_err();
        assert!(error.to_string().ends_with("is too long"), "{error}");
    }
}

/// Fields that are computed from each other, as a policy's variables are: `v0`, `v1`, … each from the one before.
struct Chain {
    programs: Vec<cel::Program>,
}

impl cel::Activation for Chain {
    fn variable<'s>(&'s self, _: &str, _: &mut Budget) -> Option<Result<Value<'s>, EvalError>> {
        Some(Ok(Value::Lazy(self)))
    }
}

impl cel::Fields for Chain {
    fn field<'s>(&'s self, name: &str, budget: &mut Budget) -> Option<Result<Value<'s>, EvalError>> {
        let index: usize = name.trim_start_matches('v').parse().ok()?;
        Some(self.programs.get(index)?.eval(self, budget))
    }
}

#[test]
fn a_long_chain_of_variables_is_refused_and_a_short_one_is_not() {
    let env = Env::new().variable("variables", Decl::dynamic());
    let expression = |index: usize| if index == 0 { "[1]".to_owned() } else { format!("[variables.v{}]", index - 1) };
    let programs: Vec<_> = (0..20_000).map(|index| env.compile(&expression(index)).unwrap()).collect();
    let chain = Chain { programs };
    let mut budget = Budget::new(10_000_000);
    assert!(chain.programs[60].eval(&chain, &mut budget).is_ok());
    let error = chain.programs[19_999].eval(&chain, &mut budget).unwrap_err();
    assert_eq!(error.to_string(), "evaluation nests too deeply");
}
