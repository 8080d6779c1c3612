//! One table: what is wanted of it, what was applied, and the changes from one to the other. Pure.
//!
//! A table is made of named fragments. Setting one costs what that fragment holds, whatever else is in the table.
//! Two fragments may claim the same element (two Services with one external address); the claim whose fragment's name
//! comes first holds, and the next takes over when it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::model::{BaseChain, Element, Family, Fragment, Rule, SetSpec, Verdict};
use super::text;

/// The smallest change that the kernel knows, in a transaction with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Removes the table if it is there, and begins it anew.
    Replace,
    AddChain(String, Option<BaseChain>),
    AddSet(String, SetSpec),
    DeleteElement(Element),
    /// Removes all rules from a chain.
    Flush(String),
    AddRule(String, Rule),
    AddElement(Element, Option<Verdict>),
    DeleteSet(String),
    DeleteChain(String),
}

#[derive(Debug)]
pub struct Table {
    family: Family,
    name: String,
    fragments: BTreeMap<Arc<str>, Arc<Fragment>>,
    /// What the kernel has of those that were set since the last plan; `None` for nothing.
    before: BTreeMap<Arc<str>, Option<Arc<Fragment>>>,
    /// Which fragments claim an element, in order.
    claims: BTreeMap<Element, Vec<Arc<str>>>,
    /// The kernel's table is as of the last plan.
    known: bool,
}

impl Table {
    /// A table of which nothing is known yet: the first plan replaces it as a whole.
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Self {
            family,
            name: name.into(),
            fragments: BTreeMap::new(),
            before: BTreeMap::new(),
            claims: BTreeMap::new(),
            known: false,
        }
    }

    pub fn family(&self) -> Family {
        self.family
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says what fragment `name` shall be from the next plan on; `None`: gone.
    pub fn set(&mut self, name: &str, fragment: Option<Arc<Fragment>>) {
        let name: Arc<str> = Arc::from(name);
        let current = self.fragments.get(&name);
        if current == fragment.as_ref() {
            return;
        }
        self.before.entry(name.clone()).or_insert_with(|| current.cloned());
        match fragment {
            Some(fragment) => self.fragments.insert(name, fragment),
            None => self.fragments.remove(&name),
        };
    }

    /// The names of all fragments.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fragments.keys().map(|name| &**name)
    }

    /// What has to change in the kernel; empty if nothing. The plan counts as carried out from here on, unless
    /// [`Table::doubt`] says otherwise.
    pub fn plan(&mut self) -> Vec<Change> {
        let before = std::mem::take(&mut self.before);
        if !self.known {
            self.known = true;
            self.claims.clear();
            return self.plan_whole();
        }
        self.plan_changes(&before)
    }

    /// The last plan was not carried out, or somebody else changed the table: the next plan replaces it.
    pub fn doubt(&mut self) {
        self.known = false;
    }

    /// Everything wanted, as text.
    pub fn text(&self) -> String {
        let mut out = format!("table {} {}\n", self.family, self.name);
        for (name, fragment) in &self.fragments {
            out.push_str(&format!("# {name}\n"));
            text::fragment(&mut out, self.family, fragment);
        }
        out
    }

    fn plan_whole(&mut self) -> Vec<Change> {
        let mut plan = Plan::default();
        let mut touched = BTreeSet::new();
        let fragments: Vec<_> = self.fragments.iter().map(|(name, part)| (name.clone(), part.clone())).collect();
        for (name, fragment) in &fragments {
            plan.parts(&Fragment::default(), fragment);
            for element in fragment.elements.keys() {
                self.claim(element, name);
                touched.insert(element.clone());
            }
        }
        for element in touched {
            if let Some(verdict) = self.holder(&element) {
                plan.add_elements.push(Change::AddElement(element, verdict));
            }
        }
        plan.into_changes(true)
    }

    fn plan_changes(&mut self, before: &BTreeMap<Arc<str>, Option<Arc<Fragment>>>) -> Vec<Change> {
        let nothing = Arc::new(Fragment::default());
        let mut plan = Plan::default();
        // What each touched element is now in the kernel; then the claims change; then what it shall be.
        let mut touched: BTreeMap<Element, Option<Option<Verdict>>> = BTreeMap::new();
        let mut pairs = Vec::new();
        for (name, old) in before {
            let old = old.as_ref().unwrap_or(&nothing).clone();
            let new = self.fragments.get(name).unwrap_or(&nothing).clone();
            if old == new {
                continue;
            }
            plan.parts(&old, &new);
            for element in old.elements.keys().chain(new.elements.keys()) {
                if old.elements.get(element) != new.elements.get(element) && !touched.contains_key(element) {
                    touched.insert(element.clone(), self.holder_before(element, before));
                }
            }
            pairs.push((name.clone(), old, new));
        }
        for (name, old, new) in &pairs {
            for element in old.elements.keys().filter(|element| !new.elements.contains_key(*element)) {
                self.disclaim(element, name);
            }
            for element in new.elements.keys().filter(|element| !old.elements.contains_key(*element)) {
                self.claim(element, name);
            }
        }
        for (element, was) in touched {
            let is = self.holder(&element);
            if was == is {
                continue;
            }
            if was.is_some() {
                plan.delete_elements.push(Change::DeleteElement(element.clone()));
            }
            if let Some(verdict) = is {
                plan.add_elements.push(Change::AddElement(element, verdict));
            }
        }
        plan.into_changes(false)
    }

    fn claim(&mut self, element: &Element, by: &Arc<str>) {
        let claims = self.claims.entry(element.clone()).or_default();
        if let Err(at) = claims.binary_search(by) {
            claims.insert(at, by.clone());
        }
    }

    fn disclaim(&mut self, element: &Element, by: &Arc<str>) {
        if let Some(claims) = self.claims.get_mut(element) {
            claims.retain(|claim| claim != by);
            if claims.is_empty() {
                self.claims.remove(element);
            }
        }
    }

    /// What holds for an element: `None` if it is not there.
    fn holder(&self, element: &Element) -> Option<Option<Verdict>> {
        let first = self.claims.get(element)?.first()?;
        self.fragments.get(first)?.elements.get(element).cloned()
    }

    fn holder_before(
        &self,
        element: &Element,
        before: &BTreeMap<Arc<str>, Option<Arc<Fragment>>>,
    ) -> Option<Option<Verdict>> {
        let first = self.claims.get(element)?.first()?;
        let fragment = match before.get(first) {
            Some(old) => old.as_ref()?,
            None => self.fragments.get(first)?,
        };
        fragment.elements.get(element).cloned()
    }
}

/// Changes by kind, since the kernel needs them in an order: a chain has to be there before something leads to it, and
/// nothing may lead to it any more when it goes.
#[derive(Default)]
struct Plan {
    add_chains: Vec<Change>,
    add_sets: Vec<Change>,
    delete_elements: Vec<Change>,
    flushes: Vec<Change>,
    add_rules: Vec<Change>,
    add_elements: Vec<Change>,
    delete_sets: Vec<Change>,
    delete_chains: Vec<Change>,
}

impl Plan {
    /// Chains and sets from `old` to `new`.
    fn parts(&mut self, old: &Fragment, new: &Fragment) {
        for (name, chain) in &new.chains {
            match old.chains.get(name) {
                Some(same) if same == chain => continue,
                Some(_) => self.flushes.push(Change::Flush(name.clone())),
                None => self.add_chains.push(Change::AddChain(name.clone(), chain.base)),
            }
            self.add_rules.extend(chain.rules.iter().map(|rule| Change::AddRule(name.clone(), rule.clone())));
        }
        for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
            self.flushes.push(Change::Flush(name.clone()));
            self.delete_chains.push(Change::DeleteChain(name.clone()));
        }
        for (name, set) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
            self.add_sets.push(Change::AddSet(name.clone(), set.clone()));
        }
        for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
            self.delete_sets.push(Change::DeleteSet(name.clone()));
        }
    }

    fn into_changes(self, replace: bool) -> Vec<Change> {
        let mut changes = Vec::new();
        if replace {
            changes.push(Change::Replace);
        }
        for part in [
            self.add_chains,
            self.add_sets,
            self.delete_elements,
            self.flushes,
            self.add_rules,
            self.add_elements,
            self.delete_sets,
            self.delete_chains,
        ] {
            changes.extend(part);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Chain, Field, KeyPart, Statement};

    fn part(chain: &str, port: u16) -> Arc<Fragment> {
        let mut fragment = Fragment::default();
        let rule = Rule::new([Statement::Dnat(vec![format!("10.42.0.2:{port}").parse().unwrap()])]);
        fragment.chains.insert(chain.to_owned(), Chain::new([rule]));
        fragment.element("ips", [KeyPart::Ip("10.43.0.1".parse().unwrap())], Some(Verdict::Goto(chain.to_owned())));
        Arc::new(fragment)
    }

    fn base() -> Arc<Fragment> {
        let mut fragment = Fragment::default();
        let set = SetSpec { key: vec![Field::DestinationIp], verdicts: true, timeout: None };
        fragment.sets.insert("ips".to_owned(), set);
        Arc::new(fragment)
    }

    fn table() -> Table {
        let mut table = Table::new(Family::Ipv4, "t");
        table.set("", Some(base()));
        table.set("a", Some(part("a", 80)));
        assert_eq!(table.plan().first(), Some(&Change::Replace));
        table
    }

    fn kinds(changes: &[Change]) -> Vec<String> {
        let kind = |change: &Change| format!("{change:?}").chars().take_while(char::is_ascii_alphabetic).collect();
        changes.iter().map(kind).collect()
    }

    #[test]
    fn a_change_touches_only_what_changed() {
        let mut table = table();
        assert!(table.plan().is_empty());
        table.set("a", Some(part("a", 81)));
        assert_eq!(kinds(&table.plan()), ["Flush", "AddRule"]);
        table.set("a", None);
        assert_eq!(kinds(&table.plan()), ["DeleteElement", "Flush", "DeleteChain"]);
    }

    #[test]
    fn there_and_back_again_is_nothing() {
        let mut table = table();
        table.set("a", None);
        table.set("b", Some(part("b", 1)));
        table.set("b", None);
        table.set("a", Some(part("a", 80)));
        assert!(table.plan().is_empty());
    }

    #[test]
    fn of_two_claims_the_first_holds_and_the_other_takes_over() {
        let mut table = table();
        table.set("b", Some(part("b", 80)));
        assert_eq!(kinds(&table.plan()), ["AddChain", "AddRule"]);
        table.set("a", None);
        let plan = table.plan();
        assert_eq!(kinds(&plan), ["DeleteElement", "Flush", "AddElement", "DeleteChain"]);
        table.set("a", Some(part("a", 80)));
        assert_eq!(kinds(&table.plan()), ["AddChain", "DeleteElement", "AddRule", "AddElement"]);
    }

    #[test]
    fn in_doubt_all_is_replaced() {
        let mut table = table();
        table.doubt();
        assert_eq!(kinds(&table.plan()), ["Replace", "AddChain", "AddSet", "AddRule", "AddElement"]);
    }
}
