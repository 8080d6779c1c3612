//! The grammar, by recursive descent with a bounded depth.

use super::ast::{Entry, Expr, FieldInit, Fold, Item, Kind, Literal, operators};
use super::lexer::{self, Lexeme, Token};
use super::{literals, macros};
use crate::names;
use crate::source::{CompileErrors, Issues, Offset};

/// How deep the tree may be, chains of operators included (upstream: `maxRecursionDepth`).
const DEPTH_MAX: u32 = 250;
/// How deep brackets may nest; each level takes some stack of the thread that parses.
const NESTING_MAX: u32 = 100;
/// Upstream's `expressionSizeCodePointLimit`.
const CHARACTERS_MAX: usize = 100_000;
/// Macros may copy what they stand on; more nodes than this are refused.
const NODES_MAX: u32 = 200_000;

const PRIMARY: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, \
                       BYTES, IDENTIFIER}";

/// Parses and expands macros; answers the tree and the number of nodes.
pub fn parse(text: &str) -> Result<(Expr, u32), CompileErrors> {
    let mut issues = Issues::new(text);
    let characters = text.chars().count();
    if characters > CHARACTERS_MAX {
        issues
            .report(0, format!("expression code point size exceeds limit: size: {characters}, limit {CHARACTERS_MAX}"));
        return Err(issues.into_errors());
    }
    let lexemes = lexer::tokens(text, &mut issues);
    let mut parser = Parser { lexemes, next: 0, nodes: Nodes { count: 0 }, issues, depth: 0 };
    let parsed = parser.expression();
    if parsed.is_some() && parser.peek().token != Token::End {
        let found = parser.peek();
        let verb = if parser.token_after() == Token::End { "extraneous" } else { "mismatched" };
        parser.issues.report(found.at, format!("Syntax error: {verb} input '{}' expecting <EOF>", found.text));
    }
    match parsed {
        Some(expr) if parser.issues.is_empty() => match parser.bounded(expr) {
            Some(expr) => Ok((expr, parser.nodes.count)),
            None => Err(parser.issues.into_errors()),
        },
        _ => Err(parser.issues.into_errors()),
    }
}

/// Makes nodes.
pub struct Nodes {
    count: u32,
}

impl Nodes {
    pub fn node(&mut self, at: Offset, kind: Kind) -> Expr {
        let id = self.count;
        self.count = self.count.saturating_add(1);
        let mut expr = Expr { id, at, depth: 0, kind };
        let mut depth = 0;
        each_child(&expr, &mut |child| depth = depth.max(child.depth));
        expr.depth = depth + 1;
        expr
    }

    pub fn call(&mut self, at: Offset, function: &str, args: Vec<Expr>) -> Expr {
        self.node(at, Kind::Call { function: function.to_owned(), target: None, args })
    }

    pub fn member(&mut self, at: Offset, function: &str, target: Expr, args: Vec<Expr>) -> Expr {
        self.node(at, Kind::Call { function: function.to_owned(), target: Some(Box::new(target)), args })
    }

    pub fn ident(&mut self, at: Offset, name: &str) -> Expr {
        self.node(at, Kind::Ident(name.to_owned()))
    }

    pub fn literal(&mut self, at: Offset, literal: Literal) -> Expr {
        self.node(at, Kind::Literal(literal))
    }

    pub fn list(&mut self, at: Offset, values: Vec<Expr>) -> Expr {
        let items = values.into_iter().map(|value| Item { value, optional: false }).collect();
        self.node(at, Kind::List(items))
    }

    /// No more nodes are made than an expression may have; the copy is `None` beyond.
    pub fn copy(&mut self, expr: &Expr) -> Option<Expr> {
        if self.count > NODES_MAX {
            return None;
        }
        let mut copy = expr.clone();
        self.renumber(&mut copy);
        Some(copy)
    }

    fn renumber(&mut self, expr: &mut Expr) {
        expr.id = self.count;
        self.count = self.count.saturating_add(1);
        each_child_mut(expr, &mut |child| self.renumber(child));
    }
}

struct Parser<'t> {
    lexemes: Vec<Lexeme<'t>>,
    next: usize,
    nodes: Nodes,
    issues: Issues<'t>,
    depth: u32,
}

/// `None`: it was reported.
type Parsed = Option<Expr>;

impl<'t> Parser<'t> {
    fn peek(&self) -> Lexeme<'t> {
        self.at(self.next)
    }

    fn at(&self, index: usize) -> Lexeme<'t> {
        let end = Lexeme { token: Token::End, text: "<EOF>", at: 0 };
        self.lexemes.get(index).or(self.lexemes.last()).copied().unwrap_or(end)
    }

    fn token_after(&self) -> Token {
        self.at(self.next + 1).token
    }

    fn take(&mut self) -> Lexeme<'t> {
        let found = self.peek();
        self.next += 1;
        found
    }

    fn is(&self, fixed: &str) -> bool {
        matches!(self.peek().token, Token::Fixed(found) if found == fixed)
    }

    /// Takes this token if it is next.
    fn eat(&mut self, fixed: &str) -> Option<Lexeme<'t>> {
        self.is(fixed).then(|| self.take())
    }

    fn expect(&mut self, fixed: &str) -> Option<Lexeme<'t>> {
        let found = self.eat(fixed);
        if found.is_none() {
            let next = self.peek();
            self.issues.report(next.at, format!("Syntax error: missing '{fixed}' at '{}'", next.text));
        }
        found
    }

    fn fail<T>(&mut self, at: Offset, message: impl Into<String>) -> Option<T> {
        self.issues.report(at, message);
        None
    }

    /// A tree that is too deep would end whoever walks it, or drops it.
    fn bounded(&mut self, expr: Expr) -> Parsed {
        if expr.depth > DEPTH_MAX {
            return self.fail(0, format!("expression recursion limit exceeded: {DEPTH_MAX}"));
        }
        Some(expr)
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return self.fail(0, format!("expression recursion limit exceeded: {NESTING_MAX}"));
        }
        let condition = self.binary(0)?;
        let parsed = if let Some(op) = self.eat("?") {
            let then = self.binary(0)?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            self.nodes.call(op.at, operators::CONDITIONAL, vec![condition, then, otherwise])
        } else {
            condition
        };
        self.depth -= 1;
        Some(parsed)
    }

    /// Operators that bind at least as tightly as asked for. One level of recursion for all of them keeps the stack
    /// small.
    fn binary(&mut self, tightness: u8) -> Parsed {
        let mut left = self.unary()?;
        while let Some((binds, sign, function)) = operator(self.peek().token) {
            if binds < tightness {
                break;
            }
            if function == operators::AND || function == operators::OR {
                let (mut terms, mut places) = (vec![left], Vec::new());
                while let Some(op) = self.eat(sign) {
                    places.push(op.at);
                    terms.push(self.binary(binds + 1)?);
                }
                left = balance(&mut self.nodes, function, terms, &places)?;
                continue;
            }
            let op = self.take();
            let right = self.binary(binds + 1)?;
            let joined = self.nodes.call(op.at, function, vec![left, right]);
            left = self.bounded(joined)?;
        }
        Some(left)
    }

    fn unary(&mut self) -> Parsed {
        let first = self.peek();
        let (sign, function) = match first.token {
            Token::Fixed("!") => ("!", operators::NOT),
            Token::Fixed("-") if !matches!(self.token_after(), Token::Int | Token::Float) => ("-", operators::NEGATE),
            _ => return self.member(),
        };
        let mut signs = 0;
        while self.is(sign) && !(sign == "-" && matches!(self.token_after(), Token::Int | Token::Float)) {
            self.take();
            signs += 1;
        }
        let operand = self.member()?;
        if signs % 2 == 0 { Some(operand) } else { Some(self.nodes.call(first.at, function, vec![operand])) }
    }

    fn member(&mut self) -> Parsed {
        let mut operand = self.primary()?;
        loop {
            if let Some(dot) = self.eat(".") {
                let optional = self.eat("?").is_some();
                let selected = self.selection(operand, dot.at, optional)?;
                operand = self.bounded(selected)?;
            } else if let Some(open) = self.eat("[") {
                let function = if self.eat("?").is_some() { operators::OPT_INDEX } else { operators::INDEX };
                let index = self.expression()?;
                self.expect("]")?;
                let indexed = self.nodes.call(open.at, function, vec![operand, index]);
                operand = self.bounded(indexed)?;
            } else if self.is("{") && matches!(operand.kind, Kind::Ident(_) | Kind::Select { test: false, .. }) {
                let Some(name) = qualified(&operand) else { return Some(operand) };
                operand = self.structure(name)?;
            } else {
                return Some(operand);
            }
        }
    }

    fn selection(&mut self, operand: Expr, at: Offset, optional: bool) -> Parsed {
        let name = self.peek();
        let field = match name.token {
            Token::Ident => name.text.to_owned(),
            Token::Quoted => name.text.trim_matches('`').to_owned(),
            _ => {
                let shown = name.text;
                return self.fail(name.at, format!("Syntax error: mismatched input '{shown}' expecting IDENTIFIER"));
            }
        };
        self.take();
        if optional {
            let literal = self.nodes.literal(name.at, Literal::String(field));
            return Some(self.nodes.call(at, operators::OPT_SELECT, vec![operand, literal]));
        }
        if name.token == Token::Ident
            && let Some(open) = self.eat("(")
        {
            let args = self.arguments()?;
            return self.call_or_macro(open.at, field, Some(operand), args);
        }
        Some(self.nodes.node(at, Kind::Select { operand: Box::new(operand), field, test: false }))
    }

    fn arguments(&mut self) -> Option<Vec<Expr>> {
        let mut args = Vec::new();
        if self.eat(")").is_some() {
            return Some(args);
        }
        loop {
            args.push(self.expression()?);
            if self.eat(",").is_none() {
                self.expect(")")?;
                return Some(args);
            }
        }
    }

    fn call_or_macro(&mut self, at: Offset, function: String, target: Option<Expr>, args: Vec<Expr>) -> Parsed {
        match macros::expand(&mut self.nodes, at, &function, target, args) {
            Ok(macros::Expanded::Macro(expr)) => Some(expr),
            Ok(macros::Expanded::NoMacro(target, args)) => {
                let target = target.map(Box::new);
                Some(self.nodes.node(at, Kind::Call { function, target, args }))
            }
            Err((at, message)) => self.fail(at, message),
        }
    }

    fn primary(&mut self) -> Parsed {
        let first = self.peek();
        match first.token {
            Token::Fixed("(") => {
                self.take();
                let inner = self.expression()?;
                self.expect(")")?;
                Some(inner)
            }
            Token::Fixed("[") => {
                self.take();
                self.list(first.at)
            }
            Token::Fixed("{") => {
                self.take();
                self.map(first.at)
            }
            Token::Fixed(".") => {
                self.take();
                if self.peek().token == Token::Ident {
                    self.identifier(".")
                } else {
                    let found = self.peek();
                    let shown = found.text;
                    self.fail(found.at, format!("Syntax error: mismatched input '{shown}' expecting IDENTIFIER"))
                }
            }
            Token::Ident => self.identifier(""),
            _ => self.literal(),
        }
    }

    fn identifier(&mut self, prefix: &str) -> Parsed {
        let name = self.take();
        if names::RESERVED.contains(&name.text) {
            return self.fail(name.at, format!("reserved identifier: {}", name.text));
        }
        let full = format!("{prefix}{}", name.text);
        if let Some(open) = self.eat("(") {
            let args = self.arguments()?;
            return self.call_or_macro(open.at, full, None, args);
        }
        Some(self.nodes.node(name.at, Kind::Ident(full)))
    }

    fn literal(&mut self) -> Parsed {
        let first = self.take();
        let (number, text) = match first.token {
            Token::Fixed("-") => {
                let number = self.take();
                (number.token, format!("-{}", number.text))
            }
            token => (token, first.text.to_owned()),
        };
        let literal = match number {
            Token::Int => literals::int(&text).map(Literal::Int).ok_or("invalid int literal"),
            Token::Uint => literals::uint(&text).map(Literal::Uint).ok_or("invalid uint literal"),
            Token::Float => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Literal::Double(value)),
                _ => Err("invalid double literal"),
            },
            Token::String => literals::string(&text).map(Literal::String),
            Token::Bytes => literals::bytes(&text).map(Literal::Bytes),
            Token::Fixed("true") => Ok(Literal::Bool(true)),
            Token::Fixed("false") => Ok(Literal::Bool(false)),
            Token::Fixed("null") => Ok(Literal::Null),
            _ => {
                let verb = if starts_expression(self.peek().token) { "extraneous" } else { "mismatched" };
                return self.fail(first.at, format!("Syntax error: {verb} input '{text}' expecting {PRIMARY}"));
            }
        };
        match literal {
            Ok(literal) => Some(self.nodes.literal(first.at, literal)),
            Err(why) => self.fail(first.at, why),
        }
    }

    fn list(&mut self, at: Offset) -> Parsed {
        let mut items = Vec::new();
        while self.eat("]").is_none() {
            if !(items.is_empty() && self.is(",")) {
                let optional = self.eat("?").is_some();
                items.push(Item { value: self.expression()?, optional });
            }
            if self.eat(",").is_none() {
                self.expect("]")?;
                break;
            }
        }
        Some(self.nodes.node(at, Kind::List(items)))
    }

    fn map(&mut self, at: Offset) -> Parsed {
        let mut entries = Vec::new();
        while self.eat("}").is_none() {
            if !(entries.is_empty() && self.is(",")) {
                let optional = self.eat("?").is_some();
                let key = self.expression()?;
                self.expect(":")?;
                entries.push(Entry { key, value: self.expression()?, optional });
            }
            if self.eat(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        Some(self.nodes.node(at, Kind::Map(entries)))
    }

    fn structure(&mut self, name: String) -> Parsed {
        let open = self.take();
        let mut fields = Vec::new();
        while self.eat("}").is_none() {
            if !(fields.is_empty() && self.is(",")) {
                let optional = self.eat("?").is_some();
                let field = self.take();
                if !matches!(field.token, Token::Ident | Token::Quoted) {
                    let shown = field.text;
                    return self
                        .fail(field.at, format!("Syntax error: mismatched input '{shown}' expecting IDENTIFIER"));
                }
                let colon = self.expect(":")?;
                let name = field.text.trim_matches('`').to_owned();
                fields.push(FieldInit { at: colon.at, name, value: self.expression()?, optional });
            }
            if self.eat(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        Some(self.nodes.node(open.at, Kind::Struct { name, fields }))
    }
}

/// How tightly a binary operator binds, its sign, and its function.
fn operator(token: Token) -> Option<(u8, &'static str, &'static str)> {
    let Token::Fixed(sign) = token else { return None };
    Some(match sign {
        "||" => (0, sign, operators::OR),
        "&&" => (1, sign, operators::AND),
        "==" => (2, sign, operators::EQUALS),
        "!=" => (2, sign, operators::NOT_EQUALS),
        "<" => (2, sign, operators::LESS),
        "<=" => (2, sign, operators::LESS_EQUALS),
        ">" => (2, sign, operators::GREATER),
        ">=" => (2, sign, operators::GREATER_EQUALS),
        "in" => (2, sign, operators::IN),
        "+" => (3, sign, operators::ADD),
        "-" => (3, sign, operators::SUBTRACT),
        "*" => (4, sign, operators::MULTIPLY),
        "/" => (4, sign, operators::DIVIDE),
        "%" => (4, sign, operators::MODULO),
        _ => return None,
    })
}

fn starts_expression(token: Token) -> bool {
    match token {
        Token::End => false,
        Token::Fixed(fixed) => matches!(fixed, "[" | "{" | "(" | "." | "-" | "!" | "true" | "false" | "null"),
        _ => true,
    }
}

/// A chain of `&&` or `||` as a balanced tree, so that long ones are not deep.
fn balance(nodes: &mut Nodes, function: &str, terms: Vec<Expr>, places: &[Offset]) -> Parsed {
    let mut terms = terms;
    if terms.len() < 2 {
        return terms.pop();
    }
    let middle = places.len() / 2;
    let right = terms.split_off(middle + 1);
    let left = balance(nodes, function, terms, &places[..middle])?;
    let right = balance(nodes, function, right, &places[middle + 1..])?;
    Some(nodes.call(*places.get(middle)?, function, vec![left, right]))
}

/// `a.b.c` as a name.
pub fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select { operand, field, test: false } => Some(format!("{}.{field}", qualified(operand)?)),
        _ => None,
    }
}

fn each_child(expr: &Expr, visit: &mut dyn FnMut(&Expr)) {
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => visit(operand),
        Kind::Call { target, args, .. } => target.iter().map(|target| &**target).chain(args).for_each(visit),
        Kind::List(items) => items.iter().for_each(|item| visit(&item.value)),
        Kind::Map(entries) => entries.iter().for_each(|entry| {
            visit(&entry.key);
            visit(&entry.value);
        }),
        Kind::Struct { fields, .. } => fields.iter().for_each(|field| visit(&field.value)),
        Kind::Fold(fold) => {
            [&fold.range, &fold.start, &fold.condition, &fold.step, &fold.result].into_iter().for_each(visit);
        }
    }
}

fn each_child_mut(expr: &mut Expr, visit: &mut dyn FnMut(&mut Expr)) {
    match &mut expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => visit(operand),
        Kind::Call { target, args, .. } => target.iter_mut().map(|target| &mut **target).chain(args).for_each(visit),
        Kind::List(items) => items.iter_mut().for_each(|item| visit(&mut item.value)),
        Kind::Map(entries) => entries.iter_mut().for_each(|entry| {
            visit(&mut entry.key);
            visit(&mut entry.value);
        }),
        Kind::Struct { fields, .. } => fields.iter_mut().for_each(|field| visit(&mut field.value)),
        Kind::Fold(fold) => {
            let Fold { range, start, condition, step, result, .. } = &mut **fold;
            [range, start, condition, step, result].into_iter().for_each(visit);
        }
    }
}
